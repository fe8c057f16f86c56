//! What pickers prove to each other who they are with.

use runtime::tls::{ClientAuth, ClientRoots, Credentials, ServerTls, TlsError, read_pem};
use runtime::{Shutdown, Tasks};
use rustls::pki_types::ServerName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// How often the authority's certificate is looked at.
const CHECKED_EVERY: Duration = Duration::from_secs(10);

/// A directory with `tls.crt`, `tls.key` and `ca.crt`, such as a mounted Secret. All pickers of a pool have a
/// certificate of one authority for [`names::peer::SERVER_NAME`]; files that change are taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// The directory.
    pub directory: PathBuf,
}

impl PeerTls {
    fn authorities(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    fn own(&self) -> (PathBuf, PathBuf) {
        (
            self.directory.join("tls.crt"),
            self.directory.join("tls.key"),
        )
    }

    /// The listening side; its certificates are followed as some of `tasks`.
    pub(super) fn server(&self, shutdown: &Shutdown, tasks: &Tasks) -> Result<ServerTls, TlsError> {
        let (certificate, key) = self.own();
        let mut bundle = read_pem(&self.authorities())?;
        let roots = ClientRoots::from_pem(&bundle)?;
        let tls = ServerTls::from_files(certificate, key)?
            .with_client_auth(ClientAuth::Required(roots))?;
        tls.watch(shutdown.clone(), tasks);
        let (path, followed, until) = (self.authorities(), tls.clone(), shutdown.clone());
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(CHECKED_EVERY);
            loop {
                tokio::select! {
                    () = until.stopped() => return,
                    _ = ticks.tick() => {}
                }
                match renewed(&path, &bundle, &followed) {
                    Ok(Some(new)) => bundle = new,
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the last good authority of peers stays in force");
                    }
                }
            }
        });
        Ok(tls)
    }

    /// The telling side, from the files as they are now.
    pub(super) fn connector(&self) -> Result<TlsConnector, TlsError> {
        let (certificate, key) = self.own();
        let credentials = Credentials::read(&certificate, &key)?;
        let authorities = read_pem(&self.authorities())?;
        let mut config = runtime::tls::mutual_client(&credentials, &authorities)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Puts the authorities at `path` in force where they are not `bundle` any more.
fn renewed(path: &Path, bundle: &str, tls: &ServerTls) -> Result<Option<String>, TlsError> {
    let now = read_pem(path)?;
    if now == bundle {
        return Ok(None);
    }
    tls.replace_client_auth(ClientAuth::Required(ClientRoots::from_pem(&now)?))?;
    tracing::info!("peers are believed by new authorities");
    Ok(Some(now))
}

/// What every picker's certificate is for.
pub(super) fn server_name() -> ServerName<'static> {
    // A constant that the tests parse.
    ServerName::try_from(names::peer::SERVER_NAME).unwrap_or(ServerName::IpAddress(
        std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_peers_is_one() {
        assert!(matches!(server_name(), ServerName::DnsName(_)));
    }
}

//! One client's TLS: whom it trusts, and who it says it is.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::credentials::certificates;
use super::{Credentials, TlsError, provider};
use crate::Clock;

/// Age from which files are read again before the next connection.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// Where systems keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Variable that names another file of them.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// Which servers are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Whoever answers.
    Anyone,
    /// Who has a certificate from an authority in this PEM file.
    File(PathBuf),
    /// Who has a certificate from an authority that the system trusts.
    System,
}

/// Whom a client trusts, and its own certificate with the key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// Which servers are believed.
    pub trusted: Trusted,
    /// Files of the client's certificate and key; `None` = it has none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// One client's TLS. Its files are read again as they grow old; what was read last is kept where they cannot be.
pub struct ClientTls {
    files: ClientFiles,
    clock: Clock,
    state: Mutex<(Duration, TlsConnector)>,
    /// Protocols offered by ALPN.
    protocols: Vec<Vec<u8>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files; `protocols` are offered by ALPN, none = nothing is.
    ///
    /// # Errors
    /// [`TlsError`] when one is missing or not usable.
    pub fn new(files: ClientFiles, protocols: &[&str], clock: Clock) -> Result<Self, TlsError> {
        let protocols: Vec<_> = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let connector = connector(&files, &protocols)?;
        Ok(Self {
            files,
            clock,
            state: Mutex::new((clock.now(), connector)),
            protocols,
        })
    }

    /// Does the handshake with the server called `host` (a DNS name or an address) on `connection`.
    ///
    /// # Errors
    /// What went wrong with it, or a name that is none.
    pub async fn connect(
        &self,
        host: &str,
        connection: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
        let connector = self.connector();
        connector.connect(name, connection).await
    }

    fn connector(&self) -> TlsConnector {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if now.saturating_sub(state.0) >= READ_AGAIN {
            state.0 = now;
            match connector(&self.files, &self.protocols) {
                Ok(renewed) => state.1 = renewed,
                Err(error) => {
                    tracing::warn!(%error, "TLS goes on with the certificates that were read before");
                }
            }
        }
        state.1.clone()
    }
}

fn connector(files: &ClientFiles, protocols: &[Vec<u8>]) -> Result<TlsConnector, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Identity)?;
    let builder = match &files.trusted {
        Trusted::Anyone => {
            let verifier = Arc::new(AnyServer(provider()));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        }
        Trusted::File(path) => builder.with_root_certificates(roots(path)?),
        Trusted::System => builder.with_root_certificates(roots(&system_bundle())?),
    };
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let own = Credentials::read(certificate, key)?;
            let what = "the client certificate";
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes());
            let key = key.map_err(|error| TlsError::Pem {
                what: "the client certificate's key",
                problem: error.to_string(),
            })?;
            builder
                .with_client_auth_cert(certificates(&own.certificate, what)?, key)
                .map_err(TlsError::Identity)?
        }
    };
    config.alpn_protocols = protocols.to_vec();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system_bundle() -> PathBuf {
    let named = std::env::var_os(BUNDLE_VARIABLE).map(PathBuf::from);
    let usual = || {
        SYSTEM_BUNDLES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    };
    named
        .or_else(usual)
        .unwrap_or_else(|| SYSTEM_BUNDLES[0].into())
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let bundle = fs::read_to_string(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let what = "the bundle of certificate authorities";
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(certificates(&bundle, what)?);
    if usable == 0 {
        let problem = format!("no certificate in {} can be used", path.display());
        return Err(TlsError::Pem { what, problem });
    }
    Ok(store)
}

/// Believes any certificate; that the server holds its key is verified all the same.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{CertificateAuthority, ClientAuth, ServerTls};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn authority(clock: Clock) -> CertificateAuthority {
        CertificateAuthority::generate("engines", clock.unix_ms()).unwrap()
    }

    /// What a client with `files` reads from a server with `tls`.
    async fn call(tls: &ServerTls, files: ClientFiles, clock: Clock) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serve = async {
            let (connection, _) = listener.accept().await?;
            let mut connection = tls.accept(connection).await?;
            connection.write_all(b"page").await?;
            connection.shutdown().await
        };
        let ask = async {
            let client = ClientTls::new(files, &[], clock).map_err(io::Error::other)?;
            let connection = TcpStream::connect(address).await?;
            let mut connection = client.connect("127.0.0.1", connection).await?;
            let mut page = String::new();
            connection.read_to_string(&mut page).await?;
            Ok(page)
        };
        let (_, page) = tokio::join!(serve, ask);
        page
    }

    #[tokio::test]
    async fn a_server_is_believed_by_who_trusts_its_authority() {
        let clock = Clock::start();
        let (ours, others) = (authority(clock), authority(clock));
        let tls = ServerTls::issued(&ours, &["127.0.0.1".into()], clock).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let files = |bundle: Option<&CertificateAuthority>| {
            let path = directory.path().join("ca.pem");
            if let Some(authority) = bundle {
                fs::write(&path, authority.bundle()).unwrap();
            }
            ClientFiles {
                trusted: bundle.map_or(Trusted::Anyone, |_| Trusted::File(path)),
                identity: None,
            }
        };
        assert_eq!(call(&tls, files(Some(&ours)), clock).await.unwrap(), "page");
        assert!(call(&tls, files(Some(&others)), clock).await.is_err());
        assert_eq!(call(&tls, files(None), clock).await.unwrap(), "page");
    }

    #[tokio::test]
    async fn a_server_that_asks_is_shown_the_clients_certificate() {
        let clock = Clock::start();
        let authority = authority(clock);
        let tls = ServerTls::issued(&authority, &["127.0.0.1".into()], clock).unwrap();
        let required = ClientAuth::Required(authority.client_roots().unwrap());
        let tls = tls.with_client_auth(required).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let own = authority.issue_client("picker", clock.unix_ms()).unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("tls.crt"), &own.certificate).unwrap();
        fs::write(path("tls.key"), &own.key).unwrap();
        let shown = ClientFiles {
            trusted: Trusted::Anyone,
            identity: Some((path("tls.crt"), path("tls.key"))),
        };
        assert_eq!(call(&tls, shown.clone(), clock).await.unwrap(), "page");
        let hidden = ClientFiles {
            identity: None,
            ..shown
        };
        assert!(call(&tls, hidden, clock).await.is_err());
    }

    #[test]
    fn missing_files_are_named() {
        let files = ClientFiles {
            trusted: Trusted::File("/nonexistent/ca.pem".into()),
            identity: None,
        };
        let error = ClientTls::new(files, &[], Clock::start()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem"));
    }
}

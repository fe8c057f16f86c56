//! The serving certificate of the metrics APIs, from the authority that all replicas of the controller share.
//!
//! The authority is read again now and then: one replica may have made its successor. Everything it vouches for is
//! issued anew then, and the bundle that others trust (an APIService's `caBundle`) holds both.

use std::time::Duration;

use kube::Client;
use runtime::tls::{CertificateAuthority, ServerTls, TlsError};
use runtime::{Clock, Shutdown, Tasks};
use tokio::sync::watch;

use super::authority::{AuthorityError, authority};

/// Time between two looks at the authority.
const EVERY: Duration = Duration::from_secs(600);

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is no authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// It does not issue.
    #[error("no serving certificate: {0}")]
    Issue(#[from] TlsError),
}

/// A serving certificate and the authority behind it, kept up to date.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// What to serve with.
    pub serving: ServerTls,
    /// The authority in force, told whenever it is another one.
    pub authority: watch::Receiver<CertificateAuthority>,
}

impl Certificates {
    /// Takes a certificate for `service` in `namespace` from the authority kept there, and renews both as `tasks`
    /// until `shutdown` is stopped.
    ///
    /// # Errors
    /// [`CertificateError`] when there is no authority, or it issues none.
    pub async fn start(
        client: Client,
        namespace: &str,
        service: &str,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Result<Self, CertificateError> {
        let first = authority(client.clone(), namespace, clock.unix_ms()).await?;
        let serving = ServerTls::issued(&first, &names(service, namespace), clock)?;
        serving.watch(shutdown.clone(), tasks);
        let (told, receiver) = watch::channel(first);
        let (renewed, namespace) = (serving.clone(), namespace.to_owned());
        tasks.spawn(async move {
            let following = follow(client, namespace, clock, renewed, told);
            tokio::select! {
                () = following => {}
                () = shutdown.stopped() => {}
            }
        });
        Ok(Self {
            serving,
            authority: receiver,
        })
    }
}

async fn follow(
    client: Client,
    namespace: String,
    clock: Clock,
    serving: ServerTls,
    told: watch::Sender<CertificateAuthority>,
) {
    loop {
        tokio::time::sleep(EVERY).await;
        let found = match authority(client.clone(), &namespace, clock.unix_ms()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the authority could not be read; the last one stays in force");
                continue;
            }
        };
        if found == *told.borrow() {
            continue;
        }
        if let Err(error) = serving.issue_from(&found) {
            tracing::error!(%error, "the new authority issues no certificate; the last one stays in force");
            continue;
        }
        tracing::info!("serving with a certificate from a new authority");
        told.send_replace(found);
    }
}

/// The names that the API server may call a Service by.
fn names(service: &str, namespace: &str) -> [String; 3] {
    [
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_the_one_that_the_aggregator_calls() {
        assert_eq!(
            names("headroom-metrics", "headroom-system")[0],
            "headroom-metrics.headroom-system.svc"
        );
    }
}

//! How replicas know each other.

use std::sync::Arc;

use runtime::tls::{CertificateAuthority, ClientAuth, ServerTls, TlsError};
use runtime::{Clock, Tasks};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;

/// The one name that every replica's certificate carries: which replica it is, the Lease tells.
pub(super) const NAME: &str = names::kubernetes::CONTROLLER;

/// Why a replica cannot show who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The authority does not issue.
    #[error(transparent)]
    Authority(#[from] TlsError),
    /// rustls takes no part of it.
    #[error("TLS between replicas cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// What was issued is not PEM.
    #[error("TLS between replicas cannot be set up: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

/// The leader's side: clients without a certificate from the authority are not let in. It follows the authority until
/// that is not told any more.
///
/// # Errors
/// [`IdentityError`].
pub fn server(
    mut authority: watch::Receiver<CertificateAuthority>,
    clock: Clock,
    tasks: &Tasks,
) -> Result<ServerTls, IdentityError> {
    let first = authority.borrow_and_update().clone();
    let issued = ServerTls::issued(&first, &[NAME.to_owned()], clock)?;
    let tls = issued.with_client_auth(ClientAuth::Required(first.client_roots()?))?;
    let serving = tls.clone();
    tasks.spawn(async move {
        while authority.changed().await.is_ok() {
            let next = authority.borrow_and_update().clone();
            let renewed = next
                .client_roots()
                .and_then(|roots| serving.replace_client_auth(ClientAuth::Required(roots)))
                .and_then(|()| serving.issue_from(&next));
            if let Err(error) = renewed {
                tracing::error!(%error, "replicas do not know each other by the new authority");
            }
        }
    });
    Ok(tls)
}

/// A follower's side, with a certificate issued at `now_ms`.
///
/// # Errors
/// [`IdentityError`].
pub fn client(
    authority: &CertificateAuthority,
    now_ms: u64,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let issued = authority.issue_client(NAME, now_ms)?;
    let chain = certificates(&issued.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&authority.bundle())?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
}

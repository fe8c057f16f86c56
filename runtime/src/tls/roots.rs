//! Which client certificates count.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::credentials::certificates;
use super::{TlsError, provider};

/// Authorities whose client certificates count.
#[derive(Clone)]
pub struct ClientRoots {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for ClientRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities = self.verifier.root_hint_subjects().len();
        f.debug_struct("ClientRoots")
            .field("authorities", &authorities)
            .finish_non_exhaustive()
    }
}

impl ClientRoots {
    /// The authorities in a PEM bundle. One that cannot be used is left out as long as another can.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when none can be used.
    pub fn from_pem(bundle: &str) -> Result<Self, TlsError> {
        let what = "the bundle of client certificate authorities";
        let mut store = RootCertStore::empty();
        let (_, left_out) = store.add_parsable_certificates(certificates(bundle, what)?);
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "certificate authorities for clients that cannot be used"
            );
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|error| TlsError::Pem {
                what,
                problem: error.to_string(),
            })?;
        Ok(Self { verifier })
    }

    /// Whether `chain` (the client's own certificate first) leads to one of the authorities, is within its dates at
    /// `unix_ms` and is meant for clients.
    ///
    /// # Errors
    /// [`TlsError::Client`] with what is wrong.
    pub fn verify(&self, chain: &[CertificateDer<'_>], unix_ms: u64) -> Result<(), TlsError> {
        let Some((own, intermediates)) = chain.split_first() else {
            return Err(TlsError::Client("none was presented".into()));
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(unix_ms));
        self.verifier
            .verify_client_cert(own, intermediates, now)
            .map(|_| ())
            .map_err(|error| TlsError::Client(error.to_string()))
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }
}

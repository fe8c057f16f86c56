//! Which client certificates count.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::credentials::certificates;
use super::{TlsError, provider};

/// Authorities whose client certificates count. Clones share them.
#[derive(Clone)]
pub struct ClientRoots {
    verifier: Arc<ArcSwap<Arc<dyn ClientCertVerifier>>>,
}

impl fmt::Debug for ClientRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities = self.verifier.load().root_hint_subjects().len();
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
        let verifier = Arc::new(ArcSwap::from_pointee(verifier(bundle)?));
        Ok(Self { verifier })
    }

    /// Takes those in another PEM bundle from now on.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when none can be used; those before stay.
    pub fn replace(&self, bundle: &str) -> Result<(), TlsError> {
        self.verifier.store(Arc::new(verifier(bundle)?));
        Ok(())
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
            .load()
            .verify_client_cert(own, intermediates, now)
            .map(|_| ())
            .map_err(|error| TlsError::Client(error.to_string()))
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(self.clone())
    }
}

/// Those in force when the client shows its certificate. Their names are not hinted at: they may change.
impl ClientCertVerifier for ClientRoots {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verifier
            .load()
            .verify_client_cert(own, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .load()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .load()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().supported_verify_schemes()
    }
}

fn verifier(bundle: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let what = "the bundle of client certificate authorities";
    let mut store = RootCertStore::empty();
    let (_, left_out) = store.add_parsable_certificates(certificates(bundle, what)?);
    if left_out > 0 {
        tracing::warn!(
            left_out,
            "certificate authorities for clients that cannot be used"
        );
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| TlsError::Pem {
            what,
            problem: error.to_string(),
        })
}

//! The asking side of mutual TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use super::credentials::certificates;
use super::{Credentials, TlsError, provider};

/// Reads a PEM file, such as a bundle of authorities.
///
/// # Errors
/// [`TlsError::Read`] with the path.
pub fn read_pem(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A client that shows `credentials` and believes servers by the `authorities` (PEM), over TLS 1.3.
///
/// # Errors
/// [`TlsError`] when the certificate and its key do not fit, or no authority can be used.
pub fn mutual_client(
    credentials: &Credentials,
    authorities: &str,
) -> Result<ClientConfig, TlsError> {
    let what = "the bundle of server certificate authorities";
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates(authorities, what)?);
    if usable == 0 {
        return Err(TlsError::Pem {
            what,
            problem: "no certificate in it can be used".into(),
        });
    }
    let shown = Shown(Arc::new(credentials.certified()?));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Serving)?;
    Ok(builder
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(shown)))
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

//! A certificate chain with its private key.

use std::fmt;
use std::fs;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{TlsError, provider};

/// A certificate chain (its own certificate first) and its private key, both PEM. The key is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The chain.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads both files.
    ///
    /// # Errors
    /// [`TlsError::Read`] with the path.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| TlsError::Read {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            certificate: read(certificate)?,
            key: read(key)?,
        })
    }

    /// When the first certificate begins and ceases to be valid, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when there is no readable certificate.
    pub fn validity_ms(&self) -> Result<(u64, u64), TlsError> {
        let chain = certificates(&self.certificate, "the certificate")?;
        let certificate = parse(&chain[0])?;
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or_default() * 1000;
        let validity = certificate.validity();
        Ok((
            ms(validity.not_before.timestamp()),
            ms(validity.not_after.timestamp()),
        ))
    }

    /// The pair as rustls serves it.
    ///
    /// # Errors
    /// [`TlsError`] when either is unreadable, or the key is not the certificate's.
    pub(super) fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate, "the serving certificate")?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| TlsError::Pem {
                what: "the serving certificate's key",
                problem: error.to_string(),
            })?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Serving)
    }
}

/// The certificates in a PEM text: at least one.
pub(super) fn certificates(
    pem: &str,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |problem: String| TlsError::Pem { what, problem };
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is no CERTIFICATE block in it".into()));
    }
    Ok(found)
}

/// The fields of one certificate.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    X509Certificate::from_der(der)
        .map(|(_rest, certificate)| certificate)
        .map_err(|error| TlsError::Pem {
            what: "the certificate",
            problem: error.to_string(),
        })
}

//! A certificate authority of our own: for the serving certificate that an APIService's `caBundle` vouches for, and
//! for the mutual TLS between our own processes.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::credentials::{Credentials, certificates, parse};
use super::{ClientRoots, TlsError};

const DAY_MS: u64 = 86_400_000;
/// Life of an authority.
const AUTHORITY_DAYS: u64 = 3_650;
/// Life of what it issues; short, because it is renewed without anyone's help.
const ISSUED_DAYS: u64 = 90;
/// Certificates begin this long before they are made, so that a machine whose clock is behind takes them.
const BACKDATED_MS: u64 = DAY_MS;

/// An authority with its key, and the certificate of the one before it, which stays trusted until all have the new one.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateAuthority {
    credentials: Credentials,
    previous: Option<String>,
    name: String,
    expires_ms: u64,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("name", &self.name)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new one called `name`, valid for ten years from `now_ms` (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// [`TlsError::Issue`] when no key can be made.
    pub fn generate(name: &str, now_ms: u64) -> Result<Self, TlsError> {
        let wrong = |error: rcgen::Error| issue_error(name, &error);
        let expires_ms = now_ms + AUTHORITY_DAYS * DAY_MS;
        let mut parameters = authority_parameters(name);
        set_validity(&mut parameters, name, now_ms, expires_ms)?;
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = parameters.self_signed(&key).map_err(wrong)?;
        Self::from_pem(
            Credentials {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            },
            None,
        )
    }

    /// One kept as PEM, with the certificates of those before it that are still trusted.
    ///
    /// # Errors
    /// [`TlsError`] when the texts are not an authority's certificate and key.
    pub fn from_pem(credentials: Credentials, previous: Option<String>) -> Result<Self, TlsError> {
        credentials.certified()?;
        let chain = certificates(&credentials.certificate, "the authority's certificate")?;
        let certificate = parse(&chain[0])?;
        let name = certificate
            .subject()
            .iter_common_name()
            .find_map(|name| name.as_str().ok())
            .unwrap_or_default()
            .to_owned();
        let problem = match (certificate.is_ca(), name.is_empty()) {
            (false, _) => Some("it may not issue certificates (CA:TRUE is missing)"),
            (true, true) => Some("its subject has no common name"),
            (true, false) => None,
        };
        if let Some(problem) = problem {
            return Err(TlsError::Pem {
                what: "the authority's certificate",
                problem: problem.into(),
            });
        }
        let (_, expires_ms) = credentials.validity_ms()?;
        Ok(Self {
            credentials,
            previous: previous.filter(|bundle| !bundle.trim().is_empty()),
            name,
            expires_ms,
        })
    }

    /// Its own certificate and key, to be kept.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Certificates of the authorities before it that are still trusted.
    pub fn previous(&self) -> Option<&str> {
        self.previous.as_deref()
    }

    /// What others trust: its certificate, then those before it (PEM).
    pub fn bundle(&self) -> String {
        let mut bundle = self.credentials.certificate.clone();
        bundle.push_str(self.previous.as_deref().unwrap_or_default());
        bundle
    }

    /// Its bundle, to check clients against.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when the bundle cannot be used.
    pub fn client_roots(&self) -> Result<ClientRoots, TlsError> {
        ClientRoots::from_pem(&self.bundle())
    }

    /// When it ceases to be valid, milliseconds since the Unix epoch.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// Whether a successor is due: less than a third of its life is left.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms.saturating_add(AUTHORITY_DAYS / 3 * DAY_MS) >= self.expires_ms
    }

    /// The authority after it, which goes on trusting what this one issued.
    ///
    /// # Errors
    /// [`TlsError::Issue`] when no key can be made.
    pub fn successor(&self, now_ms: u64) -> Result<Self, TlsError> {
        Ok(Self {
            previous: Some(self.credentials.certificate.clone()),
            ..Self::generate(&self.name, now_ms)?
        })
    }

    /// A serving certificate for `names` (DNS names and addresses; the first is its subject), valid for 90 days.
    ///
    /// # Errors
    /// [`TlsError::Issue`] when a name cannot be in a certificate.
    pub fn issue_server(&self, names: &[String], now_ms: u64) -> Result<Credentials, TlsError> {
        let parameters = server_parameters(names)?;
        self.issue(parameters, subject(names), now_ms)
    }

    /// A certificate for `names` that serves and asks, for processes that are both to each other; valid for 90 days.
    ///
    /// # Errors
    /// [`TlsError::Issue`] when a name cannot be in a certificate.
    pub fn issue_peer(&self, names: &[String], now_ms: u64) -> Result<Credentials, TlsError> {
        let mut parameters = server_parameters(names)?;
        parameters
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
        self.issue(parameters, subject(names), now_ms)
    }

    /// A client certificate whose subject is `name`, valid for 90 days.
    ///
    /// # Errors
    /// [`TlsError::Issue`] when it cannot be made.
    pub fn issue_client(&self, name: &str, now_ms: u64) -> Result<Credentials, TlsError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(parameters, name, now_ms)
    }

    fn issue(
        &self,
        mut parameters: CertificateParams,
        name: &str,
        now_ms: u64,
    ) -> Result<Credentials, TlsError> {
        let wrong = |error: rcgen::Error| issue_error(name, &error);
        let expires_ms = (now_ms + ISSUED_DAYS * DAY_MS).min(self.expires_ms);
        set_validity(&mut parameters, name, now_ms, expires_ms)?;
        parameters.use_authority_key_identifier_extension = true;
        let own_key = KeyPair::from_pem(&self.credentials.key).map_err(wrong)?;
        let issuer = Issuer::new(authority_parameters(&self.name), own_key);
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = parameters.signed_by(&key, &issuer).map_err(wrong)?;
        Ok(Credentials {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// A serving certificate for `names` that vouches for itself, valid for 90 days.
pub(super) fn self_signed(names: &[String], now_ms: u64) -> Result<Credentials, TlsError> {
    let wrong = |error: rcgen::Error| issue_error(subject(names), &error);
    let mut parameters = server_parameters(names)?;
    let expires_ms = now_ms + ISSUED_DAYS * DAY_MS;
    set_validity(&mut parameters, subject(names), now_ms, expires_ms)?;
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = parameters.self_signed(&key).map_err(wrong)?;
    Ok(Credentials {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn authority_parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    parameters
}

fn server_parameters(names: &[String]) -> Result<CertificateParams, TlsError> {
    let mut parameters = CertificateParams::new(names.to_vec())
        .map_err(|error| issue_error(&names.join(", "), &error))?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    // A common name holds at most 64 characters, a name of a Service may be longer; only the names beside it count.
    let common_name: String = subject(names).chars().take(64).collect();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

fn subject(names: &[String]) -> &str {
    names.first().map_or("headroom", String::as_str)
}

fn set_validity(
    parameters: &mut CertificateParams,
    name: &str,
    now_ms: u64,
    expires_ms: u64,
) -> Result<(), TlsError> {
    parameters.not_before = date(name, now_ms.saturating_sub(BACKDATED_MS))?;
    parameters.not_after = date(name, expires_ms)?;
    Ok(())
}

fn date(name: &str, unix_ms: u64) -> Result<OffsetDateTime, TlsError> {
    let wrong = |problem: String| TlsError::Issue {
        name: name.to_owned(),
        problem,
    };
    let seconds = i64::try_from(unix_ms / 1000).map_err(|error| wrong(error.to_string()))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| wrong(error.to_string()))
}

fn issue_error(name: &str, error: &rcgen::Error) -> TlsError {
    TlsError::Issue {
        name: name.to_owned(),
        problem: error.to_string(),
    }
}

//! Whom a picker's admin port is believed to be, and which token it is shown.
//!
//! With a certificate authority the server's certificate must come from it and name the pod. Without one the first
//! certificate that a container shows is kept to for as long as that container lives: somebody who comes in between
//! later is noticed, somebody who was there from the start is not. That is why such a server is shown only a token
//! that opens endpoint pickers' pages and nothing else (audience [`names::admin::AUDIENCE`]); the account's own token,
//! which opens the API server, goes to verified servers alone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The flags by their names, for errors.
const CA_FLAG: &str = "--epp-ca-file";
const TOKEN_FLAG: &str = "--epp-token-file";

/// How pickers are known and what they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustOptions {
    /// Certificates (PEM) that pickers' own are verified by.
    pub ca_file: Option<PathBuf>,
    /// The token shown to pickers; read anew for every connection, so that it may rotate.
    pub token_file: PathBuf,
}

/// Why a picker cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file that cannot be used.
    #[error("{flag} {}: {reason}", path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A token that must not be shown to a server that is not verified.
    #[error(
        "the token in {TOKEN_FLAG} {} opens more than endpoint pickers, and the picker's certificate is not verified: give {CA_FLAG}, or mount a token for the audience {:?}",
        path.display(),
        names::admin::AUDIENCE
    )]
    TokenTooPowerful {
        /// The token's file.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("TLS to endpoint pickers cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The roots cannot be used.
    #[error("{CA_FLAG} {}: none of its certificates can be a root", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::client::VerifierBuilderError,
    },
}

/// What tells one container's admin port from another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Namespace of pod and pool.
    pub namespace: String,
    /// The pool that the pod picks for.
    pub pool: String,
    /// The pod's address.
    pub ip: IpAddr,
}

impl Server {
    /// The names of which a verified certificate must have one.
    fn names(&self) -> Vec<ServerName<'static>> {
        let service = format!("{}-epp.{}.svc", self.pool, self.namespace);
        let mut names = vec![ServerName::IpAddress(self.ip.into())];
        names.extend(ServerName::try_from(service));
        names
    }
}

/// The certificate kept to, once one was seen. One per container: a restarted one may have made itself a new one.
pub type Pin = Arc<Mutex<Option<[u8; 32]>>>;

/// What a connection needs.
#[derive(Debug)]
pub struct Credentials {
    /// The client's side of TLS.
    pub tls: Arc<ClientConfig>,
    /// The token to show.
    pub token: String,
}

impl TrustOptions {
    /// What is needed to connect to `server`. Files are read anew.
    ///
    /// # Errors
    /// [`TrustError`]: files that cannot be used, or a token that this server must not see.
    pub fn credentials(&self, server: &Server, pin: &Pin) -> Result<Credentials, TrustError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (verifier, token) = self.verifier(server, pin, &provider)?;
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Credentials {
            tls: Arc::new(tls),
            token,
        })
    }

    fn verifier(
        &self,
        server: &Server,
        pin: &Pin,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(PickerVerifier, String), TrustError> {
        let token = self.token()?;
        let check = match &self.ca_file {
            Some(path) => {
                let roots = Arc::new(roots(path)?);
                let builder =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
                Check::Authority {
                    verifier: builder.build().map_err(|source| TrustError::Roots {
                        path: path.clone(),
                        source,
                    })?,
                    names: server.names(),
                }
            }
            None if opens_only_pickers(&token) => Check::FirstUse(Arc::clone(pin)),
            None => {
                return Err(TrustError::TokenTooPowerful {
                    path: self.token_file.clone(),
                });
            }
        };
        let verifier = PickerVerifier {
            check,
            provider: Arc::clone(provider),
        };
        Ok((verifier, token))
    }

    fn token(&self) -> Result<String, TrustError> {
        let broken = |reason: String| TrustError::File {
            flag: TOKEN_FLAG,
            path: self.token_file.clone(),
            reason,
        };
        let text =
            std::fs::read_to_string(&self.token_file).map_err(|error| broken(error.to_string()))?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(broken("it holds no bearer token".to_owned()));
        }
        Ok(token.to_owned())
    }
}

fn roots(path: &PathBuf) -> Result<RootCertStore, TrustError> {
    let broken = |reason: String| TrustError::File {
        flag: CA_FLAG,
        path: path.clone(),
        reason,
    };
    let pem = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| broken(format!("it is not PEM: {error}")))?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(broken("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Whether a token (a JWT) is for endpoint pickers and nobody else. One that cannot be read counts as powerful.
fn opens_only_pickers(token: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Many(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Claims {
        aud: Audiences,
    }
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|json| serde_json::from_slice::<Claims>(&json).ok());
    match claims.map(|claims| claims.aud) {
        Some(Audiences::One(audience)) => audience == names::admin::AUDIENCE,
        Some(Audiences::Many(audiences)) => {
            !audiences.is_empty() && audiences.iter().all(|one| one == names::admin::AUDIENCE)
        }
        None => false,
    }
}

#[derive(Debug)]
enum Check {
    Authority {
        verifier: Arc<WebPkiServerVerifier>,
        names: Vec<ServerName<'static>>,
    },
    FirstUse(Pin),
}

#[derive(Debug)]
struct PickerVerifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PickerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.check {
            Check::Authority { verifier, names } => {
                let mut failure = None;
                for name in names {
                    match verifier.verify_server_cert(
                        end_entity,
                        intermediates,
                        name,
                        ocsp_response,
                        now,
                    ) {
                        Ok(verified) => return Ok(verified),
                        Err(error) => failure = Some(error),
                    }
                }
                let refused = CertificateError::NotValidForName;
                Err(failure.unwrap_or(rustls::Error::InvalidCertificate(refused)))
            }
            Check::FirstUse(pin) => {
                // Not a chain but this very key pair is kept to; its signature is checked below.
                let _ = server_name;
                let print: [u8; 32] = Sha256::digest(end_entity).into();
                let kept = *pin.lock().get_or_insert(print);
                if kept == print {
                    Ok(ServerCertVerified::assertion())
                } else {
                    Err(rustls::Error::General(
                        "the certificate is another than this container showed before".to_owned(),
                    ))
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;

//! One server's TLS: the certificate in force, where the next one comes from, and what is asked of clients.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::authority::self_signed;
use super::{CertificateAuthority, ClientRoots, Credentials, TlsError, TlsIo, provider};
use crate::{Clock, Shutdown, Tasks};

/// How often mounted files are looked at and ages of certificates checked.
const CHECKED_EVERY: Duration = Duration::from_secs(10);
/// A client that has not finished the handshake by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked of clients.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A certificate if they have one. Any is let in: who it stands for is decided per request, and told in words
    /// there instead of by a broken handshake.
    Asked,
    /// A certificate from one of these authorities; without it there is no connection.
    Required(ClientRoots),
}

/// One server's TLS. Clones share the certificate in force, and whose certificates it takes.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ArcSwap<ServerConfig>>,
    serving: Arc<Serving>,
    source: Arc<Mutex<Source>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("source", &self.source.lock())
            .finish_non_exhaustive()
    }
}

/// Where certificates come from.
#[derive(Debug)]
enum Source {
    SelfSigned {
        names: Vec<String>,
        clock: Clock,
    },
    Issued {
        authority: CertificateAuthority,
        names: Vec<String>,
        clock: Clock,
    },
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
}

/// The certificate in force, and what it was made of.
#[derive(Debug)]
struct Serving {
    certified: ArcSwap<CertifiedKey>,
    credentials: Mutex<Credentials>,
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.load_full())
    }
}

impl ServerTls {
    /// A certificate for `names` (DNS names, addresses) that vouches for itself; [`ServerTls::watch`] renews it.
    ///
    /// # Errors
    /// [`TlsError::Issue`] when a name cannot be in a certificate.
    pub fn self_signed(names: &[String], clock: Clock) -> Result<Self, TlsError> {
        Self::new(Source::SelfSigned {
            names: names.to_vec(),
            clock,
        })
    }

    /// A certificate for `names` from `authority`; [`ServerTls::watch`] renews it.
    ///
    /// # Errors
    /// [`TlsError::Issue`] when a name cannot be in a certificate.
    pub fn issued(
        authority: &CertificateAuthority,
        names: &[String],
        clock: Clock,
    ) -> Result<Self, TlsError> {
        Self::new(Source::Issued {
            authority: authority.clone(),
            names: names.to_vec(),
            clock,
        })
    }

    /// A certificate chain and key from PEM files, such as a mounted Secret; [`ServerTls::watch`] follows them.
    ///
    /// # Errors
    /// [`TlsError`] when a file is missing or they are no pair.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        Self::new(Source::Files {
            certificate: certificate.into(),
            key: key.into(),
        })
    }

    fn new(source: Source) -> Result<Self, TlsError> {
        let credentials = source.make()?;
        let serving = Arc::new(Serving {
            certified: ArcSwap::from_pointee(credentials.certified()?),
            credentials: Mutex::new(credentials),
        });
        Ok(Self {
            config: Arc::new(ArcSwap::new(configure(&serving, ClientAuth::None)?)),
            serving,
            source: Arc::new(Mutex::new(source)),
        })
    }

    /// The same, asking clients for certificates so. Clones made before go on as they were.
    ///
    /// # Errors
    /// [`TlsError::Serving`] when rustls refuses the combination.
    pub fn with_client_auth(self, clients: ClientAuth) -> Result<Self, TlsError> {
        Ok(Self {
            config: Arc::new(ArcSwap::new(configure(&self.serving, clients)?)),
            ..self
        })
    }

    /// Asks clients so from now on, on this one and its clones; connections that there are go on.
    ///
    /// # Errors
    /// [`TlsError::Serving`] when rustls refuses the combination; clients are asked as before.
    pub fn replace_client_auth(&self, clients: ClientAuth) -> Result<(), TlsError> {
        self.config.store(configure(&self.serving, clients)?);
        Ok(())
    }

    /// Takes certificates from `authority` from now on, beginning at once. For servers that were [issued](Self::issued)
    /// theirs; others keep their source.
    ///
    /// # Errors
    /// [`TlsError::Issue`] when it issues none; the old certificate stays.
    pub fn issue_from(&self, authority: &CertificateAuthority) -> Result<(), TlsError> {
        let mut source = self.source.lock();
        let Source::Issued {
            authority: current,
            names,
            clock,
        } = &mut *source
        else {
            return Ok(());
        };
        let credentials = authority.issue_server(names, clock.unix_ms())?;
        *current = authority.clone();
        self.serve(credentials)
    }

    /// Renews the certificate while `shutdown` is not stopped: files when they change, own ones when a third of
    /// their life is left. What cannot be used is logged, and the last good one stays in force.
    pub fn watch(&self, shutdown: Shutdown, tasks: &Tasks) {
        let tls = self.clone();
        tasks.spawn(async move {
            let mut last_problem = String::new();
            let mut ticks = tokio::time::interval(CHECKED_EVERY);
            loop {
                tokio::select! {
                    () = shutdown.stopped() => return,
                    _ = ticks.tick() => {}
                }
                let problem = match tls.refresh() {
                    Ok(false) => continue,
                    Ok(true) => {
                        tracing::info!("serving with a new certificate");
                        String::new()
                    }
                    Err(error) => error.to_string(),
                };
                if !problem.is_empty() && problem != last_problem {
                    tracing::error!(error = problem, "the last good certificate stays in force");
                }
                last_problem = problem;
            }
        });
    }

    /// Looks once whether there is, or should be, a new certificate; `true` when one is in force now.
    ///
    /// # Errors
    /// [`TlsError`] when there is and it cannot be used; the old one stays in force.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let source = self.source.lock();
        let next = match &*source {
            Source::Files { .. } => Some(source.make()?),
            Source::SelfSigned { clock, .. } | Source::Issued { clock, .. } => {
                let due = renewal_due(&self.serving.credentials.lock(), clock.unix_ms())?;
                due.then(|| source.make()).transpose()?
            }
        };
        match next {
            Some(credentials) if credentials != *self.serving.credentials.lock() => {
                self.serve(credentials).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    fn serve(&self, credentials: Credentials) -> Result<(), TlsError> {
        self.serving
            .certified
            .store(Arc::new(credentials.certified()?));
        *self.serving.credentials.lock() = credentials;
        Ok(())
    }

    /// The certificate chain in force, PEM.
    pub fn certificate(&self) -> String {
        self.serving.credentials.lock().certificate.clone()
    }

    /// The configuration, for servers that make their own handshakes.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Does the handshake on a new connection.
    ///
    /// # Errors
    /// What went wrong; `TimedOut` for a client that takes more than ten seconds.
    pub async fn accept(&self, connection: TcpStream) -> io::Result<TlsIo> {
        let handshake = TlsAcceptor::from(self.config()).accept(connection);
        tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

impl Source {
    fn make(&self) -> Result<Credentials, TlsError> {
        match self {
            Self::SelfSigned { names, clock } => self_signed(names, clock.unix_ms()),
            Self::Issued {
                authority,
                names,
                clock,
            } => authority.issue_server(names, clock.unix_ms()),
            Self::Files { certificate, key } => Credentials::read(certificate, key),
        }
    }
}

/// Whether less than a third of a certificate's life is left at `now_ms`.
pub(super) fn renewal_due(credentials: &Credentials, now_ms: u64) -> Result<bool, TlsError> {
    let (begins, ends) = credentials.validity_ms()?;
    Ok(now_ms.saturating_add(ends.saturating_sub(begins) / 3) >= ends)
}

fn configure(serving: &Arc<Serving>, clients: ClientAuth) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        ClientAuth::None => Arc::new(NoClientAuth),
        ClientAuth::Asked => Arc::new(AskOnly(provider())),
        ClientAuth::Required(roots) => roots.verifier(),
    };
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Serving>::clone(serving);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Serving)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Asks for a certificate and takes any, once its holder has proved to have the key.
#[derive(Debug)]
struct AskOnly(Arc<CryptoProvider>);

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! TLS with rustls and aws-lc: serving certificates that are replaced while serving, client certificates on request,
//! and a certificate authority of our own for clusters that bring none.
//!
//! A [`ServerTls`] is one server's side: self-signed, issued by a [`CertificateAuthority`] or read from mounted files,
//! renewed in place by [`ServerTls::watch`]. What a client presented travels with the connection as
//! [`PeerCertificates`]; whether it counts for anything is decided by whoever asks [`ClientRoots`].

mod authority;
mod client;
mod credentials;
mod incoming;
mod mutual;
mod roots;
mod server;
#[cfg(test)]
mod tests;

pub use authority::CertificateAuthority;
pub use client::{ClientFiles, ClientTls, Trusted};
pub use credentials::Credentials;
pub use incoming::{Incoming, incoming};
pub use mutual::{mutual_client, read_pem};
pub use roots::ClientRoots;
pub use server::{ClientAuth, ServerTls};

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use x509_parser::extensions::GeneralName;

/// A connection on which the handshake is done.
pub type TlsIo = tokio_rustls::server::TlsStream<TcpStream>;

/// Makes aws-lc the process's cryptography. To be called first thing in `main`; again does nothing. Without it
/// rustls panics at the first use of a default where two providers are linked.
pub fn install_provider() {
    // The only error is that one is installed already, and there is no other in this program.
    let _ = aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// The certificates that a client presented, its own first; empty where it presented none. The client proved to hold
/// the first one's key; nothing else about them is checked. In every request's extensions.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

impl PeerCertificates {
    /// Those of a connection.
    pub fn of(connection: &TlsIo) -> Self {
        let (_, session) = connection.get_ref();
        let certificates = session.peer_certificates().unwrap_or_default();
        Self(certificates.iter().cloned().collect())
    }

    /// Whether the client's own certificate is for the DNS name `name`.
    pub fn name(&self, name: &str) -> bool {
        let Some(own) = self.0.first() else {
            return false;
        };
        let Ok(own) = credentials::parse(own) else {
            return false;
        };
        let Ok(Some(names)) = own.subject_alternative_name() else {
            return false;
        };
        let mut names = names.value.general_names.iter();
        names.any(|known| matches!(known, GeneralName::DNSName(known) if known.eq_ignore_ascii_case(name)))
    }
}

/// What is wrong with a certificate, a key or a file of them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path} for TLS: mount a PEM file there, readable to this process")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A text is not the PEM it should be.
    #[error("{what} is not usable PEM: {problem}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not make a server.
    #[error("the serving certificate and its key do not fit: {0}")]
    Serving(#[source] rustls::Error),
    /// Certificate and key do not make a client.
    #[error("the client certificate and its key do not fit: {0}")]
    Identity(#[source] rustls::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate for {name:?}: {problem}")]
    Issue {
        /// Whom it was for.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A client's certificate does not count.
    #[error("the client certificate is not accepted: {0}")]
    Client(String),
}

//! gRPC servers: their windows, their sockets with or without TLS, and how they end.

use runtime::Shutdown;
use runtime::tls::{self, PeerCertificates, ServerTls, TlsIo};
use rustls::ProtocolVersion;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router, TcpIncoming};

/// Flow-control windows: large, so that a prompt is not held up by acknowledgements on a local connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// HTTP requests in flight on one connection of the proxy.
const STREAMS_PER_CONNECTION: u32 = 10_000;
/// A connection whose proxy is gone is noticed after this much silence.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What is left of answers when everything is stopped may still take this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The oldest TLS that a proxy may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinimumTls {
    /// TLS 1.2.
    #[default]
    V12,
    /// TLS 1.3.
    V13,
}

/// How connections are secured.
#[derive(Clone, Debug)]
pub(crate) struct Secure {
    pub(crate) tls: ServerTls,
    pub(crate) minimum: MinimumTls,
}

/// A server with this picker's windows and limits.
pub(crate) fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
}

/// Serves `router` until `closing` resolves: then no connection and no stream is taken any more, and those that
/// are there go on until they end or `shutdown` is stopped. In the clear where `secure` is `None`.
pub(crate) async fn serve(
    router: Router,
    listener: TcpListener,
    secure: Option<Secure>,
    closing: impl Future<Output = ()>,
    shutdown: Shutdown,
) {
    let ended = match secure {
        // Without TCP_NODELAY every reply waits for an acknowledgement: 44 ms instead of 0.1.
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            until(
                router.serve_with_incoming_shutdown(incoming, closing),
                &shutdown,
            )
            .await
        }
        Some(secure) => {
            let incoming = incoming(listener, secure);
            until(
                router.serve_with_incoming_shutdown(incoming, closing),
                &shutdown,
            )
            .await
        }
    };
    if let Err(error) = ended {
        tracing::error!(%error, "gRPC server ended");
        shutdown.stop();
    }
}

/// `serving`, cut off a moment after `shutdown` is stopped.
async fn until<E>(
    serving: impl Future<Output = Result<(), E>>,
    shutdown: &Shutdown,
) -> Result<(), E> {
    let last_words = async {
        shutdown.stopped().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = last_words => Ok(()),
    }
}

fn incoming(listener: TcpListener, secure: Secure) -> impl Stream<Item = io::Result<Connection>> {
    let Secure { tls, minimum } = secure;
    tls::incoming(listener, tls).filter_map(move |connection| match connection {
        Ok(connection) => admitted(&connection, minimum).then_some(Ok(Connection(connection))),
        Err(error) => Some(Err(error)),
    })
}

/// Whether the handshake agreed on a version that is new enough.
fn admitted(connection: &TlsIo, minimum: MinimumTls) -> bool {
    let (_, session) = connection.get_ref();
    let admitted =
        minimum == MinimumTls::V12 || session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    if !admitted {
        tracing::debug!(version = ?session.protocol_version(), "a connection below --tls-min-version is closed");
    }
    admitted
}

/// A connection whose handshake is done, as tonic wants it.
struct Connection(TlsIo);

impl Connected for Connection {
    type ConnectInfo = PeerCertificates;

    fn connect_info(&self) -> PeerCertificates {
        PeerCertificates::of(&self.0)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use runtime::{Clock, Tasks};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tonic::transport::{Channel, Endpoint};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    /// A health server with a certificate of its own.
    async fn health(minimum: MinimumTls) -> (SocketAddr, ServerTls, Shutdown, Tasks) {
        tls::install_provider();
        let tls = ServerTls::self_signed(&["localhost".to_owned()], Clock::start()).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let (_, service) = tonic_health::server::health_reporter();
        let secure = Secure {
            tls: tls.clone(),
            minimum,
        };
        let closing = shutdown.clone();
        tasks.spawn(serve(
            server().add_service(service),
            listener,
            Some(secure),
            async move { closing.stopped().await },
            shutdown.clone(),
        ));
        (address, tls, shutdown, tasks)
    }

    /// A client that trusts only that certificate and speaks only that version.
    async fn client(
        address: SocketAddr,
        tls: &ServerTls,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(tls.certificate().as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let mut config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let connection = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                let connection = connector.connect(name, connection).await?;
                assert_eq!(connection.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                io::Result::Ok(TokioIo::new(connection))
            }
        });
        Endpoint::from_static("http://localhost")
            .connect_with_connector(connect)
            .await
    }

    async fn asked(channel: Channel) -> Result<(), tonic::Status> {
        let request = HealthCheckRequest::default();
        let answer = HealthClient::new(channel).check(request).await;
        answer.map(|_| ())
    }

    #[tokio::test]
    async fn grpc_is_served_over_either_tls() {
        let (address, tls, shutdown, tasks) = health(MinimumTls::V12).await;
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let channel = client(address, &tls, version).await.unwrap();
            asked(channel).await.unwrap();
        }
        let plain = Endpoint::try_from(format!("http://{address}")).unwrap();
        let plain = plain.connect_lazy();
        assert!(asked(plain).await.is_err(), "nothing is told in the clear");
        shutdown.stop();
        tasks.join().await;
    }

    #[tokio::test]
    async fn versions_below_the_minimum_are_not_served() {
        let (address, tls, _shutdown, _tasks) = health(MinimumTls::V13).await;
        let new = client(address, &tls, &rustls::version::TLS13).await;
        asked(new.unwrap()).await.unwrap();
        let old = client(address, &tls, &rustls::version::TLS12).await;
        let served = match old {
            Ok(channel) => asked(channel).await.is_ok(),
            Err(_) => false,
        };
        assert!(!served);
    }
}

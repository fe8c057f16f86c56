use super::*;
use crate::Clock;
use axum::Extension;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

fn prompt() -> ServeOptions {
    ServeOptions {
        notice: Duration::ZERO,
        ..ServeOptions::default()
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(tls: &ServerTls, address: SocketAddr, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(tls.certificate().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn who() -> Router {
    Router::new().route(
        "/",
        get(
            |Extension(peer): Extension<PeerCertificates>,
             ConnectInfo(from): ConnectInfo<SocketAddr>| async move {
                format!("{} from {}", peer.0.len(), from.ip())
            },
        ),
    )
}

#[tokio::test]
async fn both_versions_of_http_are_served_over_tls_and_plain() {
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let tls = ServerTls::self_signed(&["localhost".into()], Clock::start()).unwrap();
    let (secure, secure_address) = listener().await;
    let (plain, plain_address) = listener().await;
    https(
        secure,
        tls.clone(),
        who(),
        prompt(),
        shutdown.clone(),
        &tasks,
    );
    http(plain, who(), prompt(), shutdown.clone(), &tasks);

    let answer = http1(connect(&tls, secure_address, b"http/1.1").await).await;
    assert!(answer.ends_with("0 from 127.0.0.1"), "{answer}");
    let answer = http1(TcpStream::connect(plain_address).await.unwrap()).await;
    assert!(answer.ends_with("0 from 127.0.0.1"), "{answer}");

    let stream = TokioIo::new(connect(&tls, secure_address, b"h2").await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost/").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);

    shutdown.stop();
    tasks.join().await;
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_a_drain_ends() {
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&arrived), Arc::clone(&go));
    let slow = Router::new().route(
        "/",
        get(move || async move {
            tell.notify_one();
            wait.notified().await;
            "done"
        }),
    );
    let (plain, address) = listener().await;
    let server = http(plain, slow, prompt(), shutdown.clone(), &tasks);
    let call = tokio::spawn(async move { http1(TcpStream::connect(address).await.unwrap()).await });
    arrived.notified().await;
    // An idle connection does not hold up the end.
    let _idle = TcpStream::connect(address).await.unwrap();
    shutdown.begin_drain();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    assert!(call.await.unwrap().ends_with("done"));
    server.await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_room() {
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let (plain, address) = listener().await;
    let options = ServeOptions {
        connections: 1,
        ..prompt()
    };
    http(plain, who(), options, shutdown.clone(), &tasks);
    let mut first = TcpStream::connect(address).await.unwrap();
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let second =
        tokio::spawn(async move { http1(TcpStream::connect(address).await.unwrap()).await });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.unwrap().starts_with("HTTP/1.1 200"));
    shutdown.stop();
    tasks.join().await;
}

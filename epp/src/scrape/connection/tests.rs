use super::*;
use tokio::net::TcpListener;

/// Serves one canned answer per connection-and-request pair, in order, and counts connections.
async fn serve(answers: Vec<Vec<&'static str>>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        for connection in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in connection {
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (address, task)
}

fn whole(page: &[u8]) -> Option<Vec<u8>> {
    Some(page.to_vec())
}

fn plain(address: &str) -> Connection {
    Connection::new(address, "/metrics", None, Buffers::default())
}

#[test]
fn buffers_are_shared_and_large_ones_given_back() {
    let buffers = Buffers::default();
    let with = |bytes| Buffer {
        answer: Vec::with_capacity(bytes),
        joined: Vec::new(),
    };
    buffers.give_back(with(LARGEST_BUFFER + 1));
    assert_eq!(buffers.0.lock().len(), 0);
    for _ in 0..2 * BUFFERS {
        buffers.give_back(with(100));
    }
    assert_eq!(buffers.0.lock().len(), BUFFERS);
    assert!(buffers.take().answer.capacity() >= 100);
}

#[tokio::test]
async fn one_connection_serves_many_reads_in_any_framing() {
    const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
    const CLOSING: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nthree";
    let (address, served) = serve(vec![vec![SIZED, CHUNKED, CLOSING], vec![SIZED]]).await;
    let mut connection = plain(&address);
    for expected in ["one", "two", "three", "one"] {
        assert_eq!(connection.fetch(whole).await.unwrap(), expected.as_bytes());
    }
    served.await.unwrap();
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_without_a_failure() {
    const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
    let (address, _served) = serve(vec![vec![SIZED], vec![SIZED]]).await;
    let mut connection = plain(&address);
    assert!(connection.fetch(whole).await.is_ok());
    assert!(connection.fetch(whole).await.is_ok());
}

#[tokio::test]
async fn pages_come_over_tls_from_who_is_trusted() {
    use runtime::Clock;
    use runtime::tls::{CertificateAuthority, ClientFiles, ServerTls, Trusted};
    const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
    let clock = Clock::start();
    let authority = || CertificateAuthority::generate("engines", clock.unix_ms()).unwrap();
    let (ours, others) = (authority(), authority());
    let server = ServerTls::issued(&ours, &["127.0.0.1".into()], clock).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not believe the certificate goes away.
            let Ok(mut stream) = server.accept(stream).await else {
                continue;
            };
            let mut request = [0; 1024];
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                stream.write_all(SIZED).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let connection = |authority: &CertificateAuthority| {
        let bundle = directory.path().join("ca.pem");
        std::fs::write(&bundle, authority.bundle()).unwrap();
        let files = ClientFiles {
            trusted: Trusted::File(bundle),
            identity: None,
        };
        let tls = ClientTls::new(files, &["http/1.1"], clock).unwrap();
        Connection::new(
            &address,
            "/metrics",
            Some(Arc::new(tls)),
            Buffers::default(),
        )
    };
    let mut wary = connection(&others);
    let error = wary.fetch(whole).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let mut trusting = connection(&ours);
    for _ in 0..2 {
        assert_eq!(trusting.fetch(whole).await.unwrap(), b"one");
    }
}

#[tokio::test]
async fn errors_say_what_happened() {
    let (address, _served) = serve(vec![
        vec!["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"],
        vec!["junk\r\n\r\n"],
    ])
    .await;
    let mut connection = plain(&address);
    assert!(matches!(
        connection.fetch(whole).await,
        Err(ScrapeError::Status(404))
    ));
    assert!(matches!(
        connection.fetch(whole).await,
        Err(ScrapeError::Http(_))
    ));
    let mut nobody = plain("127.0.0.1:1");
    assert!(matches!(nobody.fetch(whole).await, Err(ScrapeError::Io(_))));
}

#[tokio::test]
async fn answers_may_come_byte_by_byte() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\na\r\n0123456789\r\n0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in CHUNKED.as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut connection = plain(&address);
    assert_eq!(connection.fetch(whole).await.unwrap(), b"two0123456789");
}

#[test]
fn a_body_is_complete_only_when_all_of_it_is_there() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
    let mut head = Head::parse(answer).unwrap().unwrap();
    assert_eq!(
        head.framing
            .body(answer, head.bytes, false, &mut Vec::new())
            .unwrap(),
        None
    );
    assert!(Head::parse(&answer[..20]).unwrap().is_none());
    let vast = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n";
    let mut head = Head::parse(vast).unwrap().unwrap();
    assert!(matches!(
        head.framing.body(vast, head.bytes, false, &mut Vec::new()),
        Err(ScrapeError::TooLarge)
    ));
}

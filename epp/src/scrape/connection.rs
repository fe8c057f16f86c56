//! Hot path: one keep-alive HTTP/1.1 connection on which one page is asked for again and again.
//!
//! A general client spends more on one request than the engine's page is worth when hundreds of pages are
//! read twenty times a second. This one sends the same bytes every time, and reads the answer in
//! place. Answers are read into buffers that all connections share: between two reads a connection holds none.

use parking_lot::Mutex;
use runtime::tls::ClientTls;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Longest that connecting and reading a page may take together.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Largest answer that is read, bytes.
const LARGEST_ANSWER: usize = 4 << 20;
/// Room for one read.
const READ: usize = 16 * 1024;
/// Headers of one answer.
const HEADERS: usize = 64;
/// Buffers kept for the next reads.
const BUFFERS: usize = 32;
/// Room of a buffer that is kept, bytes; one that grew larger is given back.
const LARGEST_BUFFER: usize = 256 * 1024;

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// No connection, or it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection ended before the answer did.
    #[error("the connection was closed before the page was complete")]
    Closed,
    /// The peer does not speak HTTP/1.
    #[error("no answer in HTTP: {0}")]
    Http(#[from] httparse::Error),
    /// A chunk's size is no number.
    #[error("no answer in HTTP: a chunk without a size")]
    Chunk,
    /// The peer answered with an error.
    #[error("answered with status {0}")]
    Status(u16),
    /// The page is too large to be one.
    #[error("the page is larger than {LARGEST_ANSWER} bytes")]
    TooLarge,
    /// The page has nothing of what is wanted.
    #[error("the page has none of what is read there: another engine's, or no engine's")]
    Foreign,
    /// It took too long.
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
}

/// Buffers that reads share, since only some are going on at the same time.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Buffer>>>);

#[derive(Debug, Default)]
struct Buffer {
    answer: Vec<u8>,
    /// The body of an answer that comes in chunks.
    joined: Vec<u8>,
}

impl Buffers {
    fn take(&self) -> Buffer {
        self.0.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Buffer) {
        buffer.answer.clear();
        buffer.joined.clear();
        let mut kept = self.0.lock();
        let room = buffer.answer.capacity().max(buffer.joined.capacity());
        if kept.len() < BUFFERS && room <= LARGEST_BUFFER {
            kept.push(buffer);
        }
    }
}

/// A connection that is opened when needed and kept while it works.
#[derive(Debug)]
pub struct Connection {
    address: String,
    request: Vec<u8>,
    tls: Option<Arc<ClientTls>>,
    stream: Option<Stream>,
    buffers: Buffers,
}

impl Connection {
    /// To `address` (`ip:port`), asking for `path`, over TLS where `tls` is given.
    pub fn new(address: &str, path: &str, tls: Option<Arc<ClientTls>>, buffers: Buffers) -> Self {
        Self {
            address: address.to_owned(),
            request: format!(
                "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/plain, application/json\r\n\r\n"
            )
            .into_bytes(),
            tls,
            stream: None,
            buffers,
        }
    }

    /// Asks for the page and hands it to `read`.
    ///
    /// # Errors
    /// [`ScrapeError`]; the next call starts with a new connection. [`ScrapeError::Foreign`] when `read`
    /// finds nothing.
    pub async fn fetch<T>(
        &mut self,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, ScrapeError> {
        let mut buffer = self.buffers.take();
        let answered = tokio::time::timeout(TIMEOUT, self.exchange(&mut buffer)).await;
        let found = match answered {
            Err(_) => Err(ScrapeError::Timeout),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Body::InPlace(span))) => read(&buffer.answer[span]).ok_or(ScrapeError::Foreign),
            Ok(Ok(Body::Joined)) => read(&buffer.joined).ok_or(ScrapeError::Foreign),
        };
        self.buffers.give_back(buffer);
        found
    }

    async fn exchange(&mut self, buffer: &mut Buffer) -> Result<Body, ScrapeError> {
        // Taken out, so that a failure at any point leaves none behind.
        if let Some(stream) = self.stream.take() {
            match self.ask(stream, buffer).await {
                // The server may have closed it while it was idle: that says nothing of a new one.
                Err(ScrapeError::Closed | ScrapeError::Io(_)) => {}
                answered => return answered,
            }
        }
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
                Stream::Tls(Box::new(tls.connect(host, stream).await?))
            }
        };
        self.ask(stream, buffer).await
    }

    async fn ask(&mut self, mut stream: Stream, buffer: &mut Buffer) -> Result<Body, ScrapeError> {
        let Buffer { answer, joined } = buffer;
        answer.clear();
        joined.clear();
        stream.write_all(&self.request).await?;
        stream.flush().await?;
        let mut head = None;
        let mut framing = Framing::UntilClosed;
        loop {
            answer.reserve(READ);
            let closed = stream.read_buf(answer).await? == 0;
            if answer.len() > LARGEST_ANSWER {
                return Err(ScrapeError::TooLarge);
            }
            if head.is_none()
                && let Some(found) = Head::parse(answer)?
            {
                framing = found.framing;
                head = Some(found);
            }
            if let Some(head) = &head
                && let Some((body, end)) = framing.body(answer, head.bytes, closed, joined)?
            {
                if head.keep_alive && !closed && end == answer.len() {
                    self.stream = Some(stream);
                }
                return Ok(body);
            }
            if closed {
                return Err(ScrapeError::Closed);
            }
        }
    }
}

/// Bytes to and from the server.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Where an answer's body is.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    /// In the answer as it came.
    InPlace(Range<usize>),
    /// Put together from chunks.
    Joined,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    /// Chunks; those before this offset have been joined.
    Chunked(usize),
    UntilClosed,
}

impl Framing {
    /// The body and where the answer ends, once it is complete.
    fn body(
        &mut self,
        answer: &[u8],
        start: usize,
        closed: bool,
        joined: &mut Vec<u8>,
    ) -> Result<Option<(Body, usize)>, ScrapeError> {
        match self {
            Self::Length(length) => {
                let end = start.saturating_add(*length);
                Ok((answer.len() >= end).then_some((Body::InPlace(start..end), end)))
            }
            Self::UntilClosed => {
                Ok(closed.then_some((Body::InPlace(start..answer.len()), answer.len())))
            }
            Self::Chunked(at) => {
                *at = (*at).max(start);
                while let Some((data, next)) = chunk(answer, *at)? {
                    *at = next;
                    if data.is_empty() {
                        return Ok(Some((Body::Joined, next)));
                    }
                    joined.extend_from_slice(&answer[data]);
                }
                Ok(None)
            }
        }
    }
}

/// The chunk at `at` and where the next one begins; `None` while it is incomplete. The last one is empty.
fn chunk(answer: &[u8], at: usize) -> Result<Option<(Range<usize>, usize)>, ScrapeError> {
    const LINE_END: usize = 2;
    match httparse::parse_chunk_size(answer.get(at..).unwrap_or_default()) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete((line, size))) => {
            let size = usize::try_from(size)
                .ok()
                .filter(|size| *size <= LARGEST_ANSWER)
                .ok_or(ScrapeError::TooLarge)?;
            let data = at + line..at + line + size;
            let next = data.end + LINE_END;
            Ok((answer.len() >= next).then_some((data, next)))
        }
        Err(_) => Err(ScrapeError::Chunk),
    }
}

/// An answer's head.
#[derive(Debug)]
struct Head {
    bytes: usize,
    framing: Framing,
    keep_alive: bool,
}

impl Head {
    /// `None` while it is incomplete.
    fn parse(answer: &[u8]) -> Result<Option<Self>, ScrapeError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(bytes) = response.parse(answer)? else {
            return Ok(None);
        };
        if response.code != Some(200) {
            return Err(ScrapeError::Status(response.code.unwrap_or(0)));
        }
        let mut head = Self {
            bytes,
            framing: Framing::UntilClosed,
            keep_alive: response.version == Some(1),
        };
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(header.value)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                head.framing = length.map_or(head.framing, Framing::Length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                head.framing = Framing::Chunked(bytes);
            } else if header.name.eq_ignore_ascii_case("connection") {
                head.keep_alive &= !header.value.eq_ignore_ascii_case(b"close");
            }
        }
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
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
}

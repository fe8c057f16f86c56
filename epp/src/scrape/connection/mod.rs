//! Hot path: one keep-alive HTTP/1.1 connection on which one page is asked for again and again.
//!
//! A general client spends more on one request than the engine's page is worth when hundreds of pages are
//! read twenty times a second. This one sends the same bytes every time, and reads the answer in
//! place. Answers are read into buffers that all connections share: between two reads a connection holds none.

mod framing;

use framing::{Body, Framing, Head};
use parking_lot::Mutex;
use runtime::tls::ClientTls;
use std::io;
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

#[cfg(test)]
mod tests;

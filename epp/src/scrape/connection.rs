//! One keep-alive HTTP/1.1 connection on which one page is asked for again and again.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest that connecting and reading a page may take together.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Largest page that is read.
const LARGEST_PAGE: usize = 4 << 20;

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// The connection broke, or the peer does not speak HTTP.
    #[error("no answer in HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The peer answered with an error.
    #[error("answered with status {0}")]
    Status(u16),
    /// The page is too large to be one.
    #[error("the page is larger than {LARGEST_PAGE} bytes")]
    TooLarge,
    /// The page has none of the metrics.
    #[error("the page has none of vLLM's metrics")]
    Foreign,
    /// It took too long.
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    /// The address cannot be put into a request.
    #[error("not an address: {0}")]
    Address(#[from] http::Error),
}

type Driver = http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

struct Open {
    sender: SendRequest<Empty<Bytes>>,
    driver: Pin<Box<Driver>>,
}

/// A connection that is opened when needed and kept while it works.
pub struct Connection {
    address: String,
    path: String,
    open: Option<Open>,
    page: BytesMut,
}

impl Connection {
    /// To `address` (`ip:port`), asking for `path`.
    pub fn new(address: &str, path: &str) -> Self {
        Self {
            address: address.to_owned(),
            path: path.to_owned(),
            open: None,
            page: BytesMut::new(),
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
        tokio::time::timeout(TIMEOUT, self.exchange())
            .await
            .map_err(|_| ScrapeError::Timeout)??;
        read(&self.page).ok_or(ScrapeError::Foreign)
    }

    async fn exchange(&mut self) -> Result<(), ScrapeError> {
        // Taken out, so that a failure at any point leaves none behind.
        if let Some(mut open) = self.open.take() {
            match self.ask(&mut open).await {
                // The server may have closed it while it was idle: that says nothing of a new one.
                Err(ScrapeError::Http(_)) => {}
                answered => {
                    answered?;
                    self.keep(open);
                    return Ok(());
                }
            }
        }
        let mut open = self.connect().await?;
        self.ask(&mut open).await?;
        self.keep(open);
        Ok(())
    }

    fn keep(&mut self, open: Open) {
        if !open.sender.is_closed() {
            self.open = Some(open);
        }
    }

    async fn ask(&mut self, open: &mut Open) -> Result<(), ScrapeError> {
        let request = http::Request::get(self.path.as_str())
            .header(http::header::HOST, self.address.as_str())
            .body(Empty::<Bytes>::new())?;
        let Open { sender, driver } = open;
        let page = &mut self.page;
        page.clear();
        let mut answer = pin!(async {
            let response = sender.send_request(request).await?;
            collect(response, page).await
        });
        // The connection is driven here and not in a task of its own: one wake-up per answer.
        tokio::select! {
            biased;
            answered = &mut answer => answered,
            ended = driver => {
                ended?;
                // Closed in good order: what was sent before is still to be taken.
                answer.await
            }
        }
    }

    async fn connect(&self) -> Result<Open, ScrapeError> {
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(ScrapeError::Connect)?;
        stream.set_nodelay(true).map_err(ScrapeError::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Open {
            sender,
            driver: Box::pin(driver),
        })
    }
}

async fn collect(
    response: http::Response<Incoming>,
    page: &mut BytesMut,
) -> Result<(), ScrapeError> {
    if response.status() != http::StatusCode::OK {
        return Err(ScrapeError::Status(response.status().as_u16()));
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            if page.len() + data.len() > LARGEST_PAGE {
                return Err(ScrapeError::TooLarge);
            }
            page.extend_from_slice(data);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

    #[tokio::test]
    async fn one_connection_serves_many_reads_in_any_framing() {
        const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
        const CHUNKED: &str =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
        const CLOSING: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nthree";
        let (address, served) = serve(vec![vec![SIZED, CHUNKED, CLOSING], vec![SIZED]]).await;
        let mut connection = Connection::new(&address, "/metrics");
        for expected in ["one", "two", "three", "one"] {
            assert_eq!(connection.fetch(whole).await.unwrap(), expected.as_bytes());
        }
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_closed_while_idle_is_replaced_without_a_failure() {
        const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
        let (address, _served) = serve(vec![vec![SIZED], vec![SIZED]]).await;
        let mut connection = Connection::new(&address, "/metrics");
        assert!(connection.fetch(whole).await.is_ok());
        assert!(connection.fetch(whole).await.is_ok());
    }

    #[tokio::test]
    async fn errors_say_what_happened() {
        let (address, _served) = serve(vec![
            vec!["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"],
            vec!["junk\r\n\r\n"],
        ])
        .await;
        let mut connection = Connection::new(&address, "/metrics");
        assert!(matches!(
            connection.fetch(whole).await,
            Err(ScrapeError::Status(404))
        ));
        assert!(matches!(
            connection.fetch(whole).await,
            Err(ScrapeError::Http(_))
        ));
        let mut nobody = Connection::new("127.0.0.1:1", "/metrics");
        assert!(matches!(
            nobody.fetch(whole).await,
            Err(ScrapeError::Connect(_))
        ));
    }
}

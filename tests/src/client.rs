//! A plain HTTP client that shows what really came: status, headers, each frame, and how the body ended.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A request to be.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    chunked: bool,
    http2: bool,
}

impl Call {
    /// `POST` with a body that is sent as it is, with its length.
    pub fn post(path: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self {
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body: body.into(),
            chunked: false,
            http2: false,
        }
    }

    /// A gRPC call with one message, which is sent as it is: over HTTP/2, without its length.
    pub fn grpc(path: &str, frame: impl Into<Bytes>) -> Self {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        Self {
            method: Method::POST,
            path: path.to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            body: frame.into(),
            chunked: true,
            http2: true,
        }
    }

    /// `GET`, without a body.
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            chunked: false,
            http2: false,
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// The same with a body that does not tell its length in advance.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The same over HTTP/2.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Sends it on a connection of its own and waits for the response's headers.
    ///
    /// # Errors
    /// When the connection ends before them.
    pub async fn open(&self, server: SocketAddr) -> Result<Reply, hyper::Error> {
        let socket = TcpStream::connect(server)
            .await
            .expect("somebody listens there");
        let mut request = Request::builder().method(&self.method).uri(if self.http2 {
            format!("http://{server}{}", self.path)
        } else {
            self.path.clone()
        });
        if !self.http2 {
            request = request.header("host", server.to_string());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = Full::new(self.body.clone());
        // Mapping a body's frames, even to themselves, forgets its length.
        let body = if self.chunked {
            Either::Left(body.map_frame(|frame| frame))
        } else {
            Either::Right(body)
        };
        let request = request.body(body).expect("a request that can be sent");
        let (response, connection) = exchange(socket, request, self.http2).await?;
        let (head, body) = response.into_parts();
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
            trailers: HeaderMap::new(),
            _connection: connection,
        })
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Panics
    /// When the connection ends before the answer's headers.
    pub async fn send(&self, server: SocketAddr) -> Answer {
        self.open(server).await.expect("an answer").read().await
    }
}

/// Sends `request` over `socket` and waits for the response's headers.
async fn exchange<B>(
    socket: TcpStream,
    request: Request<B>,
    http2: bool,
) -> Result<(Response<Incoming>, Connection), hyper::Error>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // How the body ended is seen where it is read.
    if http2 {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        return Ok((in_time(sender.send_request(request)).await?, connection));
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    Ok((in_time(sender.send_request(request)).await?, connection))
}

/// Longest wait for the next thing of an answer. Only a failing test takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn in_time<F: Future>(next: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, next).await {
        Ok(next) => next,
        Err(_) => panic!("no answer in {} s", PATIENCE.as_secs()),
    }
}

/// An answer under way. Dropping it closes the connection, as a client that leaves does.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    body: Incoming,
    trailers: HeaderMap,
    _connection: Connection,
}

/// The task that moves a connection's bytes; dropping it closes the connection.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What comes next of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Bytes.
    Frame(Bytes),
    /// It ended as it should.
    End,
    /// The connection broke.
    Cut,
}

impl Reply {
    /// Waits for more of the body.
    pub async fn next(&mut self) -> Next {
        match in_time(self.body.frame()).await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Next::Frame(data),
                Err(frame) => {
                    self.trailers = frame.into_trailers().unwrap_or_default();
                    Next::Frame(Bytes::new())
                }
            },
            Some(Err(_)) => Next::Cut,
            None => Next::End,
        }
    }

    /// Waits until the body has gone on for `count` bytes, in however many frames.
    ///
    /// # Panics
    /// When it ends before, or a frame brings more.
    pub async fn next_bytes(&mut self, count: usize) -> Bytes {
        let mut body = Vec::new();
        while body.len() < count {
            match self.next().await {
                Next::Frame(frame) => body.extend_from_slice(&frame),
                ended => panic!("{ended:?} after {} of {count} bytes", body.len()),
            }
        }
        assert_eq!(
            body.len(),
            count,
            "more than was waited for: {}",
            String::from_utf8_lossy(&body)
        );
        body.into()
    }

    /// Reads to the end, whichever it is.
    pub async fn read(mut self) -> Answer {
        let mut body = Vec::new();
        let cut = loop {
            match self.next().await {
                Next::Frame(frame) => body.extend_from_slice(&frame),
                Next::End => break false,
                Next::Cut => break true,
            }
        };
        Answer {
            status: self.status,
            headers: self.headers,
            body: body.into(),
            trailers: self.trailers,
            cut,
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Every byte of the body that came.
    pub body: Bytes,
    /// Trailers; none if none came.
    pub trailers: HeaderMap,
    /// The connection broke before the body's end.
    pub cut: bool,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.text()))
    }

    /// Value of a header; `None` without it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a header in ASCII"))
    }
}

//! A small HTTP client; every request has a connection of its own, closed with it.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Where to send requests.
#[derive(Clone)]
pub(crate) struct Client(SocketAddr);

/// A whole answer.
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// The body as text.
    pub(crate) body: String,
    headers: hyper::HeaderMap,
}

/// An answer that comes in frames; dropping it closes the connection.
pub(crate) struct Stream {
    response: Response<Incoming>,
    _connection: Connection,
}

struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.try_get(path).await.unwrap()
    }

    pub(crate) async fn try_get(&self, path: &str) -> std::io::Result<Reply> {
        let request = Request::get(path)
            .header("host", "test")
            .body(Full::default())
            .unwrap();
        Ok(Reply::of(self.send(request).await?).await)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, body, &[]).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Reply {
        Reply::of(self.send(post(path, body, headers)).await.unwrap()).await
    }

    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Stream {
        self.send(post(path, body, &[])).await.unwrap()
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> std::io::Result<Stream> {
        let socket = TcpStream::connect(self.0).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(std::io::Error::other)?;
        let connection = tokio::spawn(async {
            // A connection cut by the server shows as an error of the body.
            let _ = connection.await;
        });
        let connection = Connection(connection.abort_handle());
        let response = sender
            .send_request(request)
            .await
            .map_err(std::io::Error::other)?;
        Ok(Stream {
            response,
            _connection: connection,
        })
    }
}

fn post(path: &str, body: &Value, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::post(path)
        .header("host", "test")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_string())).unwrap()
}

impl Reply {
    async fn of(stream: Stream) -> Self {
        let status = stream.response.status().as_u16();
        let headers = stream.response.headers().clone();
        let body = stream
            .response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        Self {
            status,
            headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Stream {
    pub(crate) fn header(&self, name: &str) -> String {
        self.response.headers()[name].to_str().unwrap().to_owned()
    }

    /// The next frame of the body; `None` at its end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        let frame = self.response.body_mut().frame().await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// All that is left of the body.
    pub(crate) async fn rest(&mut self) -> Result<String, hyper::Error> {
        let mut text = String::new();
        while let Some(frame) = self.next().await {
            text += std::str::from_utf8(&frame?).unwrap();
        }
        Ok(text)
    }
}

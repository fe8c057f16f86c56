//! An API server that a test plays: every request is handed to the test, which answers it, lets it hang, or
//! breaks it off.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::io;
use tokio::sync::{mpsc, oneshot};

/// Lines of a watch that may wait for their reader.
const LINES: usize = 1_024;

type Answer = Response<Channel<Bytes, io::Error>>;

/// The server's end.
#[derive(Debug)]
pub struct Server {
    exchanges: mpsc::UnboundedReceiver<Exchange>,
}

/// A client of a server that the caller plays. Needs a tokio runtime.
pub fn server() -> (Client, Server) {
    let (sender, exchanges) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let away = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
            sender
                .send(Exchange { request, answer })
                .map_err(|_| away())?;
            answered.await.map_err(|_| away())
        }
    });
    (Client::new(service, "default"), Server { exchanges })
}

impl Server {
    /// The next request; `None` = every client is gone.
    pub async fn next(&mut self) -> Option<Exchange> {
        self.exchanges.recv().await
    }
}

/// A request that waits for its answer. Dropped without one, the connection is refused.
#[derive(Debug)]
pub struct Exchange {
    request: Request<Body>,
    answer: oneshot::Sender<Answer>,
}

impl Exchange {
    /// Method and path, as in `GET /api/v1/pods`.
    pub fn target(&self) -> String {
        format!("{} {}", self.request.method(), self.request.uri().path())
    }

    /// The query, still encoded.
    pub fn query(&self) -> &str {
        self.request.uri().query().unwrap_or_default()
    }

    /// Whether this asks for a watch.
    pub fn is_watch(&self) -> bool {
        self.query().contains("watch=true")
    }

    /// Takes the body, as JSON; `Null` when there is none.
    pub async fn body(&mut self) -> Value {
        let body = std::mem::replace(self.request.body_mut(), Body::empty());
        let bytes = body.collect_bytes().await.unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Answers 200 with `body`.
    pub async fn reply(self, body: &Value) {
        self.reply_with(StatusCode::OK, body).await;
    }

    /// Answers with a `Status` of that code.
    pub async fn fail(self, code: u16, reason: &str) {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": reason, "reason": reason, "code": code,
        });
        self.reply_with(status, &body).await;
    }

    async fn reply_with(self, status: StatusCode, body: &Value) {
        self.begin(status).send(body).await;
    }

    /// Begins a watch.
    pub fn watch(self) -> Watch {
        self.begin(StatusCode::OK)
    }

    fn begin(self, status: StatusCode) -> Watch {
        let (lines, body) = Channel::new(LINES);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        // A client that is gone needs no answer.
        drop(self.answer.send(response));
        Watch { lines }
    }
}

/// A watch that stands. Dropped, it ends in good order.
#[derive(Debug)]
pub struct Watch {
    lines: Sender<Bytes, io::Error>,
}

impl Watch {
    /// Sends one event.
    pub async fn event(&mut self, kind: &str, object: &Value) {
        self.send(&json!({ "type": kind, "object": object })).await;
    }

    async fn send(&mut self, value: &Value) {
        let line = Bytes::from(format!("{value}\n"));
        // A reader that is gone misses nothing.
        drop(self.lines.send_data(line).await);
    }

    /// Breaks the connection off.
    pub fn cut(self) {
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer");
        self.lines.abort(reset);
    }
}

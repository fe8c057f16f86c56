//! A model server that does what a test tells it, and remembers every request it got.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::script::{Hold, Script};
use crate::{answers, apis};

/// Path at which a picker that is there answers an empty request with 400. A model server says 200, and forgets it.
pub const WARM_UP: &str = "/warm-up/completions";

/// A request as it arrived. Reads of `/metrics`, `/health` and [`WARM_UP`] are not kept.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// What was spoken.
    pub version: Version,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Value of a header; `None` without it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a header in ASCII"))
    }
}

/// A running model server; stopped when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    received: Mutex<Vec<Received>>,
    /// Answers whose client left before their end.
    aborted: AtomicUsize,
    /// Counts releases; an answer that holds waits for a higher number than it met.
    released: watch::Sender<usize>,
}

impl Upstream {
    /// Starts a server on a free loopback port.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            received: Mutex::default(),
            aborted: AtomicUsize::new(0),
            released: watch::channel(0).0,
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How requests that arrive from now on are answered.
    pub fn follow(&self, script: Script) {
        *self.shared.script.lock().unwrap() = script;
    }

    /// Every answer that waits now goes on.
    pub fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// Requests so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The only request so far.
    ///
    /// # Panics
    /// When there were none or several.
    pub fn only_request(&self) -> Received {
        let mut received = self.received();
        assert_eq!(
            received.len(),
            1,
            "requests at the model server: {received:?}"
        );
        received.remove(0)
    }

    /// Answers whose client left before their end.
    pub fn aborted(&self) -> usize {
        self.shared.aborted.load(Ordering::Acquire)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dropping this task's set of connections drops them all.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // Small frames are to leave at once.
        let _ = socket.set_nodelay(true);
        let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
        connections.spawn(async move {
            // A connection that breaks is part of what is tested.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    let response = match path.as_str() {
        "/health" | WARM_UP => whole("text/plain", String::new()),
        "/metrics" => whole("text/plain; version=0.0.4", exposition()),
        _ => {
            let Some(received) = receive(request).await else {
                // The client left in the middle of its own request: nobody reads this.
                return Ok(whole("text/plain", String::new()));
            };
            // Taken before a test can see the request, so that what it does then is met.
            let script = shared.script.lock().unwrap().clone();
            let hold = shared.released.subscribe();
            shared.received.lock().unwrap().push(received.clone());
            if path == "/v1/models" {
                whole("application/json", models())
            } else {
                complete(&received, script, hold, &shared).await
            }
        }
    };
    Ok(response)
}

async fn receive(request: Request<Incoming>) -> Option<Received> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let path = head
        .uri
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    Some(Received {
        method: head.method,
        path,
        version: head.version,
        headers: head.headers,
        body,
    })
}

async fn complete(
    received: &Received,
    script: Script,
    hold: watch::Receiver<usize>,
    shared: &Arc<Shared>,
) -> Response<Answer> {
    let path = received.path.split('?').next().unwrap_or_default();
    let unfinished = Unfinished {
        shared: Arc::clone(shared),
        finished: false,
    };
    if script.hold == Hold::BeforeHeaders {
        wait(hold.clone()).await;
    }
    if script.status != StatusCode::OK {
        unfinished.finish();
        let error =
            r#"{"error":{"message":"scripted","type":"server_error","param":null,"code":null}}"#;
        let mut response = whole("application/json", error.to_owned());
        *response.status_mut() = script.status;
        return response;
    }
    if received.header("content-type") == Some("application/grpc") {
        unfinished.finish();
        return grpc(path, &received.body);
    }
    let request: Value = serde_json::from_slice(&received.body).unwrap_or_default();
    if request["stream"] != true {
        unfinished.finish();
        let document = apis::document(path, &request);
        return whole(
            "application/json",
            document.unwrap_or_else(|| answers::document(path)),
        );
    }
    let usage_asked = request["stream_options"]["include_usage"] == true;
    let events = apis::events(path, &request)
        .unwrap_or_else(|| answers::events(path, usage_asked, script.null_usage));
    let frames = script.framing.cut(&events);
    let (frames_in, frames_out) = mpsc::channel(1);
    let pauses = script.pace.pauses(received.body.len());
    tokio::spawn(play(frames, pauses, script, hold, frames_in));
    let body = Answer::Streamed {
        frames: frames_out,
        unfinished: Some(unfinished),
    };
    Response::builder()
        .header("content-type", "text/event-stream; charset=utf-8")
        .body(body)
        .unwrap()
}

/// Sends the frames until the script says stop or nobody listens any more.
async fn play(
    frames: Vec<Bytes>,
    (first, between): (Duration, Duration),
    script: Script,
    hold: watch::Receiver<usize>,
    out: mpsc::Sender<Result<Bytes, Cut>>,
) {
    tokio::time::sleep(first).await;
    let count = frames.len();
    for sent in 0..=count {
        if script.hold == Hold::AfterFrames(sent) {
            wait(hold.clone()).await;
        }
        if script.die_after == Some(sent) {
            let _ = out.send(Err(Cut)).await;
            return;
        }
        let Some(frame) = frames.get(sent) else {
            return;
        };
        if out.send(Ok(frame.clone())).await.is_err() {
            return;
        }
        tokio::time::sleep(between).await;
    }
}

async fn wait(mut hold: watch::Receiver<usize>) {
    // An error means that the server is gone; so is whoever waits for it.
    let _ = hold.changed().await;
}

/// Counts an answer as aborted unless it is told that it ended.
#[derive(Debug)]
struct Unfinished {
    shared: Arc<Shared>,
    finished: bool,
}

impl Unfinished {
    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.aborted.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The script broke the connection.
#[derive(Clone, Copy, Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("cut as scripted")
    }
}

impl std::error::Error for Cut {}

/// The body of an answer.
#[derive(Debug)]
enum Answer {
    Whole(Option<Bytes>),
    /// gRPC messages, then trailers.
    Messages(VecDeque<Frame<Bytes>>),
    Streamed {
        frames: mpsc::Receiver<Result<Bytes, Cut>>,
        unfinished: Option<Unfinished>,
    },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Messages(frames) => Poll::Ready(frames.pop_front().map(Ok)),
            Self::Streamed { frames, unfinished } => {
                let polled = frames.poll_recv(context);
                if matches!(polled, Poll::Ready(None | Some(Err(Cut)))) {
                    // Ended by the script, not by the client.
                    if let Some(unfinished) = unfinished.take() {
                        unfinished.finish();
                    }
                }
                polled.map(|frame| frame.map(|frame| frame.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}

fn grpc(path: &str, body: &[u8]) -> Response<Answer> {
    let (messages, trailers) = apis::call(path, body);
    let messages = messages.into_iter().map(Frame::data);
    let frames = messages.chain([Frame::trailers(trailers)]).collect();
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Answer::Messages(frames))
        .unwrap()
}

fn whole(content_type: &str, body: String) -> Response<Answer> {
    let length = body.len();
    Response::builder()
        .header("content-type", content_type)
        .header("content-length", length)
        .body(Answer::Whole(Some(body.into())))
        .unwrap()
}

fn models() -> String {
    format!(
        r#"{{"object":"list","data":[{{"id":"{}","object":"model"}}]}}"#,
        answers::MODEL
    )
}

/// vLLM's gauges of an idle server.
fn exposition() -> String {
    use names::metric::vllm;
    let model = answers::MODEL;
    format!(
        "# TYPE {running} gauge\n{running}{{model_name=\"{model}\"}} 0\n\
         # TYPE {waiting} gauge\n{waiting}{{model_name=\"{model}\"}} 0\n\
         # TYPE {kv} gauge\n{kv}{{model_name=\"{model}\"}} 0.1\n\
         # TYPE {config} gauge\n{config}{{block_size=\"16\",num_gpu_blocks=\"1000\"}} 1\n",
        running = vllm::RUNNING,
        waiting = vllm::WAITING,
        kv = vllm::KV_USAGE,
        config = vllm::CACHE_CONFIG,
    )
}

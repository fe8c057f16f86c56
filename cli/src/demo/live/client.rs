//! Open-loop clients: requests leave when they are due, however slowly earlier ones are answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use controller_core::fleet::Slo;
use controller_core::fleet::client::{Kind, Offer};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use runtime::Clock;
use serde::Serialize;
use simulator_core::trace::Trace;
use tokio::task::JoinSet;

use super::record::{Answer, Ending, Record};
use super::sse::Stream;

/// A request that has not ended by then is given up; far above any time to live in the queue.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What to send, and where.
pub(super) struct Load {
    /// The proxy's completions endpoint.
    pub(super) uri: Uri,
    /// Model name that requests carry.
    pub(super) model: String,
    /// What interactive and sheddable clients ask for.
    pub(super) slo: Slo,
    /// Where texts come from; `offers[i]` is row `i` of it.
    pub(super) trace: Trace,
    /// When, who and how much, in order of arrival.
    pub(super) offers: Vec<Offer>,
}

/// Sends the whole load, counting time from `start` on `clock`; returns when every answer has ended. Dropping the
/// future ends every request.
pub(super) async fn drive(load: Load, clock: Clock, start: Duration, record: Arc<Record>) {
    let sender = Arc::new(Sender {
        client: Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build_http(),
        uri: load.uri,
        clock,
        start,
        record,
    });
    let mut requests = JoinSet::new();
    for (offer, row) in load.offers.iter().zip(&load.trace.requests) {
        let body = body(
            &load.model,
            load.trace.prompt_text(row),
            offer.output_tokens,
        );
        tokio::time::sleep_until(clock.instant(start + offer.at)).await;
        let sender = Arc::clone(&sender);
        let (kind, at, slo) = (offer.kind, offer.at, load.slo);
        requests.spawn(async move { sender.send(kind, at, slo, body).await });
        while requests.try_join_next().is_some() {}
    }
    // Each gives up by itself in the end, and is recorded then.
    while requests.join_next().await.is_some() {}
}

#[derive(Serialize)]
struct Completion<'a> {
    model: &'a str,
    prompt: String,
    max_tokens: u32,
    ignore_eos: bool,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

fn body(model: &str, prompt: String, max_tokens: u32) -> Bytes {
    let stream_options = StreamOptions {
        include_usage: true,
    };
    let completion = Completion {
        model,
        prompt,
        max_tokens,
        ignore_eos: true,
        stream: true,
        stream_options,
    };
    // A struct of strings and numbers always serialises.
    serde_json::to_vec(&completion).unwrap_or_default().into()
}

struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    clock: Clock,
    start: Duration,
    record: Arc<Record>,
}

impl Sender {
    /// Since the start of the load.
    fn now(&self) -> Duration {
        self.clock.now().saturating_sub(self.start)
    }

    /// Sends one request that was due at `due` and records what came of it. Time counts from when it was due, so
    /// that a late client does not flatter the server.
    async fn send(&self, kind: Kind, due: Duration, slo: Slo, body: Bytes) {
        self.record.offered(kind, due, self.now());
        let mut stream = Stream::default();
        let ending =
            match tokio::time::timeout(GIVE_UP, self.exchange(kind, due, slo, body, &mut stream))
                .await
            {
                Ok(ending) => ending,
                Err(_) => Ending::Failed(format!("no answer within {} s", GIVE_UP.as_secs())),
            };
        let (prompt_tokens, cached_tokens) = stream.prompt_tokens().unwrap_or_default();
        self.record.ended(Answer {
            kind,
            at: self.now(),
            ttft_ms: stream
                .first_token
                .map(|first| first.saturating_sub(due).as_secs_f64() * 1e3),
            tpot_ms: stream.tpot_ms(),
            prompt_tokens,
            cached_tokens,
            ending,
        });
    }

    async fn exchange(
        &self,
        kind: Kind,
        due: Duration,
        slo: Slo,
        body: Bytes,
        stream: &mut Stream,
    ) -> Ending {
        let request = match self.request(kind, slo, body) {
            Ok(request) => request,
            Err(error) => return Ending::Failed(error.to_string()),
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Ending::Failed(format!("{error:#}")),
        };
        if response.status() != 200 {
            return refusal(response).await;
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let fed = match frame {
                Ok(frame) => frame
                    .data_ref()
                    .map_or(Ok(()), |bytes| self.feed(due, bytes, stream)),
                Err(error) => Err(format!("the stream broke off: {error}")),
            };
            if let Err(problem) = fed {
                return Ending::Failed(problem);
            }
        }
        if stream.done {
            Ending::Served
        } else {
            Ending::Failed("the stream ended without [DONE]".into())
        }
    }

    fn feed(&self, due: Duration, bytes: &Bytes, stream: &mut Stream) -> Result<(), String> {
        let before = stream.first_token;
        stream
            .feed(self.now(), bytes)
            .map_err(|error| error.to_string())?;
        if let (None, Some(first)) = (before, stream.first_token) {
            self.record.first_token(first, first.saturating_sub(due));
        }
        Ok(())
    }

    fn request(
        &self,
        kind: Kind,
        slo: Slo,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::post(self.uri.clone())
            .header("content-type", "application/json")
            .header(names::header::OBJECTIVE.canonical, kind.name());
        if kind.has_slo() {
            request = request
                .header(
                    names::header::SLO_TTFT_MS.canonical,
                    slo.ttft_ms.to_string(),
                )
                .header(
                    names::header::SLO_TPOT_MS.canonical,
                    slo.tpot_ms.to_string(),
                );
        }
        request.body(Full::new(body))
    }
}

/// The ending of a request whose status is not 200. The body is read to its end so that the connection is reused.
async fn refusal(response: Response<Incoming>) -> Ending {
    let status = response.status().as_u16();
    let reason = response
        .headers()
        .get(names::header::DROPPED_REASON)
        .and_then(|reason| reason.to_str().ok());
    let reason = reason.map(str::to_owned);
    let body = response
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    match reason {
        Some(reason) => Ending::Refused { status, reason },
        None => Ending::Failed(format!(
            "status {status}: {}",
            shortened(&String::from_utf8_lossy(&body))
        )),
    }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    text.chars()
        .take(LONGEST)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

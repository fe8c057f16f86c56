//! Streaming completions sent on a schedule, and what became of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::Clock;
use serde_json::json;
use system_tests::client::{Call, Next, Reply};
use tokio::task::JoinSet;

/// What every request looks like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Model asked for.
    pub model: String,
    /// Words in the prompt, about one token each.
    pub prompt_words: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The whole answer came.
    Served,
    /// Refused with this status, and `x-llm-d-request-dropped-reason` or the body.
    Refused(u16, String),
    /// The connection broke, after so many bytes of the body.
    Cut(usize),
}

/// One request that has ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When it was sent, since the load began.
    pub sent: Duration,
    /// From there to the first byte of the answer's body.
    pub first: Option<Duration>,
    /// From there to the end.
    pub took: Duration,
    /// How it ended.
    pub end: End,
}

/// Requests under way towards one address.
pub struct Load {
    target: SocketAddr,
    shape: Shape,
    clock: Clock,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    running: JoinSet<()>,
    sent: u32,
}

impl Load {
    /// Sends to `target`, where the standalone Envoy listens.
    pub fn new(target: SocketAddr, shape: Shape) -> Self {
        Self {
            target,
            shape,
            clock: Clock::start(),
            outcomes: Arc::default(),
            running: JoinSet::new(),
            sent: 0,
        }
    }

    /// Sends to `target` from now on.
    pub fn send_to(&mut self, target: SocketAddr) {
        self.target = target;
    }

    /// Time since the load began.
    pub fn elapsed(&self) -> Duration {
        self.clock.now()
    }

    /// Sends one request now.
    pub fn send(&mut self) {
        self.sent += 1;
        let (clock, outcomes) = (self.clock, self.outcomes.clone());
        let (target, call) = (self.target, call(&self.shape, self.sent));
        self.running.spawn(async move {
            let sent = clock.now();
            let (first, end) = follow(call.open(target).await, clock).await;
            outcomes.lock().push(Outcome {
                sent,
                first: first.map(|at| at - sent),
                took: clock.now() - sent,
                end,
            });
        });
    }

    /// Sends `rate` requests a second, evenly, for `time`; answers may still be under way afterwards.
    pub async fn at_rate(&mut self, rate: f64, time: Duration) {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        // A late start is made up for: the load offered does not depend on how busy this machine is.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            ticks.tick().await;
            self.send();
        }
    }

    /// How many requests have not ended.
    pub fn pending(&self) -> usize {
        self.sent as usize - self.outcomes.lock().len()
    }

    /// Waits for all requests, and gives their ends in the order in which they were sent.
    pub async fn finish(mut self) -> Vec<Outcome> {
        while let Some(ended) = self.running.join_next().await {
            ended.expect("a request's task");
        }
        let mut outcomes = std::mem::take(&mut *self.outcomes.lock());
        outcomes.sort_by_key(|outcome| outcome.sent);
        outcomes
    }
}

fn call(shape: &Shape, number: u32) -> Call {
    // Prompts differ from their first word on: nothing is shared but what a test shares on purpose.
    let words: Vec<String> = (0..shape.prompt_words)
        .map(|word| format!("w{number}x{word}"))
        .collect();
    let body = json!({
        "model": shape.model,
        "prompt": words.join(" "),
        "max_tokens": shape.output_tokens,
        "ignore_eos": true,
        "stream": true,
    });
    let call = Call::post("/v1/completions", body.to_string());
    let headers = shape.headers.iter();
    headers.fold(call, |call, (name, value)| call.header(name, value))
}

async fn follow<E>(reply: Result<Reply, E>, clock: Clock) -> (Option<Duration>, End) {
    let Ok(mut reply) = reply else {
        return (None, End::Cut(0));
    };
    let status = reply.status;
    let reason = reply
        .headers
        .get(names::header::DROPPED_REASON)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let (mut first, mut body) = (None, Vec::new());
    loop {
        match reply.next().await {
            Next::Frame(bytes) => {
                first = first.or_else(|| Some(clock.now()));
                body.extend_from_slice(&bytes);
            }
            Next::Cut => return (first, End::Cut(body.len())),
            Next::End if status.is_success() => {
                let whole = body.windows(12).any(|window| window == b"data: [DONE]");
                let end = if whole {
                    End::Served
                } else {
                    End::Cut(body.len())
                };
                return (first, end);
            }
            Next::End => {
                let said = reason.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
                return (None, End::Refused(status.as_u16(), said));
            }
        }
    }
}

/// Share of the requests that were served with their first byte within `limit`.
pub fn attainment(outcomes: &[Outcome], limit: Duration) -> f64 {
    let met = outcomes.iter().filter(|outcome| {
        outcome.end == End::Served && outcome.first.is_some_and(|first| first <= limit)
    });
    met.count() as f64 / outcomes.len().max(1) as f64
}

/// The requests that were not served.
pub fn lost(outcomes: &[Outcome]) -> Vec<&Outcome> {
    let not_served = outcomes.iter().filter(|outcome| outcome.end != End::Served);
    not_served.collect()
}

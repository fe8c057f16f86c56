//! Spans of sampled requests, under llm-d's names, to an OpenTelemetry collector.
//!
//! Whether a request is traced is drawn once, when its headers come. A request that is not costs nothing further: no
//! clock is read and nothing is allocated for it. Of one that is, the spans are put together when it has ended.

pub mod context;
mod export;
pub mod options;
mod wire;

pub use context::Parent;
pub use export::CollectorError;
pub(crate) use export::run;
pub use options::{Exporter, Sampler, SpanOptions, VariableError};

use epp_core::{Lap, Work};
use prometheus_client::metrics::counter::Counter;
use runtime::Clock;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;

/// Draws which requests are traced, and takes their spans.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    /// Random per process.
    seed: u64,
    drawn: AtomicU64,
    /// Nanoseconds since the Unix epoch when the picker's clock read zero.
    epoch_ns: u64,
    sender: mpsc::UnboundedSender<Vec<wire::Span>>,
    /// Spans that wait to be sent, and how many may.
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    /// Spans that there was no room for.
    pub dropped: Counter,
}

impl Tracer {
    /// A tracer, and the receiver of its spans, which [`run`] sends on.
    pub(crate) fn new(options: &SpanOptions, clock: Clock) -> (Self, Spans) {
        // Traces differ in length: what waits is counted in spans.
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let tracer = Self {
            sampler: options.sampler,
            seed: RandomState::new().hash_one(()),
            drawn: AtomicU64::new(0),
            epoch_ns: (clock.unix_ms() * 1_000_000).saturating_sub(nanoseconds(clock.now())),
            sender,
            waiting: Arc::clone(&waiting),
            most_waiting: options.most_queued,
            dropped: Counter::default(),
        };
        (tracer, Spans { receiver, waiting })
    }

    /// The trace of a request with that `traceparent`; `None` = it is not traced.
    pub fn begin(&self, traceparent: Option<&[u8]>) -> Option<Trace> {
        let parent = traceparent.and_then(Parent::parse);
        let number = self.drawn.fetch_add(1, Relaxed);
        let drawn = |salt: u64| mix(self.seed ^ mix(number.wrapping_mul(4).wrapping_add(salt)));
        let id = match parent {
            Some(parent) => parent.trace,
            None => u128::from(drawn(0)) << 64 | u128::from(drawn(1).max(1)),
        };
        let sampled = match parent {
            Some(parent) if self.sampler.parent_based => parent.sampled,
            _ => {
                ((id as u64) >> 1) as f64 / (1_u64 << 63) as f64 <= self.sampler.ratio
                    && self.sampler.ratio > 0.0
            }
        };
        sampled.then(|| Trace {
            id,
            parent: parent.map(|parent| parent.span),
            root: drawn(2).max(1),
            next: drawn(3),
            spans: Vec::new(),
        })
    }

    /// Takes the spans of a request that has ended.
    pub fn take(&self, trace: Trace) {
        let spans: Vec<_> = trace
            .spans
            .iter()
            .map(|span| self.written(&trace, span))
            .collect();
        let count = spans.len();
        let room = |waiting: usize| Some(waiting + count).filter(|all| *all <= self.most_waiting);
        let taken = self.waiting.fetch_update(Relaxed, Relaxed, room);
        if taken.is_err() || self.sender.send(spans).is_err() {
            self.dropped.inc_by(count as u64);
        }
    }

    fn written(&self, trace: &Trace, span: &Span) -> wire::Span {
        let at = |at: Duration| self.epoch_ns.saturating_add(nanoseconds(at));
        let attribute = |(key, value): &(&str, Value)| wire::KeyValue {
            key: (*key).to_owned(),
            value: Some(wire::AnyValue {
                value: Some(match value {
                    Value::Text(text) => wire::Value::Text(text.clone()),
                    Value::Int(number) => wire::Value::Int(*number),
                    Value::Double(number) => wire::Value::Double(*number),
                    Value::Bool(truth) => wire::Value::Bool(*truth),
                }),
            }),
        };
        let parent = span.parent.or(trace.parent);
        wire::Span {
            trace_id: trace.id.to_be_bytes().to_vec(),
            span_id: span.id.to_be_bytes().to_vec(),
            trace_state: String::new(),
            parent_span_id: parent.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
            name: span.name.clone(),
            kind: if span.id == trace.root {
                wire::SERVER
            } else {
                wire::INTERNAL
            },
            start_time_unix_nano: at(span.began),
            end_time_unix_nano: at(span.ended),
            attributes: span.attributes.iter().map(attribute).collect(),
            status: span.error.then(|| wire::Status {
                message: String::new(),
                code: wire::ERROR,
            }),
        }
    }
}

/// Spans on their way out.
#[derive(Debug)]
pub(crate) struct Spans {
    receiver: mpsc::UnboundedReceiver<Vec<wire::Span>>,
    waiting: Arc<AtomicUsize>,
}

impl Spans {
    /// Those of the next request; `None` = none will come.
    async fn next(&mut self) -> Option<Vec<wire::Span>> {
        let spans = self.receiver.recv().await?;
        self.waiting.fetch_sub(spans.len(), Relaxed);
        Some(spans)
    }

    /// The same, if they have come already.
    fn at_hand(&mut self) -> Option<Vec<wire::Span>> {
        let spans = self.receiver.try_recv().ok()?;
        self.waiting.fetch_sub(spans.len(), Relaxed);
        Some(spans)
    }
}

/// One request's trace.
#[derive(Debug)]
pub struct Trace {
    id: u128,
    /// The span that the request came from.
    parent: Option<u64>,
    /// Its own span.
    root: u64,
    next: u64,
    spans: Vec<Span>,
}

/// What is told of a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// Yes or no.
    Bool(bool),
}

/// Something that took time.
#[derive(Clone, Debug)]
struct Span {
    id: u64,
    /// `None` = it is the request's own.
    parent: Option<u64>,
    name: String,
    began: Duration,
    ended: Duration,
    attributes: Vec<(&'static str, Value)>,
    error: bool,
}

impl Trace {
    /// What the request takes along, so that the server's spans hang below ours.
    pub fn traceparent(&self) -> String {
        let own = Parent {
            trace: self.id,
            span: self.root,
            sampled: true,
        };
        own.to_header()
    }

    /// The request's own span: everything from its arrival to its end.
    pub fn request(
        &mut self,
        began: Duration,
        ended: Duration,
        attributes: Vec<(&'static str, Value)>,
        error: bool,
    ) {
        self.spans.push(Span {
            id: self.root,
            parent: None,
            name: "gateway.request".to_owned(),
            began,
            ended,
            attributes,
            error,
        });
    }

    /// From the parsed request to the decision, queueing included, and the steps of the pick below it.
    pub fn decision(
        &mut self,
        began: Duration,
        ended: Duration,
        laps: &[Lap],
        kind: impl Fn(&str) -> String,
        attributes: Vec<(&'static str, Value)>,
    ) {
        let decided = self.below(self.root, "gateway.request_orchestration", began, ended);
        if let Some(last) = self.spans.last_mut() {
            last.attributes = attributes;
        }
        let (Some(first), Some(last)) = (laps.first(), laps.last()) else {
            return;
        };
        let profile = self.below(decided, "run_scheduler_profile", first.began, last.ended);
        let of = |work: Work| laps.iter().filter(move |lap| lap.work == work);
        let mut group = |work: Work, name: &str| {
            let (first, last) = (of(work).next()?, of(work).next_back()?);
            Some(self.below(profile, name, first.began, last.ended))
        };
        group(Work::Filter, "filter_endpoints");
        let scoring = group(Work::Score, "llm_d.epp.scoring");
        group(Work::Pick, "pick_endpoints");
        for lap in of(Work::Score) {
            let name = format!("llm_d.epp.scorer.{}", kind(&lap.plugin));
            self.below(scoring.unwrap_or(profile), &name, lap.began, lap.ended);
        }
    }

    fn below(&mut self, parent: u64, name: &str, began: Duration, ended: Duration) -> u64 {
        self.next = mix(self.next);
        let id = self.next.max(1);
        self.spans.push(Span {
            id,
            parent: Some(parent),
            name: name.to_owned(),
            began,
            ended,
            attributes: Vec::new(),
            error: false,
        });
        id
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Spreads numbers over the whole range (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;

//! What the picker tells about itself: metrics under llm-d's names, `headroom_*` beside them, and the
//! last decisions with their reasons.

pub mod collector;
pub mod decisions;
pub mod rewrites;
pub mod series;

use epp_core::Unlearned;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rewrites::RewriteDecisions;
use series::SeriesTable;
use std::time::Duration;

/// Label of the two queue metrics that count by outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `Dispatched`, or how the request left the queue.
    pub outcome: &'static str,
    /// Band.
    pub priority: i32,
    /// Pool.
    pub inference_pool: String,
}

/// Label of finished ext_proc streams.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CodeLabel {
    /// gRPC status by name.
    pub code: &'static str,
}

/// Label of errors by what failed.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabel {
    /// What failed.
    pub source_type: &'static str,
}

/// Label of streams that taught nothing.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Why.
    pub reason: &'static str,
}

/// All metrics that are moved as things happen; those that are read when scraped are in [`collector`].
#[derive(Debug)]
pub struct Telemetry {
    /// Metrics by model, flow and priority.
    pub requests: SeriesTable,
    /// Streams open.
    pub streams_inflight: Gauge,
    /// Streams finished, by gRPC code.
    streams_ok: Counter,
    streams_failed: Counter,
    streams_cancelled: Counter,
    streams_exhausted: Counter,
    /// Life of streams.
    pub stream_duration: Histogram,
    /// Time that one decision takes.
    pub scheduler_duration: Histogram,
    /// Reads of metrics or of the endpoints file that failed.
    pub poll_errors: Family<SourceLabel, Counter>,
    queue_duration: Family<OutcomeLabels, Histogram, fn() -> Histogram>,
    queue_outcomes: Family<OutcomeLabels, Counter>,
    unlearned: Family<ReasonLabel, Counter>,
    /// Models chosen by rules.
    pub rewrites: RewriteDecisions,
    pool: String,
}

/// How a stream ended, seen from gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCode {
    /// All was said.
    Ok,
    /// The proxy broke the protocol.
    FailedPrecondition,
    /// The proxy went away.
    Cancelled,
    /// The request was taken off its server in the middle of its answer.
    ResourceExhausted,
}

impl Telemetry {
    /// Metrics of the pool named `pool`, registered.
    pub fn new(registry: &mut Registry, pool: &str) -> Self {
        let epp = registry.sub_registry_with_prefix(names::metric::EPP_PREFIX);
        let streams: Family<CodeLabel, Counter> = Family::default();
        let code = |code| streams.get_or_create(&CodeLabel { code }).clone();
        let telemetry = Self {
            requests: SeriesTable::new(epp),
            streams_inflight: Gauge::default(),
            streams_ok: code("OK"),
            streams_failed: code("FailedPrecondition"),
            streams_cancelled: code("Canceled"),
            streams_exhausted: code("ResourceExhausted"),
            stream_duration: Histogram::new(seconds(&[
                0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0,
            ])),
            scheduler_duration: Histogram::new(seconds(&[
                0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
            ])),
            poll_errors: Family::default(),
            queue_duration: Family::new_with_constructor(queue_histogram),
            queue_outcomes: Family::default(),
            unlearned: Family::default(),
            rewrites: RewriteDecisions::new(epp),
            pool: pool.to_owned(),
        };
        telemetry.register(epp, streams);
        registry.register(
            format!("{}_predictor_unlearned", names::metric::HEADROOM_PREFIX),
            "Streams that gave no label for the time per output token (before their first token: none at all), by reason",
            telemetry.unlearned.clone(),
        );
        telemetry
    }

    fn register(&self, epp: &mut Registry, streams: Family<CodeLabel, Counter>) {
        epp.register(
            "extproc_streams_inflight",
            "ext_proc streams open",
            self.streams_inflight.clone(),
        );
        epp.register(
            "extproc_streams",
            "ext_proc streams finished, by gRPC code",
            streams,
        );
        epp.register(
            "extproc_stream_duration_seconds",
            "Life of ext_proc streams",
            self.stream_duration.clone(),
        );
        epp.register(
            "scheduler_e2e_duration_seconds",
            "Time that admitting and choosing an endpoint takes, queueing excluded",
            self.scheduler_duration.clone(),
        );
        epp.register(
            "datalayer_poll_errors",
            "Failed reads of engines' metrics and of the endpoints file",
            self.poll_errors.clone(),
        );
        epp.register(
            "flow_control_request_queue_duration_seconds",
            "Time from arrival to the decision, by outcome",
            self.queue_duration.clone(),
        );
        epp.register(
            "flow_control_requests",
            "Decisions by outcome",
            self.queue_outcomes.clone(),
        );
    }

    /// Handles for the decisions of one band with one outcome; kept by the caller, since finding them takes
    /// a look into a table.
    pub fn outcome(&self, outcome: &'static str, priority: i32) -> (Counter, Histogram) {
        let labels = OutcomeLabels {
            outcome,
            priority,
            inference_pool: self.pool.clone(),
        };
        (
            self.queue_outcomes.get_or_create(&labels).clone(),
            self.queue_duration.get_or_create(&labels).clone(),
        )
    }

    /// A stream opened `life` ago ended.
    pub fn stream_ended(&self, code: StreamCode, life: Duration) {
        self.streams_inflight.dec();
        self.stream_duration.observe(life.as_secs_f64());
        match code {
            StreamCode::Ok => self.streams_ok.inc(),
            StreamCode::FailedPrecondition => self.streams_failed.inc(),
            StreamCode::Cancelled => self.streams_cancelled.inc(),
            StreamCode::ResourceExhausted => self.streams_exhausted.inc(),
        };
    }

    /// A stream ended without teaching the predictor.
    pub fn unlearned(&self, reason: Unlearned) {
        self.unlearned
            .get_or_create(&ReasonLabel {
                reason: reason.name(),
            })
            .inc();
    }

    /// A read failed.
    pub fn poll_failed(&self, source_type: &'static str) {
        self.poll_errors
            .get_or_create(&SourceLabel { source_type })
            .inc();
    }
}

fn seconds(buckets: &[f64]) -> impl Iterator<Item = f64> {
    buckets.iter().copied()
}

fn queue_histogram() -> Histogram {
    Histogram::new(seconds(&[
        0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0,
        60.0,
    ]))
}

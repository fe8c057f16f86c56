//! The request metrics and their labels.

use crate::telemetry::buckets;
use crate::telemetry::registrar::Registrar;
use names::Name;
use names::metric::picker;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::Arc;

/// Labels of every request metric.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// Model the client named.
    pub model_name: Arc<str>,
    /// Model the request was sent on under.
    pub target_model_name: Arc<str>,
    /// Flow.
    pub fairness_id: Arc<str>,
    /// Band.
    pub priority: i32,
}

/// [`RequestLabels`] and what went wrong.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ErrorLabels {
    #[prometheus(flatten)]
    pub(super) request: RequestLabels,
    pub(super) error_code: &'static str,
}

/// [`RequestLabels`] and which target was missed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ViolationLabels {
    #[prometheus(flatten)]
    pub(super) request: RequestLabels,
    pub(super) r#type: &'static str,
}

/// [`RequestLabels`] and whether the answer was streamed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct StreamingLabels {
    #[prometheus(flatten)]
    pub(super) request: RequestLabels,
    pub(super) streaming: &'static str,
}

/// [`RequestLabels`] in one pool.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct QueueLabels {
    #[prometheus(flatten)]
    pub(super) request: RequestLabels,
    pub(super) inference_pool: Arc<str>,
}

/// [`QueueLabels`] and how the wait ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct WaitLabels {
    #[prometheus(flatten)]
    pub(super) queue: QueueLabels,
    pub(super) outcome: &'static str,
}

/// Labels of the time that taking a request in takes.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct EnqueueLabels {
    pub(super) fairness_id: Arc<str>,
    pub(super) priority: i32,
    pub(super) outcome: &'static str,
}

/// Labels of predictions.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PredictionLabels {
    pub(super) plugin: Arc<str>,
    pub(super) model: Arc<str>,
}

/// Labels of the last latency seen.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct LastLabels {
    #[prometheus(flatten)]
    pub(super) prediction: PredictionLabels,
    pub(super) r#type: &'static str,
}

/// A histogram with [`RequestLabels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Arrival to the end of the answer, seconds.
    Duration,
    /// Bytes of the request's body.
    RequestSize,
    /// Bytes of the answer.
    ResponseSize,
    /// Prompt tokens.
    InputTokens,
    /// Of those, found in a prefix cache.
    CachedTokens,
    /// Output tokens.
    OutputTokens,
    /// Duration over output tokens, seconds.
    Ntpot,
    /// Time per output token after the first, seconds.
    Tpot,
    /// Time between two pieces of a streamed answer, seconds.
    Itl,
}

type Described = (Name, &'static str, fn() -> Histogram);

/// In the order of [`Of`].
pub(super) const HISTOGRAMS: [Described; 9] = [
    (
        picker::DURATION,
        "Arrival to the end of the answer",
        buckets::duration,
    ),
    (
        picker::REQUEST_SIZE,
        "Bytes of request bodies",
        buckets::request_size,
    ),
    (
        picker::RESPONSE_SIZE,
        "Bytes of answers",
        buckets::response_size,
    ),
    (picker::INPUT_TOKENS, "Prompt tokens", buckets::input_tokens),
    (
        picker::CACHED_TOKENS,
        "Prompt tokens found in a prefix cache",
        buckets::input_tokens,
    ),
    (
        picker::OUTPUT_TOKENS,
        "Output tokens",
        buckets::output_tokens,
    ),
    (
        picker::NTPOT,
        "Arrival to the end of the answer, over its tokens",
        buckets::ntpot,
    ),
    (
        picker::TPOT,
        "Time per output token after the first",
        buckets::tpot,
    ),
    (
        picker::ITL,
        "Time between two pieces of a streamed answer",
        buckets::itl,
    ),
];

/// A latency that was predicted and then seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// Time to first token.
    Ttft,
    /// Time per output token.
    Tpot,
}

pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct Families {
    pub(super) histograms: [Histograms<RequestLabels>; HISTOGRAMS.len()],
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) errors: Family<ErrorLabels, Counter>,
    pub(super) violations: Family<ViolationLabels, Counter>,
    pub(super) running: Family<RequestLabels, Gauge>,
    pub(super) ttft: Histograms<StreamingLabels>,
    pub(super) predicted: [Histograms<PredictionLabels>; 2],
    pub(super) prediction_durations: [Histograms<PredictionLabels>; 2],
    pub(super) last: Family<LastLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub(super) queue_size: Family<QueueLabels, Gauge>,
    pub(super) queue_bytes: Family<QueueLabels, Gauge>,
    pub(super) waits: Histograms<WaitLabels>,
    pub(super) enqueues: Histograms<EnqueueLabels>,
}

impl Families {
    pub(super) fn new() -> Self {
        let predictions = || {
            [buckets::ttft as fn() -> Histogram, buckets::tpot].map(Family::new_with_constructor)
        };
        Self {
            histograms: HISTOGRAMS.map(|(_, _, of)| Family::new_with_constructor(of)),
            requests: Family::default(),
            errors: Family::default(),
            violations: Family::default(),
            running: Family::default(),
            ttft: Family::new_with_constructor(buckets::ttft),
            predicted: predictions(),
            prediction_durations: [buckets::step as fn() -> Histogram; 2]
                .map(Family::new_with_constructor),
            last: Family::default(),
            queue_size: Family::default(),
            queue_bytes: Family::default(),
            waits: Family::new_with_constructor(buckets::queue),
            enqueues: Family::new_with_constructor(buckets::step),
        }
    }

    pub(super) fn register(&self, to: &mut Registrar<'_>) {
        to.add(picker::REQUESTS, "Requests", &self.requests);
        to.add(
            picker::ERRORS,
            "Requests that ended in an error",
            &self.errors,
        );
        let help = "Requests whose latency missed its target";
        to.add(picker::SLO_VIOLATIONS, help, &self.violations);
        to.add(picker::RUNNING, "Requests on the endpoints", &self.running);
        for ((name, help, _), family) in HISTOGRAMS.into_iter().zip(&self.histograms) {
            to.add(name, help, family);
        }
        let help = "Arrival to the first token, queueing included";
        to.add(picker::TTFT, help, &self.ttft);
        let [ttft, tpot] = &self.predicted;
        to.add(
            picker::PREDICTED_TTFT,
            "Predicted service time to first token",
            ttft,
        );
        to.add(
            picker::PREDICTED_TPOT,
            "Predicted time per output token",
            tpot,
        );
        let [ttft, tpot] = &self.prediction_durations;
        let help = "Time that predicting for all candidates takes, of sampled requests";
        to.add(picker::TTFT_PREDICTION_DURATION, help, ttft);
        to.add(picker::TPOT_PREDICTION_DURATION, help, tpot);
        let help = "The last latency seen (ttft, tpot) and predicted (predicted_ttft, predicted_tpot), seconds";
        to.add(picker::LAST_LATENCY, help, &self.last);
        to.add(picker::QUEUE_SIZE, "Requests queued", &self.queue_size);
        to.add(
            picker::QUEUE_BYTES,
            "Bytes of request bodies queued",
            &self.queue_bytes,
        );
        let help = "Time from arrival to the decision, by outcome";
        to.add(picker::QUEUE_DURATION, help, &self.waits);
        let help = "Time that taking a request in takes, by what came of it at once";
        to.add(picker::ENQUEUE_DURATION, help, &self.enqueues);
    }
}

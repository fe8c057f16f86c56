//! What the picker tells about itself: metrics under llm-d's names, `headroom_*` beside them, the last decisions with
//! their reasons, records of sampled ones, and spans.

pub(crate) mod account;
mod buckets;
pub mod capped;
pub mod collector;
pub mod decisions;
pub mod options;
pub mod per_endpoint;
pub(crate) mod recorder;
mod registrar;
pub(crate) mod reloads;
pub mod rewrites;
pub mod series;
pub(crate) mod setup;

pub use options::{RecordOptions, Telling};

use crate::spans::Tracer;
use arc_swap::{ArcSwap, Guard};
use capped::Capped;
use epp_core::{Lap, Unlearned};
use names::metric::picker;
use parking_lot::Mutex;
use per_endpoint::{Attempts, OnEndpoint, PerEndpoint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use registrar::Registrar;
use reloads::Reloads;
use rewrites::RewriteDecisions;
use series::SeriesTable;
use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

/// One stream in so many is looked at closely: how long each plugin takes, and the relaying of its answer.
const PROFILED: u64 = 64;
/// Type of the index that prompts are looked up in.
pub(crate) const PREFIX_INDEX: &str = "approx-prefix-cache-producer";

/// Labels of decisions by outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `Dispatched`, or how the request left the queue.
    pub outcome: &'static str,
    /// Band.
    pub priority: i32,
    /// Pool.
    pub inference_pool: Arc<str>,
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

/// Labels of pages without what is read in them.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ExtractorLabels {
    /// What was read.
    pub source_type: &'static str,
    /// What was looked for.
    pub extractor_type: &'static str,
}

/// Labels of a plugin.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PluginLabels {
    /// What it was asked for.
    pub extension_point: &'static str,
    /// Its type.
    pub plugin_type: Arc<str>,
    /// Its name in the configuration.
    pub plugin_name: Arc<str>,
}

/// Labels of the prefix index.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct IndexLabels {
    /// Its name.
    pub plugin_name: Arc<str>,
    /// Its type.
    pub plugin_type: &'static str,
}

/// Label of streams that taught nothing.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Why.
    pub reason: &'static str,
}

/// Labels of requests that were answered before they were read.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusedLabels {
    /// HTTP status.
    pub status: u16,
    /// As clients are told it.
    pub reason: &'static str,
}

/// All metrics that are moved as things happen; those that are read when scraped are in [`collector`].
#[derive(Debug)]
pub struct Telemetry {
    /// Metrics by model, flow and priority.
    pub requests: SeriesTable,
    /// Further names that clients choose for flows, such as programs.
    pub flows: Capped,
    /// What is on the endpoints, by flow and priority.
    pub on_endpoint: PerEndpoint<OnEndpoint>,
    /// Decisions by endpoint and target model.
    pub attempts: PerEndpoint<Attempts>,
    /// Decisions that led nowhere, by target model.
    pub(crate) failures: Mutex<BTreeMap<Arc<str>, u64>>,
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
    /// Arrival to the decision's way out, queueing included.
    pub request_processing: Histogram,
    /// Work on one answer, of streams that are looked at closely.
    pub response_processing: Histogram,
    /// Time that a pass over the queue takes.
    pub dispatch_cycle: Histogram,
    plugin_duration: Family<PluginLabels, Histogram, fn() -> Histogram>,
    prefix_hit_ratio: Family<IndexLabels, Histogram, fn() -> Histogram>,
    prefix_hit_bytes: Family<IndexLabels, Histogram, fn() -> Histogram>,
    /// Models chosen by rules.
    pub rewrites: RewriteDecisions,
    /// Reads of metrics or of the endpoints file that failed.
    pub poll_errors: Family<SourceLabel, Counter>,
    extract_errors: Family<ExtractorLabels, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
    unlearned: Family<ReasonLabel, Counter>,
    refused_unread: Family<RefusedLabels, Counter>,
    /// How long requests waited, by program; only where fairness looks at programs.
    pub(crate) waits: Mutex<BTreeMap<Arc<str>, collector::Wait>>,
    /// Draws which requests are traced; `None` = none is.
    pub tracer: Option<Tracer>,
    configured: ArcSwap<Configured>,
    /// What became of changes of the configuration.
    pub(crate) reloads: Reloads,
    /// Keyed per process, so that what is disguised cannot be guessed back.
    disguises: RandomState,
    pool: Arc<str>,
    /// Families are written under their older names too.
    pub(crate) twins: bool,
}

/// What telemetry says of the configuration in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configured {
    /// Its version: a hash of what it says.
    pub(crate) version: Arc<str>,
    /// A hash of its text; empty = it has none.
    pub(crate) hash: Arc<str>,
    /// Plugins and parameters that something simpler stands in for.
    pub(crate) stand_ins: usize,
    /// Plugins' types by their names, where they differ.
    pub(crate) types: BTreeMap<Arc<str>, Arc<str>>,
    /// The proxy is told every candidate's score.
    pub(crate) scores: bool,
    /// Fairness looks at programs.
    pub(crate) programs: bool,
    /// Type of the saturation detector.
    pub(crate) detector: &'static str,
    /// Running requests may be taken off their endpoints.
    pub(crate) evicts: bool,
    /// Names of the plugins that requests are counted and predicted by.
    pub(crate) producers: Producers,
}

/// Names of the plugins behind metrics: as configured, else their types.
#[derive(Clone, Debug)]
pub(crate) struct Producers {
    /// Prefixes; `None` = nothing remembers any.
    pub(crate) prefix: Option<Arc<str>>,
    /// What is on endpoints.
    pub(crate) load: Arc<str>,
    /// Latencies.
    pub(crate) predictor: Arc<str>,
}

impl Default for Producers {
    fn default() -> Self {
        Self {
            prefix: Some(PREFIX_INDEX.into()),
            load: "inflight-load-producer".into(),
            predictor: "predicted-latency-producer".into(),
        }
    }
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
    /// Metrics of the pool named `pool`, registered, under today's names; nothing is recorded or traced.
    pub fn new(registry: &mut Registry, pool: &str) -> Self {
        Self::with(
            registry,
            pool,
            &Telling::default(),
            Configured::default(),
            None,
        )
    }

    /// Metrics of the pool named `pool`, registered.
    pub(crate) fn with(
        registry: &mut Registry,
        pool: &str,
        telling: &Telling,
        configured: Configured,
        tracer: Option<Tracer>,
    ) -> Self {
        let mut to = Registrar::new(registry, telling.deprecated_names);
        let streams: Family<CodeLabel, Counter> = Family::default();
        let code = |code| streams.get_or_create_owned(&CodeLabel { code });
        let telemetry = Self {
            requests: SeriesTable::new(
                &mut to,
                pool,
                telling.label_limit,
                &configured.producers.predictor,
            ),
            flows: Capped::new(telling.label_limit),
            on_endpoint: PerEndpoint::default(),
            attempts: PerEndpoint::default(),
            failures: Mutex::default(),
            streams_inflight: Gauge::default(),
            streams_ok: code("OK"),
            streams_failed: code("FailedPrecondition"),
            streams_cancelled: code("Canceled"),
            streams_exhausted: code("ResourceExhausted"),
            stream_duration: buckets::stream(),
            scheduler_duration: buckets::step(),
            request_processing: buckets::request_processing(),
            response_processing: buckets::response_processing(),
            dispatch_cycle: buckets::step(),
            plugin_duration: Family::new_with_constructor(buckets::step),
            prefix_hit_ratio: Family::new_with_constructor(buckets::share),
            prefix_hit_bytes: Family::new_with_constructor(buckets::hit_bytes),
            rewrites: RewriteDecisions::new(&mut to),
            poll_errors: Family::default(),
            extract_errors: Family::default(),
            outcomes: Family::default(),
            unlearned: Family::default(),
            refused_unread: Family::default(),
            waits: Mutex::default(),
            tracer,
            configured: ArcSwap::from_pointee(configured),
            reloads: Reloads::new(&mut to),
            disguises: RandomState::new(),
            pool: pool.into(),
            twins: telling.deprecated_names,
        };
        telemetry.register(&mut to, &streams);
        telemetry
    }

    fn register(&self, to: &mut Registrar<'_>, streams: &Family<CodeLabel, Counter>) {
        let help = "ext_proc streams open";
        to.add(picker::STREAMS_INFLIGHT, help, &self.streams_inflight);
        let help = "ext_proc streams finished, by gRPC code";
        to.add(picker::STREAMS, help, streams);
        let help = "Life of ext_proc streams";
        to.add(picker::STREAM_DURATION, help, &self.stream_duration);
        let help = "Time that admitting and choosing an endpoint takes, queueing excluded";
        to.add(picker::SCHEDULER_DURATION, help, &self.scheduler_duration);
        let help = "Arrival of a request to its way on to the endpoint, queueing included";
        to.add(picker::REQUEST_PROCESSING, help, &self.request_processing);
        let help = "Work on one answer, one stream in 64";
        to.add(picker::RESPONSE_PROCESSING, help, &self.response_processing);
        let help = "Time that one pass over the queue takes";
        to.add(picker::DISPATCH_CYCLE, help, &self.dispatch_cycle);
        let help = "Time that one plugin takes for all candidates, one request in 64";
        to.add(picker::PLUGIN_DURATION, help, &self.plugin_duration);
        let help = "Share of the prompt's tokens that the endpoint picked is expected to have";
        to.add(picker::PREFIX_HIT_RATIO, help, &self.prefix_hit_ratio);
        let help = "Bytes of the prompt that the endpoint picked is expected to have, four a token";
        to.add(picker::PREFIX_HIT_BYTES, help, &self.prefix_hit_bytes);
        let help = "Failed reads of endpoints' pages and of the endpoints file";
        to.add(picker::POLL_ERRORS, help, &self.poll_errors);
        let help = "Pages without what is read in them";
        to.add(picker::EXTRACT_ERRORS, help, &self.extract_errors);
        to.add(
            picker::FLOW_REQUESTS,
            "Decisions by outcome",
            &self.outcomes,
        );
        let help = "Streams that gave no label for the time per output token (before their first token: none at all), by reason";
        to.own("predictor_unlearned", help, &self.unlearned);
        let help = "Requests answered by the picker before it could tell what they ask for";
        to.own("refused_before_queue", help, &self.refused_unread);
        if let Some(tracer) = &self.tracer {
            to.own("spans_dropped", "Spans that were not sent", &tracer.dropped);
        }
    }

    /// What became of decisions for the file of records.
    pub(crate) fn count_records(registry: &mut Registry, counters: &recorder::Counters) {
        let mut to = Registrar::new(registry, false);
        to.own(
            "decision_records_written",
            "Decisions recorded in the file",
            &counters.written,
        );
        to.own(
            "decision_records_dropped",
            "Sampled decisions that are not in the file",
            &counters.dropped,
        );
    }

    /// Counts a decision with that outcome.
    pub fn outcome(&self, outcome: &'static str, priority: i32) {
        let labels = OutcomeLabels {
            outcome,
            priority,
            inference_pool: Arc::clone(&self.pool),
        };
        self.outcomes.get_or_create(&labels).inc();
    }

    /// A request of `program` waited so long for its decision.
    pub fn program_waited(&self, program: &Arc<str>, seconds: f64) {
        if self.configured.load().programs {
            self.waits
                .lock()
                .entry(Arc::clone(program))
                .or_default()
                .add(seconds);
        }
    }

    /// Counts a decision that led nowhere; the model's name is capped already.
    pub fn failed(&self, target_model: &Arc<str>) {
        let mut failures = self.failures.lock();
        match failures.get_mut(target_model) {
            Some(count) => *count += 1,
            None => drop(failures.insert(Arc::clone(target_model), 1)),
        }
    }

    /// Whether the stream with that number is looked at closely.
    pub fn profiles(&self, serial: u64) -> bool {
        serial.is_multiple_of(PROFILED)
    }

    /// The type of the plugin called `name`.
    pub fn plugin_type(&self, name: &Arc<str>) -> Arc<str> {
        Arc::clone(self.configured.load().types.get(name).unwrap_or(name))
    }

    /// What is to be said of the configuration in force.
    pub(crate) fn configured(&self) -> Guard<Arc<Configured>> {
        self.configured.load()
    }

    /// Another configuration is in force.
    pub(crate) fn set_configured(&self, configured: Configured) {
        self.configured.store(Arc::new(configured));
    }

    /// How long a plugin took.
    pub fn plugin(&self, lap: &Lap) {
        let labels = PluginLabels {
            extension_point: lap.work.extension_point(),
            plugin_type: self.plugin_type(&lap.plugin),
            plugin_name: Arc::clone(&lap.plugin),
        };
        let took = lap.ended.saturating_sub(lap.began).as_secs_f64();
        self.plugin_duration.get_or_create(&labels).observe(took);
    }

    /// A request with so many prompt tokens went where so many of them are expected to be cached.
    pub fn prefix(&self, prompt_tokens: u32, cached_tokens: u32) {
        /// Bytes of a token, as prompts are estimated.
        const TOKEN_BYTES: f64 = 4.0;
        if prompt_tokens > 0
            && let Some(name) = &self.configured.load().producers.prefix
        {
            let index = IndexLabels {
                plugin_name: Arc::clone(name),
                plugin_type: PREFIX_INDEX,
            };
            let ratio = f64::from(cached_tokens) / f64::from(prompt_tokens);
            let bytes = f64::from(cached_tokens) * TOKEN_BYTES;
            self.prefix_hit_ratio.get_or_create(&index).observe(ratio);
            self.prefix_hit_bytes.get_or_create(&index).observe(bytes);
        }
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

    /// A request was answered with `status` before it was read, which llm-d calls `error_code`.
    pub fn refused_unread(&self, status: u16, reason: &'static str, error_code: &'static str) {
        let labels = RefusedLabels { status, reason };
        self.refused_unread.get_or_create(&labels).inc();
        self.requests.error_unread(error_code);
    }

    /// A stream ended without teaching the predictor.
    pub fn unlearned(&self, reason: Unlearned) {
        let reason = reason.name();
        self.unlearned.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A page was read that has nothing of what is wanted of it.
    pub fn extract_failed(&self, source_type: &'static str, extractor_type: &'static str) {
        let labels = ExtractorLabels {
            source_type,
            extractor_type,
        };
        self.extract_errors.get_or_create(&labels).inc();
    }

    /// A read failed.
    pub fn poll_failed(&self, source_type: &'static str) {
        self.poll_errors
            .get_or_create(&SourceLabel { source_type })
            .inc();
    }
}

//! The picker's configuration: llm-d's `EndpointPickerConfig` YAML, validated, with defaults filled in.

mod alias;
mod build;
mod catalogue;
mod data_layer;
mod detector;
mod engine;
mod error;
mod finding;
mod flow;
mod handler;
mod lint;
mod page_source;
mod parsers;
mod plugin;
mod policy;
mod position;
mod preset;
mod profile;
mod raw;
mod registry;
mod reload;
mod schedule;
mod schema;
mod stand_in;
mod units;
mod validate;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use catalogue::{Stage, Status, TypeEntry, catalogue, plugin_type};
pub use engine::{CacheInfo, Engine, Engines, MetricSpec, gpu_utilization};
pub use error::{ConfigError, Problem};
pub use finding::{Finding, Level};
pub use lint::lint;
pub use page_source::{PageSource, PageTls};
pub use plugin::{
    ActiveRequestScorer, AgentIdentity, AppProtocol, AttributeGate, AttributeKey, AttributeScale,
    Comparison, ConcurrencyDetector, ConcurrencyMode, ContextLengthAware, CoreMetricsExtractor,
    CustomMetric, DcgmDataSource, Direction, EncodedEndpointHeader, EndpointAttributeFilter,
    EndpointAttributeScorer, EngineConfig, FileDiscovery, FixedRange, HeaderLabelAffinityScorer,
    InflightLoadProducer, LabelOperator, LabelRequirement, LabelSelectorFilter, LatencyScorer,
    LoadAwareScorer, MetricsDataSource, ModelsDataSource, NoHitLruScorer, NoParameters,
    Normalization, OnMissing, PLUGIN_TYPES, Parser, PassiveHealth, PickerParameters,
    PredictedLatencyProducer, PredictedTtftScorer, PrefixCacheAffinityFilter, PrefixCacheScorer,
    PrefixProducer, ProbabilisticAdmitter, Quantile, ReportedAttribute, RequestAttributeReporter,
    Role, SessionAffinity, SessionIdConfig, SessionIdPlace, SessionIdSource, SessionSource,
    SessionStrategy, SloAdmitter, SloHeadroomTierFilter, StaticUsageLimit, Strategy, Threshold,
    TokenLoadScorer, TokenProducer, TopologyAffinityFilter, TopologyAffinityScorer,
    TopologyExtractor, TopologyLevel, TtftSource, UtilizationCap, UtilizationDetector,
    UtilizationFilter, UtilizationMetric, default_parameters,
};
pub use plugin::{
    AdaptiveConcurrency, HoldbackDomain, HoldbackShape, LimitAlgorithm, PriorityHoldback,
    ProgramAwareFairness, ProgramStrategy, VirtualTokenCounter,
};
pub use policy::{Fairness, Ordering, UsageLimit};
pub use position::Position;
pub use reload::NeedsRestart;
pub use schedule::{
    Filter, HealthRules, NamedFilter, Picker, Profile, Scorer, ServingStage, WeightedScorer,
};
pub use schema::schema;
pub use stand_in::StandIn;
pub(crate) use yaml::from_yaml;

/// A validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The queue; `None` = feature gate `flowControl` off: dispatch at once or refuse.
    pub flow: Option<FlowConfig>,
    /// Time that a request waits for a first endpoint, as somebody said it; `None` = nobody did: as long as in the
    /// queue, and without a queue not at all. Set it with [`Config::hold_while_empty`].
    pub empty_pool_ttl: Option<Duration>,
    /// What tells that the pool is full.
    pub detector: Detector,
    /// Saturation at which dispatch stops, band by band.
    pub usage_limit: UsageLimit,
    /// How an endpoint is chosen.
    pub profile: Profile,
    /// The approximate prefix index; `None` = nothing reads it.
    pub prefix: Option<PrefixProducer>,
    /// Predictions for every candidate; `None` = nothing reads them and nothing is learned.
    pub predicted_latency: Option<PredictedLatencyProducer>,
    /// Refusal of sheddable requests that cannot be served in time.
    pub slo_admitter: Option<SloAdmitter>,
    /// Where endpoints come from; `None` = the shell's own source.
    pub discovery: Option<FileDiscovery>,
    /// How engines' metrics are read; `None` = not at all.
    pub metrics: Option<Scrape>,
    /// Age from which a scrape no longer counts for scoring (flag `--metrics-staleness-threshold`).
    pub metrics_staleness: Duration,
    /// What was accepted and deserves a word at the start: stand-ins, deprecated names, what can never happen, plugins
    /// that nothing uses. [`lint`] says more.
    pub warnings: Vec<String>,
    /// What something simpler is done instead of, because it is not built.
    pub stand_ins: Vec<StandIn>,
    /// Which request APIs are read, in the order written.
    pub parsers: Vec<Parser>,
    /// Share of the answers that are read for their first token and usage, 0 to 1.
    pub read_answers: f64,
    /// Refusal of sheddable requests at random, the fuller the pool the more.
    pub probabilistic_admitter: Option<ProbabilisticAdmitter>,
    /// What counts as a request's tokens in flight.
    pub inflight_load: InflightLoadProducer,
    /// Where a request tells its session; `None` = nothing reads it.
    pub session: Option<SessionSource>,
    /// A fairness id from agents' session headers; `None` = only from the header made for it.
    pub agent_identity: Option<AgentIdentity>,
    /// Numbers told to the proxy with each answer.
    pub reported: Vec<ReportedAttribute>,
    /// Echo the endpoint that served to the client (`destination-endpoint-served-verifier`, conformance tests).
    pub verify_served: bool,
    /// The labels that say where an endpoint is.
    pub topology: TopologyExtractor,
    /// Types of the plugins listed, by their names.
    pub types: BTreeMap<Arc<str>, &'static str>,
    /// Where engines list their models; `None` = nobody asks them.
    pub models: Option<PageSource>,
    /// Where the GPUs' metrics are; `None` = nobody asks for them.
    pub gpu: Option<PageSource>,
}

/// A metrics source and what is taken from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    /// Where.
    pub source: PageSource,
    /// What.
    pub engines: Engines,
    /// Time for which requests wait for fresh readings at most, after a time without any; zero = they do not.
    pub hold: Duration,
}

impl Default for Scrape {
    /// The default source and engines; 100 ms.
    fn default() -> Self {
        Self {
            source: PageSource::default(),
            engines: Engines::default(),
            hold: Duration::from_millis(100),
        }
    }
}

/// A saturation detector.
#[derive(Clone, Debug, PartialEq)]
pub enum Detector {
    /// `concurrency-detector`
    Concurrency(ConcurrencyDetector),
    /// `utilization-detector`
    Utilization {
        /// Its parameters.
        parameters: UtilizationDetector,
        /// `metricsStalenessThreshold`, read.
        staleness: Duration,
    },
    /// `adaptive-concurrency-detector`
    Adaptive {
        /// Its parameters.
        parameters: AdaptiveConcurrency,
        /// `window`, read.
        window: Duration,
    },
}

/// The queue's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowConfig {
    /// Requests queued at most, over all bands; `None` = unlimited.
    pub max_requests: Option<u64>,
    /// Body bytes queued at most, over all bands; `None` = unlimited.
    pub max_bytes: Option<u64>,
    /// Time in the queue while there are endpoints; `None` = unlimited.
    pub request_ttl: Option<Duration>,
    /// Time in the queue while there is none; `None` = unlimited.
    pub no_endpoint_ttl: Option<Duration>,
    /// Limits of bands of priority 0 and above without an entry of their own.
    pub default_band: BandConfig,
    /// Limits of negative bands without an entry of their own.
    pub negative_band: BandConfig,
    /// Limits by priority.
    pub bands: BTreeMap<i32, BandConfig>,
    /// All bands made from `negative_band` share its limits: it is the one budget of sheddable traffic. Without it
    /// each of them has as much.
    pub negative_shares: bool,
    /// Take running requests of negative priority off their servers where a higher band finds no room.
    pub eviction: bool,
    /// Tell clients how long their request was queued and how much room its band has left.
    pub advisory_headers: bool,
}

/// One band's limits. A limit of zero, which only `defaultNegativePriorityBand` can have: nothing waits.
#[derive(Clone, Debug, PartialEq)]
pub struct BandConfig {
    /// Requests queued at most.
    pub max_requests: u64,
    /// Body bytes queued at most.
    pub max_bytes: u64,
    /// A shorter time in the queue than the general one.
    pub request_ttl: Option<Duration>,
    /// Which of its flows is next.
    pub fairness: Fairness,
    /// Which request of a flow is next.
    pub ordering: Ordering,
}

impl Default for BandConfig {
    /// 5,000 requests, 1 GB.
    fn default() -> Self {
        Self {
            max_requests: 5_000,
            max_bytes: 1_000_000_000,
            request_ttl: None,
            fairness: Fairness::default(),
            ordering: Ordering::default(),
        }
    }
}

impl Default for FlowConfig {
    /// No global limit, 60 s to live, default bands.
    fn default() -> Self {
        let minute = Some(Duration::from_secs(60));
        Self {
            max_requests: None,
            max_bytes: None,
            request_ttl: minute,
            no_endpoint_ttl: minute,
            default_band: BandConfig::default(),
            negative_band: BandConfig::default(),
            bands: BTreeMap::new(),
            negative_shares: false,
            eviction: false,
            advisory_headers: false,
        }
    }
}

impl FlowConfig {
    /// The limits of the band of that priority.
    pub fn band(&self, priority: i32) -> &BandConfig {
        let default = if priority < 0 {
            &self.negative_band
        } else {
            &self.default_band
        };
        self.bands.get(&priority).unwrap_or(default)
    }

    /// Whether the band of that priority lives off the common budget of sheddable traffic.
    pub fn shares(&self, priority: i32) -> bool {
        self.negative_shares && priority < 0 && !self.bands.contains_key(&priority)
    }

    /// The flows that have a weight of their own in some band.
    pub fn weighted_flows(&self) -> impl Iterator<Item = Arc<str>> {
        let templates = [&self.default_band, &self.negative_band];
        let bands = templates.into_iter().chain(self.bands.values());
        let weights = bands.filter_map(|band| match &band.fairness {
            Fairness::VirtualTokens(counter) => Some(&counter.weights),
            _ => None,
        });
        weights.flat_map(|weights| weights.keys().map(|flow| flow.as_str().into()))
    }
}

impl BandConfig {
    /// Whether a request may wait in this band at all.
    pub fn waits(&self) -> bool {
        self.max_requests > 0 && self.max_bytes > 0
    }
}

impl Config {
    /// Reads an `EndpointPickerConfig` document.
    ///
    /// # Errors
    /// Anything unknown, misspelt or out of range, with its line and the nearest known names. With several mistakes,
    /// the first.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let (config, findings) = build::read(text);
        let mut config = config.map_err(|errors| *errors.first)?;
        let warnings = findings.iter().filter(|finding| finding.level.is_warning());
        config.warnings = warnings.map(Finding::to_string).collect();
        Ok(config)
    }

    /// Holds requests for at most `ttl` while there is no endpoint; zero = refuses them at once. Without flow
    /// control such a request is dispatched, in order, as soon as there is an endpoint, and the default limits of
    /// a band hold for all of them together.
    pub fn hold_while_empty(&mut self, ttl: Duration) {
        self.empty_pool_ttl = Some(ttl);
        if let Some(flow) = &mut self.flow {
            flow.no_endpoint_ttl = Some(ttl);
        }
    }

    /// Whether requests queue while the pool is full.
    pub fn flow_control(&self) -> bool {
        self.flow.is_some()
    }

    /// The limits of the queue, or of what is held without one; `None` = nothing ever waits.
    pub(crate) fn queue(&self) -> Option<FlowConfig> {
        let held = || {
            let ttl = self.empty_pool_ttl.filter(|ttl| !ttl.is_zero())?;
            let limits = BandConfig::default();
            Some(FlowConfig {
                max_requests: Some(limits.max_requests),
                max_bytes: Some(limits.max_bytes),
                no_endpoint_ttl: Some(ttl),
                ..FlowConfig::default()
            })
        };
        self.flow.clone().or_else(held)
    }

    /// How long a request may be queued: once while there is no endpoint, and again from when there is one. `None` =
    /// for ever.
    pub fn longest_queueing(&self) -> Option<Duration> {
        let Some(flow) = self.queue() else {
            return Some(Duration::ZERO);
        };
        let bands = flow.bands.values();
        let mut bands = bands.chain([&flow.default_band, &flow.negative_band]);
        let within = |band: &BandConfig| {
            let limits = [flow.request_ttl, band.request_ttl];
            limits.into_iter().flatten().min()
        };
        let longest = bands.try_fold(Duration::ZERO, |most, band| Some(most.max(within(band)?)));
        Some(longest?.saturating_add(flow.no_endpoint_ttl?))
    }

    /// Headers of requests that a part of this configuration reads, in lower case, each once.
    pub fn headers_in_use(&self) -> Vec<Arc<str>> {
        let filters = self.profile.filters.iter();
        let scorers = self.profile.scorers.iter();
        let mut headers: Vec<Arc<str>> = filters
            .flat_map(|named| named.filter.headers())
            .chain(scorers.flat_map(|weighted| weighted.scorer.headers()))
            .map(|header| header.to_ascii_lowercase().into())
            .collect();
        headers.sort();
        headers.dedup();
        headers
    }

    /// Whether any part of this configuration reads engines' metrics.
    pub fn reads_metrics(&self) -> bool {
        let profile = &self.profile;
        self.predicted_latency.is_some()
            || self.probabilistic_admitter.is_some()
            || self.prefix.as_ref().is_some_and(|prefix| prefix.auto_tune)
            || matches!(self.detector, Detector::Utilization { .. })
            || profile
                .filters
                .iter()
                .any(|named| named.filter.reads_metrics())
            || profile
                .scorers
                .iter()
                .any(|weighted| weighted.scorer.reads_metrics())
    }
}

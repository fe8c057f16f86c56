//! Plugin types under llm-d's names, with typed parameters and llm-d's defaults.

use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalogue::{self, Stage, Status, TypeEntry};
use super::error::ConfigError;
use super::yaml::from_parameters;

mod admit;
mod data;
mod filter;
mod flow;
mod parser;
mod producer;
mod schedule;

pub use admit::{ProbabilisticAdmitter, SloAdmitter};
pub use data::{
    CoreMetricsExtractor, CustomMetric, DcgmDataSource, EngineConfig, FileDiscovery,
    MetricsDataSource, ModelsDataSource,
};
pub use filter::{
    AttributeGate, Comparison, EndpointAttributeFilter, LabelOperator, LabelRequirement,
    LabelSelectorFilter, OnMissing, PassiveHealth, PrefixCacheAffinityFilter,
    SloHeadroomTierFilter, Threshold, TopologyAffinityFilter, TopologyExtractor, TopologyLevel,
    TtftSource, UtilizationCap, UtilizationFilter, UtilizationMetric,
};
pub use flow::{
    AdaptiveConcurrency, ConcurrencyDetector, ConcurrencyMode, HoldbackDomain, HoldbackShape,
    LimitAlgorithm, PriorityHoldback, ProgramAwareFairness, ProgramStrategy, StaticUsageLimit,
    UtilizationDetector, VirtualTokenCounter,
};
pub use parser::{AppProtocol, Parser};
pub use producer::{
    AgentIdentity, AttributeKey, InflightLoadProducer, PredictedLatencyProducer, PrefixProducer,
    ReportedAttribute, RequestAttributeReporter, SessionSource, TokenProducer,
};
pub use schedule::{
    ActiveRequestScorer, AttributeScale, ContextLengthAware, Direction, EncodedEndpointHeader,
    EndpointAttributeScorer, FixedRange, HeaderLabelAffinityScorer, LatencyScorer, LoadAwareScorer,
    NoHitLruScorer, Normalization, PickerParameters, PredictedTtftScorer, PrefixCacheScorer,
    SessionAffinity, SessionIdConfig, SessionIdPlace, SessionIdSource, SessionStrategy, Strategy,
    TokenLoadScorer, TopologyAffinityScorer,
};

/// What a plugin is there for, and so what may refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where endpoints come from.
    Discovery,
    /// Reads request bodies of one API.
    Parser,
    /// Finds out something about a request and its candidates.
    Producer,
    /// Drops candidates.
    Filter,
    /// Rates candidates.
    Scorer,
    /// Chooses among them.
    Picker,
    /// Chooses the profiles that run.
    ProfileHandler,
    /// Tells a profile handler whether a stage runs.
    Decider,
    /// Reads something from endpoints.
    Source,
    /// Takes numbers out of what a source has read.
    Extractor,
    /// Tells that the pool is full.
    Detector,
    /// Chooses among the flows of a band.
    Fairness,
    /// Orders the requests of a flow.
    Ordering,
    /// How full the pool may be.
    UsageLimit,
    /// Which running requests may be taken off their server.
    EvictionFilter,
    /// Which of them goes first.
    EvictionOrdering,
    /// Refuses requests.
    Admitter,
    /// Narrows down the candidates before anything is known of the request.
    Screener,
    /// Reads or writes headers and metadata on the way.
    Processor,
}

impl Role {
    /// As an error calls it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Discovery => "discovery plugin",
            Self::Parser => "parser",
            Self::Producer => "data producer",
            Self::Filter => "filter",
            Self::Scorer => "scorer",
            Self::Picker => "picker",
            Self::ProfileHandler => "profile handler",
            Self::Decider => "decider",
            Self::Source => "data source",
            Self::Extractor => "extractor",
            Self::Detector => "saturation detector",
            Self::Fairness => "fairness policy",
            Self::Ordering => "ordering policy",
            Self::UsageLimit => "usage limit policy",
            Self::EvictionFilter => "eviction filter",
            Self::EvictionOrdering => "eviction ordering",
            Self::Admitter => "admitter",
            Self::Screener => "screener",
            Self::Processor => "processor of requests or answers",
        }
    }
}

/// The stage in `plugins!`: beta unless written.
macro_rules! stage {
    () => {
        Stage::Beta
    };
    ($stage:ident) => {
        Stage::$stage
    };
}

/// Declares [`Plugin`]: variant, parameter type, type name, role, and the stage where it is not beta.
macro_rules! plugins {
    ($($variant:ident($parameters:ty) = $type_name:literal, $role:ident $(, $stage:ident)?;)*) => {
        /// A plugin of a known type with its parameters.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Plugin {
            $($variant($parameters),)*
            /// Known and not built: it stands where it is referred to and does nothing.
            StandIn(&'static TypeEntry),
        }

        /// Every plugin type that is built.
        pub const PLUGIN_TYPES: &[&str] = &[$($type_name),*];

        /// The same with role and stage.
        pub(super) const BUILT: &[TypeEntry] = &[$(TypeEntry {
            name: $type_name,
            role: Role::$role,
            stage: stage!($($stage)?),
            status: Status::Built,
        }),*];

        /// The parameters that a plugin of a built type has where nobody says otherwise; `None` = not built.
        pub fn default_parameters(type_name: &str) -> Option<Value> {
            match type_name {
                $($type_name => serde_json::to_value(<$parameters>::default()).ok(),)*
                _ => None,
            }
        }

        /// The JSON schema of the parameters of every built type, in the order of [`PLUGIN_TYPES`].
        pub(super) fn parameter_schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
            vec![$(generator.subschema_for::<$parameters>()),*]
        }

        impl Plugin {
            /// Reads the parameters of a plugin of type `type_name`; `place` names it in errors.
            pub(crate) fn parse(type_name: &str, parameters: &Value, place: &str) -> Result<Self, ConfigError> {
                match type_name {
                    $($type_name => Ok(Self::$variant(parameters_of(parameters, place)?)),)*
                    _ => Err(ConfigError::unknown(place, "plugin type", type_name, catalogue::names())),
                }
            }

            pub(crate) fn role(&self) -> Role {
                match self {
                    $(Self::$variant(_) => Role::$role,)*
                    Self::StandIn(entry) => entry.role,
                }
            }

            pub(crate) fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $type_name,)*
                    Self::StandIn(entry) => entry.name,
                }
            }
        }
    };
}

plugins! {
    FileDiscovery(FileDiscovery) = "file-discovery", Discovery;
    OpenaiParser(NoParameters) = "openai-parser", Parser;
    AnthropicParser(NoParameters) = "anthropic-parser", Parser;
    VllmHttpParser(NoParameters) = "vllmhttp-parser", Parser;
    SglangHttpParser(NoParameters) = "sglanghttp-parser", Parser;
    VllmGrpcParser(NoParameters) = "vllmgrpc-parser", Parser;
    VertexAiParser(NoParameters) = "vertexai-parser", Parser;
    PassthroughParser(NoParameters) = "passthrough-parser", Parser;
    Prefix(PrefixProducer) = "approx-prefix-cache-producer", Producer;
    InflightLoad(InflightLoadProducer) = "inflight-load-producer", Producer;
    Token(TokenProducer) = "token-producer", Producer;
    PredictedLatency(PredictedLatencyProducer) = "predicted-latency-producer", Producer;
    PrefixScorer(PrefixCacheScorer) = "prefix-cache-scorer", Scorer;
    QueueScorer(NoParameters) = "queue-scorer", Scorer;
    KvScorer(NoParameters) = "kv-cache-utilization-scorer", Scorer;
    LatencyScorer(LatencyScorer) = "latency-scorer", Scorer;
    PredictedTtftScorer(PredictedTtftScorer) = "predicted-ttft-scorer", Scorer, Own;
    MaxScore(PickerParameters) = "max-score-picker", Picker;
    Random(PickerParameters) = "random-picker", Picker;
    WeightedRandom(PickerParameters) = "weighted-random-picker", Picker;
    RoundRobin(PickerParameters) = "round-robin-picker", Picker, Own;
    SingleProfile(NoParameters) = "single-profile-handler", ProfileHandler;
    MetricsSource(MetricsDataSource) = "metrics-data-source", Source;
    CoreMetrics(CoreMetricsExtractor) = "core-metrics-extractor", Extractor;
    ModelsSource(ModelsDataSource) = "models-data-source", Source;
    ModelsExtractor(NoParameters) = "models-data-extractor", Extractor;
    DcgmSource(DcgmDataSource) = "dcgm-data-source", Source, Alpha;
    DcgmExtractor(NoParameters) = "dcgm-extractor", Extractor, Alpha;
    Concurrency(ConcurrencyDetector) = "concurrency-detector", Detector;
    Utilization(UtilizationDetector) = "utilization-detector", Detector;
    GlobalStrict(NoParameters) = "global-strict-fairness-policy", Fairness;
    Fcfs(NoParameters) = "fcfs-ordering-policy", Ordering;
    StaticUsageLimit(StaticUsageLimit) = "static-usage-limit-policy", UsageLimit;
    Adaptive(AdaptiveConcurrency) = "adaptive-concurrency-detector", Detector, Own;
    RoundRobinFairness(NoParameters) = "round-robin-fairness-policy", Fairness;
    ProgramAware(ProgramAwareFairness) = "program-aware-fairness", Fairness;
    VirtualTokens(VirtualTokenCounter) = "virtual-token-counter-fairness-policy", Fairness, Own;
    Edf(NoParameters) = "edf-ordering-policy", Ordering;
    SloDeadline(NoParameters) = "slo-deadline-ordering-policy", Ordering;
    PriorityHoldback(PriorityHoldback) = "priority-holdback-policy", UsageLimit, Alpha;
    SoftReflective(NoParameters) = "soft-reflective-ceiling-policy", UsageLimit, Alpha;
    SheddableEviction(NoParameters) = "sheddable-eviction-filter", EvictionFilter, Alpha;
    PriorityThenTime(NoParameters) = "eviction-priority-then-time-ordering", EvictionOrdering, Alpha;
    SloAdmitter(SloAdmitter) = "latency-slo-admitter", Admitter;
    // Filters.
    LabelSelector(LabelSelectorFilter) = "label-selector-filter", Filter;
    EncodeFilter(NoParameters) = "encode-filter", Filter;
    PrefillFilter(NoParameters) = "prefill-filter", Filter;
    DecodeFilter(NoParameters) = "decode-filter", Filter;
    TestHeader(NoParameters) = "header-based-testing-filter", Filter;
    UtilizationFilter(UtilizationFilter) = "utilization-filter", Filter, Alpha;
    AttributeFilter(EndpointAttributeFilter) = "endpoint-attribute-filter", Filter, Alpha;
    PassiveHealth(PassiveHealth) = "passive-health", Filter, Own;
    SessionFilter(SessionAffinity) = "session-affinity-filter", Filter, Alpha;
    TopologyFilter(TopologyAffinityFilter) = "topology-affinity-filter", Filter, Alpha;
    PrefixAffinity(PrefixCacheAffinityFilter) = "prefix-cache-affinity-filter", Filter;
    HeadroomTier(SloHeadroomTierFilter) = "slo-headroom-tier-filter", Filter;
    // Scorers.
    RunningScorer(NoParameters) = "running-requests-size-scorer", Scorer;
    LoadAwareScorer(LoadAwareScorer) = "load-aware-scorer", Scorer;
    TokenLoadScorer(TokenLoadScorer) = "token-load-scorer", Scorer;
    ActiveRequestScorer(ActiveRequestScorer) = "active-request-scorer", Scorer;
    NoHitLruScorer(NoHitLruScorer) = "no-hit-lru-scorer", Scorer;
    LoraAffinityScorer(NoParameters) = "lora-affinity-scorer", Scorer;
    SessionScorer(SessionAffinity) = "session-affinity-scorer", Scorer, Alpha;
    HeaderLabelScorer(HeaderLabelAffinityScorer) = "header-label-affinity-scorer", Scorer, Alpha;
    ContextLength(ContextLengthAware) = "context-length-aware", Scorer;
    AttributeScorer(EndpointAttributeScorer) = "endpoint-attribute-scorer", Scorer, Alpha;
    TopologyScorer(TopologyAffinityScorer) = "topology-affinity-scorer", Scorer, Alpha;
    // Producers, admitters, processors.
    TopologyExtractor(TopologyExtractor) = "topology-extractor", Extractor, Alpha;
    SessionId(SessionSource) = "session-id-producer", Producer;
    ProbabilisticAdmitter(ProbabilisticAdmitter) = "probabilistic-admitter", Admitter;
    AgentIdentity(AgentIdentity) = "agent-identity", Processor, Alpha;
    AttributeReporter(RequestAttributeReporter) = "request-attribute-reporter", Processor;
    ServedVerifier(NoParameters) = "destination-endpoint-served-verifier", Processor;
}

fn parameters_of<T: serde::de::DeserializeOwned + Default>(
    value: &Value,
    place: &str,
) -> Result<T, ConfigError> {
    if value.is_null() {
        return Ok(T::default());
    }
    from_parameters(value, place)
}

/// Declares a strict parameter type whose absent fields take the values given.
macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

        impl Default for $name {
            fn default() -> Self { Self { $($field: $default,)* } }
        }
    };
}

use parameters;

/// A header's name as requests carry it.
fn lower_case<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.to_ascii_lowercase())
}

parameters! {
    /// A plugin that takes no parameters.
    NoParameters {}
}

/// A quantile of a prediction.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Quantile {
    /// Median.
    #[default]
    P50,
    /// Nine in ten are faster.
    P90,
    /// 99 in a hundred are faster.
    P99,
}

impl Quantile {
    /// That quantile of a prediction, in milliseconds.
    pub fn of(self, quantiles: &predictor::Quantiles) -> f64 {
        f64::from(match self {
            Self::P50 => quantiles.p50,
            Self::P90 => quantiles.p90,
            Self::P99 => quantiles.p99,
        })
    }
}

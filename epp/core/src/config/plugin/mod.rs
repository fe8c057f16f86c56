//! Plugin types under llm-d's names, with typed parameters and llm-d's defaults.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ConfigError, from_yaml};

mod admit;
mod data;
mod filter;
mod flow;
mod parser;
mod producer;
mod schedule;

pub use admit::{ProbabilisticAdmitter, SloAdmitter};
pub use data::{CoreMetricsExtractor, FileDiscovery, MetricsDataSource};
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

/// What a plugin can be referred to as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Discovery,
    Parser,
    Producer,
    Filter,
    Scorer,
    Picker,
    ProfileHandler,
    Source,
    Extractor,
    Detector,
    Fairness,
    Ordering,
    UsageLimit,
    Admitter,
    EvictionFilter,
    EvictionOrdering,
    Processor,
}

impl Role {
    /// As an error calls it.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Discovery => "discovery plugin",
            Self::Parser => "parser",
            Self::Producer => "data producer",
            Self::Filter => "filter",
            Self::Scorer => "scorer",
            Self::Picker => "picker",
            Self::ProfileHandler => "profile handler",
            Self::Source => "data source",
            Self::Extractor => "extractor",
            Self::Detector => "saturation detector",
            Self::Fairness => "fairness policy",
            Self::Ordering => "ordering policy",
            Self::UsageLimit => "usage limit policy",
            Self::Admitter => "admitter",
            Self::EvictionFilter => "eviction filter",
            Self::EvictionOrdering => "eviction ordering",
            Self::Processor => "processor of requests or answers",
        }
    }
}

/// Declares [`Plugin`]: variant, parameter type, type name, role.
macro_rules! plugins {
    ($($variant:ident($parameters:ty) = $type_name:literal, $role:ident;)*) => {
        /// A plugin of a known type with its parameters.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Plugin { $($variant($parameters)),* }

        /// Every plugin type that is built.
        pub const PLUGIN_TYPES: &[&str] = &[$($type_name),*];

        impl Plugin {
            /// Reads the parameters of a plugin of type `type_name`; `place` names it in errors.
            pub(crate) fn parse(type_name: &str, parameters: &Value, place: &str) -> Result<Self, ConfigError> {
                match type_name {
                    $($type_name => Ok(Self::$variant(parameters_of(parameters, place)?)),)*
                    _ => Err(ConfigError::unknown(place, "plugin type", type_name, PLUGIN_TYPES.iter().copied())),
                }
            }

            pub(crate) fn role(&self) -> Role {
                match self { $(Self::$variant(_) => Role::$role),* }
            }

            pub(crate) fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $type_name),* }
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
    PredictedTtftScorer(PredictedTtftScorer) = "predicted-ttft-scorer", Scorer;
    MaxScore(PickerParameters) = "max-score-picker", Picker;
    Random(PickerParameters) = "random-picker", Picker;
    WeightedRandom(PickerParameters) = "weighted-random-picker", Picker;
    RoundRobin(PickerParameters) = "round-robin-picker", Picker;
    SingleProfile(NoParameters) = "single-profile-handler", ProfileHandler;
    MetricsSource(MetricsDataSource) = "metrics-data-source", Source;
    CoreMetrics(CoreMetricsExtractor) = "core-metrics-extractor", Extractor;
    Concurrency(ConcurrencyDetector) = "concurrency-detector", Detector;
    Utilization(UtilizationDetector) = "utilization-detector", Detector;
    GlobalStrict(NoParameters) = "global-strict-fairness-policy", Fairness;
    Fcfs(NoParameters) = "fcfs-ordering-policy", Ordering;
    StaticUsageLimit(StaticUsageLimit) = "static-usage-limit-policy", UsageLimit;
    Adaptive(AdaptiveConcurrency) = "adaptive-concurrency-detector", Detector;
    RoundRobinFairness(NoParameters) = "round-robin-fairness-policy", Fairness;
    ProgramAware(ProgramAwareFairness) = "program-aware-fairness", Fairness;
    VirtualTokens(VirtualTokenCounter) = "virtual-token-counter-fairness-policy", Fairness;
    Edf(NoParameters) = "edf-ordering-policy", Ordering;
    SloDeadline(NoParameters) = "slo-deadline-ordering-policy", Ordering;
    PriorityHoldback(PriorityHoldback) = "priority-holdback-policy", UsageLimit;
    SoftReflective(NoParameters) = "soft-reflective-ceiling-policy", UsageLimit;
    SheddableEviction(NoParameters) = "sheddable-eviction-filter", EvictionFilter;
    PriorityThenTime(NoParameters) = "eviction-priority-then-time-ordering", EvictionOrdering;
    SloAdmitter(SloAdmitter) = "latency-slo-admitter", Admitter;
    // Filters.
    LabelSelector(LabelSelectorFilter) = "label-selector-filter", Filter;
    EncodeFilter(NoParameters) = "encode-filter", Filter;
    PrefillFilter(NoParameters) = "prefill-filter", Filter;
    DecodeFilter(NoParameters) = "decode-filter", Filter;
    TestHeader(NoParameters) = "header-based-testing-filter", Filter;
    UtilizationFilter(UtilizationFilter) = "utilization-filter", Filter;
    AttributeFilter(EndpointAttributeFilter) = "endpoint-attribute-filter", Filter;
    PassiveHealth(PassiveHealth) = "passive-health", Filter;
    SessionFilter(SessionAffinity) = "session-affinity-filter", Filter;
    TopologyFilter(TopologyAffinityFilter) = "topology-affinity-filter", Filter;
    PrefixAffinity(PrefixCacheAffinityFilter) = "prefix-cache-affinity-filter", Filter;
    HeadroomTier(SloHeadroomTierFilter) = "slo-headroom-tier-filter", Filter;
    // Scorers.
    RunningScorer(NoParameters) = "running-requests-size-scorer", Scorer;
    LoadAwareScorer(LoadAwareScorer) = "load-aware-scorer", Scorer;
    TokenLoadScorer(TokenLoadScorer) = "token-load-scorer", Scorer;
    ActiveRequestScorer(ActiveRequestScorer) = "active-request-scorer", Scorer;
    NoHitLruScorer(NoHitLruScorer) = "no-hit-lru-scorer", Scorer;
    LoraAffinityScorer(NoParameters) = "lora-affinity-scorer", Scorer;
    SessionScorer(SessionAffinity) = "session-affinity-scorer", Scorer;
    HeaderLabelScorer(HeaderLabelAffinityScorer) = "header-label-affinity-scorer", Scorer;
    ContextLength(ContextLengthAware) = "context-length-aware", Scorer;
    AttributeScorer(EndpointAttributeScorer) = "endpoint-attribute-scorer", Scorer;
    TopologyScorer(TopologyAffinityScorer) = "topology-affinity-scorer", Scorer;
    // Producers, admitters, processors.
    TopologyExtractor(TopologyExtractor) = "topology-extractor", Extractor;
    SessionId(SessionSource) = "session-id-producer", Producer;
    ProbabilisticAdmitter(ProbabilisticAdmitter) = "probabilistic-admitter", Admitter;
    AgentIdentity(AgentIdentity) = "agent-identity", Processor;
    AttributeReporter(RequestAttributeReporter) = "request-attribute-reporter", Processor;
    ServedVerifier(NoParameters) = "destination-endpoint-served-verifier", Processor;
}

/// JSON is YAML: going through text lets the one strict reader name wrong fields here too.
fn parameters_of<T: serde::de::DeserializeOwned + Default>(
    value: &Value,
    place: &str,
) -> Result<T, ConfigError> {
    if value.is_null() {
        return Ok(T::default());
    }
    from_yaml(&value.to_string(), &format!("{place} parameters"))
}

/// Declares a strict parameter type whose absent fields take the values given.
macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

//! One scheduling profile: filters, then weighted scorers, then a picker.

use std::sync::Arc;
use std::time::Duration;

use super::Detector;
use super::plugin::{
    ActiveRequestScorer, ContextLengthAware, EndpointAttributeFilter, EndpointAttributeScorer,
    HeaderLabelAffinityScorer, LabelSelectorFilter, LatencyScorer, LoadAwareScorer, NoHitLruScorer,
    PassiveHealth, PredictedTtftScorer, PrefixCacheAffinityFilter, PrefixCacheScorer,
    SessionAffinity, SloHeadroomTierFilter, TokenLoadScorer, TopologyAffinityFilter,
    TopologyAffinityScorer, UtilizationFilter,
};

/// One scheduling profile: filters, then weighted scorers, then a picker.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// In the order written; see [`Filter`] for when each runs.
    pub filters: Vec<NamedFilter>,
    /// In the order written.
    pub scorers: Vec<WeightedScorer>,
    /// The picker.
    pub picker: Picker,
    /// Endpoints returned: the pick and its fallbacks, at least 1.
    pub endpoints: usize,
}

/// A filter with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedFilter {
    /// Plugin name.
    pub name: Arc<str>,
    /// The filter.
    pub filter: Filter,
}

/// A filter and its parameters. Constraints come first, then what asks for room, then, after predictions,
/// preferences; within each kind the order written holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// `label-selector-filter`: a constraint.
    Labels(LabelSelectorFilter),
    /// `encode-filter`, `prefill-filter`, `decode-filter`: a constraint.
    Stage(ServingStage),
    /// `context-length-aware` with `enableFiltering`: a constraint.
    ContextLength(ContextLengthAware),
    /// `header-based-testing-filter`: a constraint.
    TestHeader,
    /// `concurrency-detector`, `utilization-detector`: room.
    Room(Detector),
    /// `utilization-filter`: room.
    Utilization(UtilizationFilter),
    /// `endpoint-attribute-filter`: room.
    Attribute(EndpointAttributeFilter),
    /// `passive-health` (Headroom's own): room.
    Health(HealthRules),
    /// `session-affinity-filter`: a preference.
    Session(SessionAffinity),
    /// `topology-affinity-filter`: a preference.
    Topology(TopologyAffinityFilter),
    /// `prefix-cache-affinity-filter`: a preference.
    PrefixAffinity(PrefixCacheAffinityFilter),
    /// `slo-headroom-tier-filter`: a preference.
    HeadroomTier(SloHeadroomTierFilter),
}

/// A stage of serving that an endpoint's role includes (label `llm-d.ai/role`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingStage {
    /// `encode-filter`
    Encode,
    /// `prefill-filter`
    Prefill,
    /// `decode-filter`: endpoints without a role too.
    Decode,
}

/// `passive-health`: its parameters and their spans, read.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthRules {
    /// As written.
    pub parameters: PassiveHealth,
    /// `window`
    pub window: Duration,
    /// `minStall`
    pub min_stall: Duration,
    /// `baseEjection`
    pub base_ejection: Duration,
    /// `maxEjection`
    pub max_ejection: Duration,
    /// `slowStart`
    pub slow_start: Duration,
}

/// A scorer with its name and weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedScorer {
    /// Plugin name.
    pub name: Arc<str>,
    /// Weight, finite and not negative.
    pub weight: f64,
    /// The scorer.
    pub scorer: Scorer,
}

/// A scorer and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Scorer {
    /// `queue-scorer`
    Queue,
    /// `running-requests-size-scorer`
    Running,
    /// `kv-cache-utilization-scorer`
    KvUtilization,
    /// `load-aware-scorer`
    LoadAware(LoadAwareScorer),
    /// `token-load-scorer`
    TokenLoad(TokenLoadScorer),
    /// `active-request-scorer`
    ActiveRequest(ActiveRequestScorer),
    /// `prefix-cache-scorer`
    Prefix(PrefixCacheScorer),
    /// `no-hit-lru-scorer`
    NoHitLru(NoHitLruScorer),
    /// `lora-affinity-scorer`
    LoraAffinity,
    /// `session-affinity-scorer`
    Session(SessionAffinity),
    /// `header-label-affinity-scorer`
    HeaderLabel(HeaderLabelAffinityScorer),
    /// `context-length-aware`
    ContextLength(ContextLengthAware),
    /// `endpoint-attribute-scorer`
    Attribute(EndpointAttributeScorer),
    /// `topology-affinity-scorer`
    Topology(TopologyAffinityScorer),
    /// `latency-scorer`
    Latency(LatencyScorer),
    /// `predicted-ttft-scorer`
    PredictedTtft(PredictedTtftScorer),
}

/// A picker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picker {
    /// `max-score-picker`
    MaxScore,
    /// `random-picker`
    Random,
    /// `weighted-random-picker`
    WeightedRandom,
    /// `round-robin-picker` (Headroom's own, for comparison)
    RoundRobin,
}

impl Picker {
    /// Its plugin type.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::MaxScore => "max-score-picker",
            Self::Random => "random-picker",
            Self::WeightedRandom => "weighted-random-picker",
            Self::RoundRobin => "round-robin-picker",
        }
    }
}

impl Filter {
    /// Whether it reads predictions.
    pub(crate) fn predicts(&self) -> bool {
        match self {
            Self::HeadroomTier(_) => true,
            Self::PrefixAffinity(it) => it.predicts(),
            _ => false,
        }
    }

    /// Whether it reads what endpoints have cached.
    pub(crate) fn matches_prefix(&self) -> bool {
        matches!(self, Self::PrefixAffinity(_))
    }

    /// Whether it reads engines' metrics.
    pub(crate) fn reads_metrics(&self) -> bool {
        match self {
            Self::Room(detector) => matches!(detector, Detector::Utilization { .. }),
            Self::Utilization(it) => it.reads_metrics(),
            Self::Attribute(_) => true,
            _ => false,
        }
    }

    /// Headers of requests that it reads, in lower case.
    pub(crate) fn headers(&self) -> Vec<&str> {
        match self {
            Self::TestHeader => vec![names::header::TEST_ENDPOINT_SELECTION],
            Self::Session(it) => it.headers(),
            Self::Topology(it) => it.peer_header.as_deref().into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

impl Scorer {
    /// Whether it reads predictions.
    pub(crate) fn predicts(&self) -> bool {
        matches!(self, Self::Latency(_) | Self::PredictedTtft(_))
    }

    /// Whether it reads what endpoints have cached.
    pub(crate) fn matches_prefix(&self) -> bool {
        matches!(
            self,
            Self::Prefix(_) | Self::NoHitLru(_) | Self::Latency(_) | Self::PredictedTtft(_)
        )
    }

    /// Whether it reads engines' metrics.
    pub(crate) fn reads_metrics(&self) -> bool {
        matches!(
            self,
            Self::Queue
                | Self::Running
                | Self::KvUtilization
                | Self::LoadAware(_)
                | Self::LoraAffinity
                | Self::Attribute(_)
                | Self::Latency(_)
        )
    }

    /// Headers of requests that it reads, in lower case.
    pub(crate) fn headers(&self) -> Vec<&str> {
        match self {
            Self::Session(it) => it.headers(),
            Self::HeaderLabel(it) => vec![&it.header_name],
            Self::Topology(it) => it.peer_header.as_deref().into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

//! Filters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parameters;

parameters! {
    /// `label-selector-filter`: keeps the endpoints that a Kubernetes label selector matches.
    LabelSelectorFilter {
        /// Labels with exactly these values, all of them.
        match_labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Further requirements, all of them.
        match_expressions: Vec<LabelRequirement> = Vec::new(),
    }
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: LabelOperator,
    /// Values for `In`, `NotIn` and `InOrDoesNotExist`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// Operator of a [`LabelRequirement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// Headroom's own: the label is absent or has one of the values.
    InOrDoesNotExist,
}

parameters! {
    /// `prefix-cache-affinity-filter`: keeps the endpoints that have seen most of the prompt, unless their queues
    /// cost more than that saves.
    PrefixCacheAffinityFilter {
        /// Share of the prompt's blocks from which an endpoint counts as sticky; 0 = the filter does nothing.
        affinity_threshold: f64 = 0.80,
        /// Probability of keeping all.
        exploration_probability: f64 = 0.0,
        /// Milliseconds of TTFT that the best sticky endpoint may be behind the best other one; 0 = any.
        #[serde(rename = "maxTTFTPenaltyMs")]
        max_ttft_penalty_ms: f64 = 18_000.0,
        /// Where TTFT comes from.
        ttft_source: TtftSource = TtftSource::PrefillThroughput,
        /// Tokens per second for `prefillThroughput`: TTFT = in-flight tokens ÷ this.
        peak_prefill_throughput: f64 = 15_928.0,
        /// Producer of prefix matches.
        prefix_match_info_producer_name: Option<String> = None,
        /// Producer of predictions.
        latency_prediction_info_producer_name: Option<String> = None,
        /// Producer of in-flight load.
        in_flight_load_producer_name: Option<String> = None,
    }
}

impl PrefixCacheAffinityFilter {
    /// Whether it reads predictions.
    pub(crate) fn predicts(&self) -> bool {
        self.ttft_source == TtftSource::LatencyPredictor && self.max_ttft_penalty_ms > 0.0
    }
}

/// Where `prefix-cache-affinity-filter` takes TTFT from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum TtftSource {
    /// In-flight tokens ÷ `peakPrefillThroughput`.
    #[default]
    PrefillThroughput,
    /// The latency model's median.
    LatencyPredictor,
}

parameters! {
    /// `slo-headroom-tier-filter`: keeps the endpoints predicted to meet the SLO, if there are any.
    SloHeadroomTierFilter {
        /// Probability of keeping the others instead, so that they are seen to recover.
        epsilon_explore_neg: f64 = 0.01,
    }
}

parameters! {
    /// `endpoint-attribute-filter`: keeps the endpoints whose attribute satisfies a comparison.
    EndpointAttributeFilter {
        /// Attribute: a custom metric, or what another extractor tells.
        attribute: String = String::new(),
        /// The extractor that tells it; absent = `core-metrics-extractor`.
        producer: Option<String> = None,
        /// What becomes of an endpoint without the attribute.
        on_missing: OnMissing = OnMissing::Pass,
        /// Keep all when none is left.
        fallback_on_empty: bool = false,
        /// The comparison.
        algorithm: AttributeGate = AttributeGate::default(),
    }
}

/// What becomes of an endpoint that lacks an attribute.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum OnMissing {
    /// It is kept.
    #[default]
    Pass,
    /// It is dropped.
    Fail,
}

parameters! {
    /// The comparison of an [`EndpointAttributeFilter`].
    AttributeGate {
        /// Only `threshold`.
        #[serde(rename = "type")]
        kind: String = "threshold".to_owned(),
        /// The comparison's parameters.
        threshold: Option<Threshold> = None,
    }
}

/// `value(endpoint) operator value`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Threshold {
    /// The comparison.
    pub operator: Comparison,
    /// Its right-hand side.
    pub value: f64,
}

/// A comparison of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Comparison {
    /// `<`
    LessThan,
    /// `≤`
    LessThanOrEqual,
    /// `>`
    GreaterThan,
    /// `≥`
    GreaterThanOrEqual,
    /// `=`
    Equal,
    /// `≠`
    NotEqual,
}

impl Comparison {
    /// Whether it holds.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::LessThan => left < right,
            Self::LessThanOrEqual => left <= right,
            Self::GreaterThan => left > right,
            Self::GreaterThanOrEqual => left >= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        }
    }
}

parameters! {
    /// `utilization-filter`: drops endpoints over any of the caps.
    UtilizationFilter {
        /// The caps.
        conditions: Vec<UtilizationCap> = Vec::new(),
        /// Keep all when none is left.
        fallback_on_empty: bool = false,
    }
}

impl UtilizationFilter {
    /// Whether any of its caps is on a scraped number.
    pub(crate) fn reads_metrics(&self) -> bool {
        let scraped = |cap: &UtilizationCap| cap.metric != UtilizationMetric::ActiveRequests;
        self.conditions.iter().any(scraped)
    }
}

/// One cap of a [`UtilizationFilter`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UtilizationCap {
    /// What is capped.
    pub metric: UtilizationMetric,
    /// The largest value that passes.
    pub max_value: f64,
}

/// What a [`UtilizationCap`] is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UtilizationMetric {
    /// Requests dispatched and not ended.
    ActiveRequests,
    /// Requests that the engine says are running.
    RunningRequests,
    /// Requests that the engine says are waiting.
    WaitingQueue,
    /// Share of the KV cache in use.
    KvCacheUtilization,
}

parameters! {
    /// `topology-affinity-filter`: keeps the endpoints near a peer, if there are any.
    TopologyAffinityFilter {
        /// How near.
        min_affinity: TopologyLevel = TopologyLevel::Host,
        /// Extractor of topology.
        topology_producer_name: Option<String> = None,
        /// Headroom's own: request header with the peer's `ip:port`; absent = there is no peer.
        peer_header: Option<String> = None,
    }
}

parameters! {
    /// `topology-extractor`: the labels that say where an endpoint is.
    TopologyExtractor {
        /// Label with the host.
        hostname: String = names::label::HOST.to_owned(),
        /// Label with the rack.
        rack: String = names::label::RACK.to_owned(),
        /// Label with the zone.
        zone: String = names::label::ZONE.to_owned(),
        /// Label with the region.
        region: String = names::label::REGION.to_owned(),
    }
}

/// How near two endpoints are, nearest first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TopologyLevel {
    /// On one host.
    #[default]
    Host,
    /// In one rack.
    Rack,
    /// In one zone.
    Zone,
    /// In one region.
    Region,
}

parameters! {
    /// `passive-health` (Headroom's own): takes endpoints out that fail the requests they serve. What an endpoint
    /// does is held against the rest of the pool: trouble that all have is not one endpoint's.
    PassiveHealth {
        /// Span over which shares are taken, a Go duration.
        window: String = "30s".to_owned(),
        /// Ended requests in the window before shares count.
        min_requests: u32 = 5,
        /// Share of 5xx and cut answers at which an endpoint is ejected; at least three times that of the others.
        max_error_share: f64 = 0.5,
        /// Connections in a row that could not be made (502, 503, 504, or another endpoint served) at which it is.
        max_connect_failures: u32 = 3,
        /// A first token slower than this many times the predicted p99 is an outlier.
        ttft_outlier_factor: f64 = 3.0,
        /// Share of outliers at which an endpoint is ejected; at least three times that of the others.
        max_ttft_outlier_share: f64 = 0.5,
        /// Mean times per output token without a chunk on any stream after which an endpoint is ejected as stalled.
        stall_intervals: f64 = 100.0,
        /// Shortest silence that counts as a stall, a Go duration.
        min_stall: String = "15s".to_owned(),
        /// First ejection, doubled at each further one in a row, a Go duration.
        base_ejection: String = "10s".to_owned(),
        /// Longest ejection, a Go duration.
        max_ejection: String = "5m".to_owned(),
        /// Time over which an endpoint that is back takes up its share of the load, a Go duration.
        slow_start: String = "30s".to_owned(),
    }
}

//! Saturation, fairness, ordering and usage limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parameters;

parameters! {
    /// `concurrency-detector`: saturation = in flight ÷ capacity, over the pool.
    ConcurrencyDetector {
        /// What is counted.
        concurrency_mode: ConcurrencyMode = ConcurrencyMode::Requests,
        /// Requests in flight per endpoint at saturation 1.
        max_concurrency: u32 = 100,
        /// Tokens in flight per endpoint at saturation 1.
        max_token_concurrency: u64 = 1_000_000,
        /// Share that one endpoint may exceed its capacity by while the pool has room.
        headroom: f64 = 0.0,
    }
}

parameters! {
    /// `utilization-detector`: saturation = mean over endpoints of max(queue ÷ threshold, KV ÷ threshold).
    UtilizationDetector {
        /// Queue length at saturation 1.
        queue_depth_threshold: f64 = 5.0,
        /// KV utilisation at saturation 1.
        kv_cache_util_threshold: f64 = 0.8,
        /// Age from which a scrape no longer counts, a Go duration.
        metrics_staleness_threshold: String = "200ms".to_owned(),
        /// Share that one endpoint may exceed its thresholds by while the pool has room.
        headroom: f64 = 0.0,
    }
}

parameters! {
    /// `static-usage-limit-policy`: one saturation ceiling for all bands.
    StaticUsageLimit {
        /// Saturation at which dispatch stops.
        threshold: f64 = 1.0,
    }
}

/// What `concurrency-detector` counts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ConcurrencyMode {
    /// Requests.
    #[default]
    Requests,
    /// Uncached prompt tokens waiting and context tokens running.
    Tokens,
    /// The fuller of both, endpoint by endpoint.
    Hybrid,
}

parameters! {
    /// `adaptive-concurrency-detector` (Headroom's own): saturation = in flight ÷ limit, over the pool, where each
    /// endpoint's limit is learned from the latencies of what it serves.
    AdaptiveConcurrency {
        /// How a limit follows latency.
        algorithm: LimitAlgorithm = LimitAlgorithm::Gradient,
        /// Requests in flight that an endpoint starts with.
        initial: u32 = 16,
        /// Lowest limit.
        min: u32 = 1,
        /// Highest limit.
        max: u32 = 1_000,
        /// Latency that is still well, as a multiple of the unloaded endpoint's.
        tolerance: f64 = 2.0,
        /// Time over which latencies are gathered before the limit moves, a Go duration.
        window: String = "1s".to_owned(),
        /// Share that one endpoint may exceed its limit by while the pool has room.
        headroom: f64 = 0.0,
    }
}

impl AdaptiveConcurrency {
    /// The limit in force of an endpoint that has `learned` one; what was learned under other bounds is held to these.
    pub(crate) fn within(&self, learned: Option<u32>) -> u32 {
        let least = self.min.max(1);
        let limit = learned.unwrap_or(self.initial);
        limit.clamp(least, self.max.max(least))
    }
}

/// How `adaptive-concurrency-detector` moves a limit.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LimitAlgorithm {
    /// In proportion to how far latency is from the unloaded endpoint's.
    #[default]
    Gradient,
    /// Up by one while latency is well, down by a tenth when it is not.
    Aimd,
}

parameters! {
    /// `program-aware-fairness`: the flow with the least attained service goes first.
    ProgramAwareFairness {
        /// How flows are compared.
        strategy: ProgramStrategy = ProgramStrategy::Las,
        /// Weight of how little service a flow had.
        las_weight_service: f64 = 0.8,
        /// Weight of how long its head waited.
        las_weight_head_wait: f64 = 0.2,
        /// Seconds after which half of the service is forgotten; 0 = `lasDecayFactor` counts.
        las_half_life_seconds: f64 = 60.0,
        /// Share of the service that is remembered after a second, without a half-life.
        las_decay_factor: f64 = 0.99997,
        /// Seconds after which an idle flow is forgotten.
        eviction_ttl_seconds: f64 = 3_600.0,
        /// Seconds between two looks for idle flows.
        eviction_sweep_seconds: f64 = 300.0,
    }
}

/// How `program-aware-fairness` compares flows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ProgramStrategy {
    /// By the service they attained.
    #[default]
    Las,
}

parameters! {
    /// `virtual-token-counter-fairness-policy` (Headroom's own): weighted fair queueing on real tokens.
    VirtualTokenCounter {
        /// Cost of a prompt token.
        input_weight: f64 = 1.0,
        /// Cost of an output token.
        output_weight: f64 = 2.0,
        /// Share of a flow against the others', by fairness id; 1 where none is given.
        weights: BTreeMap<String, f64> = BTreeMap::new(),
    }
}

parameters! {
    /// `priority-holdback-policy`: lower bands stop at a lower saturation.
    PriorityHoldback {
        /// How ceilings lie between the two ends.
        shape: HoldbackShape = HoldbackShape::Linear,
        /// Whether bands are placed by rank or by priority.
        domain: HoldbackDomain = HoldbackDomain::Rank,
        /// Ceiling of the lowest band; must be given.
        min_ceiling: Option<f64> = None,
        /// Ceiling of the highest band.
        max_ceiling: f64 = 1.0,
    }
}

/// The curve of `priority-holdback-policy`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum HoldbackShape {
    /// A straight line.
    #[default]
    Linear,
}

/// What `priority-holdback-policy` places bands by.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum HoldbackDomain {
    /// Their place in the order.
    #[default]
    Rank,
    /// Their priority.
    Value,
}

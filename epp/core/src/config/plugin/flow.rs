//! Saturation, fairness, ordering and usage limits.

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

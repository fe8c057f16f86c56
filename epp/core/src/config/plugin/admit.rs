//! Admission.

use serde::{Deserialize, Serialize};

use super::{Quantile, parameters};

parameters! {
    /// `latency-slo-admitter`: refuses sheddable requests that no endpoint can serve in time. An untrusted
    /// prediction admits.
    SloAdmitter {
        /// Headroom's own: the quantile compared with the SLO. The median, because a refusal is a certain miss:
        /// it only pays when the miss is more likely than not.
        quantile: Quantile = Quantile::P50,
        /// Headroom's own: an idle endpoint, or one whose KV cache is less than 2 % full, admits whatever is
        /// predicted for it. llm-d's rule; off in Headroom's own configuration, since an idle server misses a 2 s
        /// target on a prompt that takes 5 s to read.
        idle_admits: bool = true,
    }
}

parameters! {
    /// `probabilistic-admitter`: refuses requests of negative priority with the probability `min(1, k·sat^power)`,
    /// where sat is the mean over endpoints of `max(queue/queueDepthThreshold, kv/kvCacheUtilThreshold)`.
    ProbabilisticAdmitter {
        /// Queue length at saturation 1.
        queue_depth_threshold: f64 = 5.0,
        /// KV utilisation at saturation 1.
        kv_cache_util_threshold: f64 = 0.8,
        /// How steeply the probability rises.
        power: f64 = 5.0,
        /// Scale of the probability.
        k: f64 = 300.0,
    }
}

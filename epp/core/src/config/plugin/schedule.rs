//! Filters, scorers and pickers.

use serde::{Deserialize, Serialize};

use super::{Quantile, parameters};

parameters! {
    /// `prefix-cache-scorer`: `w·min(1, matched tokens/scale)² + (1−w)·matched/total blocks`.
    PrefixCacheScorer {
        /// w.
        match_length_weight: f64 = 0.0,
        /// scale, in tokens.
        match_length_scale_tokens: f64 = 8_192.0,
        /// Producer of prefix matches.
        prefix_match_info_producer_name: Option<String> = None,
    }
}

parameters! {
    /// `latency-scorer`: predicted headroom against the SLO.
    LatencyScorer {
        /// Weight of the TTFT headroom.
        ttft_weight: f64 = 0.8,
        /// Weight of the TPOT headroom.
        tpot_weight: f64 = 0.2,
        /// Prefer the least or the most headroom.
        headroom_selection_strategy: Strategy = Strategy::Least,
        /// Weight of free KV cache without predictions.
        #[serde(rename = "compositeKVWeight")]
        composite_kv_weight: f64 = 1.0,
        /// Weight of a short queue without predictions.
        composite_queue_weight: f64 = 1.0,
        /// Weight of a matched prefix without predictions.
        composite_prefix_weight: f64 = 1.0,
    }
}

parameters! {
    /// `predicted-ttft-scorer` (Headroom's own): shortest predicted time to first token among the endpoints
    /// predicted to meet the SLO.
    PredictedTtftScorer {
        /// Quantile of TTFT that is compared.
        quantile: Quantile = Quantile::P50,
        /// How much more the prompt's own uncached tokens weigh than the queue ahead of it: they delay
        /// everybody who comes after.
        prefill_weight: f64 = 0.5,
    }
}

parameters! {
    /// Parameters of every picker.
    PickerParameters {
        /// Endpoints returned: the pick and its fallbacks.
        max_num_of_endpoints: u32 = 1,
    }
}

/// Which headroom `latency-scorer` prefers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The endpoint nearest its SLO: bin packing.
    #[default]
    Least,
    /// The endpoint furthest from its SLO: spreading.
    Most,
}

//! What is known of a request and of every candidate before they are filtered and scored.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NoParameters, Quantile, parameters};

parameters! {
    /// `approx-prefix-cache-producer`: which endpoint has seen which prefix.
    PrefixProducer {
        /// Use the engine's block size, at least 64 tokens.
        auto_tune: bool = true,
        /// Block size in tokens without auto-tuning, and until an engine has told its own.
        block_size_tokens: u32 = 16,
        /// Blocks hashed per prompt at most.
        max_prefix_blocks_to_match: u32 = 2_048,
        /// Tokens hashed per prompt at most; wins over the block cap.
        max_prefix_tokens_to_match: u32 = 131_072,
        /// Blocks remembered per endpoint until its engine has told its KV size.
        lru_capacity_per_server: u32 = 31_250,
    }
}

parameters! {
    /// `inflight-load-producer`: requests and uncached prompt tokens in flight per endpoint.
    InflightLoadProducer {
        /// Count an estimate of the output too; not built, must stay false.
        add_estimated_output_tokens: bool = false,
        /// Output tokens per prompt token in that estimate.
        output_ratio: f64 = 1.5,
        /// Most output tokens in that estimate.
        max_estimated_output_tokens: Option<u32> = None,
        /// Producer of prefix matches.
        prefix_match_info_producer_name: Option<String> = None,
    }
}

parameters! {
    /// `token-producer`: prompt tokens, estimated as four bytes each.
    TokenProducer {
        /// Model whose tokeniser would be asked.
        model_name: Option<String> = None,
        /// Estimate from bytes: the only way built.
        estimate: Option<NoParameters> = None,
        /// Ask a vLLM render endpoint; not built.
        vllm: Option<Value> = None,
    }
}

parameters! {
    /// `predicted-latency-producer`: asks the latency model about every candidate.
    PredictedLatencyProducer {
        /// Factor on the TPOT target before it is compared.
        slo_buffer_factor: f64 = 1.0,
        /// Kept for llm-d's files; state here lives as long as the stream.
        #[serde(rename = "contextTTL")]
        context_ttl: String = "5m".to_owned(),
        /// Take TPOT into account.
        streaming_mode: bool = false,
        /// Label with the endpoint's role; not built, must stay empty.
        endpoint_role_label: String = String::new(),
        /// Kept for llm-d's files; predictions are always made before scoring.
        predict_in_produce: bool = true,
        /// Encoder features; not built, must stay false.
        use_encoder_cache_features: bool = false,
        /// Producer of prefix matches.
        prefix_match_info_producer_name: Option<String> = None,
        /// Producer of in-flight load.
        in_flight_load_producer_name: Option<String> = None,
        /// Producer of encoder matches; not built, must be absent.
        encoder_cache_match_info_producer_name: Option<String> = None,
        /// Ignored, as llm-d does.
        sampling_mean: Option<f64> = None,
        /// Ignored, as llm-d does.
        max_decode_token_samples_for_prediction: Option<u32> = None,
        /// Headroom's own: the quantile scorers compare with the SLO.
        quantile: Quantile = Quantile::P50,
    }
}

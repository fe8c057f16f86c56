//! What is known of a request and of every candidate before they are filtered and scored.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Quantile, parameters};

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
        /// Headroom's own: blocks remembered over all endpoints, about 50 bytes each.
        max_blocks_in_all: u32 = 1_000_000,
    }
}

parameters! {
    /// `inflight-load-producer`: requests and uncached prompt tokens in flight per endpoint.
    InflightLoadProducer {
        /// Count an estimate of the output too, until the request ends: prompt tokens × `outputRatio`, at most
        /// `maxEstimatedOutputTokens` and at most what the client allows.
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
        /// Estimate from bytes: the only way built. Its knobs for images and video are read and have no effect:
        /// all of a prompt counts by its bytes.
        estimate: Option<Value> = None,
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
        /// Label with the endpoint's role: where it is `prefill`, TPOT does not count.
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
        /// Headroom's own: requests already on an endpoint that are expected to meet their SLO count too. An
        /// endpoint where this request would make them miss it is judged as if the request itself missed its own,
        /// by the admitter and by `predicted-ttft-scorer`.
        protect_running: bool = false,
    }
}

parameters! {
    /// `session-id-producer`: where a request tells the session it belongs to. Exactly one of header and cookie.
    SessionSource {
        /// Request header whose value is the session.
        header_name: Option<String> = None,
        /// Cookie whose value is the session.
        cookie_name: Option<String> = None,
    }
}

impl SessionSource {
    /// What llm-d injects where a session is asked for and no producer is listed: header `x-session-id`.
    pub fn injected() -> Self {
        Self {
            header_name: Some(names::header::SESSION_ID.to_owned()),
            cookie_name: None,
        }
    }
}

parameters! {
    /// `agent-identity`: a fairness id for requests of coding agents that name none, from their session headers.
    AgentIdentity {
        /// Headers looked at before the known ones.
        additional_session_headers: Vec<String> = Vec::new(),
    }
}

parameters! {
    /// `request-attribute-reporter`: numbers computed from an answer's usage, told to the proxy.
    RequestAttributeReporter {
        /// What is computed.
        attributes: Vec<ReportedAttribute> = Vec::new(),
    }
}

/// One number of a [`RequestAttributeReporter`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReportedAttribute {
    /// Where in the dynamic metadata.
    pub key: AttributeKey,
    /// CEL over `usage`, yielding a number.
    pub expression: String,
    /// CEL over `usage`, yielding whether the number is told; absent = it is.
    #[serde(default)]
    pub condition: Option<String>,
}

/// A place in the dynamic metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AttributeKey {
    /// Namespace.
    #[serde(default = "load_balancer")]
    pub namespace: String,
    /// Key within it.
    pub name: String,
}

fn load_balancer() -> String {
    names::metadata::LB.to_owned()
}

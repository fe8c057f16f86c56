//! Plugin types under llm-d's names, with typed parameters and llm-d's defaults.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ConfigError, from_yaml};

/// What a plugin can be referred to as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Discovery,
    Parser,
    Producer,
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
}

impl Role {
    /// As an error calls it.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Discovery => "discovery plugin",
            Self::Parser => "parser",
            Self::Producer => "data producer",
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
    SloAdmitter(SloAdmitter) = "latency-slo-admitter", Admitter;
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

parameters! {
    /// A plugin that takes no parameters.
    NoParameters {}
}

parameters! {
    /// `file-discovery`: endpoints and objectives from a file.
    FileDiscovery {
        /// Path of the file.
        path: String = String::new(),
        /// Read it again whenever it changes.
        watch_file: bool = false,
    }
}

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

parameters! {
    /// `metrics-data-source`: where engines' metrics are read.
    MetricsDataSource {
        /// http or https.
        scheme: String = "http".to_owned(),
        /// Path of the metrics page.
        path: String = "/metrics".to_owned(),
        /// Accept any certificate.
        insecure_skip_verify: bool = true,
        /// CA to verify the engine with.
        ca_cert_path: Option<String> = None,
        /// Client certificate.
        client_cert_path: Option<String> = None,
        /// Its key.
        client_key_path: Option<String> = None,
        /// Time between reads, a Go duration; absent = the `--refresh-metrics-interval` flag.
        interval: Option<String> = None,
    }
}

parameters! {
    /// `core-metrics-extractor`: which metrics mean what.
    CoreMetricsExtractor {
        /// Label with the endpoint's engine type.
        engine_label_key: String = "llm-d.ai/engine-type".to_owned(),
        /// Engine of endpoints without that label; only `vllm` is built.
        default_engine: String = "vllm".to_owned(),
        /// Other engines' metric names; not built, must stay empty.
        engine_configs: Vec<Value> = Vec::new(),
    }
}

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

parameters! {
    /// `latency-slo-admitter`: refuses sheddable requests that no endpoint can serve in time. Unlike llm-d's,
    /// an idle endpoint does not admit by itself, and an untrusted prediction does.
    SloAdmitter {
        /// Headroom's own: the quantile compared with the SLO. The median, because a refusal is a certain miss:
        /// it only pays when the miss is more likely than not.
        quantile: Quantile = Quantile::P50,
    }
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

/// Which headroom `latency-scorer` prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The endpoint nearest its SLO: bin packing.
    #[default]
    Least,
    /// The endpoint furthest from its SLO: spreading.
    Most,
}

/// What `concurrency-detector` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

//! Scorers and pickers.

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
    /// `load-aware-scorer`: `0.5·(1 − min(queue, threshold)/threshold)`.
    LoadAwareScorer {
        /// Queue length from which the score is 0.
        threshold: f64 = 128.0,
    }
}

parameters! {
    /// `token-load-scorer`: `1 − min(1, in-flight tokens/threshold)`.
    TokenLoadScorer {
        /// In-flight tokens from which the score is 0.
        queue_threshold_tokens: f64 = 4_194_304.0,
        /// Producer of in-flight load.
        in_flight_load_producer_name: Option<String> = None,
    }
}

parameters! {
    /// `active-request-scorer`: idle endpoints 1, the others `(max − n)/max` of `maxBusyScore`.
    ActiveRequestScorer {
        /// Requests in flight up to which an endpoint counts as idle.
        idle_threshold: u32 = 0,
        /// Most that a busy endpoint scores.
        max_busy_score: f64 = 1.0,
        /// Deprecated at llm-d, ignored.
        request_timeout: Option<String> = None,
        /// Producer of in-flight load.
        in_flight_load_producer_name: Option<String> = None,
    }
}

parameters! {
    /// `no-hit-lru-scorer`: cold prompts go where the last cold prompt is longest ago.
    NoHitLruScorer {
        /// Endpoints remembered.
        lru_size: u32 = 1_024,
        /// Deprecated at llm-d, ignored.
        prefix_plugin_type: Option<String> = None,
        /// Deprecated at llm-d, ignored.
        prefix_plugin_name: Option<String> = None,
        /// Producer of prefix matches.
        prefix_match_info_producer_name: Option<String> = None,
    }
}

parameters! {
    /// `session-affinity-scorer` and `session-affinity-filter`: the endpoint that served the session before.
    SessionAffinity {
        /// How a request tells its session.
        strategy: SessionStrategy = SessionStrategy::EncodedEndpointHeader,
        /// Header that carries the endpoint, in requests and answers.
        #[serde(deserialize_with = "super::lower_case")]
        header_name: String = names::header::SESSION_TOKEN.to_owned(),
        /// Where a session id is read, first come first served.
        sources: Vec<SessionIdSource> = vec![SessionIdSource::named(names::header::SESSION_ID)],
        /// Seconds that a session is remembered without a request.
        eviction_ttl_seconds: f64 = 300.0,
        /// Seconds between sweeps of what is forgotten.
        eviction_sweep_seconds: f64 = 10.0,
        /// The profile whose pick counts; there is one here.
        profile_name: Option<String> = None,
        /// llm-d's nested spelling of `headerName`.
        encoded_endpoint_header_config: Option<EncodedEndpointHeader> = None,
        /// llm-d's nested spelling of the parameters of `session_id`.
        session_id_config: Option<SessionIdConfig> = None,
    }
}

/// How a request tells its session.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SessionStrategy {
    /// A header holds the endpoint's name in base64, as an earlier answer gave it.
    #[default]
    EncodedEndpointHeader,
    /// A header holds an opaque id; which endpoint it is bound to is remembered here.
    SessionId,
}

/// One place where a session id is read: a header's name, or an object naming a header or an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum SessionIdSource {
    /// A request header.
    Name(String),
    /// One of both.
    Place(SessionIdPlace),
}

/// A [`SessionIdSource`] spelt out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SessionIdPlace {
    /// A request header.
    pub header: Option<String>,
    /// What `session-id-producer` or `agent-identity` read.
    pub attribute: Option<String>,
}

impl SessionIdSource {
    fn named(header: &str) -> Self {
        Self::Name(header.to_owned())
    }

    /// The header it names, if it names one.
    pub(crate) fn header(&self) -> Option<&str> {
        match self {
            Self::Name(header) => Some(header),
            Self::Place(place) => place.header.as_deref(),
        }
    }
}

parameters! {
    /// llm-d's nested spelling of `headerName`.
    EncodedEndpointHeader {
        /// The header.
        #[serde(deserialize_with = "super::lower_case")]
        header: String = names::header::SESSION_TOKEN.to_owned(),
    }
}

parameters! {
    /// llm-d's nested spelling of the parameters of `session_id`.
    SessionIdConfig {
        /// Where a session id is read, first come first served.
        sources: Vec<SessionIdSource> = vec![SessionIdSource::named(names::header::SESSION_ID)],
        /// Seconds that a session is remembered without a request.
        eviction_ttl_seconds: f64 = 300.0,
        /// Seconds between sweeps of what is forgotten.
        eviction_sweep_seconds: f64 = 10.0,
    }
}

impl SessionAffinity {
    /// The header with the encoded endpoint, in lower case.
    pub fn token_header(&self) -> &str {
        self.encoded_endpoint_header_config
            .as_ref()
            .map_or(&self.header_name, |config| &config.header)
    }

    /// Where session ids are read.
    pub(crate) fn sources(&self) -> &[SessionIdSource] {
        self.session_id_config
            .as_ref()
            .map_or(&self.sources, |config| &config.sources)
    }

    /// Seconds that a session is remembered, and seconds between sweeps.
    pub(crate) fn memory_seconds(&self) -> (f64, f64) {
        self.session_id_config.as_ref().map_or(
            (self.eviction_ttl_seconds, self.eviction_sweep_seconds),
            |config| (config.eviction_ttl_seconds, config.eviction_sweep_seconds),
        )
    }

    /// Whether it reads a session that `session-id-producer` or `agent-identity` reads.
    pub(crate) fn reads_attribute(&self) -> bool {
        self.strategy == SessionStrategy::SessionId
            && self
                .sources()
                .iter()
                .any(|source| source.header().is_none())
    }

    /// Headers of requests that it reads.
    pub(crate) fn headers(&self) -> Vec<&str> {
        match self.strategy {
            SessionStrategy::EncodedEndpointHeader => vec![self.token_header()],
            SessionStrategy::SessionId => self
                .sources()
                .iter()
                .filter_map(SessionIdSource::header)
                .collect(),
        }
    }
}

parameters! {
    /// `header-label-affinity-scorer`: endpoints whose label equals a request header score 1, the others 0.
    HeaderLabelAffinityScorer {
        /// The header.
        #[serde(deserialize_with = "super::lower_case")]
        header_name: String = String::new(),
        /// The label.
        label_key: String = String::new(),
        /// Put the picked endpoint's label into the header of the answer.
        stamp_response_header: bool = true,
    }
}

parameters! {
    /// `context-length-aware`: endpoints whose label says that they are for prompts of this length.
    ContextLengthAware {
        /// Label with the range of prompt tokens, `min-max`.
        label: String = names::label::CONTEXT_LENGTH_RANGE.to_owned(),
        /// Drop the endpoints whose range the prompt is outside of.
        enable_filtering: bool = false,
    }
}

parameters! {
    /// `endpoint-attribute-scorer`: a number of the endpoint, scaled to 0..=1.
    EndpointAttributeScorer {
        /// Attribute: a custom metric, or what another extractor tells.
        attribute_key: String = String::new(),
        /// The extractor that tells it; absent = `core-metrics-extractor`.
        producer: Option<String> = None,
        /// How it is scaled.
        algorithm: AttributeScale = AttributeScale::default(),
    }
}

parameters! {
    /// How an [`EndpointAttributeScorer`] scales.
    AttributeScale {
        /// Which end is better.
        #[serde(rename = "type")]
        direction: Direction = Direction::LinearLowerIsBetter,
        /// Over which range; absent = that of the candidates.
        normalization: Normalization = Normalization::default(),
    }
}

/// Which end of a range scores 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The low end.
    #[default]
    LinearLowerIsBetter,
    /// The high end.
    LinearHigherIsBetter,
}

parameters! {
    /// The range an attribute is scaled over: at most one of both.
    Normalization {
        /// That of the candidates; the default.
        adaptive_range: Option<super::NoParameters> = None,
        /// A fixed one.
        fixed_range: Option<FixedRange> = None,
    }
}

/// A fixed range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FixedRange {
    /// Its low end.
    pub min: f64,
    /// Its high end.
    pub max: f64,
}

parameters! {
    /// `topology-affinity-scorer`: nearness to a peer: host 1, rack 0.2, zone 0.05, region 0.02.
    TopologyAffinityScorer {
        /// Extractor of topology.
        topology_producer_name: Option<String> = None,
        /// Headroom's own: request header with the peer's `ip:port`; absent = there is no peer.
        peer_header: Option<String> = None,
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

//! The `EndpointPickerConfig` document as people write it: strict at every level, nothing resolved yet.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Document {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) feature_gates: Vec<String>,
    #[serde(default)]
    pub(crate) plugins: Vec<PluginEntry>,
    #[serde(default)]
    pub(crate) scheduling_profiles: Vec<ProfileEntry>,
    #[serde(default)]
    pub(crate) data_layer: Option<DataLayer>,
    #[serde(default)]
    pub(crate) flow_control: Option<FlowControl>,
    #[serde(default)]
    pub(crate) request_handler: Option<RequestHandler>,
    #[serde(default)]
    pub(crate) saturation_detector: Option<OptionalRef>,
    #[serde(default)]
    pub(crate) parser: Option<OptionalRef>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PluginEntry {
    pub(crate) name: Option<String>,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    #[serde(default)]
    pub(crate) parameters: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProfileEntry {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) plugins: Vec<WeightedRef>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WeightedRef {
    pub(crate) plugin_ref: String,
    pub(crate) weight: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Ref {
    pub(crate) plugin_ref: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct OptionalRef {
    pub(crate) plugin_ref: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DataLayer {
    pub(crate) inject_defaults: Option<bool>,
    #[serde(default)]
    pub(crate) sources: Vec<SourceEntry>,
    pub(crate) discovery: Option<Ref>,
    pub(crate) peer_discovery: Option<Ref>,
    pub(crate) cross_replica_syncer_plugin_ref: Option<String>,
    pub(crate) cross_replica_sync_interval: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SourceEntry {
    pub(crate) plugin_ref: String,
    #[serde(default)]
    pub(crate) extractors: Vec<Ref>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RequestHandler {
    #[serde(default)]
    pub(crate) parsers: Vec<Ref>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FlowControl {
    pub(crate) max_bytes: Option<Quantity>,
    pub(crate) max_requests: Option<u64>,
    #[serde(rename = "defaultRequestTTL")]
    pub(crate) default_request_ttl: Option<String>,
    #[serde(rename = "noEndpointRequestTTL")]
    pub(crate) no_endpoint_request_ttl: Option<String>,
    pub(crate) default_priority_band: Option<DefaultBand>,
    pub(crate) default_negative_priority_band: Option<DefaultBand>,
    #[serde(default)]
    pub(crate) priority_bands: Vec<Band>,
    pub(crate) usage_limit_policy_plugin_ref: Option<String>,
    pub(crate) saturation_detector: Option<OptionalRef>,
    #[serde(default)]
    pub(crate) enable_eviction: bool,
    #[serde(default)]
    pub(crate) advisory_headers: bool,
}

/// A band of the template kind: `priority` may stand there, means nothing, and is warned of.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DefaultBand {
    pub(crate) priority: Option<i32>,
    pub(crate) max_bytes: Option<Quantity>,
    pub(crate) max_requests: Option<u64>,
    #[serde(rename = "defaultRequestTTL")]
    pub(crate) default_request_ttl: Option<String>,
    pub(crate) fairness_policy_ref: Option<String>,
    pub(crate) ordering_policy_ref: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Band {
    pub(crate) priority: i32,
    pub(crate) max_bytes: Option<Quantity>,
    pub(crate) max_requests: Option<u64>,
    #[serde(rename = "defaultRequestTTL")]
    pub(crate) default_request_ttl: Option<String>,
    pub(crate) fairness_policy_ref: Option<String>,
    pub(crate) ordering_policy_ref: Option<String>,
}

impl From<Band> for DefaultBand {
    fn from(band: Band) -> Self {
        Self {
            priority: Some(band.priority),
            max_bytes: band.max_bytes,
            max_requests: band.max_requests,
            default_request_ttl: band.default_request_ttl,
            fairness_policy_ref: band.fairness_policy_ref,
            ordering_policy_ref: band.ordering_policy_ref,
        }
    }
}

/// A quantity: a number of bytes or a text such as `1G`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Quantity {
    Number(u64),
    Text(String),
}

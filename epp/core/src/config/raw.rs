//! The `EndpointPickerConfig` document as people write it: strict at every level, nothing resolved yet. The comments
//! are the descriptions in its JSON schema.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// How the endpoint picker queues requests and chooses endpoints.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Document {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// NAME, NAME=true or NAME=false. `flowControl` turns the queue on.
    #[serde(default)]
    pub(crate) feature_gates: Vec<String>,
    /// The plugins that the sections refer to, or that work by being listed.
    #[serde(default)]
    pub(crate) plugins: Vec<PluginEntry>,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub(crate) scheduling_profiles: Vec<ProfileEntry>,
    /// Where endpoints come from and how their metrics are read.
    #[serde(default)]
    pub(crate) data_layer: Option<DataLayer>,
    /// The queue's limits and the saturation detector.
    #[serde(default)]
    pub(crate) flow_control: Option<FlowControl>,
    /// The APIs that are read.
    #[serde(default)]
    pub(crate) request_handler: Option<RequestHandler>,
    /// Deprecated: write `flowControl.saturationDetector`.
    #[serde(default)]
    #[schemars(extend("deprecated" = true))]
    pub(crate) saturation_detector: Option<OptionalRef>,
    /// Deprecated: write `requestHandler.parsers`.
    #[serde(default)]
    #[schemars(extend("deprecated" = true))]
    pub(crate) parser: Option<OptionalRef>,
}

/// A plugin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PluginEntry {
    /// What other parts refer to it by; the type, where there is none or an empty one.
    pub(crate) name: Option<String>,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Absent parameters have the type's defaults.
    #[serde(default)]
    pub(crate) parameters: Value,
}

impl PluginEntry {
    /// What other parts refer to it by. An empty name is none, as in Go.
    pub(crate) fn goes_by(&self) -> &str {
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        name.unwrap_or(&self.type_name)
    }
}

/// A scheduling profile: filters, scorers and a picker, in any order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProfileEntry {
    /// What a profile handler refers to it by.
    pub(crate) name: String,
    /// What it is made of.
    #[serde(default)]
    pub(crate) plugins: Vec<WeightedRef>,
}

/// A plugin of a profile.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WeightedRef {
    /// Name of the plugin.
    pub(crate) plugin_ref: String,
    /// Weight of a scorer, at least 0; 1 where there is none.
    #[schemars(range(min = 0.0))]
    pub(crate) weight: Option<f64>,
}

/// A plugin by its name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Ref {
    /// Name of the plugin.
    pub(crate) plugin_ref: String,
}

/// A plugin by its name, if any.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct OptionalRef {
    /// Name of the plugin.
    pub(crate) plugin_ref: Option<String>,
}

/// Where endpoints come from and how their metrics are read.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DataLayer {
    /// Whether engines' metrics are read where no source is listed; true where there is nothing.
    pub(crate) inject_defaults: Option<bool>,
    /// What is read from endpoints.
    #[serde(default)]
    pub(crate) sources: Vec<SourceEntry>,
    /// Where endpoints come from; Kubernetes where there is nothing.
    pub(crate) discovery: Option<Ref>,
    /// Where other pickers of the pool are found.
    pub(crate) peer_discovery: Option<Ref>,
    /// What other pickers are told with.
    pub(crate) cross_replica_syncer_plugin_ref: Option<String>,
    /// Time between two tellings, such as 200ms.
    pub(crate) cross_replica_sync_interval: Option<String>,
}

/// Something that is read from endpoints.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SourceEntry {
    /// Name of a data source.
    pub(crate) plugin_ref: String,
    /// What is taken out of it.
    #[serde(default)]
    pub(crate) extractors: Vec<Ref>,
}

/// The APIs that are read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RequestHandler {
    /// Parsers, each for the paths of its API.
    #[serde(default)]
    pub(crate) parsers: Vec<Ref>,
    /// Share of the answers that are read for their first token and usage, 0 to 1; the others pass unread. Ours.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) read_answers: Option<f64>,
}

/// The queue.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FlowControl {
    /// Body bytes queued at most, over all bands, such as 1G; 0 = no limit.
    pub(crate) max_bytes: Option<Quantity>,
    /// Requests queued at most, over all bands; 0 = no limit.
    pub(crate) max_requests: Option<u64>,
    /// Longest time in the queue while there are endpoints, such as 60s; 0s = no limit.
    #[serde(rename = "defaultRequestTTL")]
    pub(crate) default_request_ttl: Option<String>,
    /// The same while there is no endpoint; as `defaultRequestTTL` where there is nothing.
    #[serde(rename = "noEndpointRequestTTL")]
    pub(crate) no_endpoint_request_ttl: Option<String>,
    /// Limits of bands without an entry of their own.
    pub(crate) default_priority_band: Option<DefaultBand>,
    /// The same for negative priorities: no request waits where `maxRequests` or `maxBytes` is 0.
    pub(crate) default_negative_priority_band: Option<DefaultBand>,
    /// Limits by priority.
    #[serde(default)]
    pub(crate) priority_bands: Vec<Band>,
    /// How full the pool may be.
    pub(crate) usage_limit_policy_plugin_ref: Option<String>,
    /// What tells that the pool is full.
    pub(crate) saturation_detector: Option<OptionalRef>,
    /// Whether running requests of negative priority are taken off their server for others.
    #[serde(default)]
    pub(crate) enable_eviction: bool,
    /// Headroom's own: whether answers tell the time in the queue and the room that is left in the band.
    #[serde(default)]
    pub(crate) advisory_headers: bool,
}

/// Limits of every band without an entry of its own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DefaultBand {
    /// Means nothing here.
    pub(crate) priority: Option<i32>,
    /// Body bytes queued at most, such as 1G.
    pub(crate) max_bytes: Option<Quantity>,
    /// Requests queued at most.
    pub(crate) max_requests: Option<u64>,
    /// A shorter time in the queue than the general one.
    #[serde(rename = "defaultRequestTTL")]
    pub(crate) default_request_ttl: Option<String>,
    /// What chooses among flows.
    pub(crate) fairness_policy_ref: Option<String>,
    /// What orders the requests of a flow.
    pub(crate) ordering_policy_ref: Option<String>,
}

/// Limits of one band.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Band {
    /// Higher goes first; negative is sheddable.
    pub(crate) priority: i32,
    /// Body bytes queued at most, such as 1G.
    pub(crate) max_bytes: Option<Quantity>,
    /// Requests queued at most.
    pub(crate) max_requests: Option<u64>,
    /// A shorter time in the queue than the general one.
    #[serde(rename = "defaultRequestTTL")]
    pub(crate) default_request_ttl: Option<String>,
    /// What chooses among flows.
    pub(crate) fairness_policy_ref: Option<String>,
    /// What orders the requests of a flow.
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

/// A number of bytes, or a text such as `1G` or `512Mi`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Quantity {
    /// Bytes.
    Number(u64),
    /// With a unit.
    Text(String),
}

//! What the controller saw and decided.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TargetRef;

/// Type of the condition that sums the others up; printed by `kubectl get`.
pub const READY: &str = "Ready";

/// What the controller saw and decided. Written on change, at most every 10 seconds: rates are rounded.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelScalerStatus {
    /// The generation of the spec that the status belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not; `Ready` sums them up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The InferencePool in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The demand offered, summed over all endpoint pickers; absent while it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
    /// Requests per second that the ready replicas serve within the SLOs; absent while it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Capacity less demand, requests per second; negative where replicas are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<f64>,
    /// Predicted latency at the SLO's percentile over the SLO, the larger of the two targets; above 1 the SLO is missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo_pressure: Option<f64>,
    /// The service level that decides the count, such as `interactive ttft`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding_slo: Option<String>,
    /// Replicas that serve, all variants together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<u32>,
    /// Replicas wanted, all variants together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<u32>,
    /// What the wanted replicas cost per hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<f64>,
    /// The latency models in use, one per accelerator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_snapshots: Vec<ModelSnapshot>,
    /// Each variant's count and reasons, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variants: Vec<VariantStatus>,
    /// The last decision that changed a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
}

/// Demand offered to the model: everything that arrived, whatever became of it.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Demand {
    /// Requests per second.
    pub requests_per_second: f64,
    /// Prompt tokens per second.
    pub prompt_tokens_per_second: f64,
    /// Output tokens per second.
    pub output_tokens_per_second: f64,
    /// Of the requests per second, those of negative priority.
    pub sheddable_requests_per_second: f64,
    /// Requests that wait in front of the replicas.
    pub queued: u64,
    /// Requests on the replicas.
    pub in_flight: u64,
    /// Endpoint pickers whose share is known.
    pub pickers: u32,
    /// Endpoint pickers that are silent: their share is unknown, so nothing is scaled down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent_pickers: Vec<String>,
}

/// A latency model in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelSnapshot {
    /// The accelerator it was learned on; empty where the pods carry no such label.
    pub accelerator: String,
    /// Its version at the endpoint picker that serves it.
    pub version: u64,
    /// The endpoint picker pod that it came from.
    pub from: String,
    /// Labelled requests it was learned from.
    pub labels: u64,
    /// `prior`, `warming`, `trained` or `stale`.
    pub state: String,
    /// When it was fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fitted_at: Option<Time>,
}

/// One variant's count and reasons.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantStatus {
    /// Name of the variant.
    pub name: String,
    /// Replicas that the scale subresource asks for now.
    #[serde(default)]
    pub replicas: u32,
    /// Replicas that serve.
    #[serde(default)]
    pub ready: u32,
    /// Replicas that are starting.
    #[serde(default)]
    pub starting: u32,
    /// Replicas that cannot be placed: no node fits, or a quota is used up. They count as no capacity.
    #[serde(default)]
    pub pending: u32,
    /// Replicas wanted.
    #[serde(default)]
    pub desired: u32,
    /// Requests per second that one replica serves within the SLOs; absent while it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Seconds since that capacity was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_age_seconds: Option<u64>,
    /// Start-up time in use, seconds: told or measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_seconds: Option<u64>,
    /// What acts on the decision: a HorizontalPodAutoscaler or ScaledObject; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaler: Option<ScalerRef>,
    /// Why this count, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// Reference to an autoscaler in the same namespace.
pub type ScalerRef = TargetRef;

/// A decision that changed a count.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastDecision {
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// What changed, such as `h100 2 -> 4`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Why, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

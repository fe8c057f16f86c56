//! How careful a decision is.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How careful to be. Every field is optional; the defaults suit interactive serving.
#[derive(Clone, Copy, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behavior {
    /// Share of the computed capacity kept free, 0 to 0.9. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0.0 && self <= 0.9")
        .message("margin must be a share from 0 to 0.9, such as 0.1"))]
    pub margin: Option<f64>,
    /// Standard errors added to the demand forecast when replicas are counted, 0 to 10. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub band: Option<f64>,
    /// Seconds for which a lower count must have been enough before replicas are removed, 0 to 86400. Default 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub scale_down_guard_seconds: Option<u32>,
    /// Share of slack that the lower count must have before replicas are removed, 0 to 1. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub hysteresis: Option<f64>,
    /// Replicas that may always be added within one start-up time, even if that more than doubles the count; 1 to 1000.
    /// Default 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub step_up: Option<u32>,
    /// How much of the sheddable demand (negative priority) replicas are bought for, 0 (none) to 1 (all). Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sheddable_share: Option<f64>,
    /// Requests that the endpoint picker keeps in flight on one replica; more wait in its queue. Absent: no such limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: Option<u32>,
    /// Utilisation that replicas are sized for when even an idle one misses the SLO, above 0 and below 1. Default 0.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self > 0.0 && self < 1.0")
        .message("utilizationFallback must be above 0 and below 1, such as 0.8"))]
    pub utilization_fallback: Option<f64>,
    /// Seconds in which a backlog is to be worked off, 1 to 86400. Default: the start-up time, at least 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: Option<u32>,
    /// Seconds without any request, queued or in flight, before a variant with minReplicas 0 goes to zero; 1 to 604800.
    /// Default 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub idle_seconds: Option<u32>,
}

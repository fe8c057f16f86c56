//! `DisaggregatedSetRoleScaler` (`disaggregatedset.x-k8s.io/v1`): the scale subresource of one role of a
//! DisaggregatedSet.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What we read of a DisaggregatedSetRoleScaler's spec.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, CustomResource, JsonSchema, Serialize, Deserialize,
)]
#[kube(
    group = "disaggregatedset.x-k8s.io",
    version = "v1",
    kind = "DisaggregatedSetRoleScaler",
    shortname = "dsrs",
    namespaced,
    status = "DisaggregatedSetRoleScalerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "What an autoscaler scales one role of a DisaggregatedSet by.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct DisaggregatedSetRoleScalerSpec {
    /// Groups wanted of the role.
    #[serde(default)]
    pub replicas: i32,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct DisaggregatedSetRoleScalerStatus {
    /// Groups of the role, over all revisions.
    pub replicas: i32,
    /// Selects the role's leader pods, over all revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

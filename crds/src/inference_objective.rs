//! `InferenceObjective` (`llm-d.ai/v1alpha2`, and the group it had before): the priority of the requests that name it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What we read of an InferenceObjective's spec.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, CustomResource, JsonSchema, Serialize, Deserialize,
)]
#[kube(
    group = "llm-d.ai",
    version = "v1alpha2",
    kind = "InferenceObjective",
    shortname = "infobj",
    namespaced,
    status = "InferenceObjectiveStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Priority of the requests that name it, in one pool.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolRef.name"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct InferenceObjectiveSpec {
    /// Higher goes first; negative may be shed. Absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The pool that it holds for.
    pub pool_ref: PoolRef,
}

/// Reference to a pool in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct PoolRef {
    /// API group.
    #[serde(default = "pool_group")]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind.
    #[serde(default = "pool_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl Default for PoolRef {
    fn default() -> Self {
        Self {
            group: pool_group(),
            kind: pool_kind(),
            name: String::new(),
        }
    }
}

/// Whether the objective is in force.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct InferenceObjectiveStatus {
    /// `Accepted`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The resource under the group it had before it moved to `llm-d.ai`; read where that is not installed.
pub mod legacy {
    use super::{CustomResource, Deserialize, InferenceObjectiveStatus, JsonSchema, Serialize};

    /// The spec, unchanged by the move.
    #[derive(
        Clone, Debug, Default, PartialEq, Eq, CustomResource, JsonSchema, Serialize, Deserialize,
    )]
    #[kube(
        group = "inference.networking.x-k8s.io",
        version = "v1alpha2",
        kind = "InferenceObjective",
        namespaced,
        status = "InferenceObjectiveStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Priority of the requests that name it, in one pool."
    )]
    #[serde(transparent)]
    pub struct InferenceObjectiveSpec(pub super::InferenceObjectiveSpec);

    impl From<InferenceObjective> for super::InferenceObjective {
        fn from(old: InferenceObjective) -> Self {
            Self {
                metadata: old.metadata,
                spec: old.spec.0,
                status: old.status,
            }
        }
    }
}

fn pool_group() -> String {
    "inference.networking.k8s.io".to_owned()
}

fn pool_kind() -> String {
    "InferencePool".to_owned()
}

//! `LeaderWorkerSet` (`leaderworkerset.x-k8s.io/v1`): one replica is a group of a leader and its workers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Group and version.
pub const API_VERSION: &str = "leaderworkerset.x-k8s.io/v1";

/// What we read of a LeaderWorkerSet's spec; the pod templates are left out.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, JsonSchema, Serialize, Deserialize)]
#[kube(
    group = "leaderworkerset.x-k8s.io",
    version = "v1",
    kind = "LeaderWorkerSet",
    shortname = "lws",
    namespaced,
    status = "LeaderWorkerSetStatus",
    derive = "PartialEq",
    doc = "Groups of one leader pod and its worker pods, scaled by the group.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.hpaPodSelector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct LeaderWorkerSetSpec {
    /// Groups wanted.
    #[serde(default = "one")]
    pub replicas: i32,
    /// What a group consists of.
    pub leader_worker_template: LeaderWorkerTemplate,
}

/// What a group consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct LeaderWorkerTemplate {
    /// Pods per group, the leader included.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub size: i32,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct LeaderWorkerSetStatus {
    /// Groups that were made.
    pub replicas: i32,
    /// Groups of which every pod is ready.
    pub ready_replicas: i32,
    /// Groups of the newest template.
    pub updated_replicas: i32,
    /// Selects the leader pods only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hpa_pod_selector: Option<String>,
    /// `Available`, `Progressing` and `UpdateInProgress`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn one() -> i32 {
    1
}

//! `InferencePool` (`inference.networking.k8s.io/v1`): the endpoints that serve a model, and who picks among them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What we read of an InferencePool's spec.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, JsonSchema, Serialize, Deserialize)]
#[kube(
    group = "inference.networking.k8s.io",
    version = "v1",
    kind = "InferencePool",
    shortname = "infpool",
    namespaced,
    status = "InferencePoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Endpoints that serve a model, and the endpoint picker that chooses among them.",
    annotation("api-approved.kubernetes.io", "unapproved, test copy"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpec {
    /// Which pods of the namespace are endpoints.
    pub selector: PodSelector,
    /// Ports that every selected pod serves on, 1 to 8; each is an endpoint of its own.
    #[schemars(length(min = 1, max = 8), extend(
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = [{
            "rule": "self.all(a, self.exists_one(b, b.number == a.number))",
            "message": "targetPorts: every number may appear once",
        }],
    ))]
    pub target_ports: Vec<TargetPort>,
    /// Protocol of the endpoints, `http` or `kubernetes.io/h2c`; absent: http.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["http", "kubernetes.io/h2c"]))]
    pub app_protocol: Option<String>,
    /// Who picks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_picker_ref: Option<EndpointPickerRef>,
}

/// Label selector by equality.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// Labels that a pod must have, all of them.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    pub match_labels: BTreeMap<String, String>,
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct TargetPort {
    /// Its number.
    #[schemars(range(min = 1))]
    pub number: u16,
}

/// Reference to the service of the endpoint picker.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.kind != 'Service' || has(self.port)",
    "message": "endpointPickerRef: a Service needs a port",
}]))]
#[serde(rename_all = "camelCase")]
pub struct EndpointPickerRef {
    /// API group; empty for core.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind.
    #[serde(default = "service")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name, in the pool's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Port; required for a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<TargetPort>,
    /// What the gateway does while the picker does not answer: `FailOpen` or `FailClose`.
    #[serde(default = "fail_close")]
    #[schemars(extend("enum" = ["FailOpen", "FailClose"]))]
    pub failure_mode: String,
}

/// What gateways say about the pool; the endpoint picker does not write it.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct InferencePoolStatus {
    /// One entry per gateway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub parents: Vec<ParentStatus>,
}

/// What one gateway says about the pool.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ParentStatus {
    /// The gateway.
    pub parent_ref: ParentRef,
    /// The controller that wrote the entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_name: Option<String>,
    /// `Accepted`, `ResolvedRefs` and `Exported`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Reference to a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ParentRef {
    /// Its namespace; absent: the pool's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

fn service() -> String {
    "Service".to_owned()
}

fn fail_close() -> String {
    "FailClose".to_owned()
}

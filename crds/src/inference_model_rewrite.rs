//! `InferenceModelRewrite` (`llm-d.ai/v1alpha2`, and the group it had before): which model a requested name becomes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::inference_objective::PoolRef;

/// What we read of an InferenceModelRewrite's spec.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, CustomResource, JsonSchema, Serialize, Deserialize,
)]
#[kube(
    group = "llm-d.ai",
    version = "v1alpha2",
    kind = "InferenceModelRewrite",
    shortname = "infmodelrewrite",
    namespaced,
    status = "InferenceModelRewriteStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which model a requested name becomes, in one pool.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolRef.name"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct InferenceModelRewriteSpec {
    /// The pool that it holds for.
    pub pool_ref: PoolRef,
    /// An exact match goes before a rule without matches; else the first rule that matches wins.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<RewriteRule>,
}

/// What is matched, and what it becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct RewriteRule {
    /// Any of them must hold; none: every request matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<RewriteMatch>,
    /// Models to choose among by weight.
    #[schemars(length(min = 1), extend("x-kubernetes-list-type" = "atomic"))]
    pub targets: Vec<RewriteTarget>,
}

/// A condition on the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct RewriteMatch {
    /// On the model's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelMatch>,
}

/// A condition on the requested model's name.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ModelMatch {
    /// How it is compared; only `Exact` is known.
    #[serde(rename = "type", default = "exact")]
    #[schemars(extend("enum" = ["Exact"]))]
    pub kind: String,
    /// What it is compared to.
    #[schemars(length(min = 1, max = 256))]
    pub value: String,
}

/// A model to send on.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteTarget {
    /// Share among the rule's targets, 1 to 1000000; where no target has one, all are equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: Option<u32>,
    /// The model's name.
    #[schemars(length(min = 1, max = 256))]
    pub model_rewrite: String,
}

/// Whether the rewrite is in force.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct InferenceModelRewriteStatus {
    /// `Accepted`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The resource under the group it had before it moved to `llm-d.ai`; read where that is not installed.
pub mod legacy {
    use super::{CustomResource, Deserialize, InferenceModelRewriteStatus, JsonSchema, Serialize};

    /// The spec, unchanged by the move.
    #[derive(
        Clone, Debug, Default, PartialEq, Eq, CustomResource, JsonSchema, Serialize, Deserialize,
    )]
    #[kube(
        group = "inference.networking.x-k8s.io",
        version = "v1alpha2",
        kind = "InferenceModelRewrite",
        namespaced,
        status = "InferenceModelRewriteStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Which model a requested name becomes, in one pool."
    )]
    #[serde(transparent)]
    pub struct InferenceModelRewriteSpec(pub super::InferenceModelRewriteSpec);

    impl From<InferenceModelRewrite> for super::InferenceModelRewrite {
        fn from(old: InferenceModelRewrite) -> Self {
            Self {
                metadata: old.metadata,
                spec: old.spec.0,
                status: old.status,
            }
        }
    }
}

fn exact() -> String {
    "Exact".to_owned()
}

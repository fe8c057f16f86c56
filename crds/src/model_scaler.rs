//! `ModelScaler`: one model, its service levels, and the scale targets that may serve it.

#![allow(
    unreachable_pub,
    reason = "KubeSchema copies every struct, `pub` and all, into a function"
)]

mod behavior;
mod slo;
mod startup;
mod status;
mod variant;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use behavior::Behavior;
pub use slo::{PriorityRange, SloClass};
pub use startup::Startup;
pub use status::{
    Demand, LastDecision, ModelScalerStatus, ModelSnapshot, READY, ScalerRef, VariantStatus,
};
pub use variant::{Role, TargetRef, Variant};

/// What one model must deliver, which scale targets may serve it, and within which limits. The controller computes how
/// many replicas each of them needs.
#[derive(Clone, Debug, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "headroom.dev",
    version = "v1alpha1",
    kind = "ModelScaler",
    plural = "modelscalers",
    shortname = "ms",
    category = "headroom",
    namespaced,
    label("app.kubernetes.io/name", "headroom"),
    label("app.kubernetes.io/part-of", "headroom"),
    annotation("helm.sh/resource-policy", "keep"),
    status = "ModelScalerStatus",
    derive = "PartialEq",
    doc = "Sizes one model: its service levels, the variants that may serve it, and what the controller decided.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.ready",
        description = "Replicas that serve, all variants together"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.desired",
        description = "Replicas wanted, all variants together"
    ),
    printcolumn(
        name = "Headroom",
        type_ = "string",
        json_path = ".status.headroom",
        description = "Requests per second to spare before an SLO is missed"
    ),
    printcolumn(
        name = "Binding SLO",
        type_ = "string",
        json_path = ".status.bindingSlo",
        description = "The service level that decides the count"
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether decisions are made from fresh data and take effect"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Demand",
        type_ = "string",
        json_path = ".status.demand.requestsPerSecond",
        description = "Requests per second offered",
        priority = 1
    ),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        json_path = ".status.capacity",
        description = "Requests per second that the ready replicas serve within the SLO",
        priority = 1
    ),
    printcolumn(
        name = "Cost/h",
        type_ = "string",
        json_path = ".status.costPerHour",
        description = "What the wanted replicas cost per hour",
        priority = 1
    ),
    printcolumn(
        name = "Snapshot",
        type_ = "string",
        json_path = ".status.modelSnapshots[0].state",
        description = "State of the latency model in use; of the first, where there are several",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("!has(self.budgets) || !has(self.budgets.gpus) || self.variants.map(v, v.minReplicas * v.gpusPerReplica).sum() <= self.budgets.gpus")
        .message("budgets.gpus: it is less than the GPUs of all variants at minReplicas; raise it, or lower minReplicas or gpusPerReplica")
        .field_path(".budgets.gpus"),
    validation = Rule::new("!has(self.budgets) || !has(self.budgets.costPerHour) || self.variants.map(v, double(v.minReplicas) * double(v.costPerHour)).sum() <= self.budgets.costPerHour")
        .message("budgets.costPerHour: it is less than the cost of all variants at minReplicas; raise it, or lower minReplicas")
        .field_path(".budgets.costPerHour"),
)]
#[serde(rename_all = "camelCase")]
pub struct ModelScalerSpec {
    /// The model, as clients name it in their requests.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
    /// Name of the InferencePool, in the same namespace, whose endpoint pickers see the demand. Absent: the pool whose
    /// annotation names the model, else the only pool of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(matching(SUBDOMAIN))
        .message("pool must be the name of an InferencePool in the same namespace: lower case letters, digits, `-` and `.`"))]
    pub pool: Option<String>,
    /// What is promised to which requests: 1 to 8 classes, told apart by priority. Replicas are counted so that every
    /// class is met.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))")
        .message("sloClasses: two classes have the same name; give each its own"))]
    #[x_kube(validation = Rule::new("self.filter(c, !has(c.priority)).size() <= 1")
        .message("sloClasses: more than one class has no priority range; at most one class may take all priorities that no other names"))]
    #[x_kube(validation = Rule::new("self.all(a, self.all(b, a.name == b.name || !has(a.priority) || !has(b.priority) || a.priority.max < b.priority.min || b.priority.max < a.priority.min))")
        .message("sloClasses: the priority ranges of two classes overlap; a priority must belong to one class only"))]
    pub slo_classes: Vec<SloClass>,
    /// The scale targets that may serve the model: 1 to 32.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))")
        .message("variants: two variants have the same name; give each its own"))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.target.name == a.target.name && b.target.kind == a.target.kind && b.target.apiVersion == a.target.apiVersion))")
        .message("variants: two variants have the same target; one scale target can be sized by one variant only"))]
    #[x_kube(validation = Rule::new("self.exists(v, v.role == 'prefill') == self.exists(v, v.role == 'decode')")
        .message("variants: prefill and decode come together; add a variant of the missing role, or make the role `both`"))]
    #[x_kube(validation = Rule::new("!self.exists(v, v.role == 'both') || self.all(v, v.role == 'both')")
        .message("variants: role `both` does not mix with prefill and decode; use one split or none"))]
    pub variants: Vec<Variant>,
    /// What all variants together may take. Absent: no limit but each variant's maxReplicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
    /// What is done with the decision: `advise` computes and reports it, `publish` also serves it through the metrics
    /// APIs so that HorizontalPodAutoscalers act on it, `direct` writes it to the scale subresource of each target.
    #[serde(default)]
    pub mode: Mode,
    /// How careful to be. Absent fields take their defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
}

/// Most replicas that a variant may be allowed.
pub const MAX_REPLICAS: u32 = 100_000;

/// DNS subdomain: the name of most Kubernetes objects.
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Value of a label.
const LABEL_VALUE: &str = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// DNS label.
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The rule that a text matches `pattern`; unlike a pattern of the schema it has a message that a person can read.
fn matching(pattern: &str) -> String {
    format!("self.matches('{pattern}')")
}

/// Limits over all variants of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budgets {
    /// Most GPUs that all replicas together may use. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self > 0")
        .message("gpus must be above 0; leave it out for no limit"))]
    pub gpus: Option<u32>,
    /// Most that all replicas together may cost per hour, in the currency of the variants' costPerHour. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self > 0.0")
        .message("costPerHour must be above 0; leave it out for no limit"))]
    pub cost_per_hour: Option<f64>,
}

/// What is done with a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Compute and report; change nothing.
    #[default]
    Advise,
    /// Serve the metrics APIs; a HorizontalPodAutoscaler acts.
    Publish,
    /// Write the scale subresource.
    Direct,
}

impl Mode {
    /// Every mode, least intrusive first.
    pub const ALL: [Self; 3] = [Self::Advise, Self::Publish, Self::Direct];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Advise => "advise",
            Self::Publish => "publish",
            Self::Direct => "direct",
        }
    }
}

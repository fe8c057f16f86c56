//! Variants: one scale target each.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DNS_LABEL, LABEL_VALUE, MAX_REPLICAS, SUBDOMAIN, matching, startup::Startup};

/// One way to serve the model: a scale target with its accelerator, role, cost and limits.
#[derive(Clone, Debug, PartialEq, KubeSchema, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("maxReplicas is below minReplicas; raise maxReplicas or lower minReplicas")
    .field_path(".maxReplicas"))]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// Name of the variant, unique in the list: the label `variant` of its metrics.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(matching(DNS_LABEL))
        .message("name must be lower case letters, digits and `-`, such as h100"))]
    pub name: String,
    /// What is scaled: any object of the same namespace with a scale subresource, such as a Deployment, StatefulSet,
    /// LeaderWorkerSet or DisaggregatedSetRoleScaler.
    pub target: TargetRef,
    /// What the replicas do with a request: `both`, or `prefill` or `decode` where the model is served disaggregated.
    #[serde(default)]
    pub role: Role,
    /// What the replicas run on, such as `H100`: latencies are learned per accelerator. Absent: the label
    /// headroom.dev/accelerator of the target's pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(matching(LABEL_VALUE))
        .message("accelerator must be spelt as labels are: letters, digits, `-`, `_` and `.`, such as NVIDIA-H100-80GB-HBM3"))]
    pub accelerator: Option<String>,
    /// GPUs of one replica, of all its pods together; counted against budgets.gpus.
    #[serde(default = "one")]
    #[schemars(range(max = 4096))]
    pub gpus_per_replica: u32,
    /// What one replica costs per hour, in any one currency. Only the ratio between variants matters, unless
    /// budgets.costPerHour is set.
    #[serde(default = "one_per_hour")]
    #[schemars(range(min = 0.0))]
    pub cost_per_hour: f64,
    /// Fewest replicas; 0 allows the variant to go to zero.
    #[serde(default = "one")]
    #[schemars(range(max = MAX_REPLICAS))]
    pub min_replicas: u32,
    /// Most replicas, at least minReplicas and 1.
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub max_replicas: u32,
    /// Seconds from a replica's creation to its first useful answer, or `auto` to measure them from the target's pods
    /// (120 until one was seen to start).
    #[serde(default)]
    pub startup_seconds: Startup,
}

/// Reference to an object with a scale subresource in the namespace of the ModelScaler.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, KubeSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group and version, such as `apps/v1` or `leaderworkerset.x-k8s.io/v1`.
    #[schemars(length(min = 1, max = 128))]
    pub api_version: String,
    /// Kind, such as `Deployment`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(matching(SUBDOMAIN))
        .message("name must be that of an object in the same namespace: lower case letters, digits, `-` and `.`"))]
    pub name: String,
}

/// What replicas do with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Compute the prompt's KV cache and hand it on.
    Prefill,
    /// Generate from a KV cache computed elsewhere.
    Decode,
    /// The whole request.
    #[default]
    Both,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Prefill, Self::Decode, Self::Both];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Both => "both",
        }
    }
}

fn one() -> u32 {
    1
}

fn one_per_hour() -> f64 {
    1.0
}

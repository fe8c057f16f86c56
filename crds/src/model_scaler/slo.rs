//! Service levels: what is promised, and to which priorities.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{DNS_LABEL, matching};

/// One service level: `percentile` per cent of its requests see their first token within `ttftMs`, and as many a mean
/// time per output token of at most `tpotMs`.
#[derive(Clone, Debug, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SloClass {
    /// Name of the class, unique in the list.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(matching(DNS_LABEL))
        .message("name must be lower case letters, digits and `-`, such as interactive"))]
    pub name: String,
    /// Share of the requests that must meet each target, in per cent, at least 1 and below 100: 90 is nine in ten.
    #[serde(default = "default_percentile")]
    #[x_kube(validation = Rule::new("self >= 1.0 && self < 100.0")
        .message("percentile must be at least 1 and below 100, in per cent: 90 is nine in ten, 0.9 is not"))]
    pub percentile: f64,
    /// Target for the time to first token as the user sees it, in milliseconds.
    #[x_kube(validation = Rule::new("self > 0.0")
        .message("ttftMs must be above 0: milliseconds to the first token, such as 500"))]
    pub ttft_ms: f64,
    /// Target for the mean time per output token of a request, in milliseconds.
    #[x_kube(validation = Rule::new("self > 0.0")
        .message("tpotMs must be above 0: milliseconds per output token, such as 50"))]
    pub tpot_ms: f64,
    /// The request priorities (those of InferenceObjectives) that belong to the class. Absent: all that no other class
    /// names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityRange>,
    /// How much the class counts relative to the others, above 0 and at most 1000. Where every class names its
    /// priorities, requests of any other priority belong to the class of the greatest weight.
    #[serde(default = "default_weight")]
    #[schemars(range(max = 1000.0))]
    #[x_kube(validation = Rule::new("self > 0.0")
        .message("weight must be above 0 and at most 1000; 1 is the default"))]
    pub weight: f64,
}

/// Priorities from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.min <= self.max")
    .message("priority: min is above max; swap them"))]
pub struct PriorityRange {
    /// Lowest priority of the class. Absent: no lower end.
    #[serde(default = "lowest")]
    pub min: i32,
    /// Highest priority of the class. Absent: no upper end.
    #[serde(default = "highest")]
    pub max: i32,
}

fn default_percentile() -> f64 {
    90.0
}

fn default_weight() -> f64 {
    1.0
}

fn lowest() -> i32 {
    i32::MIN
}

fn highest() -> i32 {
    i32::MAX
}

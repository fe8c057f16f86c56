//! Why a model has the replicas it has: one decision with its arithmetic, and what the autoscaler will make of it.

use controller_core::hpa;
use controller_core::model::{ModelDecision, VariantDecision};
use crds::model_scaler::ModelSnapshot;
use serde::{Deserialize, Serialize};

use super::hpas::{Hpa, Reading, Target};
use super::models::{Finding, VariantSpec, mode_name};
use super::observe::VariantView;
use super::status::Report;
use crate::published::ObjectRef;
use crate::published::series::Metric;

/// A model's decision as it is served and printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Version of this document's shape.
    pub schema: u32,
    /// Namespace.
    pub namespace: String,
    /// Model.
    pub model: String,
    /// `advise`, `publish` or `direct`.
    pub mode: String,
    /// The object that asks, as kind and name.
    pub source: String,
    /// The InferencePool that sees the demand.
    pub pool: Option<String>,
    /// When this was decided, unix milliseconds.
    pub at_ms: u64,
    /// What the demand rests on, in sentences.
    pub notes: Vec<String>,
    /// What holds for all variants, in sentences.
    pub why: Vec<String>,
    /// Its variants, in their order.
    pub variants: Vec<ExplainedVariant>,
    /// The latency models in use.
    pub snapshots: Vec<ModelSnapshot>,
    /// What a person should know or change.
    pub findings: Vec<ExplainedFinding>,
    /// The decision itself; `None` before the first.
    pub decision: Option<ModelDecision>,
    /// The changes before it, newest first.
    pub changes: Vec<Change>,
}

/// Version of [`Explanation`]'s shape.
pub const SCHEMA: u32 = 1;

/// One variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedVariant {
    /// Name.
    pub name: String,
    /// What is scaled.
    pub target: ObjectRef,
    /// What its replicas run on; empty when not known.
    pub accelerator: String,
    /// Fewest and most replicas.
    pub limits: [u32; 2],
    /// Replicas that the scale subresource asks for; `None` while unknown.
    pub asked: Option<u32>,
    /// Replicas that serve.
    pub ready: u32,
    /// Replicas that are starting.
    pub starting: u32,
    /// Replicas that are no capacity and none on its way.
    pub pending: u32,
    /// Replicas wanted; `None` before the first decision.
    pub wanted: Option<u32>,
    /// Replicas that the range of the forecast asks for, from the present rate alone to the most cautious.
    pub range: Option<[u32; 2]>,
    /// Requests per second that one replica serves within the service levels; `None` while unknown.
    pub capacity: Option<f64>,
    /// What one replica costs per hour.
    pub cost_per_hour: f64,
    /// Why this count, one sentence each.
    pub why: Vec<String>,
    /// What acts on it.
    pub autoscaler: Option<ExplainedAutoscaler>,
}

/// What an autoscaler will make of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedAutoscaler {
    /// The autoscaler.
    pub object: ObjectRef,
    /// Fewest and most replicas that it allows.
    pub limits: [u32; 2],
    /// Relative differences that it ignores, up and down.
    pub tolerance: [f64; 2],
    /// The count that comes out before its behaviour policies; `None` where that cannot be said.
    pub makes: Option<u32>,
    /// The same in a sentence.
    pub says: String,
}

/// Something that a person should know or change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedFinding {
    /// One CamelCase word.
    pub reason: String,
    /// The object, as kind and name.
    pub about: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// Good to know only.
    pub note: bool,
}

/// A decision that changed a count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// When, unix milliseconds.
    pub at_ms: u64,
    /// What and why, one sentence per changed variant.
    pub why: Vec<String>,
}

impl Change {
    /// What `decision` changes; `None` when nothing.
    pub fn of(decision: &ModelDecision, at_ms: u64) -> Option<Self> {
        let changed = decision.variants.iter().filter(|variant| variant.changes());
        let why: Vec<String> = changed.map(ToString::to_string).collect();
        (!why.is_empty()).then_some(Self { at_ms, why })
    }
}

/// Explains what a cycle reported at `at_ms`, after the `changes` before (newest first).
pub fn explain(report: &Report, at_ms: u64, changes: Vec<Change>) -> Explanation {
    let spec = &report.spec;
    let decision = report.decision.as_deref();
    let places = spec.variants.iter().zip(&spec.policy.variants);
    let variants = places.enumerate().map(|(number, (place, policy))| {
        let decided = decision.and_then(|decision| decision.variant(&place.name));
        let view = report.views.get(number).cloned().unwrap_or_default();
        ExplainedVariant {
            name: place.name.clone(),
            target: place.target.clone(),
            accelerator: policy.accelerator.clone(),
            limits: [policy.min, policy.max],
            asked: view.asked,
            ready: view.replicas.ready,
            starting: view.replicas.starting,
            pending: view.replicas.pending,
            wanted: decided.map(|one| one.replicas),
            range: decided.map(|one| [one.lower, one.upper]),
            capacity: decided.and_then(|one| one.requests_per_second),
            cost_per_hour: policy.cost_per_hour,
            why: decided.map_or_else(Vec::new, |one| {
                one.reasons.iter().map(ToString::to_string).collect()
            }),
            autoscaler: autoscaler(place, &view, decided),
        }
    });
    let findings = report.all_findings().map(|finding| {
        let Finding {
            reason,
            about,
            message,
            note,
            ..
        } = finding;
        ExplainedFinding {
            reason: (*reason).to_owned(),
            about: about.to_string(),
            message: message.clone(),
            note: *note,
        }
    });
    Explanation {
        schema: SCHEMA,
        namespace: spec.key.namespace.clone(),
        model: spec.key.model.clone(),
        mode: mode_name(spec.mode).to_owned(),
        source: spec.source.to_string(),
        pool: spec.pool.clone(),
        at_ms,
        notes: report.notes.clone(),
        why: overall(decision),
        variants: variants.collect(),
        snapshots: report.snapshots.clone(),
        findings: findings.collect(),
        decision: decision.cloned(),
        changes,
    }
}

fn overall(decision: Option<&ModelDecision>) -> Vec<String> {
    use controller_core::model::Evidence::{Cold, Fresh, Stale};
    let Some(decision) = decision else {
        return vec!["no decision has been made yet".to_owned()];
    };
    let mut why: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    match &decision.evidence {
        Fresh => {}
        Cold { reason } | Stale { reason } => {
            why.push(format!("not to be acted upon: {reason}"));
        }
    }
    why
}

/// What the variant's HPA will make of the decision, if it reads it.
fn autoscaler(
    place: &VariantSpec,
    view: &VariantView,
    decided: Option<&VariantDecision>,
) -> Option<ExplainedAutoscaler> {
    let (object, found) = (place.scaler.clone()?, place.hpa.as_ref()?);
    let makes = match (found.follows(), decided, view.asked) {
        _ if found.paused => None,
        (Some(reading), Some(decided), Some(asked)) => {
            made(found, reading, decided.replicas, asked, view.replicas.ready)
        }
        _ => None,
    };
    let name = format!("{} {}", object.kind, object.name);
    let says = match (makes, decided, view.asked) {
        _ if found.paused => format!(
            "{name} is paused: it leaves alone what somebody else has set to zero; give {} a replica, and it goes on",
            place.target.name
        ),
        (Some(makes), Some(decided), Some(asked))
            if makes == asked && decided.replicas != asked =>
        {
            format!(
                "{name} is told {} and keeps {asked}: the difference lies within its tolerance or beyond its limits {} to {}",
                decided.replicas, found.min, found.max
            )
        }
        (Some(makes), Some(decided), _) if makes == decided.replicas => {
            format!("{name} is told {makes} and makes it {makes}, as fast as its behavior allows")
        }
        (Some(makes), Some(decided), _) => format!(
            "{name} is told {} and makes it {makes}: its limits are {} to {}",
            decided.replicas, found.min, found.max
        ),
        _ if found.follows().is_none() && found.scaled_object.is_none() => {
            format!("{name} reads no count of Headroom's: the decision has no effect on it")
        }
        _ => format!("{name} acts on it; what it makes of it cannot be said"),
    };
    Some(ExplainedAutoscaler {
        object,
        limits: [found.min, found.max],
        tolerance: [found.tolerance.up, found.tolerance.down],
        makes,
        says,
    })
}

/// The count that an HPA asks for when it is told `wanted` while its target asks for `asked` and has `ready` pods.
fn made(hpa: &Hpa, reading: &Reading, wanted: u32, asked: u32, ready: u32) -> Option<u32> {
    let Hpa {
        min,
        max,
        tolerance,
        ..
    } = hpa;
    match (reading.metric, reading.target) {
        (Metric::DesiredReplicas, Target::AverageValue(target)) => Some(hpa::desired(
            f64::from(wanted),
            target,
            asked,
            *tolerance,
            *min,
            *max,
        )),
        (Metric::DesiredRatio, Target::Value(target)) if target > 0.0 => {
            let ratio = f64::from(wanted) / f64::from(asked.max(1)) / target;
            if asked > 0 && tolerance.ignores(ratio) {
                return Some(asked.clamp(*min, (*max).max(*min)));
            }
            let pods = if asked == 0 { 1 } else { ready };
            let count = (ratio * f64::from(pods)).ceil() as u32;
            Some(count.clamp(*min, (*max).max(*min)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

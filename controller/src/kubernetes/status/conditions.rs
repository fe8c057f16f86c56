//! The conditions of a model: each topic's own, and `Ready`, which sums them up.

use controller_core::decision::{Basis, Reason};
use controller_core::model::{Evidence, ModelDecision};
use crds::model_scaler::{ModelSnapshot, READY};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kubernetes::conditions::{Status, set};

use crate::kubernetes::models::{Finding, Topic};
use crate::published::Mode;

/// What was asked for is understood and followed.
pub const SPEC_ACCEPTED: &str = "SpecAccepted";
/// Every scale target exists, can be scaled and names its pods.
pub const TARGETS_FOUND: &str = "TargetsFound";
/// Decisions rest on fresh data.
pub const METRICS_FRESH: &str = "MetricsFresh";
/// Every latency model in use is trained.
pub const MODEL_TRAINED: &str = "ModelTrained";
/// The service levels can be met on an idle replica.
pub const FEASIBLE: &str = "Feasible";
/// Nobody else pulls at the same targets.
pub const NO_CONFLICT: &str = "NoConflict";
/// The HorizontalPodAutoscalers do what is decided.
pub const AUTOSCALER_FOLLOWS: &str = "AutoscalerFollows";
/// Replicas that are asked for come.
pub const CAPACITY_AVAILABLE: &str = "CapacityAvailable";

/// Most findings that one message names.
const NAMED: usize = 4;

/// One condition as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    kind: &'static str,
    status: Status,
    reason: String,
    message: String,
}

impl Verdict {
    fn new(kind: &'static str, status: Status, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    fn holds(&self) -> bool {
        self.status == Status::True
    }
}

/// What conditions are made of.
pub(super) struct Grounds<'a> {
    pub(super) mode: Mode,
    pub(super) findings: &'a [&'a Finding],
    pub(super) decision: Option<&'a ModelDecision>,
    pub(super) snapshots: &'a [ModelSnapshot],
}

/// Sets every condition among `held`; transition times of those that did not turn stay.
pub(super) fn set_all(
    held: &mut Vec<Condition>,
    grounds: &Grounds<'_>,
    generation: Option<i64>,
    now_ms: u64,
) {
    for verdict in verdicts(grounds) {
        let Verdict {
            kind,
            status,
            reason,
            message,
        } = verdict;
        set(held, kind, status, &reason, &message, generation, now_ms);
    }
}

fn verdicts(grounds: &Grounds<'_>) -> Vec<Verdict> {
    let Grounds {
        mode,
        findings,
        decision,
        snapshots,
    } = *grounds;
    let topic = |kind, topic, good: &str| of_topic(kind, topic, good, findings);
    let parts = [
        topic(SPEC_ACCEPTED, Topic::Spec, "Accepted"),
        topic(TARGETS_FOUND, Topic::Target, "Found"),
        fresh(decision),
        topic(NO_CONFLICT, Topic::Conflict, "Alone"),
        topic(AUTOSCALER_FOLLOWS, Topic::Autoscaler, "Follows"),
        topic(CAPACITY_AVAILABLE, Topic::Capacity, "Available"),
        trained(snapshots),
        feasible(decision),
    ];
    let mut all = vec![ready(mode, &parts)];
    all.extend(parts);
    all
}

fn of_topic(kind: &'static str, topic: Topic, good: &str, findings: &[&Finding]) -> Verdict {
    let about = || findings.iter().filter(|finding| finding.topic == topic);
    let wrong: Vec<&&Finding> = about().filter(|finding| !finding.note).collect();
    let notes: Vec<&&Finding> = about().filter(|finding| finding.note).collect();
    let (status, told) = match (wrong.is_empty(), notes.is_empty()) {
        (false, _) => (Status::False, wrong),
        (true, false) => (Status::True, notes),
        (true, true) => return Verdict::new(kind, Status::True, good, ""),
    };
    let named = told.iter().take(NAMED).map(|one| one.message.as_str());
    let mut message = named.collect::<Vec<_>>().join("; ");
    if told.len() > NAMED {
        message.push_str(&format!("; and {} more", told.len() - NAMED));
    }
    let reason = told.first().map_or(good, |first| first.reason);
    Verdict::new(kind, status, reason, message)
}

fn fresh(decision: Option<&ModelDecision>) -> Verdict {
    let Some(decision) = decision else {
        let message = "no decision has been made yet";
        return Verdict::new(METRICS_FRESH, Status::Unknown, "NoDecision", message);
    };
    if let Some(silent) = decision.silent.first() {
        let message = format!(
            "endpoint picker {silent} is silent: its share of the demand is unknown, nothing is scaled down"
        );
        return Verdict::new(METRICS_FRESH, Status::False, "SilentPicker", message);
    }
    match &decision.evidence {
        Evidence::Fresh => Verdict::new(METRICS_FRESH, Status::True, "Fresh", ""),
        Evidence::Cold { reason } => Verdict::new(METRICS_FRESH, Status::False, "Cold", reason),
        Evidence::Stale { reason } => Verdict::new(METRICS_FRESH, Status::False, "Stale", reason),
    }
}

fn trained(snapshots: &[ModelSnapshot]) -> Verdict {
    if snapshots.is_empty() {
        let message = "no endpoint picker has handed over a latency model yet";
        return Verdict::new(MODEL_TRAINED, Status::Unknown, "NoModel", message);
    }
    let Some(young) = snapshots.iter().find(|one| one.state != "trained") else {
        return Verdict::new(MODEL_TRAINED, Status::True, "Trained", "");
    };
    let accelerator = match young.accelerator.as_str() {
        "" => String::new(),
        accelerator => format!(" for {accelerator}"),
    };
    let (state, labels) = (&young.state, young.labels);
    let message =
        format!("the latency model{accelerator} is {state} after {labels} labelled requests");
    let mut reason = state.clone();
    if let Some(first) = reason.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if reason.is_empty() {
        reason = "Unknown".to_owned();
    }
    Verdict::new(MODEL_TRAINED, Status::False, &reason, message)
}

fn feasible(decision: Option<&ModelDecision>) -> Verdict {
    let variants = decision.map_or(&[][..], |decision| &decision.variants);
    let told = variants
        .iter()
        .flat_map(|variant| &variant.reasons)
        .find(|reason| matches!(bare(reason), Reason::Infeasible(_)));
    if let Some(reason) = told {
        return Verdict::new(FEASIBLE, Status::False, "Infeasible", reason.to_string());
    }
    if variants
        .iter()
        .any(|variant| variant.basis == Basis::Utilization)
    {
        let message = "an idle replica misses a service level: sized for utilisation instead";
        return Verdict::new(FEASIBLE, Status::False, "Infeasible", message);
    }
    if variants.iter().any(|variant| variant.basis == Basis::Slo) {
        return Verdict::new(FEASIBLE, Status::True, "Feasible", "");
    }
    let message = "no capacity has been computed yet";
    Verdict::new(FEASIBLE, Status::Unknown, "NotComputed", message)
}

/// A reason without the class that it holds for.
pub(super) fn bare(reason: &Reason) -> &Reason {
    match reason {
        Reason::Class { because, .. } => bare(because),
        other => other,
    }
}

/// Whether decisions are made from fresh data and take effect. In mode advise nothing takes effect, and nothing has to.
fn ready(mode: Mode, parts: &[Verdict]) -> Verdict {
    let needed = |verdict: &&Verdict| match verdict.kind {
        SPEC_ACCEPTED | TARGETS_FOUND | METRICS_FRESH => true,
        NO_CONFLICT => mode != Mode::Advise,
        AUTOSCALER_FOLLOWS => mode == Mode::Publish,
        _ => false,
    };
    match parts.iter().filter(needed).find(|part| !part.holds()) {
        None => Verdict::new(READY, Status::True, "Deciding", ""),
        Some(part) => {
            let status = part.status;
            Verdict::new(READY, status, &part.reason, part.message.as_str())
        }
    }
}

#[cfg(test)]
mod tests;

//! A model's status, of what one cycle made of it.

use std::sync::Arc;

use controller_core::decision::Reason;
use controller_core::model::{ModelDecision, VariantDecision};
use crds::model_scaler::{
    Demand, LastDecision, ModelScalerStatus, ModelSnapshot, ScalerRef, VariantStatus,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{Grounds, bare, set_all};
use crate::kubernetes::models::{Finding, ModelSpec, VariantSpec};
use crate::kubernetes::observe::VariantView;
use crate::published::ObjectRef;

/// Most reasons kept of one variant.
const MAX_REASONS: usize = 12;

/// What one cycle made of one model.
#[derive(Clone, Debug)]
pub struct Report {
    /// What is asked for.
    pub spec: Arc<ModelSpec>,
    /// What was decided; `None` before the first decision.
    pub decision: Option<Arc<ModelDecision>>,
    /// What each variant has, in the spec's order.
    pub views: Vec<VariantView>,
    /// The latency models in use.
    pub snapshots: Vec<ModelSnapshot>,
    /// Endpoint pickers whose share of the demand is known.
    pub pickers: u32,
    /// What the demand rests on, in sentences.
    pub notes: Vec<String>,
    /// What else was found: manual edits, a foreign owner of the metrics API.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Every finding of the model.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        let views = self.views.iter().flat_map(|view| &view.findings);
        self.spec.findings.iter().chain(views).chain(&self.findings)
    }
}

/// The status that `report` makes of the one `before`. Rates have two significant digits, so that noise is no change.
pub fn status_of(report: &Report, before: &ModelScalerStatus, now_ms: u64) -> ModelScalerStatus {
    let Report {
        spec,
        views,
        snapshots,
        ..
    } = report;
    let decision = report.decision.as_deref();
    let findings: Vec<&Finding> = report.all_findings().collect();
    let mut conditions = before.conditions.clone();
    let grounds = Grounds {
        mode: spec.mode,
        findings: &findings,
        decision,
        snapshots,
    };
    set_all(&mut conditions, &grounds, spec.source.generation, now_ms);
    let wanted = |variant: &VariantDecision| variant.replicas;
    let cost = decision.map(|decision| {
        let each = decision.variants.iter().zip(&spec.policy.variants);
        let each = each.map(|(variant, policy)| f64::from(variant.replicas) * policy.cost_per_hour);
        rounded(each.sum())
    });
    ModelScalerStatus {
        observed_generation: spec.source.generation,
        conditions,
        pool: spec.pool.clone(),
        demand: decision.and_then(|decision| demand(decision, report.pickers)),
        capacity: decision.and_then(capacity).map(rounded),
        headroom: decision.and_then(|decision| decision.headroom).map(rounded),
        slo_pressure: decision.and_then(|decision| decision.pressure).map(rounded),
        binding_slo: decision.and_then(binding),
        ready: Some(views.iter().map(|view| view.replicas.ready).sum()),
        desired: decision.map(|decision| decision.variants.iter().map(wanted).sum()),
        cost_per_hour: cost,
        model_snapshots: snapshots.clone(),
        variants: variants(report),
        last_decision: last_decision(decision, now_ms).or_else(|| before.last_decision.clone()),
    }
}

fn demand(decision: &ModelDecision, pickers: u32) -> Option<Demand> {
    let known: Option<Vec<_>> = decision.classes.iter().map(|class| class.demand).collect();
    let known = known.filter(|known| !known.is_empty())?;
    let sum = |of: fn(&controller_core::demand::Demand) -> f64| rounded(known.iter().map(of).sum());
    Some(Demand {
        requests_per_second: sum(|one| one.offered.requests),
        prompt_tokens_per_second: sum(|one| {
            one.offered.cached_tokens + one.offered.uncached_tokens
        }),
        output_tokens_per_second: sum(|one| one.offered.output_tokens),
        sheddable_requests_per_second: sum(|one| one.sheddable),
        queued: decision.queued(),
        in_flight: decision.in_flight,
        pickers,
        silent_pickers: decision.silent.iter().map(|one| one.id.clone()).collect(),
    })
}

/// What the ready replicas of all variants serve; `None` while one that has replicas is not known.
fn capacity(decision: &ModelDecision) -> Option<f64> {
    let each = decision
        .variants
        .iter()
        .filter(|variant| variant.supply.ready > 0)
        .map(|variant| Some(variant.requests_per_second? * f64::from(variant.supply.ready)));
    each.sum()
}

/// The service level that decides, as `class target`.
fn binding(decision: &ModelDecision) -> Option<String> {
    let reasons = decision
        .variants
        .iter()
        .flat_map(|variant| &variant.reasons);
    let first = decision.classes.first()?;
    reasons.into_iter().find_map(|reason| {
        let Reason::Forecast(need) = bare(reason) else {
            return None;
        };
        let class = match reason {
            Reason::Class { class, .. } => class,
            _ => &first.name,
        };
        Some(format!(
            "{class} {}",
            need.binding.to_string().to_lowercase()
        ))
    })
}

fn variants(report: &Report) -> Vec<VariantStatus> {
    let all = report.spec.variants.iter().zip(&report.views);
    let of = |(place, view): (&VariantSpec, &VariantView)| {
        let decided = report
            .decision
            .as_ref()
            .and_then(|decision| decision.variant(&place.name));
        let age = decided.and_then(|one| one.capacities.iter().map(|class| class.age).max());
        VariantStatus {
            name: place.name.clone(),
            replicas: view.asked.unwrap_or(0),
            ready: view.replicas.ready,
            starting: view.replicas.starting,
            pending: view.replicas.pending,
            desired: decided.map_or(0, |one| one.replicas),
            capacity: decided.and_then(|one| one.requests_per_second).map(rounded),
            // To the minute: an age that is written every second would be a write every second.
            capacity_age_seconds: age.map(|age| age.as_secs() / 60 * 60),
            startup_seconds: decided.map(|one| one.startup.as_secs()),
            scaler: place.scaler.as_ref().map(reference),
            reasons: decided.map_or_else(Vec::new, sentences),
        }
    };
    all.map(of).collect()
}

fn reference(object: &ObjectRef) -> ScalerRef {
    ScalerRef {
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        name: object.name.clone(),
    }
}

/// The reasons of the last change or, while nothing changes, of what holds the count.
fn sentences(variant: &VariantDecision) -> Vec<String> {
    let reasons = variant.reasons.iter().take(MAX_REASONS);
    reasons.map(ToString::to_string).collect()
}

fn last_decision(decision: Option<&ModelDecision>, now_ms: u64) -> Option<LastDecision> {
    let decision = decision.filter(|decision| decision.changes())?;
    let changed = || decision.variants.iter().filter(|variant| variant.changes());
    let change = |variant: &VariantDecision| {
        format!(
            "{} {} -> {}",
            variant.name, variant.previous, variant.replicas
        )
    };
    Some(LastDecision {
        at: time(now_ms),
        changes: changed().map(change).collect(),
        reasons: changed().flat_map(sentences).take(MAX_REASONS).collect(),
    })
}

/// Unix milliseconds as the API writes times, in whole seconds.
fn time(unix_ms: u64) -> Option<Time> {
    let seconds = i64::try_from(unix_ms / 1_000).ok()?;
    Timestamp::from_second(seconds).ok().map(Time)
}

/// Two significant digits.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = value.abs().log10().floor() - 1.0;
    let unit = 10_f64.powf(digits.abs());
    // Dividing by whole powers of ten keeps what is written short: 0.12, not 0.12000000000000001.
    if digits < 0.0 {
        (value * unit).round() / unit
    } else {
        (value / unit).round() * unit
    }
}

#[cfg(test)]
pub(crate) mod tests;

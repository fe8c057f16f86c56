//! A model's decision, put together for those who act on it or ask for reasons.

use std::time::Duration;

use super::controller::Seen;
use super::policy::ModelPolicy;
use super::sizing::{ClassLoad, Standing, Wanted};
use super::{ClassCapacity, ClassDecision, Evidence, ModelDecision, VariantDecision};
use crate::capacities::Known;
use crate::decision::{Basis, Hold, Reason, Span};
use crate::demand::Demand;
use crate::guard::Guarded;

/// For so long a decision is still acted upon after what it rests on has gone: a hiccup is not an outage.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// What was concluded, by variant.
pub(super) struct Outcome {
    pub(super) previous: Vec<u32>,
    pub(super) counts: Vec<u32>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) guarded: Vec<Option<Guarded>>,
    pub(super) startups: Vec<Duration>,
    pub(super) reasons: Vec<Reason>,
}

/// What was found on the way.
pub(super) struct Findings<'a> {
    pub(super) demands: Option<Vec<Demand>>,
    pub(super) loads: Option<Vec<ClassLoad>>,
    pub(super) standings: Vec<Standing>,
    pub(super) outcomes: Outcome,
    pub(super) legs: &'a [Vec<usize>],
    pub(super) evidence: Evidence,
}

/// Whether a decision rests on what is the case, given when one last did and what is missing now.
pub(super) fn evidence(
    now: Duration,
    supported: Option<Duration>,
    missing: Option<Hold>,
) -> Evidence {
    let Some(missing) = missing else {
        return Evidence::Fresh;
    };
    match supported.map(|at| now.saturating_sub(at)) {
        Some(age) if age <= GOOD_FOR => Evidence::Fresh,
        Some(age) => Evidence::Stale {
            reason: format!("held for {}: {missing}", Span(age)),
        },
        None => Evidence::Cold {
            reason: missing.to_string(),
        },
    }
}

/// Puts the decision together.
pub(super) fn decision(policy: &ModelPolicy, seen: Seen, findings: Findings<'_>) -> ModelDecision {
    let Findings {
        demands,
        loads,
        standings,
        outcomes,
        legs,
        evidence,
    } = findings;
    let rates: Vec<Option<f64>> = standings
        .iter()
        .map(|standing| served(standing, loads.as_deref()))
        .collect();
    let ready = |index: usize| f64::from(seen.variants[index].replicas.ready);
    // What the ready replicas of a leg serve; of two legs, the narrower one's is the model's.
    let widths: Vec<Option<f64>> = legs.iter().map(|leg| width(leg, &rates, ready)).collect();
    let narrowest = widths.iter().copied().reduce(narrower).flatten();
    let offered = demands.as_ref().map(|demands| {
        demands
            .iter()
            .fold(0.0, |sum, demand| sum + demand.offered.requests)
    });
    let variant_headroom = |index: usize| {
        let leg = legs.iter().position(|leg| leg.contains(&index))?;
        let (own, offered) = (rates[index]? * ready(index), offered?);
        let width = widths.get(leg).copied().flatten().unwrap_or(0.0);
        let share = if width > 0.0 { own / width } else { 1.0 };
        Some(own - offered * share)
    };
    let headrooms: Vec<Option<f64>> = (0..rates.len()).map(variant_headroom).collect();
    let waiting = seen.classes.iter().map(|class| class.queued.requests);
    let waiting = waiting.fold(0, u64::saturating_add);
    let tokens = |demand: &Demand| {
        let offered = &demand.offered;
        offered.cached_tokens + offered.uncached_tokens + offered.output_tokens
    };
    ModelDecision {
        at: seen.now,
        model: policy.key.clone(),
        headroom: narrowest
            .zip(offered)
            .map(|(width, offered)| width - offered),
        pressure: pressure(policy, &seen, &standings, legs, &widths, offered),
        offered_tokens_per_second: demands
            .as_ref()
            .map(|demands| demands.iter().map(tokens).fold(0.0, |sum, one| sum + one)),
        queue_seconds: queue_seconds(waiting, narrowest),
        in_flight: seen.in_flight,
        silent: seen.silent,
        evidence,
        classes: classes(policy, &seen.classes, demands, loads),
        variants: variants(
            policy,
            &seen.variants,
            standings,
            &outcomes,
            &rates,
            &headrooms,
        ),
        reasons: outcomes.reasons,
    }
}

fn classes(
    policy: &ModelPolicy,
    seen: &[super::controller::ClassSeen],
    demands: Option<Vec<Demand>>,
    loads: Option<Vec<ClassLoad>>,
) -> Vec<ClassDecision> {
    let each = policy.classes.iter().zip(seen).enumerate();
    each.map(|(index, (class, seen))| ClassDecision {
        name: class.name.clone(),
        demand: demands
            .as_ref()
            .and_then(|demands| demands.get(index))
            .copied(),
        forecast: loads
            .as_ref()
            .and_then(|loads| loads.get(index))
            .map(|load| load.forecast),
        queued: seen.queued,
    })
    .collect()
}

fn variants(
    policy: &ModelPolicy,
    seen: &[super::VariantSignals],
    standings: Vec<Standing>,
    outcome: &Outcome,
    rates: &[Option<f64>],
    headrooms: &[Option<f64>],
) -> Vec<VariantDecision> {
    let each = policy.variants.iter().zip(standings).enumerate();
    each.map(|(index, (variant, standing))| {
        let Wanted {
            lower,
            upper,
            basis,
            reasons,
            ..
        } = &outcome.wanted[index];
        let held = standing.hold.is_some();
        let known = standing.known.unwrap_or_default();
        let capacities = policy.classes.iter().zip(known);
        let capacity = |(class, known): (&super::SloClass, Known)| ClassCapacity {
            class: class.name.clone(),
            capacity: known.capacity,
            age: known.age,
            due: known.due || held,
        };
        VariantDecision {
            name: variant.name.clone(),
            role: variant.role,
            replicas: outcome.counts[index],
            previous: outcome.previous[index],
            lower: *lower,
            upper: *upper,
            supply: seen[index].replicas,
            basis: basis.unwrap_or(Basis::Held),
            capacities: capacities.map(capacity).collect(),
            requests_per_second: rates[index],
            headroom: headrooms[index],
            startup: outcome.startups[index],
            reasons: reasons.clone(),
            guarded: outcome.guarded[index],
        }
    })
    .collect()
}

/// Requests/s of the present mix of classes that one replica serves; of equal rates, while nothing arrives.
fn served(standing: &Standing, loads: Option<&[ClassLoad]>) -> Option<f64> {
    let known = standing.known.as_deref()?;
    if let [only] = known {
        return Some(only.capacity.requests_per_second);
    }
    let any = loads.is_some_and(|loads| loads.iter().any(|class| class.load.level > 0.0));
    let rate = |index: usize| match loads.and_then(|loads| loads.get(index)) {
        Some(class) if any => class.load.level,
        _ => 1.0,
    };
    let (mut rates, mut replicas) = (0.0, 0.0);
    for (index, known) in known.iter().enumerate() {
        rates += rate(index);
        replicas += rate(index) / known.capacity.requests_per_second;
    }
    (replicas > 0.0).then_some(rates / replicas)
}

/// What the ready replicas of a leg serve; `None` while no capacity of it is known.
fn width(leg: &[usize], rates: &[Option<f64>], ready: impl Fn(usize) -> f64) -> Option<f64> {
    let known = leg
        .iter()
        .filter_map(|&index| Some(rates[index]? * ready(index)));
    known.reduce(|sum, one| sum + one)
}

/// The smaller of two; unknown if either is.
fn narrower(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a.min(b))
}

fn queue_seconds(waiting: u64, width: Option<f64>) -> Option<f64> {
    match width {
        _ if waiting == 0 => Some(0.0),
        Some(width) if width > 0.0 => Some(waiting as f64 / width),
        _ => None,
    }
}

/// The worst predicted latency over its target: of all classes, and of the variants that serve.
fn pressure(
    policy: &ModelPolicy,
    seen: &Seen,
    standings: &[Standing],
    legs: &[Vec<usize>],
    widths: &[Option<f64>],
    offered: Option<f64>,
) -> Option<f64> {
    let offered = offered?;
    let mut worst: Option<f64> = None;
    for (leg, width) in legs.iter().zip(widths) {
        let Some(width) = width.filter(|&width| width > 0.0) else {
            continue;
        };
        // Counted by is less than the highest rate by the margin.
        let load = offered / width * (1.0 - policy.behavior.margin);
        let serving = leg
            .iter()
            .filter(|&&index| seen.variants[index].replicas.ready > 0);
        for known in serving.flat_map(|&index| standings[index].known.iter().flatten()) {
            let pressure = known.pressure.at(load);
            worst = Some(worst.map_or(pressure, |worst| worst.max(pressure)));
        }
    }
    worst.filter(|worst| worst.is_finite())
}

//! Decisions as they are published.

use std::time::Duration;

use controller_core::model::{Evidence, ModelDecision, VariantDecision};

use crate::kubernetes::models::{ModelSpec, VariantSpec};
use crate::kubernetes::observe::VariantView;
use crate::published::{Answer, Posted, PublishedModel, PublishedVariant, Role, label_value};

/// One model as the leader publishes it at `at_ms`.
///
/// `decision` is `None` before the first one: then, for `reason`, nothing is served.
pub(super) fn publish(
    at_ms: u64,
    spec: &ModelSpec,
    pool: Option<&str>,
    views: &[VariantView],
    decision: Result<&ModelDecision, String>,
) -> PublishedModel {
    let (state, decided) = match decision {
        Ok(decision) => (answer(&decision.evidence), Some(decision)),
        Err(reason) => (Answer::Cold { reason }, None),
    };
    let variants = spec.variants.iter().enumerate().map(|(index, place)| {
        let decided = decided.and_then(|decision| decision.variant(&place.name));
        variant(spec, index, place, views.get(index), decided)
    });
    PublishedModel {
        namespace: spec.key.namespace.clone(),
        model: spec.key.model.clone(),
        slug: label_value(&spec.key.model),
        pool: pool.map(str::to_owned).or_else(|| spec.pool.clone()),
        source: Some(spec.source.object()),
        mode: spec.mode,
        decided_at_ms: at_ms,
        state,
        slo_pressure: decided.and_then(|decision| decision.pressure),
        offered_tokens_per_second: decided.and_then(|decision| decision.offered_tokens_per_second),
        queue_seconds: decided.and_then(|decision| decision.queue_seconds),
        variants: variants.collect(),
    }
}

fn variant(
    spec: &ModelSpec,
    index: usize,
    place: &VariantSpec,
    view: Option<&VariantView>,
    decided: Option<&VariantDecision>,
) -> PublishedVariant {
    let current = view.and_then(|view| view.asked).unwrap_or(0);
    let policy = spec.policy.variants.get(index);
    PublishedVariant {
        name: place.name.clone(),
        role: policy.map_or(Role::Both, |policy| role(policy.role)),
        accelerator: policy.map_or_else(String::new, |policy| policy.accelerator.clone()),
        target: place.target.clone(),
        scaler: place.scaler.clone(),
        desired: decided.map_or(current, |one| one.replicas),
        current,
        ready: view.map(|view| view.replicas.ready),
        capacity: decided.and_then(|one| one.requests_per_second),
        lower: decided.map(|one| one.lower),
        upper: decided.map(|one| one.upper),
    }
}

fn role(role: controller_core::model::Role) -> Role {
    use controller_core::model::Role as Core;
    match role {
        Core::Prefill => Role::Prefill,
        Core::Decode => Role::Decode,
        Core::Both => Role::Both,
    }
}

fn answer(evidence: &Evidence) -> Answer {
    match evidence {
        Evidence::Fresh => Answer::Fresh,
        Evidence::Cold { reason } => Answer::Cold {
            reason: reason.clone(),
        },
        Evidence::Stale { reason } => Answer::Stale {
            reason: reason.clone(),
        },
    }
}

/// What a new leader goes on saying of `next` while its own decision rests on nothing yet: what the leader before it
/// decided, as old as it is, for as long as that may be served. `now` is on the board's clock.
pub(super) fn carried(
    next: &PublishedModel,
    at_ms: u64,
    before: &Posted,
    now: Duration,
) -> Option<PublishedModel> {
    if next.state == Answer::Fresh {
        return None;
    }
    let models = before.published().models.iter();
    let held = models
        .into_iter()
        .find(|model| (&model.namespace, &model.model) == (&next.namespace, &next.model))?;
    if held.mode != next.mode || before.answer(held, now).is_err() {
        return None;
    }
    let same = |(one, other): (&PublishedVariant, &PublishedVariant)| {
        (&one.name, &one.target) == (&other.name, &other.target)
    };
    let still = held.variants.len() == next.variants.len()
        && held.variants.iter().zip(&next.variants).all(same);
    let age = before.age(held, now)?;
    still.then(|| PublishedModel {
        decided_at_ms: at_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        ..held.clone()
    })
}

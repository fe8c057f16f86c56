//! What one tick of a model looks at, made of what was gathered and what the cluster shows.

use std::time::Duration;

use controller_core::model::{ModelSignals, VariantSignals};
use names::label;

use crate::kubernetes::annotated::TargetKey;
use crate::kubernetes::demand::Known;
use crate::kubernetes::models::{ModelSpec, Topic};
use crate::kubernetes::models_from_pickers::InUse;
use crate::kubernetes::observe::VariantView;
use crate::kubernetes::pods::PodIndex;
use crate::kubernetes::targets::ScaleState;

/// The signals of `spec` at `now`, given what each of its variants has and what class of endpoints its pods are.
pub(super) fn signals(
    now: Duration,
    spec: &ModelSpec,
    known: &Known,
    views: &[VariantView],
    classes: &[String],
) -> ModelSignals {
    let variants = views
        .iter()
        .zip(classes)
        .map(|(view, class)| VariantSignals {
            replicas: view.replicas,
            quota_refused: view.refused,
            kv_tokens: kv_tokens(known, class),
            model: snapshot(known, class).map(InUse::latency),
            became_ready: view.became_ready.clone(),
        });
    ModelSignals {
        now,
        demand: known.demand.clone(),
        variants: variants.take(spec.policy.variants.len()).collect(),
    }
}

/// Why nothing can be decided about `views` yet; `None` when it can. A count that was never read is not zero.
pub(super) fn unread(spec: &ModelSpec, views: &[VariantView]) -> Option<String> {
    let unread = |view: &VariantView| {
        let told = view.findings.iter().any(|one| one.topic == Topic::Target);
        view.asked.is_none() && !told
    };
    let (variant, _) = spec
        .variants
        .iter()
        .zip(views)
        .find(|(_, view)| unread(view))?;
    let target = &variant.target;
    Some(format!(
        "the scale subresource of {} {} has not been read yet",
        target.kind, target.name
    ))
}

/// The class of endpoints that each variant's pods are: what their label says, else what was asked for.
pub(super) fn classes(
    spec: &ModelSpec,
    scales: &impl Fn(&TargetKey) -> ScaleState,
    pods: &PodIndex,
) -> Vec<String> {
    let places = spec.variants.iter().zip(&spec.policy.variants);
    let of = |(place, policy): (
        &crate::kubernetes::models::VariantSpec,
        &controller_core::model::VariantPolicy,
    )| {
        let state = scales(&TargetKey::new(&spec.key.namespace, &place.target));
        let pod = pods.select(&spec.key.namespace, &state.selector).next();
        let labelled = pod.and_then(|pod| {
            let mut names = label::ACCELERATOR.all();
            names.find_map(|name| pod.labels.get(name).map(str::to_owned))
        });
        labelled.unwrap_or_else(|| policy.accelerator.clone())
    };
    places.map(of).collect()
}

/// The latency model for a class: its own, or the only one that there is.
fn snapshot<'a>(known: &'a Known, class: &str) -> Option<&'a InUse> {
    of_class(&known.models, class)
}

fn kv_tokens(known: &Known, class: &str) -> Option<f64> {
    of_class(&known.kv_tokens, class).copied()
}

/// What is known of `class`; of another one only where there is no other, or where endpoints tell no class.
fn of_class<'a, T>(known: &'a std::collections::BTreeMap<String, T>, class: &str) -> Option<&'a T> {
    let only = || match known.len() {
        1 => known.values().next(),
        _ => known.get(""),
    };
    known.get(class).or_else(only)
}

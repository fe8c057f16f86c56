//! Who else pulls at the same strings, and which HorizontalPodAutoscalers would not do what is decided.
//!
//! Every finding is told to the object that should change; none stops anything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use controller_core::hpa::Tolerance;

use super::annotated::TargetKey;
use super::hpas::{From, Hpa, Reading, Target};
use super::labels::Labels;
use super::models::{Finding, ModelSpec, Topic, VariantSpec};
use super::scalers::published_role;
use crate::published::series::{Catalog, Metric, Series};
use crate::published::{Answer, Mode, Published, PublishedModel, PublishedVariant, label_value};

/// From as many replicas on, an HPA's default tolerance swallows a step of one.
const DEAD_BAND_FROM: u32 = 10;

/// The HPAs of every target, by name.
pub(super) fn by_target(hpas: &[Arc<Hpa>]) -> BTreeMap<TargetKey, Vec<&Arc<Hpa>>> {
    let mut scaled: BTreeMap<TargetKey, Vec<&Arc<Hpa>>> = BTreeMap::new();
    for hpa in hpas {
        let key = TargetKey::new(&hpa.source.namespace, &hpa.target);
        scaled.entry(key).or_default().push(hpa);
    }
    for hpas in scaled.values_mut() {
        hpas.sort_by(|a, b| a.source.cmp(&b.source));
    }
    scaled
}

/// Adds to each model what stands in its way, and marks the variants whose target another variant has.
pub(super) fn judge(
    models: &mut [ModelSpec],
    hpas: &[Arc<Hpa>],
    scaled: &BTreeMap<TargetKey, Vec<&Arc<Hpa>>>,
) {
    shared_targets(models);
    let catalog = catalog(models);
    for spec in models.iter_mut() {
        let mut told = Vec::new();
        for variant in &spec.variants {
            let key = TargetKey::new(&spec.key.namespace, &variant.target);
            let hpas = scaled.get(&key).map_or(&[][..], Vec::as_slice);
            told.extend(two_autoscalers(variant, hpas));
            told.extend(opposed(spec, variant, hpas));
            for hpa in hpas {
                told.extend(readings(spec, variant, hpa, &catalog));
                told.extend(dead_band(hpa));
            }
        }
        spec.findings.append(&mut told);
    }
    strays(models, hpas, &catalog);
}

/// Two variants that size one target: the first is written to, both are told.
fn shared_targets(models: &mut [ModelSpec]) {
    // A ModelScaler is explicit: its variants come first.
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by_key(|&place| models.get(place).is_some_and(|spec| !spec.has_status()));
    let mut owners: BTreeMap<TargetKey, (usize, String)> = BTreeMap::new();
    for place in order {
        let mut told: Vec<(usize, Finding)> = Vec::new();
        let Some(spec) = models.get_mut(place) else {
            continue;
        };
        for variant in &mut spec.variants {
            let key = TargetKey::new(&spec.key.namespace, &variant.target);
            let owner = owners
                .entry(key)
                .or_insert_with(|| (place, format!("{} of {}", variant.name, spec.source)));
            let (first, owner) = (owner.0, owner.1.clone());
            let name = format!("{} of {}", variant.name, spec.source);
            if owner == name {
                continue;
            }
            variant.contested = true;
            let target = format!("{} {}", variant.target.kind, variant.target.name);
            let message = |other: &str, held: &str| {
                format!(
                    "variant {other} sizes {target} too: {held}; let one variant size each target"
                )
            };
            let loses = message(&owner, "its decisions count");
            told.push((
                place,
                Finding::new(Topic::Conflict, "SharedTarget", &spec.source, loses),
            ));
            let keeps = message(&name, "the decisions of this one count");
            told.push((
                first,
                Finding::new(Topic::Conflict, "SharedTarget", &spec.source, keeps),
            ));
        }
        for (place, mut finding) in told {
            if let Some(spec) = models.get_mut(place) {
                finding.about = spec.source.clone();
                spec.findings.push(finding);
            }
        }
    }
}

fn two_autoscalers(variant: &VariantSpec, hpas: &[&Arc<Hpa>]) -> Vec<Finding> {
    let [first, others @ ..] = hpas else {
        return Vec::new();
    };
    let names: Vec<&str> = hpas.iter().map(|hpa| &*hpa.source.name).collect();
    others
        .iter()
        .chain((!others.is_empty()).then_some(first))
        .map(|hpa| {
            let message = format!(
                "HorizontalPodAutoscalers {} scale {} {} at once: none of them will (AmbiguousSelector), or they pull against each other; delete all but one",
                names.join(", "),
                variant.target.kind,
                variant.target.name
            );
            Finding::new(Topic::Conflict, "TwoAutoscalers", &hpa.source, message)
        })
        .collect()
}

/// Direct mode and an HPA on one target undo each other.
fn opposed(spec: &ModelSpec, variant: &VariantSpec, hpas: &[&Arc<Hpa>]) -> Option<Finding> {
    let (hpa, target) = (hpas.first()?, &variant.target);
    let name = &hpa.source.name;
    match spec.mode {
        Mode::Direct => {
            let message = format!(
                "mode direct writes the replicas of {} {} and HorizontalPodAutoscaler {name} does too: delete it, or set mode publish",
                target.kind, target.name
            );
            Some(Finding::new(
                Topic::Conflict,
                "DirectWithAutoscaler",
                &hpa.source,
                message,
            ))
        }
        Mode::Publish if hpa.follows().is_none() && hpa.scaled_object.is_none() => {
            let message = format!(
                "HorizontalPodAutoscaler {name} reads no metric of Headroom: what is decided for variant {} has no effect; give it the metric {} with AverageValue 1",
                variant.name,
                Metric::DesiredReplicas.name().canonical
            );
            Some(Finding::new(
                Topic::Autoscaler,
                "MetricNotRead",
                &hpa.source,
                message,
            ))
        }
        Mode::Publish | Mode::Advise => None,
    }
}

/// How an HPA reads our metrics: kind of target, and the series that its selector finds.
fn readings(spec: &ModelSpec, variant: &VariantSpec, hpa: &Hpa, catalog: &Catalog) -> Vec<Finding> {
    let mut told = Vec::new();
    for reading in &hpa.reads {
        told.extend(wrong_target(hpa, reading));
        if reading.from == From::External {
            told.extend(wrong_series(spec, variant, hpa, reading, catalog));
        }
    }
    told
}

/// The trap of absolute counts: with `Value` an HPA multiplies the count with the replicas there are.
pub(super) fn wrong_target(hpa: &Hpa, reading: &Reading) -> Option<Finding> {
    let metric = reading.metric.name().canonical;
    let (name, reason) = (&hpa.source.name, "WrongTargetType");
    let message = match (reading.metric, reading.target, &reading.from) {
        (_, _, From::Pods) => format!(
            "HorizontalPodAutoscaler {name} reads {metric} of each pod, which nobody tells: read it as an External or Object metric"
        ),
        (Metric::DesiredReplicas, Target::Value(_) | Target::Other, _) => format!(
            "HorizontalPodAutoscaler {name} compares {metric} with a Value: an absolute count needs AverageValue 1; with Value the count is multiplied by the replicas there are, and runs away"
        ),
        (Metric::DesiredReplicas, Target::AverageValue(value), _) if value != 1.0 => format!(
            "HorizontalPodAutoscaler {name} compares {metric} with AverageValue {value}: the count that comes out is the one decided divided by {value}; use AverageValue 1"
        ),
        (
            Metric::DesiredRatio | Metric::SloPressure,
            Target::AverageValue(_) | Target::Other,
            _,
        ) => {
            format!(
                "HorizontalPodAutoscaler {name} compares {metric} with an AverageValue: it is a ratio already, use Value 1"
            )
        }
        _ => return None,
    };
    Some(Finding::new(
        Topic::Autoscaler,
        reason,
        &hpa.source,
        message,
    ))
}

/// All returned series are summed by an HPA: it must find exactly the one of its own target.
fn wrong_series(
    spec: &ModelSpec,
    variant: &VariantSpec,
    hpa: &Hpa,
    reading: &Reading,
    catalog: &Catalog,
) -> Option<Finding> {
    let found = found(reading, catalog.in_namespace(&hpa.source.namespace));
    let metric = reading.metric.name().canonical;
    let own = label_value(&variant.name);
    let model = label_value(&spec.key.model);
    let right = format!(
        "select matchLabels {}: {own}, {}: {model}",
        names::series::VARIANT,
        names::series::MODEL
    );
    let name = &hpa.source.name;
    let asked = reading.selector.as_deref().unwrap_or_default();
    let (reason, message) = match found.as_slice() {
        [] => (
            "NoSeries",
            format!(
                "HorizontalPodAutoscaler {name} asks for {metric} with the labels `{asked}` and no series has them: {right}"
            ),
        ),
        [one] if is_own(one, &own, &model) => return None,
        [_] => (
            "OtherSeries",
            format!(
                "HorizontalPodAutoscaler {name} asks for {metric} with the labels `{asked}`, which is the series of another variant: {right}"
            ),
        ),
        several => (
            "SeveralSeries",
            format!(
                "HorizontalPodAutoscaler {name} asks for {metric} with the labels `{asked}`, which finds {} series that it adds up: {right}",
                several.len()
            ),
        ),
    };
    Some(Finding::new(
        Topic::Autoscaler,
        reason,
        &hpa.source,
        message,
    ))
}

fn is_own(series: &Series, variant: &str, model: &str) -> bool {
    let holds =
        |label: &str, value: &str| series.labels.get(label).is_some_and(|held| held == value);
    holds(names::series::VARIANT, variant) && holds(names::series::MODEL, model)
}

fn found<'a>(reading: &Reading, series: &'a [Series]) -> Vec<&'a Series> {
    let selector = reading.parsed();
    let selected = |one: &&Series| match &selector {
        // Without a selector an HPA asks for every series.
        None => reading.selector.as_deref().unwrap_or_default().is_empty(),
        Some(selector) => {
            let labels = one.labels(reading.spelling);
            selector.matches(&Labels::new(
                labels.iter().map(|(key, value)| (&**key, &**value)),
            ))
        }
    };
    series.iter().filter(selected).collect()
}

/// A tolerance above zero hides steps of one from ten replicas on.
pub(super) fn dead_band(hpa: &Hpa) -> Option<Finding> {
    hpa.follows()?;
    let Tolerance { up, down } = hpa.tolerance;
    let from = |tolerance: f64| (1.0 / tolerance).ceil();
    if hpa.max <= DEAD_BAND_FROM || up.max(down) <= 0.0 || from(up.max(down)) > f64::from(hpa.max) {
        return None;
    }
    let message = format!(
        "HorizontalPodAutoscaler {} ignores changes of up to {}% and may have {} replicas: from {} replicas on a step of one is ignored, so counts move in larger steps; set behavior.scaleUp.tolerance and behavior.scaleDown.tolerance to 0 where the cluster has them (on by default from 1.35)",
        hpa.source.name,
        100.0 * up.max(down),
        hpa.max,
        from(up.max(down)),
    );
    Some(Finding::new(Topic::Autoscaler, "DeadBand", &hpa.source, message).noted())
}

/// HPAs that read our metrics for a target that nobody asked to be sized.
fn strays(models: &mut [ModelSpec], hpas: &[Arc<Hpa>], catalog: &Catalog) {
    for hpa in hpas {
        let key = TargetKey::new(&hpa.source.namespace, &hpa.target);
        let sized = |spec: &ModelSpec| {
            let mut variants = spec.variants.iter();
            variants.any(|variant| TargetKey::new(&spec.key.namespace, &variant.target) == key)
        };
        if models.iter().any(sized) {
            continue;
        }
        for reading in hpa.reads.iter().filter(|one| one.from == From::External) {
            let all = catalog.in_namespace(&hpa.source.namespace);
            let [one] = found(reading, all)[..] else {
                continue;
            };
            let message = format!(
                "HorizontalPodAutoscaler {} scales {} {} by the series of another target: give it a variant of its own, or correct its selector",
                hpa.source.name, hpa.target.kind, hpa.target.name
            );
            if let Some(spec) = models.get_mut(one.model) {
                spec.findings.push(Finding::new(
                    Topic::Autoscaler,
                    "OtherTarget",
                    &hpa.source,
                    message,
                ));
            }
        }
    }
}

/// The series that these models will be published as.
fn catalog(models: &[ModelSpec]) -> Catalog {
    let variants = |spec: &ModelSpec| {
        let both = spec.variants.iter().zip(&spec.policy.variants);
        both.map(|(place, policy)| PublishedVariant {
            name: place.name.clone(),
            role: published_role(policy.role),
            accelerator: policy.accelerator.clone(),
            target: place.target.clone(),
            scaler: None,
            desired: 0,
            current: 0,
            ready: None,
            capacity: None,
            lower: None,
            upper: None,
        })
        .collect()
    };
    let published = models.iter().map(|spec| PublishedModel {
        namespace: spec.key.namespace.clone(),
        model: spec.key.model.clone(),
        slug: label_value(&spec.key.model),
        pool: spec.pool.clone(),
        source: None,
        mode: spec.mode,
        decided_at_ms: 0,
        state: Answer::Fresh,
        slo_pressure: None,
        offered_tokens_per_second: None,
        queue_seconds: None,
        variants: variants(spec),
    });
    Catalog::of(&Published {
        models: published.collect(),
        ..Published::default()
    })
}

#[cfg(test)]
mod tests;

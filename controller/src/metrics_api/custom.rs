//! Answers of the custom metrics API: one item per object that variants stand behind.
//!
//! A variant is found through its scale target, through its model's InferencePool and ModelScaler, and through its
//! namespace. An object with several variants behind it still is one item ([`together`]).

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::path::{ALL_OBJECTS, CUSTOM, CustomAsk, NAMESPACES};
use super::quantity::quantity;
use super::selector::Selector;
use super::status::{Details, Failure};
use super::values::{timestamp, unknown_metric, unknown_value, window};
use crate::published::series::{Metric, Series, together};
use crate::published::{ObjectRef, Posted, PublishedModel, PublishedVariant, Unavailable};

/// An object, and the variants behind it.
struct Described<'a> {
    object: ObjectRef,
    series: Vec<&'a Series>,
}

/// The values that `ask` asks for, of the objects that `objects` selects and the variants that `metrics` selects.
///
/// # Errors
/// [`Failure`]: no such metric or object, or a value that may not be acted on at `now`.
pub fn values(
    posted: &Posted,
    now: Duration,
    ask: &CustomAsk,
    objects: &Selector,
    metrics: &Selector,
) -> Result<Value, Failure> {
    let (metric, spelling) =
        Metric::called(&ask.metric).ok_or_else(|| unknown_metric(&ask.metric, CUSTOM))?;
    if !posted.any() {
        return Err(Unavailable::Nothing.into());
    }
    let namespace = namespace(ask).ok_or_else(|| no_object(ask))?;
    let mut described: Vec<Described<'_>> = Vec::new();
    let series = posted.catalog().in_namespace(namespace);
    for one in series
        .iter()
        .filter(|one| metrics.matches(one.labels(spelling)))
    {
        let Some((model, variant)) = one.find(posted.published()) else {
            continue;
        };
        for object in objects_of(ask, namespace, model, variant) {
            if ask.name != ALL_OBJECTS && ask.name != object.name {
                continue;
            }
            match described
                .iter_mut()
                .find(|known| known.object.name == object.name)
            {
                Some(known) => known.series.push(one),
                None => described.push(Described {
                    object,
                    series: vec![one],
                }),
            }
        }
    }
    if ask.name == ALL_OBJECTS {
        described.retain(|one| objects.matches(&one.object.labels));
    }
    if described.is_empty() {
        return Err(no_object(ask));
    }
    let items = described
        .iter()
        .map(|one| item(posted, now, ask, metric, metrics, one))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "kind": "MetricValueList",
        "apiVersion": format!("{CUSTOM}/{}", ask.version),
        "metadata": {},
        "items": items,
    }))
}

/// The namespace whose variants are asked for.
fn namespace(ask: &CustomAsk) -> Option<&str> {
    match &ask.namespace {
        Some(namespace) => Some(namespace),
        None => (ask.resource == NAMESPACES).then_some(ask.name.as_str()),
    }
}

/// The objects of the resource asked for that a variant stands behind; each once.
fn objects_of(
    ask: &CustomAsk,
    namespace: &str,
    model: &PublishedModel,
    variant: &PublishedVariant,
) -> Vec<ObjectRef> {
    if ask.namespace.is_none() {
        return vec![ObjectRef::new("v1", "Namespace", namespace)];
    }
    let pool = model.pool.as_ref().map(|pool| {
        let version = format!("{}/v1", names::kubernetes::INFERENCE_GROUP);
        ObjectRef::new(version, "InferencePool", pool)
    });
    let all = [Some(variant.target.clone()), pool, model.source.clone()];
    let mut objects: Vec<ObjectRef> = all
        .into_iter()
        .flatten()
        .filter(|object| object.resource() == ask.resource)
        .collect();
    objects.dedup_by(|one, other| one.name == other.name);
    objects
}

fn item(
    posted: &Posted,
    now: Duration,
    ask: &CustomAsk,
    metric: Metric,
    selector: &Selector,
    described: &Described<'_>,
) -> Result<Value, Failure> {
    let Described { object, series } = described;
    let published = posted.published();
    let mut decided_at_ms = u64::MAX;
    for (model, _) in series.iter().filter_map(|one| one.find(published)) {
        posted.answer(model, now)?;
        decided_at_ms = decided_at_ms.min(model.decided_at_ms);
    }
    let value = together(metric, series, published)
        .and_then(quantity)
        .ok_or_else(|| {
            unknown_value(&ask.metric, &format!("{} {:?}", ask.resource, object.name))
        })?;
    let mut described_object = json!({
        "kind": object.kind,
        "name": object.name,
        "apiVersion": object.api_version,
    });
    if let Some(namespace) = &ask.namespace {
        described_object["namespace"] = json!(namespace);
    }
    let mut item = json!({
        "describedObject": described_object,
        "timestamp": timestamp(decided_at_ms),
        "value": value,
    });
    let selector = selector.to_object();
    let window = window(metric);
    if ask.version == "v1beta1" {
        item["metricName"] = json!(ask.metric);
        item["selector"] = selector;
        if let Some(window) = window {
            item["window"] = json!(window);
        }
    } else {
        item["metric"] = json!({"name": ask.metric, "selector": selector});
        if let Some(window) = window {
            item["windowSeconds"] = json!(window);
        }
    }
    Ok(item)
}

fn no_object(ask: &CustomAsk) -> Failure {
    let CustomAsk {
        namespace,
        resource,
        name,
        metric,
        ..
    } = ask;
    let within = namespace.as_ref().map_or(String::new(), |namespace| {
        format!(" in namespace {namespace:?}")
    });
    let hint = if resource == "pods" {
        ": metrics are of what is scaled, not of pods (use a metric of type Object or External)"
    } else {
        ": no variant that is scaled stands behind it, or none that the selectors select"
    };
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    Failure {
        code: StatusCode::NOT_FOUND,
        message: format!(
            "the server could not find the metric {metric} for {resource} {name}{within}{hint}"
        ),
        details: Some(Details {
            name: name.clone(),
            group: group.to_owned(),
            kind: plural.to_owned(),
        }),
    }
}

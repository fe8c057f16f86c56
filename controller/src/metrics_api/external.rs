//! Answers of the external metrics API: one item per variant, selected by labels.

use http::StatusCode;
use serde::Serialize;
use std::time::Duration;

use super::path::{EXTERNAL, EXTERNAL_VERSION};
use super::quantity::quantity;
use super::selector::Selector;
use super::status::{Details, Failure};
use super::values::{timestamp, unknown_metric, unknown_value, window};
use crate::published::series::{Metric, Series, Spelling};
use crate::published::{Labels, Posted};

/// Variants named in an error at most.
const NAMED: usize = 10;

#[derive(Serialize)]
struct List<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: String,
    metadata: Empty,
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    metric_name: &'a str,
    metric_labels: &'a Labels,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u32>,
    value: String,
}

/// The values of `metric` of the variants in `namespace` that `selector` selects, as JSON.
///
/// # Errors
/// [`Failure`]: no such metric, nothing selected, or a value that may not be acted on at `now`. One such value makes
/// the whole answer an error, because whoever reads it adds the items up.
pub fn values(
    posted: &Posted,
    now: Duration,
    namespace: &str,
    metric: &str,
    selector: &Selector,
) -> Result<Vec<u8>, Failure> {
    let (asked, spelling) =
        Metric::called(metric).ok_or_else(|| unknown_metric(metric, EXTERNAL))?;
    if !posted.any() {
        return Err(crate::published::Unavailable::Nothing.into());
    }
    let series = posted.catalog().in_namespace(namespace);
    let selected: Vec<&Series> = series
        .iter()
        .filter(|one| selector.matches(one.labels(spelling)))
        .collect();
    if selected.is_empty() {
        return Err(nothing_selected(
            series, spelling, namespace, metric, selector,
        ));
    }
    let items = selected
        .into_iter()
        .map(|one| item(posted, now, (metric, asked, spelling), one))
        .collect::<Result<_, _>>()?;
    let list = List {
        kind: "ExternalMetricValueList",
        api_version: format!("{EXTERNAL}/{EXTERNAL_VERSION}"),
        metadata: Empty {},
        items,
    };
    serde_json::to_vec(&list)
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn item<'a>(
    posted: &Posted,
    now: Duration,
    (name, metric, spelling): (&'a str, Metric, Spelling),
    series: &'a Series,
) -> Result<Item<'a>, Failure> {
    let published = posted.published();
    let (model, variant) = series
        .find(published)
        .ok_or(crate::published::Unavailable::Nothing)?;
    posted.answer(model, now)?;
    let value = series.value(metric, published).and_then(quantity);
    Ok(Item {
        metric_name: name,
        metric_labels: series.labels(spelling),
        timestamp: timestamp(model.decided_at_ms),
        window: window(metric),
        value: value.ok_or_else(|| unknown_value(name, &format!("variant {:?}", variant.name)))?,
    })
}

/// An error instead of an empty list: an HPA would say "no metrics returned", which helps nobody.
fn nothing_selected(
    series: &[Series],
    spelling: Spelling,
    namespace: &str,
    metric: &str,
    selector: &Selector,
) -> Failure {
    let here = match series {
        [] => "no variant is scaled there".to_owned(),
        series => {
            let labels = series.iter().take(NAMED).map(|one| {
                let labels = one.labels(spelling).iter();
                let labels: Vec<String> = labels
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                labels.join(",")
            });
            let more = if series.len() > NAMED { "; …" } else { "" };
            format!("there is {}{more}", labels.collect::<Vec<_>>().join("; "))
        }
    };
    Failure::not_found(
        format!(
            "no series of {metric} in namespace {namespace:?} matches the selector \"{selector}\": {here}"
        ),
        Details {
            name: metric.to_owned(),
            group: EXTERNAL.to_owned(),
            kind: metric.to_owned(),
        },
    )
}

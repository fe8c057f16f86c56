//! What the values of both APIs have in common.

use http::StatusCode;

use super::status::{Details, Failure};
use crate::published::series::Metric;

/// Milliseconds since the Unix epoch as Kubernetes writes times: RFC 3339, in seconds.
pub(super) fn timestamp(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::MAX)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// The seconds that a value is measured over: 0 for what is true at one moment, not told for the offered load, whose
/// window grows and shrinks with the traffic.
pub(super) fn window(metric: Metric) -> Option<u32> {
    (metric != Metric::OfferedTokens).then_some(0)
}

pub(super) fn unknown_metric(metric: &str, group: &str) -> Failure {
    let known: Vec<&str> = Metric::names().collect();
    Failure::not_found(
        format!(
            "the server could not find the metric {metric}: it serves {}",
            known.join(", ")
        ),
        Details {
            name: metric.to_owned(),
            group: group.to_owned(),
            kind: metric.to_owned(),
        },
    )
}

pub(super) fn unknown_value(metric: &str, of: &str) -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("{metric} of {of} is not known yet: the model has not been seen at work"),
    )
}

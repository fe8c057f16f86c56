//! What does another thing than at llm-d, on purpose.

use super::super::finding::Level;
use super::super::{Config, Detector, raw};
use super::Notes;

const UTILIZATION: &str = "readings that are too old are left out of the mean, and without any the pool is not full; at llm-d each counts as full. Requests sent since the reading count as queued";

/// By plugin type.
const TYPES: &[(&str, &str)] = &[
    ("utilization-detector", UTILIZATION),
    (
        "latency-slo-admitter",
        "refuses with 429 and Retry-After, not 500; an endpoint whose prediction is not trusted admits",
    ),
    (
        "predicted-latency-producer",
        "time to first token begins when the request arrives, so that time in the queue counts; time per token is counted in tokens, not in chunks",
    ),
    (
        "kv-cache-utilization-scorer",
        "an endpoint without a fresh reading is rated as the mean of the others, not by its last reading",
    ),
    (
        "queue-scorer",
        "where a reading is missing or too old, all endpoints are rated by the requests sent there that have no first token yet; llm-d takes the last reading",
    ),
];

pub(super) fn check(document: &raw::Document, config: &Config, notes: &mut Notes) {
    for (place, _, entry) in document.listed() {
        let found = TYPES
            .iter()
            .filter(|(type_name, ..)| *type_name == entry.type_name);
        for (_, message) in found {
            notes.add(Level::Differs, place.clone(), *message, "");
        }
        let mode = entry.parameters["concurrencyMode"].as_str();
        if entry.type_name == "concurrency-detector" && matches!(mode, Some("tokens" | "hybrid")) {
            let message = "tokens are uncached prompt tokens that wait and tokens of context that runs; llm-d counts uncached prompt tokens in flight";
            notes.add(
                Level::Differs,
                format!("{place} concurrencyMode"),
                message,
                "",
            );
        }
    }
    // Where nothing is said it is there all the same.
    let listed = document
        .listed()
        .any(|(_, _, entry)| entry.type_name == "utilization-detector");
    if !listed && matches!(config.detector, Detector::Utilization { .. }) {
        let place = "flowControl.saturationDetector";
        notes.add(
            Level::Differs,
            place,
            format!("utilization-detector: {UTILIZATION}"),
            "",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PLUGIN_TYPES;

    #[test]
    fn only_built_types_do_another_thing() {
        for (type_name, ..) in TYPES {
            assert!(PLUGIN_TYPES.contains(type_name), "{type_name}");
        }
    }
}

//! Limits that are never reached, and bands and policies that nobody will use.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::finding::Level;
use super::super::{BandConfig, Config, raw};
use super::Notes;
use crate::objectives::{Objective, Objectives};

/// Parameters that a `concurrency-detector` does not look at in a mode: mode, parameter, what it looks at.
const IDLE: &[(&str, &str, &str)] = &[
    ("requests", "maxTokenConcurrency", "requests only"),
    ("tokens", "maxConcurrency", "tokens only"),
];

pub(super) fn check(document: &raw::Document, config: &Config, notes: &mut Notes) {
    for (place, _, entry) in document.listed() {
        match entry.type_name.as_str() {
            "concurrency-detector" => idle_parameters(&place, entry, notes),
            "priority-holdback-policy" if entry.parameters["minCeiling"].as_f64() == Some(0.0) => {
                let message = "the lowest band has a ceiling of 0: its requests are never dispatched, however empty the pool is";
                let advice = "write a minCeiling above 0";
                notes.add(
                    Level::Unreachable,
                    format!("{place} minCeiling"),
                    message,
                    advice,
                );
            }
            _ => {}
        }
    }
    let (Some(section), Some(flow)) = (&document.flow_control, &config.flow) else {
        return;
    };
    for (index, band) in section.priority_bands.iter().enumerate() {
        let place = format!("flowControl.priorityBands[{index}]");
        let Some(limits) = flow.bands.get(&band.priority) else {
            continue;
        };
        beyond_global(&place, band.into(), limits, config, notes);
    }
    if let Some(band) = &section.default_priority_band {
        let place = "flowControl.defaultPriorityBand";
        beyond_global(place, band.into(), &flow.default_band, config, notes);
    }
    if let Some(band) = &section.default_negative_priority_band {
        let place = "flowControl.defaultNegativePriorityBand";
        beyond_global(place, band.into(), &flow.negative_band, config, notes);
    }
    if let Some(most) = flow.max_requests
        && most > flow.default_band.max_requests
        && section
            .default_priority_band
            .as_ref()
            .is_none_or(|band| band.max_requests.is_none())
    {
        let each = flow.default_band.max_requests;
        let message = format!(
            "{most} is never reached by one band: each holds at most {each} unless told otherwise"
        );
        let advice = "write defaultPriorityBand.maxRequests too";
        notes.add(Level::Caution, "flowControl.maxRequests", message, advice);
    }
}

fn idle_parameters(place: &str, entry: &raw::PluginEntry, notes: &mut Notes) {
    let mode = entry.parameters["concurrencyMode"]
        .as_str()
        .unwrap_or("requests");
    for &(of, parameter, counts) in IDLE {
        if of == mode && entry.parameters.get(parameter).is_some() {
            let message = format!("has no effect: concurrencyMode `{mode}` counts {counts}");
            let advice = "leave it out, or write concurrencyMode: hybrid";
            notes.add(
                Level::Unused,
                format!("{place} {parameter}"),
                message,
                advice,
            );
        }
    }
}

/// Which limits of a band somebody wrote: of defaults nothing is said.
struct Written {
    requests: bool,
    bytes: bool,
    ttl: bool,
}

impl From<&raw::Band> for Written {
    fn from(band: &raw::Band) -> Self {
        Self {
            requests: band.max_requests.is_some(),
            bytes: band.max_bytes.is_some(),
            ttl: band.default_request_ttl.is_some(),
        }
    }
}

impl From<&raw::DefaultBand> for Written {
    fn from(band: &raw::DefaultBand) -> Self {
        Self {
            requests: band.max_requests.is_some(),
            bytes: band.max_bytes.is_some(),
            ttl: band.default_request_ttl.is_some(),
        }
    }
}

/// Limits of a band that the limits of the whole queue make meaningless.
fn beyond_global(
    place: &str,
    written: Written,
    band: &BandConfig,
    config: &Config,
    notes: &mut Notes,
) {
    let Some(flow) = &config.flow else { return };
    let shorter = |all: Option<Duration>| all.zip(band.request_ttl).filter(|(all, own)| own >= all);
    let mut never = |field: &str, message: String| {
        notes.add(
            Level::Unreachable,
            format!("{place}.{field}"),
            message,
            "write less, or leave it out",
        );
    };
    if let Some(all) = flow
        .max_requests
        .filter(|&all| written.requests && band.max_requests > all)
    {
        never(
            "maxRequests",
            format!("is never reached: the whole queue holds {all}"),
        );
    }
    if let Some(all) = flow
        .max_bytes
        .filter(|&all| written.bytes && band.max_bytes > all)
    {
        never(
            "maxBytes",
            format!("is never reached: the whole queue holds {all} bytes"),
        );
    }
    if let Some((all, _)) = shorter(flow.request_ttl).filter(|_| written.ttl) {
        never(
            "defaultRequestTTL",
            format!("changes nothing: no request waits longer than {all:?}"),
        );
    }
}

/// What no objective asks for.
pub(super) fn check_objectives(
    document: &raw::Document,
    config: &Config,
    objectives: &Objectives,
    notes: &mut Notes,
) {
    let all: Vec<Objective> = objectives.iter().map(|(_, objective)| *objective).collect();
    let priorities: BTreeSet<i32> = all.iter().map(|objective| objective.priority).collect();
    let negative = priorities.iter().any(|&priority| priority < 0);
    let sheddable = negative || all.iter().any(|objective| objective.shed);
    if let (Some(section), Some(_)) = (&document.flow_control, &config.flow) {
        for (index, band) in section.priority_bands.iter().enumerate() {
            let priority = band.priority;
            // Requests without an objective have priority 0.
            if priority != 0 && !priorities.contains(&priority) {
                let place = format!("flowControl.priorityBands[{index}]");
                let message = format!(
                    "no objective has priority {priority}: no request will be in this band"
                );
                notes.add(
                    Level::Unused,
                    place,
                    message,
                    format!("give an objective priority {priority}, or leave the band out"),
                );
            }
        }
        if section.default_negative_priority_band.is_some() && !negative {
            let place = "flowControl.defaultNegativePriorityBand";
            let message =
                "no objective has a negative priority: no band will be made from this template";
            notes.add(
                Level::Unused,
                place,
                message,
                "give an objective a negative priority, or leave the template out",
            );
        }
        if section.enable_eviction && !negative {
            let message =
                "no objective has a negative priority: no request will be taken off its server";
            notes.add(
                Level::Unused,
                "flowControl.enableEviction",
                message,
                "give an objective a negative priority, or leave it out",
            );
        }
    }
    for (place, _, entry) in document.listed() {
        let refuses = match entry.type_name.as_str() {
            "latency-slo-admitter" => sheddable,
            "probabilistic-admitter" => negative,
            _ => continue,
        };
        if !refuses {
            let message = "no objective is sheddable: no request will be refused by it";
            notes.add(
                Level::Unused,
                place,
                message,
                "give an objective a negative priority, or leave the admitter out",
            );
        }
    }
}

//! The `flowControl` section, read and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::ConfigError;
use super::finding::{Finding, Level};
use super::plugin::{Plugin, Role};
use super::raw::{self, Quantity};
use super::registry::Registry;
use super::{BandConfig, Fairness, FlowConfig, Ordering, units};

/// Bands that may be configured, so that the queue's size is bounded.
const MAX_BANDS: usize = 64;

/// The queue's limits, with llm-d's defaults where the section is silent.
pub(super) fn flow_config(
    section: raw::FlowControl,
    registry: &mut Registry,
) -> Result<FlowConfig, ConfigError> {
    if section.priority_bands.len() > MAX_BANDS {
        let wanted = format!("bands are too many; at most {MAX_BANDS}");
        return Err(ConfigError::value(
            "flowControl.priorityBands",
            section.priority_bands.len(),
            wanted,
        ));
    }
    let default = FlowConfig::default();
    let request_ttl = ttl(
        "flowControl.defaultRequestTTL",
        section.default_request_ttl.as_deref(),
    )?
    .unwrap_or(default.request_ttl);
    let no_endpoint_ttl = ttl(
        "flowControl.noEndpointRequestTTL",
        section.no_endpoint_request_ttl.as_deref(),
    )?
    .unwrap_or(request_ttl);
    let default_band = template(
        "flowControl.defaultPriorityBand",
        section.default_priority_band.unwrap_or_default(),
        registry,
    )?;
    let negative = section.default_negative_priority_band;
    let negative_shares = negative.is_some();
    let negative_band = match negative {
        Some(entry) => negative_template(entry, registry)?,
        None => default_band.clone(),
    };
    if section.enable_eviction {
        eviction_plugins(registry)?;
    }
    let mut bands = BTreeMap::new();
    for (index, entry) in section.priority_bands.into_iter().enumerate() {
        let (priority, place) = (
            entry.priority,
            format!("flowControl.priorityBands[{index}]"),
        );
        if bands
            .insert(priority, band(&place, entry.into(), registry)?)
            .is_some()
        {
            return Err(ConfigError::value(
                format!("{place}.priority"),
                priority,
                "is given twice; once is enough",
            ));
        }
    }
    Ok(FlowConfig {
        max_requests: section.max_requests.filter(|&most| most > 0),
        max_bytes: bytes("flowControl.maxBytes", section.max_bytes)?,
        request_ttl,
        no_endpoint_ttl,
        default_band,
        negative_band,
        bands,
        negative_shares,
        eviction: section.enable_eviction,
        advisory_headers: section.advisory_headers,
    })
}

/// A band that others are made from.
fn template(
    place: &str,
    entry: raw::DefaultBand,
    registry: &mut Registry,
) -> Result<BandConfig, ConfigError> {
    if entry.priority.is_some() {
        let field = format!("{place}.priority");
        let message = "has no effect: bands of any priority are made from a template";
        let advice = "leave it out, or write an entry of priorityBands";
        registry.note(Finding::new(Level::Unused, field, message, advice));
    }
    band(place, entry, registry)
}

/// The one budget of negative bands. Here zero means what it says: nothing waits.
fn negative_template(
    entry: raw::DefaultBand,
    registry: &mut Registry,
) -> Result<BandConfig, ConfigError> {
    let place = "flowControl.defaultNegativePriorityBand";
    let no_requests = entry.max_requests == Some(0);
    let no_bytes = entry
        .max_bytes
        .as_ref()
        .is_some_and(|quantity| most(&format!("{place}.maxBytes"), quantity) == Ok(0));
    let mut made = template(place, entry, registry)?;
    if no_requests {
        made.max_requests = 0;
    }
    if no_bytes {
        made.max_bytes = 0;
    }
    Ok(made)
}

/// The eviction plugins that are listed are the ones there are; listing them is not needed.
fn eviction_plugins(registry: &mut Registry) -> Result<(), ConfigError> {
    registry.only(|plugin| matches!(plugin, Plugin::SheddableEviction(_)).then_some(()))?;
    registry.only(|plugin| matches!(plugin, Plugin::PriorityThenTime(_)).then_some(()))?;
    Ok(())
}

/// One band. Zero counts as absent, as it does for llm-d.
fn band(
    place: &str,
    entry: raw::DefaultBand,
    registry: &mut Registry,
) -> Result<BandConfig, ConfigError> {
    let fairness = match &entry.fairness_policy_ref {
        Some(name) => fairness(&format!("{place}.fairnessPolicyRef"), name, registry)?,
        None => Fairness::default(),
    };
    let ordering = match &entry.ordering_policy_ref {
        Some(name) => ordering(&format!("{place}.orderingPolicyRef"), name, registry)?,
        None => Ordering::default(),
    };
    let default = BandConfig::default();
    let request_ttl = ttl(
        &format!("{place}.defaultRequestTTL"),
        entry.default_request_ttl.as_deref(),
    )?;
    Ok(BandConfig {
        max_requests: entry
            .max_requests
            .filter(|&most| most > 0)
            .unwrap_or(default.max_requests),
        max_bytes: bytes(&format!("{place}.maxBytes"), entry.max_bytes)?
            .unwrap_or(default.max_bytes),
        request_ttl: request_ttl.flatten(),
        fairness,
        ordering,
    })
}

fn fairness(place: &str, name: &str, registry: &mut Registry) -> Result<Fairness, ConfigError> {
    Ok(match registry.find(place, name, Role::Fairness)? {
        Plugin::RoundRobinFairness(_) => Fairness::RoundRobin,
        Plugin::ProgramAware(parameters) => Fairness::ProgramAware(parameters),
        Plugin::VirtualTokens(parameters) => Fairness::VirtualTokens(parameters),
        _ => Fairness::GlobalStrict,
    })
}

fn ordering(place: &str, name: &str, registry: &mut Registry) -> Result<Ordering, ConfigError> {
    Ok(match registry.find(place, name, Role::Ordering)? {
        Plugin::Edf(_) => Ordering::Edf,
        Plugin::SloDeadline(_) => Ordering::SloDeadline,
        _ => Ordering::Fcfs,
    })
}

/// Absent = `None`; `0s` = `Some(None)`, no limit.
fn ttl(field: &str, text: Option<&str>) -> Result<Option<Option<Duration>>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let span = units::duration(text).ok_or_else(|| {
        ConfigError::value(
            field,
            text,
            "is not a duration; write for example 60s or 1m30s",
        )
    })?;
    Ok(Some((!span.is_zero()).then_some(span)))
}

/// Absent or zero = `None`.
fn bytes(field: &str, quantity: Option<Quantity>) -> Result<Option<u64>, ConfigError> {
    let Some(quantity) = quantity else {
        return Ok(None);
    };
    Ok(Some(most(field, &quantity)?).filter(|&most| most > 0))
}

fn most(field: &str, quantity: &Quantity) -> Result<u64, ConfigError> {
    match quantity {
        Quantity::Number(number) => Ok(*number),
        Quantity::Text(text) => units::bytes(text).ok_or_else(|| {
            ConfigError::value(
                field,
                text,
                "is not a quantity of bytes; write for example 1G or 512Mi",
            )
        }),
    }
}

//! The `flowControl` section, read and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::ConfigError;
use super::plugin::Role;
use super::raw::{self, Quantity};
use super::registry::Registry;
use super::{BandConfig, FlowConfig, units};

/// Bands that may be configured, so that the queue's size is bounded.
const MAX_BANDS: usize = 64;

/// The queue's limits, with llm-d's defaults where the section is silent.
pub(super) fn flow_config(
    section: raw::FlowControl,
    registry: &mut Registry,
) -> Result<FlowConfig, ConfigError> {
    if section.enable_eviction {
        let wanted = "cannot be honoured: requests in flight are never taken off their server; leave it false";
        return Err(ConfigError::value(
            "flowControl.enableEviction",
            true,
            wanted,
        ));
    }
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
    let default_band = band(
        "flowControl.defaultPriorityBand",
        section.default_priority_band.unwrap_or_default(),
        registry,
    )?;
    let negative_band = match section.default_negative_priority_band {
        Some(entry) => band("flowControl.defaultNegativePriorityBand", entry, registry)?,
        None => default_band.clone(),
    };
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
    })
}

/// One band. Zero counts as absent, as it does for llm-d.
fn band(
    place: &str,
    entry: raw::DefaultBand,
    registry: &mut Registry,
) -> Result<BandConfig, ConfigError> {
    if let Some(name) = &entry.fairness_policy_ref {
        registry.find(&format!("{place}.fairnessPolicyRef"), name, Role::Fairness)?;
    }
    if let Some(name) = &entry.ordering_policy_ref {
        registry.find(&format!("{place}.orderingPolicyRef"), name, Role::Ordering)?;
    }
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
    let most = match quantity {
        None => return Ok(None),
        Some(Quantity::Number(number)) => number,
        Some(Quantity::Text(text)) => units::bytes(&text).ok_or_else(|| {
            ConfigError::value(
                field,
                &text,
                "is not a quantity of bytes; write for example 1G or 512Mi",
            )
        })?,
    };
    Ok((most > 0).then_some(most))
}

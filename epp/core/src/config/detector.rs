//! What tells that the pool is full, and how full it may be.

use super::error::ConfigError;
use super::plugin::{Plugin, Role};
use super::registry::Registry;
use super::units::span;
use super::{Detector, UsageLimit, raw};

/// The detector that a plugin is, if it is one.
pub(super) fn detector_of(plugin: &Plugin) -> Result<Option<Detector>, ConfigError> {
    Ok(match plugin {
        Plugin::Concurrency(parameters) => Some(Detector::Concurrency(parameters.clone())),
        Plugin::Utilization(parameters) => Some(Detector::Utilization {
            parameters: parameters.clone(),
            staleness: span(
                "metricsStalenessThreshold",
                &parameters.metrics_staleness_threshold,
            )?,
        }),
        Plugin::Adaptive(parameters) => Some(Detector::Adaptive {
            parameters: parameters.clone(),
            window: span("window", &parameters.window)?,
        }),
        _ => None,
    })
}

/// The saturation detector; the deprecated top-level twin counts when the section has none.
pub(super) fn detector(
    section: &mut raw::FlowControl,
    twin: Option<raw::OptionalRef>,
    registry: &mut Registry,
) -> Result<Detector, ConfigError> {
    if twin.is_some() {
        registry.deprecated(
            "saturationDetector",
            "saturationDetector",
            "flowControl.saturationDetector",
        );
    }
    let reference = section
        .saturation_detector
        .take()
        .or(twin)
        .and_then(|reference| reference.plugin_ref);
    let Some(name) = reference else {
        return Ok(Detector::utilization_default());
    };
    let plugin = registry.find(
        "flowControl.saturationDetector.pluginRef",
        &name,
        Role::Detector,
    )?;
    Ok(detector_of(&plugin)?.unwrap_or_else(Detector::utilization_default))
}

/// How full each band may make the pool.
pub(super) fn usage_limit(
    reference: Option<&str>,
    registry: &mut Registry,
) -> Result<UsageLimit, ConfigError> {
    let Some(name) = reference else {
        return Ok(UsageLimit::default());
    };
    let place = "flowControl.usageLimitPolicyPluginRef";
    Ok(match registry.find(place, name, Role::UsageLimit)? {
        Plugin::StaticUsageLimit(parameters) => UsageLimit::Static(parameters),
        Plugin::PriorityHoldback(parameters) => UsageLimit::Holdback(parameters),
        Plugin::SoftReflective(_) => UsageLimit::SoftReflective,
        _ => UsageLimit::default(),
    })
}

impl Detector {
    /// Its plugin type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Concurrency(_) => "concurrency-detector",
            Self::Utilization { .. } => "utilization-detector",
            Self::Adaptive { .. } => "adaptive-concurrency-detector",
        }
    }
}

//! What stands in for plugins and parameters that are known and not built.

use serde_json::Value;

use super::error::ConfigError;
use super::plugin::{Plugin, Role};
use super::raw;
use super::registry::Registry;

/// Something that a configuration asks for, and that something simpler is done instead of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// Name of the plugin.
    pub plugin: String,
    /// Its type as written; a parameter follows after a dot where only that one is not built.
    pub what: String,
    /// What happens instead.
    pub instead: &'static str,
    /// The feature that it waits for.
    pub until: &'static str,
}

/// Parameters of a built plugin that are set and not built: name, what happens instead, what it waits for.
pub(super) fn parameters(plugin: &Plugin) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut set = Vec::new();
    let mut check = |is_set: bool, name, instead, until| {
        if is_set {
            set.push((name, instead, until));
        }
    };
    match plugin {
        Plugin::Token(it) => check(
            it.vllm.is_some(),
            "vllm",
            "prompt tokens are estimated as four bytes each",
            "tokenisers",
        ),
        Plugin::PredictedLatency(it) => {
            check(
                it.use_encoder_cache_features,
                "useEncoderCacheFeatures",
                "predictions know nothing of images",
                "multimodal routing",
            );
            check(
                it.encoder_cache_match_info_producer_name.is_some(),
                "encoderCacheMatchInfoProducerName",
                "predictions know nothing of images",
                "multimodal routing",
            );
        }
        _ => {}
    }
    set
}

/// The sources that are built. What is attached to the others must exist, and is not read.
pub(super) fn sources(
    section: &mut Option<raw::DataLayer>,
    registry: &mut Registry,
) -> Result<(), ConfigError> {
    let Some(section) = section else {
        return Ok(());
    };
    let mut built = Vec::new();
    for (index, entry) in std::mem::take(&mut section.sources).into_iter().enumerate() {
        let place = format!("dataLayer.sources[{index}]");
        if !matches!(registry.get(&entry.plugin_ref), Some(Plugin::StandIn(_))) {
            built.push(entry);
            continue;
        }
        registry.find(
            &format!("{place}.pluginRef"),
            &entry.plugin_ref,
            Role::Source,
        )?;
        for (index, reference) in entry.extractors.iter().enumerate() {
            let place = format!("{place}.extractors[{index}].pluginRef");
            // Producers listen to notifications too.
            let role = match registry
                .get(&reference.plugin_ref)
                .map(|plugin| plugin.role())
            {
                Some(Role::Producer) => Role::Producer,
                _ => Role::Extractor,
            };
            registry.find(&place, &reference.plugin_ref, role)?;
        }
    }
    section.sources = built;
    Ok(())
}

/// Parameters of stand-ins that name other plugins must name one of the right role.
pub(super) fn references(registry: &mut Registry) -> Result<(), ConfigError> {
    for (place, name, role) in registry.stand_in_references() {
        registry.find(&place, &name, role)?;
    }
    Ok(())
}

/// The other plugins that parameters name, whatever the type: parameter, name, role.
pub(super) fn named_in(parameters: &Value) -> Vec<(String, String, Role)> {
    const NAMED: &[(&str, Role)] = &[
        ("prefixMatchInfoProducerName", Role::Producer),
        ("inFlightLoadProducerName", Role::Producer),
        ("deciderPluginName", Role::Decider),
    ];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut named: Vec<_> = NAMED
        .iter()
        .filter_map(|&(field, role)| Some((field.to_owned(), text(&parameters[field])?, role)))
        .collect();
    if let Some(deciders) = parameters["deciders"].as_object() {
        named.extend(deciders.iter().filter_map(|(stage, name)| {
            Some((format!("deciders.{stage}"), text(name)?, Role::Decider))
        }));
    }
    named
}

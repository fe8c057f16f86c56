//! The scheduling profile: which scorers, with which weights, and which picker.

use super::detector::detector_of;
use super::error::ConfigError;
use super::plugin::{Plugin, Role};
use super::registry::Registry;
use super::{Config, Picker, Profile, Scorer, WeightedScorer, raw};

/// The one profile; none listed = every scorer and picker that `plugins` lists, else llm-d's default.
pub(super) fn profile(
    entries: Vec<raw::ProfileEntry>,
    registry: &mut Registry,
) -> Result<Profile, ConfigError> {
    if entries.len() > 1 {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let wanted = "are too many: single-profile-handler runs one profile";
        return Err(ConfigError::value(
            "schedulingProfiles",
            names.join(", "),
            wanted,
        ));
    }
    let (name, references) = match entries.into_iter().next() {
        Some(entry) => (entry.name, entry.plugins),
        None => ("default".to_owned(), listed(registry)),
    };
    if references.is_empty() {
        return Ok(Config::default().profile);
    }
    let mut profile = Profile {
        filters: Vec::new(),
        scorers: Vec::new(),
        picker: Picker::MaxScore,
        endpoints: 1,
    };
    let mut pickers = Vec::new();
    for (index, reference) in references.into_iter().enumerate() {
        let place = format!("schedulingProfiles `{name}` plugins[{index}]");
        let role = match registry
            .get(&reference.plugin_ref)
            .map(|plugin| plugin.role())
        {
            Some(role @ (Role::Picker | Role::Detector | Role::Filter | Role::ProfileHandler)) => {
                role
            }
            _ => Role::Scorer,
        };
        let plugin = registry.find(&format!("{place}.pluginRef"), &reference.plugin_ref, role)?;
        let weight = reference.weight.unwrap_or(1.0);
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(ConfigError::value(
                format!("{place}.weight"),
                weight,
                "must be a number of at least 0",
            ));
        }
        if let Some((picker, endpoints)) = picker(&plugin) {
            pickers.push(reference.plugin_ref);
            (profile.picker, profile.endpoints) = (picker, endpoints);
        } else if let Some(detector) = detector_of(&plugin)? {
            profile.filters.push(detector);
        } else if let Some(scorer) = scorer(plugin) {
            profile.scorers.push(WeightedScorer {
                name: reference.plugin_ref.into(),
                weight,
                scorer,
            });
        }
    }
    if pickers.len() > 1 {
        let wanted = "are too many: a profile has one picker";
        return Err(ConfigError::value(
            format!("schedulingProfiles `{name}`"),
            pickers.join(", "),
            wanted,
        ));
    }
    Ok(profile)
}

/// References to every scorer and picker listed, weight 1 each.
fn listed(registry: &Registry) -> Vec<raw::WeightedRef> {
    let scheduling = |plugin: &Plugin| matches!(plugin.role(), Role::Scorer | Role::Picker);
    registry
        .plugins()
        .filter(|(_, plugin)| scheduling(plugin))
        .map(|(name, _)| raw::WeightedRef {
            plugin_ref: name.to_owned(),
            weight: None,
        })
        .collect()
}

fn picker(plugin: &Plugin) -> Option<(Picker, usize)> {
    let (picker, parameters) = match plugin {
        Plugin::MaxScore(parameters) => (Picker::MaxScore, parameters),
        Plugin::Random(parameters) => (Picker::Random, parameters),
        Plugin::WeightedRandom(parameters) => (Picker::WeightedRandom, parameters),
        Plugin::RoundRobin(parameters) => (Picker::RoundRobin, parameters),
        _ => return None,
    };
    Some((picker, parameters.max_num_of_endpoints as usize))
}

fn scorer(plugin: Plugin) -> Option<Scorer> {
    Some(match plugin {
        Plugin::QueueScorer(_) => Scorer::Queue,
        Plugin::KvScorer(_) => Scorer::KvUtilization,
        Plugin::PrefixScorer(parameters) => Scorer::Prefix(parameters),
        Plugin::LatencyScorer(parameters) => Scorer::Latency(parameters),
        Plugin::PredictedTtftScorer(parameters) => Scorer::PredictedTtft(parameters),
        _ => return None,
    })
}

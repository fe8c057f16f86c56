//! The scheduling profile: which filters, which scorers with which weights, and which picker.

use super::detector::detector_of;
use super::error::ConfigError;
use super::plugin::{PassiveHealth, Plugin, Role};
use super::registry::Registry;
use super::units::span;
use super::{
    Config, Filter, HealthRules, NamedFilter, Picker, Profile, Scorer, ServingStage,
    WeightedScorer, raw,
};

/// The one profile; none listed = every filter, scorer and picker that `plugins` lists, else llm-d's default.
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
    let place = format!("schedulingProfiles `{name}`");
    let mut profile = Profile {
        filters: Vec::new(),
        scorers: Vec::new(),
        picker: Picker::MaxScore,
        endpoints: 1,
    };
    if references.is_empty() {
        return Ok(Config::default().profile);
    }
    let mut pickers = Vec::new();
    for (index, reference) in references.into_iter().enumerate() {
        let place = format!("{place} plugins[{index}]");
        if add(&mut profile, &place, &reference, registry)? {
            pickers.push(reference.plugin_ref);
        }
    }
    if pickers.len() > 1 {
        let wanted = "are too many: a profile has one picker";
        return Err(ConfigError::value(place, pickers.join(", "), wanted));
    }
    let health = |named: &&NamedFilter| matches!(named.filter, Filter::Health(_));
    if let Some(second) = profile.filters.iter().filter(health).nth(1) {
        let wanted = "is a second passive-health; an endpoint has one health";
        return Err(ConfigError::value(place, &second.name, wanted));
    }
    Ok(profile)
}

/// Adds what `reference` names; true = that is a picker.
fn add(
    profile: &mut Profile,
    place: &str,
    reference: &raw::WeightedRef,
    registry: &mut Registry,
) -> Result<bool, ConfigError> {
    let name = &reference.plugin_ref;
    let role = match registry.get(name).map(|plugin| plugin.role()) {
        Some(role @ (Role::Filter | Role::Picker | Role::Detector | Role::ProfileHandler)) => role,
        _ => Role::Scorer,
    };
    let plugin = registry.find(&format!("{place}.pluginRef"), name, role)?;
    let weight = reference.weight.unwrap_or(1.0);
    if !(weight.is_finite() && weight >= 0.0) {
        let wanted = "must be a number of at least 0";
        return Err(ConfigError::value(
            format!("{place}.weight"),
            weight,
            wanted,
        ));
    }
    if let Some((picker, endpoints)) = picker(&plugin) {
        (profile.picker, profile.endpoints) = (picker, endpoints);
        return Ok(true);
    }
    profile
        .filters
        .extend(filter(&plugin)?.map(|filter| NamedFilter {
            name: name.as_str().into(),
            filter,
        }));
    profile
        .scorers
        .extend(scorer(&plugin).map(|scorer| WeightedScorer {
            name: name.as_str().into(),
            weight,
            scorer,
        }));
    Ok(false)
}

/// References to every filter, scorer and picker listed, weight 1 each. Detectors are the queue's unless a profile
/// names them.
fn listed(registry: &Registry) -> Vec<raw::WeightedRef> {
    let scheduling =
        |plugin: &Plugin| matches!(plugin.role(), Role::Filter | Role::Scorer | Role::Picker);
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

fn filter(plugin: &Plugin) -> Result<Option<Filter>, ConfigError> {
    if let Some(detector) = detector_of(plugin)? {
        return Ok(Some(Filter::Room(detector)));
    }
    Ok(Some(match plugin {
        Plugin::LabelSelector(it) => Filter::Labels(it.clone()),
        Plugin::EncodeFilter(_) => Filter::Stage(ServingStage::Encode),
        Plugin::PrefillFilter(_) => Filter::Stage(ServingStage::Prefill),
        Plugin::DecodeFilter(_) => Filter::Stage(ServingStage::Decode),
        Plugin::TestHeader(_) => Filter::TestHeader,
        Plugin::ContextLength(it) if it.enable_filtering => Filter::ContextLength(it.clone()),
        Plugin::UtilizationFilter(it) => Filter::Utilization(it.clone()),
        Plugin::AttributeFilter(it) => Filter::Attribute(it.clone()),
        Plugin::PassiveHealth(it) => Filter::Health(health_rules(it)?),
        Plugin::SessionFilter(it) => Filter::Session(it.clone()),
        Plugin::TopologyFilter(it) => Filter::Topology(it.clone()),
        Plugin::PrefixAffinity(it) => Filter::PrefixAffinity(it.clone()),
        Plugin::HeadroomTier(it) => Filter::HeadroomTier(it.clone()),
        _ => return Ok(None),
    }))
}

fn health_rules(parameters: &PassiveHealth) -> Result<HealthRules, ConfigError> {
    Ok(HealthRules {
        window: span("passive-health window", &parameters.window)?,
        min_stall: span("passive-health minStall", &parameters.min_stall)?,
        base_ejection: span("passive-health baseEjection", &parameters.base_ejection)?,
        max_ejection: span("passive-health maxEjection", &parameters.max_ejection)?,
        slow_start: span("passive-health slowStart", &parameters.slow_start)?,
        parameters: parameters.clone(),
    })
}

fn scorer(plugin: &Plugin) -> Option<Scorer> {
    Some(match plugin {
        Plugin::QueueScorer(_) => Scorer::Queue,
        Plugin::RunningScorer(_) => Scorer::Running,
        Plugin::KvScorer(_) => Scorer::KvUtilization,
        Plugin::LoadAwareScorer(it) => Scorer::LoadAware(it.clone()),
        Plugin::TokenLoadScorer(it) => Scorer::TokenLoad(it.clone()),
        Plugin::ActiveRequestScorer(it) => Scorer::ActiveRequest(it.clone()),
        Plugin::PrefixScorer(it) => Scorer::Prefix(it.clone()),
        Plugin::NoHitLruScorer(it) => Scorer::NoHitLru(it.clone()),
        Plugin::LoraAffinityScorer(_) => Scorer::LoraAffinity,
        Plugin::SessionScorer(it) => Scorer::Session(it.clone()),
        Plugin::HeaderLabelScorer(it) => Scorer::HeaderLabel(it.clone()),
        Plugin::ContextLength(it) => Scorer::ContextLength(it.clone()),
        Plugin::AttributeScorer(it) => Scorer::Attribute(it.clone()),
        Plugin::TopologyScorer(it) => Scorer::Topology(it.clone()),
        Plugin::LatencyScorer(it) => Scorer::Latency(it.clone()),
        Plugin::PredictedTtftScorer(it) => Scorer::PredictedTtft(it.clone()),
        _ => return None,
    })
}

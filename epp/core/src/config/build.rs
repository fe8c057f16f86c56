//! From the document to a [`Config`]: references resolved, values checked, defaults injected.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::ConfigError;
use super::flow::flow_config;
use super::plugin::{Plugin, Role};
use super::{
    Config, CoreMetricsExtractor, Detector, FileDiscovery, MetricsDataSource, Picker, PrefixProducer, Profile, Scorer,
    Scrape, WeightedScorer, raw, units,
};

const API_VERSION: &str = "llm-d.ai/v1alpha1";
const OLD_API_VERSION: &str = "inference.networking.x-k8s.io/v1alpha1";
const KIND: &str = "EndpointPickerConfig";
const FLOW_CONTROL: &str = "flowControl";
const FEATURE_GATES: [&str; 2] = [FLOW_CONTROL, "haPopulateNonLeaderDatastore"];

/// All plugins by name, and which of them something refers to.
pub(super) struct Registry {
    plugins: Vec<(String, Plugin)>,
    used: BTreeSet<String>,
}

impl Registry {
    fn new(entries: Vec<raw::PluginEntry>) -> Result<Self, ConfigError> {
        let mut plugins: Vec<(String, Plugin)> = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let name = entry.name.unwrap_or_else(|| entry.type_name.clone());
            let plugin = Plugin::parse(&entry.type_name, &entry.parameters, &format!("plugins[{index}] `{name}`"))?;
            if plugins.iter().any(|(other, _)| *other == name) {
                let wanted = "is given twice; give each plugin a name of its own";
                return Err(ConfigError::value(format!("plugins[{index}].name"), name, wanted));
            }
            super::validate::plugin(&name, &plugin)?;
            plugins.push((name, plugin));
        }
        Ok(Self { plugins, used: BTreeSet::new() })
    }

    /// The plugin of that name, which must play `role` at `place`. A type name that is not listed stands for
    /// that plugin with its defaults, as auto-injection would add it.
    pub(super) fn find(&mut self, place: &str, name: &str, role: Role) -> Result<Plugin, ConfigError> {
        let plugin = match self.get(name) {
            Some(plugin) => plugin,
            None => self.injected(place, name, role)?,
        };
        if plugin.role() != role {
            let (actual, wanted) = (plugin.role().noun(), role.noun());
            return Err(ConfigError::value(place, name, format!("is a {actual}; a {wanted} is wanted here")));
        }
        self.used.insert(name.to_owned());
        Ok(plugin)
    }

    fn get(&self, name: &str) -> Option<Plugin> {
        self.plugins.iter().find(|(other, _)| other == name).map(|(_, plugin)| plugin.clone())
    }

    /// The policies and detectors that llm-d makes available without being listed.
    fn injected(&self, place: &str, name: &str, role: Role) -> Result<Plugin, ConfigError> {
        let injectable = matches!(role, Role::Fairness | Role::Ordering | Role::UsageLimit | Role::Detector);
        match Plugin::parse(name, &serde_json::Value::Null, place) {
            Ok(plugin) if injectable => Ok(plugin),
            _ => Err(ConfigError::unknown(
                place,
                "pluginRef",
                name,
                self.plugins.iter().map(|(known, _)| known.as_str()),
            )),
        }
    }

    /// The one plugin for which `pick` answers; two are an error.
    fn only<T>(&mut self, pick: impl Fn(&Plugin) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let mut found: Option<(String, T)> = None;
        for (name, plugin) in &self.plugins {
            let Some(value) = pick(plugin) else { continue };
            if let Some((first, _)) = &found {
                let wanted = format!("is a second {}, beside `{first}`; one is enough", plugin.type_name());
                return Err(ConfigError::value("plugins", name, wanted));
            }
            found = Some((name.clone(), value));
        }
        let Some((name, value)) = found else { return Ok(None) };
        self.used.insert(name);
        Ok(Some(value))
    }

    fn unused(&self) -> impl Iterator<Item = String> {
        let unused = self.plugins.iter().filter(|(name, _)| !self.used.contains(name));
        unused.map(|(name, plugin)| format!("plugin `{name}` ({}) is not used by anything", plugin.type_name()))
    }
}

pub(super) fn build(document: raw::Document) -> Result<Config, ConfigError> {
    let mut warnings = Vec::new();
    check_version(&document, &mut warnings)?;
    let gate = feature_gates(&document.feature_gates)?;
    let mut registry = Registry::new(document.plugins)?;
    let default = Config::default();
    let profile = profile(document.scheduling_profiles, &mut registry)?;
    let (discovery, metrics) = data_layer(document.data_layer, &mut registry)?;
    parsers(document.request_handler, document.parser, &mut registry, &mut warnings)?;
    let mut section = document.flow_control.unwrap_or_default();
    let detector = detector(&mut section, document.saturation_detector, &mut registry, &mut warnings)?;
    let ceiling = usage_limit(section.usage_limit_policy_plugin_ref.as_deref(), &mut registry)?;
    let flow = flow_config(section, &mut registry)?;
    registry.only(|plugin| matches!(plugin, Plugin::SingleProfile(_)).then_some(()))?;
    registry.only(|plugin| matches!(plugin, Plugin::Token(_)).then_some(()))?;
    registry.only(|plugin| matches!(plugin, Plugin::InflightLoad(_)).then_some(()))?;
    let listed_prefix = registry.only(|plugin| if let Plugin::Prefix(it) = plugin { Some(it.clone()) } else { None })?;
    let predictor =
        registry.only(|plugin| if let Plugin::PredictedLatency(it) = plugin { Some(it.clone()) } else { None })?;
    let slo_admitter =
        registry.only(|plugin| if let Plugin::SloAdmitter(it) = plugin { Some(it.clone()) } else { None })?;
    let consumes = |wanted: fn(&Scorer) -> bool| profile.scorers.iter().any(|scorer| wanted(&scorer.scorer));
    let predicts = consumes(|scorer| matches!(scorer, Scorer::Latency(_) | Scorer::PredictedTtft(_)));
    let predicted_latency = predictor.or_else(|| (predicts || slo_admitter.is_some()).then(Default::default));
    let matches_prefix = predicted_latency.is_some() || consumes(|scorer| !matches!(scorer, Scorer::Queue | Scorer::KvUtilization));
    let prefix = listed_prefix.or_else(|| matches_prefix.then(PrefixProducer::default));
    warnings.extend(registry.unused());
    Ok(Config {
        flow: gate.then_some(flow),
        detector,
        ceiling,
        profile,
        prefix,
        predicted_latency,
        slo_admitter,
        discovery,
        metrics,
        warnings,
        ..default
    })
}

fn check_version(document: &raw::Document, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    match document.api_version.as_str() {
        API_VERSION => {}
        OLD_API_VERSION => warnings.push(format!("apiVersion `{OLD_API_VERSION}` is deprecated; write `{API_VERSION}`")),
        other => return Err(ConfigError::value("apiVersion", other, format!("is unknown; write `{API_VERSION}`"))),
    }
    if document.kind != KIND {
        return Err(ConfigError::value("kind", &document.kind, format!("is unknown; write `{KIND}`")));
    }
    Ok(())
}

/// Whether the gate `flowControl` is on.
fn feature_gates(gates: &[String]) -> Result<bool, ConfigError> {
    let mut flow_control = false;
    for (index, gate) in gates.iter().enumerate() {
        let place = format!("featureGates[{index}]");
        let (name, value) = gate.split_once('=').unwrap_or((gate, "true"));
        if !FEATURE_GATES.contains(&name) {
            return Err(ConfigError::unknown(place, "feature gate", name, FEATURE_GATES));
        }
        let on: bool =
            value.parse().map_err(|_| ConfigError::value(place, gate, "is neither NAME, NAME=true nor NAME=false"))?;
        if name == FLOW_CONTROL {
            flow_control = on;
        }
    }
    Ok(flow_control)
}

/// The one profile; none listed = every scorer and picker that `plugins` lists, else llm-d's default.
fn profile(entries: Vec<raw::ProfileEntry>, registry: &mut Registry) -> Result<Profile, ConfigError> {
    if entries.len() > 1 {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let wanted = "are too many: single-profile-handler runs one profile";
        return Err(ConfigError::value("schedulingProfiles", names.join(", "), wanted));
    }
    let (name, references) = match entries.into_iter().next() {
        Some(entry) => (entry.name, entry.plugins),
        None => ("default".to_owned(), listed(registry)),
    };
    if references.is_empty() {
        return Ok(Config::default().profile);
    }
    let mut profile = Profile { filters: Vec::new(), scorers: Vec::new(), picker: Picker::MaxScore, endpoints: 1 };
    let mut pickers = Vec::new();
    for (index, reference) in references.into_iter().enumerate() {
        let place = format!("schedulingProfiles `{name}` plugins[{index}]");
        let role = match registry.get(&reference.plugin_ref).map(|plugin| plugin.role()) {
            Some(role @ (Role::Picker | Role::Detector | Role::ProfileHandler)) => role,
            _ => Role::Scorer,
        };
        let plugin = registry.find(&format!("{place}.pluginRef"), &reference.plugin_ref, role)?;
        let weight = reference.weight.unwrap_or(1.0);
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(ConfigError::value(format!("{place}.weight"), weight, "must be a number of at least 0"));
        }
        if let Some((picker, endpoints)) = picker(&plugin) {
            pickers.push(reference.plugin_ref);
            (profile.picker, profile.endpoints) = (picker, endpoints);
        } else if let Some(detector) = as_detector(&plugin)? {
            profile.filters.push(detector);
        } else if let Some(scorer) = scorer(plugin) {
            profile.scorers.push(WeightedScorer { name: reference.plugin_ref.into(), weight, scorer });
        }
    }
    if pickers.len() > 1 {
        let wanted = "are too many: a profile has one picker";
        return Err(ConfigError::value(format!("schedulingProfiles `{name}`"), pickers.join(", "), wanted));
    }
    Ok(profile)
}

/// References to every scorer and picker listed, weight 1 each.
fn listed(registry: &Registry) -> Vec<raw::WeightedRef> {
    let scheduling = registry.plugins.iter().filter(|(_, plugin)| matches!(plugin.role(), Role::Scorer | Role::Picker));
    scheduling.map(|(name, _)| raw::WeightedRef { plugin_ref: name.clone(), weight: None }).collect()
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

fn as_detector(plugin: &Plugin) -> Result<Option<Detector>, ConfigError> {
    Ok(match plugin {
        Plugin::Concurrency(parameters) => Some(Detector::Concurrency(parameters.clone())),
        Plugin::Utilization(parameters) => Some(Detector::Utilization {
            parameters: parameters.clone(),
            staleness: span("metricsStalenessThreshold", &parameters.metrics_staleness_threshold)?,
        }),
        _ => None,
    })
}

/// The saturation detector; the deprecated top-level twin counts when the section has none.
fn detector(
    section: &mut raw::FlowControl,
    twin: Option<raw::OptionalRef>,
    registry: &mut Registry,
    warnings: &mut Vec<String>,
) -> Result<Detector, ConfigError> {
    if twin.is_some() {
        warnings.push("saturationDetector at the top level is deprecated; write flowControl.saturationDetector".into());
    }
    let reference = section.saturation_detector.take().or(twin).and_then(|reference| reference.plugin_ref);
    let Some(name) = reference else { return Ok(Detector::utilization_default()) };
    let plugin = registry.find("flowControl.saturationDetector.pluginRef", &name, Role::Detector)?;
    Ok(as_detector(&plugin)?.unwrap_or_else(Detector::utilization_default))
}

fn usage_limit(reference: Option<&str>, registry: &mut Registry) -> Result<f64, ConfigError> {
    let Some(name) = reference else { return Ok(1.0) };
    match registry.find("flowControl.usageLimitPolicyPluginRef", name, Role::UsageLimit)? {
        Plugin::StaticUsageLimit(parameters) => Ok(parameters.threshold),
        _ => Ok(1.0),
    }
}

fn data_layer(
    section: Option<raw::DataLayer>,
    registry: &mut Registry,
) -> Result<(Option<FileDiscovery>, Option<Scrape>), ConfigError> {
    let Some(section) = section else { return Ok((None, Some(listed_scrape(registry)?))) };
    let not_built = [
        ("dataLayer.peerDiscovery", section.peer_discovery.map(|reference| reference.plugin_ref)),
        ("dataLayer.crossReplicaSyncerPluginRef", section.cross_replica_syncer_plugin_ref),
        ("dataLayer.crossReplicaSyncInterval", section.cross_replica_sync_interval),
    ];
    for (field, value) in not_built {
        if let Some(value) = value {
            return Err(ConfigError::value(field, value, "cannot be honoured: replicas share no state; leave it out"));
        }
    }
    let discovery = match section.discovery {
        Some(reference) => match registry.find("dataLayer.discovery.pluginRef", &reference.plugin_ref, Role::Discovery)? {
            Plugin::FileDiscovery(parameters) => Some(parameters),
            _ => None,
        },
        None => None,
    };
    if section.sources.len() > 1 {
        let wanted = "sources are too many: engines' metrics are read once";
        return Err(ConfigError::value("dataLayer.sources", section.sources.len(), wanted));
    }
    let metrics = match section.sources.into_iter().next() {
        Some(entry) => Some(source(&entry, registry)?),
        None if section.inject_defaults.unwrap_or(true) => Some(listed_scrape(registry)?),
        None => None,
    };
    Ok((discovery, metrics))
}

fn source(entry: &raw::SourceEntry, registry: &mut Registry) -> Result<Scrape, ConfigError> {
    let found = registry.find("dataLayer.sources[0].pluginRef", &entry.plugin_ref, Role::Source)?;
    let Plugin::MetricsSource(source) = found else { return Ok(Scrape::default()) };
    let mut extractor = CoreMetricsExtractor::default();
    for (index, reference) in entry.extractors.iter().enumerate() {
        let place = format!("dataLayer.sources[0].extractors[{index}].pluginRef");
        if let Plugin::CoreMetrics(parameters) = registry.find(&place, &reference.plugin_ref, Role::Extractor)? {
            extractor = parameters;
        }
    }
    scrape(source, extractor)
}

/// The source and extractor that `plugins` lists, else the defaults.
fn listed_scrape(registry: &mut Registry) -> Result<Scrape, ConfigError> {
    let source = registry.only(|plugin| if let Plugin::MetricsSource(it) = plugin { Some(it.clone()) } else { None })?;
    let extractor = registry.only(|plugin| if let Plugin::CoreMetrics(it) = plugin { Some(it.clone()) } else { None })?;
    scrape(source.unwrap_or_default(), extractor.unwrap_or_default())
}

fn scrape(source: MetricsDataSource, extractor: CoreMetricsExtractor) -> Result<Scrape, ConfigError> {
    let interval = source.interval.as_deref().map(|text| span("metrics-data-source interval", text)).transpose()?;
    Ok(Scrape { source, interval, extractor })
}

fn parsers(
    handler: Option<raw::RequestHandler>,
    twin: Option<raw::OptionalRef>,
    registry: &mut Registry,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    if let Some(twin) = twin {
        warnings.push("parser at the top level is deprecated; write requestHandler.parsers".into());
        if let Some(name) = twin.plugin_ref {
            registry.find("parser.pluginRef", &name, Role::Parser)?;
        }
    }
    for (index, reference) in handler.map(|handler| handler.parsers).unwrap_or_default().iter().enumerate() {
        registry.find(&format!("requestHandler.parsers[{index}].pluginRef"), &reference.plugin_ref, Role::Parser)?;
    }
    Ok(())
}

/// A duration above zero.
pub(super) fn span(field: &str, text: &str) -> Result<Duration, ConfigError> {
    units::duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| ConfigError::value(field, text, "must be a duration above zero, for example 200ms"))
}

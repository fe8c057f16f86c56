//! From the document to a [`Config`]: references resolved, values checked, defaults injected.

use super::catalogue::catalogue;
use super::data_layer::data_layer;
use std::time::Duration;

use super::detector::{detector, usage_limit};
use super::error::{ConfigError, Problem};
use super::finding::{Finding, Level};
use super::flow::flow_config;
use super::parsers::{parsers, read_answers};
use super::plugin::{Plugin, Role};
use super::position::Outline;
use super::profile::profile;
use super::registry::Registry;
use super::yaml::from_yaml;
use super::{
    AgentIdentity, Config, Filter, InflightLoadProducer, PrefixProducer, ProbabilisticAdmitter,
    ReportedAttribute, Scorer, SessionSource, TopologyExtractor, handler, raw, stand_in,
};

pub(super) const API_VERSION: &str = "llm-d.ai/v1alpha1";
pub(super) const OLD_API_VERSION: &str = "inference.networking.x-k8s.io/v1alpha1";
pub(super) const KIND: &str = "EndpointPickerConfig";
const FLOW_CONTROL: &str = "flowControl";
pub(super) const FEATURE_GATES: [&str; 2] = [FLOW_CONTROL, "haPopulateNonLeaderDatastore"];

/// Everything that is wrong with a document, as far as it could be read.
pub(super) struct Errors {
    pub(super) first: Box<ConfigError>,
    pub(super) others: Vec<ConfigError>,
}

impl From<ConfigError> for Errors {
    fn from(first: ConfigError) -> Self {
        Self {
            first: Box::new(first),
            others: Vec::new(),
        }
    }
}

/// The configuration that `text` is, and what deserves a word whether it can be used or not; all with their positions.
pub(super) fn read(text: &str) -> (Result<Config, Errors>, Vec<Finding>) {
    let outline = Outline::read(text);
    let mut findings = Vec::new();
    let config = document(text)
        .map_err(Errors::from)
        .and_then(|document| build(document, &mut findings));
    let located = |finding: Finding| finding.located(outline.as_ref());
    let config = config.map_err(|errors| Errors {
        first: Box::new(errors.first.located(outline.as_ref())),
        others: errors
            .others
            .into_iter()
            .map(|error| error.located(outline.as_ref()))
            .collect(),
    });
    (config, findings.into_iter().map(located).collect())
}

fn document(text: &str) -> Result<raw::Document, ConfigError> {
    let says_something = |line: &str| !matches!(line.trim_start().chars().next(), None | Some('#'));
    if text.lines().any(says_something) {
        return from_yaml(text, "config");
    }
    let needed = "there is nothing in it; it needs `apiVersion`, `kind` and `plugins`";
    Err(ConfigError {
        place: "config".into(),
        position: None,
        problem: Problem::Shape(needed.into()),
    })
}

/// All plugins are read before the rest, so that each is told of its own mistake; in the sections the first mistake
/// counts.
fn build(mut document: raw::Document, findings: &mut Vec<Finding>) -> Result<Config, Errors> {
    let mut registry = Registry::new();
    let entries = std::mem::take(&mut document.plugins)
        .into_iter()
        .enumerate();
    let errors: Vec<_> = entries
        .filter_map(|(index, entry)| registry.add(index, entry).err())
        .collect();
    let mut errors = errors.into_iter();
    let config = match errors.next() {
        None => sections(document, &mut registry).map_err(Errors::from),
        Some(first) => Err(Errors {
            first: Box::new(first),
            others: errors.collect(),
        }),
    };
    findings.append(&mut registry.findings);
    config
}

fn sections(mut document: raw::Document, registry: &mut Registry) -> Result<Config, ConfigError> {
    check_version(&document, registry)?;
    let gate = feature_gates(&document.feature_gates)?;
    let default = Config::default();
    let profiles = handler::running(document.scheduling_profiles, registry)?;
    let profile = profile(profiles, registry)?;
    stand_in::sources(&mut document.data_layer, registry)?;
    let data = data_layer(document.data_layer, registry)?;
    let read_answers = read_answers(document.request_handler.as_ref())?;
    let parsers = parsers(document.request_handler, document.parser, registry)?;
    if document.flow_control.is_some() && !gate {
        let message = format!(
            "has no effect but for its detector and usage limit: feature gate `{FLOW_CONTROL}` is off"
        );
        let advice = format!("write featureGates: [{FLOW_CONTROL}]");
        registry.note(Finding::new(Level::Unused, "flowControl", message, advice));
    }
    let mut section = document.flow_control.unwrap_or_default();
    let detector = detector(&mut section, document.saturation_detector, registry)?;
    let usage_limit = usage_limit(section.usage_limit_policy_plugin_ref.as_deref(), registry)?;
    let said = gate && section.no_endpoint_request_ttl.is_some();
    let flow = flow_config(section, registry)?;
    let empty_pool_ttl = said.then(|| flow.no_endpoint_ttl.unwrap_or(Duration::MAX));
    producer_names(registry)?;
    stand_in::references(registry)?;
    registry.only(|plugin| matches!(plugin, Plugin::SingleProfile(_)).then_some(()))?;
    registry.only(|plugin| matches!(plugin, Plugin::Token(_)).then_some(()))?;
    let listed_prefix = registry.only(|plugin| {
        if let Plugin::Prefix(it) = plugin {
            Some(it.clone())
        } else {
            None
        }
    })?;
    let predictor = registry.only(|plugin| {
        if let Plugin::PredictedLatency(it) = plugin {
            Some(it.clone())
        } else {
            None
        }
    })?;
    let slo_admitter = registry.only(|plugin| {
        if let Plugin::SloAdmitter(it) = plugin {
            Some(it.clone())
        } else {
            None
        }
    })?;
    let parts = parts(registry)?;
    let uses = |filters: fn(&Filter) -> bool, scorers: fn(&Scorer) -> bool| {
        profile.filters.iter().any(|named| filters(&named.filter))
            || profile
                .scorers
                .iter()
                .any(|weighted| scorers(&weighted.scorer))
    };
    let predicts = uses(Filter::predicts, Scorer::predicts) || slo_admitter.is_some();
    let predicted_latency = predictor.or_else(|| predicts.then(Default::default));
    let matches_prefix =
        predicted_latency.is_some() || uses(Filter::matches_prefix, Scorer::matches_prefix);
    let prefix = listed_prefix.or_else(|| matches_prefix.then(PrefixProducer::default));
    let sessions = uses(
        |filter| matches!(filter, Filter::Session(it) if it.reads_attribute()),
        |scorer| matches!(scorer, Scorer::Session(it) if it.reads_attribute()),
    );
    let session = parts
        .session
        .or_else(|| sessions.then(SessionSource::injected));
    registry.note_unused();
    Ok(Config {
        flow: gate.then_some(flow),
        empty_pool_ttl,
        detector,
        usage_limit,
        profile,
        prefix,
        predicted_latency,
        slo_admitter,
        discovery: data.discovery,
        metrics: data.metrics,
        stand_ins: std::mem::take(&mut registry.stand_ins),
        parsers,
        read_answers,
        session,
        probabilistic_admitter: parts.probabilistic_admitter,
        inflight_load: parts.inflight_load,
        agent_identity: parts.agent_identity,
        reported: parts.reported,
        verify_served: parts.verify_served,
        topology: parts.topology,
        types: registry
            .plugins()
            .map(|(name, plugin)| (name.into(), plugin.type_name()))
            .collect(),
        models: data.models,
        gpu: data.gpu,
        ..default
    })
}

/// What works by being listed.
struct Parts {
    probabilistic_admitter: Option<ProbabilisticAdmitter>,
    inflight_load: InflightLoadProducer,
    session: Option<SessionSource>,
    agent_identity: Option<AgentIdentity>,
    reported: Vec<ReportedAttribute>,
    verify_served: bool,
    topology: TopologyExtractor,
}

fn parts(registry: &mut Registry) -> Result<Parts, ConfigError> {
    macro_rules! only {
        ($variant:ident) => {
            registry.only(|plugin| match plugin {
                Plugin::$variant(it) => Some(it.clone()),
                _ => None,
            })?
        };
    }
    Ok(Parts {
        probabilistic_admitter: only!(ProbabilisticAdmitter),
        inflight_load: only!(InflightLoad).unwrap_or_default(),
        session: only!(SessionId),
        agent_identity: only!(AgentIdentity),
        reported: only!(AttributeReporter).unwrap_or_default().attributes,
        verify_served: only!(ServedVerifier).is_some(),
        topology: only!(TopologyExtractor).unwrap_or_default(),
    })
}

fn check_version(document: &raw::Document, registry: &mut Registry) -> Result<(), ConfigError> {
    match document.api_version.as_str() {
        API_VERSION => {}
        OLD_API_VERSION => registry.deprecated("apiVersion", OLD_API_VERSION, API_VERSION),
        other => {
            return Err(ConfigError::value(
                "apiVersion",
                other,
                format!("is unknown; write `{API_VERSION}`"),
            ));
        }
    }
    if document.kind != KIND {
        return Err(ConfigError::value(
            "kind",
            &document.kind,
            format!("is unknown; write `{KIND}`"),
        ));
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
            return Err(ConfigError::unknown(
                place,
                "feature gate",
                name,
                FEATURE_GATES,
            ));
        }
        let on: bool = value.parse().map_err(|_| {
            ConfigError::value(place, gate, "is neither NAME, NAME=true nor NAME=false")
        })?;
        if name == FLOW_CONTROL {
            flow_control = on;
        }
    }
    Ok(flow_control)
}

/// Parameters that name the producer of what a plugin reads must name one.
fn producer_names(registry: &mut Registry) -> Result<(), ConfigError> {
    let mut named = Vec::new();
    for (name, plugin) in registry.plugins() {
        for (parameter, producer) in named_producers(plugin) {
            let place = format!("plugin `{name}` {parameter}");
            named.push((place, producer.to_owned()));
        }
    }
    for (place, producer) in named {
        registry.find(&place, &producer, Role::Producer)?;
    }
    let attributes: Vec<_> = registry
        .plugins()
        .filter_map(|(name, plugin)| {
            let producer = match plugin {
                Plugin::AttributeFilter(it) => it.producer.clone()?,
                Plugin::AttributeScorer(it) => it.producer.clone()?,
                _ => return None,
            };
            Some((format!("plugin `{name}` producer"), producer))
        })
        .collect();
    for (place, producer) in attributes {
        if registry.get(&producer).is_some() {
            registry.named(&place, &producer, Role::Extractor)?;
            continue;
        }
        // Those that are there without being listed go by their types.
        let types: Vec<_> = catalogue()
            .filter(|entry| entry.role == Role::Extractor)
            .map(|entry| entry.name)
            .collect();
        if !types.contains(&producer.as_str()) {
            return Err(ConfigError::unknown(place, "extractor", &producer, types));
        }
    }
    Ok(())
}

/// The producers that a plugin's parameters name.
fn named_producers(plugin: &Plugin) -> impl Iterator<Item = (&'static str, &str)> {
    let none = &None;
    let (prefix, load, latency) = match plugin {
        Plugin::PrefixScorer(it) => (&it.prefix_match_info_producer_name, none, none),
        Plugin::NoHitLruScorer(it) => (&it.prefix_match_info_producer_name, none, none),
        Plugin::InflightLoad(it) => (&it.prefix_match_info_producer_name, none, none),
        Plugin::TokenLoadScorer(it) => (none, &it.in_flight_load_producer_name, none),
        Plugin::ActiveRequestScorer(it) => (none, &it.in_flight_load_producer_name, none),
        Plugin::PrefixAffinity(it) => (
            &it.prefix_match_info_producer_name,
            &it.in_flight_load_producer_name,
            &it.latency_prediction_info_producer_name,
        ),
        Plugin::PredictedLatency(it) => (
            &it.prefix_match_info_producer_name,
            &it.in_flight_load_producer_name,
            none,
        ),
        _ => (none, none, none),
    };
    let named = [
        ("prefixMatchInfoProducerName", prefix),
        ("inFlightLoadProducerName", load),
        ("latencyPredictionInfoProducerName", latency),
    ];
    named
        .into_iter()
        .filter_map(|(parameter, producer)| Some((parameter, producer.as_deref()?)))
}

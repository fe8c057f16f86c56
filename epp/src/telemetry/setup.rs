//! Puts together what a picker tells: metrics, the ring of decisions, the file of records, the tracer.

use super::decisions::Decisions;
use super::recorder::{Recorder, Records};
use super::{Configured, Producers, Telemetry};
use crate::options::Options;
use crate::reload::hash as hash_of;
use crate::spans::{self, CollectorError, SpanOptions, Spans, Tracer};
use epp_core::Config;
use epp_core::config::Fairness;
use runtime::{Clock, Metrics, Shutdown, Tasks};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a picker tells with, and what is to run beside it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) telemetry: Telemetry,
    pub(crate) decisions: Decisions,
    pub(crate) errands: Errands,
}

/// Work that goes on beside the requests.
#[derive(Debug, Default)]
pub(crate) struct Errands {
    records: Option<Records>,
    spans: Option<(SpanOptions, Spans)>,
}

/// Sets up what `options` ask for under `config`.
pub(crate) fn set_up(config: &Config, options: &Options, metrics: &Metrics, clock: Clock) -> Told {
    let telling = &options.telling;
    let (tracer, spans) = match &telling.tracing {
        None => (None, None),
        Some(tracing) => {
            let (tracer, spans) = Tracer::new(tracing, clock);
            (Some(tracer), Some((tracing.clone(), spans)))
        }
    };
    let (recorder, records) = telling.records.clone().map(Recorder::new).unzip();
    let hash = Arc::clone(&options.origin.hash);
    let configured = Configured::of(config, hash, options.emit_endpoint_scores);
    let telemetry = metrics.register(|registry| {
        if let Some(recorder) = &recorder {
            Telemetry::count_records(registry, recorder.counters());
        }
        Telemetry::with(
            registry,
            &options.pool_name,
            telling,
            configured.clone(),
            tracer,
        )
    });
    Told {
        telemetry,
        decisions: Decisions::new(recorder),
        errands: Errands { records, spans },
    }
}

impl Configured {
    /// What is to be said of `config`, whose text has that hash; `scores` = the proxy is told every candidate's score.
    pub(crate) fn of(config: &Config, hash: Arc<str>, scores: bool) -> Self {
        // Two that behave alike have the same one, in one version of this program, whatever there is to say about how
        // they are written.
        Self {
            version: hash_of(&format!("{:?}", config.behaviour())),
            hash,
            stand_ins: config.stand_ins.len(),
            types: types(config),
            scores,
            programs: programs(config),
            detector: config.detector.type_name(),
            evicts: config.flow.as_ref().is_some_and(|flow| flow.eviction),
            producers: producers(config),
        }
    }
}

impl Errands {
    /// Starts them as some of `tasks`.
    ///
    /// # Errors
    /// [`CollectorError`]: spans cannot be sent as the environment says.
    pub(crate) fn start(
        self,
        clock: Clock,
        shutdown: &Shutdown,
        tasks: &Tasks,
    ) -> Result<(), CollectorError> {
        if let Some((options, spans)) = self.spans {
            tasks.spawn(spans::run(options, spans, clock, shutdown.clone())?);
        }
        if let Some(records) = self.records {
            tasks.spawn(records.write(clock, shutdown.clone()));
        }
        Ok(())
    }
}

/// Whether fairness looks at programs in any band.
fn programs(config: &Config) -> bool {
    let Some(flow) = &config.flow else {
        return false;
    };
    let bands = flow.bands.values();
    let mut bands = bands.chain([&flow.default_band, &flow.negative_band]);
    bands.any(|band| matches!(band.fairness, Fairness::ProgramAware(_)))
}

/// The names of the plugins behind metrics.
fn producers(config: &Config) -> Producers {
    let listed = |of: &str| {
        let mut types = config.types.iter();
        types.find(|(_, kind)| **kind == of).map(|(name, _)| name)
    };
    let named = |of: &Arc<str>| Arc::clone(listed(of).unwrap_or(of));
    let Producers {
        prefix,
        load,
        predictor,
    } = Producers::default();
    Producers {
        prefix: prefix
            .filter(|_| config.prefix.is_some())
            .as_ref()
            .map(named),
        load: named(&load),
        predictor: named(&predictor),
    }
}

/// Plugins' types by their names, where they differ.
fn types(config: &Config) -> BTreeMap<Arc<str>, Arc<str>> {
    let named = config.types.iter();
    let renamed = named.filter(|(name, kind)| ***name != ***kind);
    renamed
        .map(|(name, kind)| (Arc::clone(name), Arc::from(*kind)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_tells_configurations_apart() {
        let version = |config: Config| Configured::of(&config, Arc::default(), false).version;
        let ours = version(Config::headroom_default());
        assert_eq!(ours, version(Config::headroom_default()));
        assert_ne!(ours, version(Config::llmd_default()));
    }

    #[test]
    fn the_version_is_not_that_of_the_text() {
        let text = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig";
        let one = Config::from_yaml(text).unwrap();
        let moved = Config::from_yaml(&format!("# A comment.\n{text}")).unwrap();
        assert_ne!(one.warnings, moved.warnings, "they say where");
        let version = |config: &Config| Configured::of(config, Arc::default(), false).version;
        assert_eq!(version(&one), version(&moved));
    }

    #[test]
    fn producers_have_the_names_that_they_are_given() {
        let named = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{name: prefix-a, type: approx-prefix-cache-producer}, {name: load-a, type: inflight-load-producer}, {name: latency-a, type: predicted-latency-producer}]";
        let of = |text| producers(&Config::from_yaml(text).unwrap());
        let found = of(named);
        let found = (found.prefix.as_deref(), &*found.load, &*found.predictor);
        assert_eq!(found, (Some("prefix-a"), "load-a", "latency-a"));
        let bare = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]";
        let found = of(bare);
        assert_eq!(
            (found.prefix, &*found.load),
            (None, "inflight-load-producer")
        );
    }

    #[test]
    fn plugins_under_names_of_their_own_have_a_type() {
        let yaml = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{name: mine, type: queue-scorer}, {type: kv-cache-utilization-scorer}]";
        let types = types(&Config::from_yaml(yaml).unwrap());
        let wanted = BTreeMap::from([(Arc::from("mine"), Arc::from("queue-scorer"))]);
        assert_eq!(types, wanted);
    }
}

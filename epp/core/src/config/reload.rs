//! What may change while the picker runs.

use super::Config;

/// A change that takes effect with a restart only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsRestart {
    /// Path of the field in the document.
    pub field: &'static str,
    /// Why it cannot change before.
    pub why: &'static str,
}

impl Config {
    /// Whether a picker that runs with `old` can go on with `new`. Profiles, scorers and weights, bands and times,
    /// detectors and usage limits, admitters and parsers, and for how long requests wait for fresh readings can change;
    /// connections to engines, the place that endpoints come from, and what is built once around the queue and the
    /// latency model cannot.
    ///
    /// # Errors
    /// Every change that needs a restart.
    pub fn reloadable(old: &Self, new: &Self) -> Result<(), Vec<NeedsRestart>> {
        let metrics = |config: &Self| config.metrics.as_ref().map(|it| it.source.clone());
        let sources = |config: &Self| (metrics(config), config.models.clone(), config.gpu.clone());
        let meanings = |config: &Self| config.metrics.as_ref().map(|it| it.engines.clone());
        let changes = [
            (
                old.flow_control() != new.flow_control(),
                "featureGates",
                "requests that wait would be left without a queue, or those that arrive would have none",
            ),
            (
                old.flow_control() == new.flow_control()
                    && old.queue().is_some() != new.queue().is_some(),
                "flowControl.noEndpointRequestTTL",
                "whether requests wait for a first endpoint at all is decided at the start",
            ),
            (
                old.discovery != new.discovery,
                "dataLayer.discovery",
                "every endpoint, with what is known of it, belongs to the place that it comes from",
            ),
            (
                sources(old) != sources(new),
                "dataLayer.sources",
                "connections to engines and the times at which they are asked are set up at the start",
            ),
            (
                meanings(old) != meanings(new),
                "dataLayer.sources.extractors",
                "readings under the old names would count as readings under the new ones",
            ),
            (
                old.predicted_latency.is_some() != new.predicted_latency.is_some(),
                "plugins",
                "latency models are loaded and trained from the start on, or not at all",
            ),
            (
                old.reads_metrics() != new.reads_metrics(),
                "schedulingProfiles",
                "engines' metrics are read from the start on, or not at all",
            ),
            (
                (old.profile.endpoints > 1) != (new.profile.endpoints > 1),
                "schedulingProfiles.plugins.maxNumOfEndpoints",
                "the proxy is set up for one endpoint or for a list, and fails on the other",
            ),
        ];
        let needed: Vec<_> = changes
            .into_iter()
            .filter(|(changed, ..)| *changed)
            .map(|(_, field, why)| NeedsRestart { field, why })
            .collect();
        if needed.is_empty() {
            Ok(())
        } else {
            Err(needed)
        }
    }
}

impl Config {
    /// The same without what there is to say about how it is written: two that behave alike are equal.
    #[must_use]
    pub fn behaviour(&self) -> Self {
        Self {
            warnings: Vec::new(),
            stand_ins: Vec::new(),
            ..self.clone()
        }
    }
}

impl std::fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} changes with a restart only: {}",
            self.field, self.why
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BandConfig, Detector, Parser, Picker, UsageLimit};
    use std::time::Duration;

    fn refused(change: impl Fn(&mut Config)) -> Vec<&'static str> {
        let old = Config::headroom_default();
        let mut new = old.clone();
        change(&mut new);
        assert_ne!(old, new, "the test changes nothing");
        let needed = Config::reloadable(&old, &new).err().unwrap_or_default();
        needed.iter().map(|one| one.field).collect()
    }

    #[test]
    fn profiles_weights_bands_and_limits_change_in_flight() {
        assert!(refused(|new| new.profile.scorers[0].weight = 3.0).is_empty());
        assert!(refused(|new| new.profile.picker = Picker::Random).is_empty());
        assert!(refused(|new| new.detector = Detector::utilization_default()).is_empty());
        assert!(refused(|new| new.usage_limit = UsageLimit::SoftReflective).is_empty());
        assert!(refused(|new| new.parsers = vec![Parser::Passthrough]).is_empty());
        assert!(refused(|new| new.slo_admitter = None).is_empty());
        let hold = |new: &mut Config| new.metrics.as_mut().unwrap().hold = Duration::ZERO;
        assert!(refused(hold).is_empty());
        let with_band = |new: &mut Config| {
            let band = BandConfig {
                max_requests: 7,
                ..BandConfig::default()
            };
            new.flow.as_mut().unwrap().bands.insert(10, band);
        };
        assert!(refused(with_band).is_empty());
        let old = Config::default();
        assert_eq!(Config::reloadable(&old, &old.clone()), Ok(()));
    }

    #[test]
    fn what_is_set_up_at_the_start_does_not() {
        assert_eq!(refused(|new| new.flow = None), ["featureGates"]);
        let (old, mut new) = (Config::default(), Config::default());
        new.hold_while_empty(Duration::from_secs(1));
        let needed = Config::reloadable(&old, &new).unwrap_err();
        assert_eq!(needed[0].field, "flowControl.noEndpointRequestTTL");
        assert_eq!(
            refused(|new| new.discovery = Some(Default::default())),
            ["dataLayer.discovery"]
        );
        let source = |new: &mut Config| new.metrics.as_mut().unwrap().source.path = "/m".into();
        assert_eq!(refused(source), ["dataLayer.sources"]);
        let pace = |new: &mut Config| {
            new.metrics.as_mut().unwrap().source.interval = Some(Duration::from_secs(1));
        };
        assert_eq!(refused(pace), ["dataLayer.sources"]);
        let meaning = |new: &mut Config| {
            new.metrics.as_mut().unwrap().engines.label = "engine".into();
        };
        assert_eq!(refused(meaning), ["dataLayer.sources.extractors"]);
        let list = |new: &mut Config| new.profile.endpoints = 3;
        assert_eq!(
            refused(list),
            ["schedulingProfiles.plugins.maxNumOfEndpoints"]
        );
        let everything = |new: &mut Config| *new = Config::round_robin();
        let fields = refused(everything);
        assert_eq!(
            fields,
            [
                "dataLayer.sources",
                "dataLayer.sources.extractors",
                "plugins",
                "schedulingProfiles"
            ]
        );
    }

    #[test]
    fn how_a_configuration_is_written_is_no_part_of_what_it_does() {
        let plain = Config::headroom_default();
        let mut written = plain.clone();
        written.warnings = vec!["line 9: `x` is deprecated".to_owned()];
        assert_ne!(plain, written);
        assert_eq!(plain.behaviour(), written.behaviour());
    }
}

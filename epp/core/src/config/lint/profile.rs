//! Scores that nobody looks at, and picks that need more than this file.

use super::super::catalogue::plugin_type;
use super::super::finding::Level;
use super::super::plugin::Role;
use super::super::{Config, Picker, raw};
use super::Notes;

pub(super) fn check(document: &raw::Document, config: &Config, notes: &mut Notes) {
    for profile in &document.scheduling_profiles {
        for (index, reference) in profile.plugins.iter().enumerate() {
            let place = format!(
                "schedulingProfiles `{}` plugins[{index}].weight",
                profile.name
            );
            let role = plugin_type(document.type_of(&reference.plugin_ref)).map(|entry| entry.role);
            match (role, reference.weight) {
                (Some(Role::Scorer), Some(0.0)) => {
                    let message = "weight 0: the scorer is asked, and changes nothing";
                    notes.add(
                        Level::Unused,
                        place,
                        message,
                        "leave the scorer out of the profile",
                    );
                }
                (Some(Role::Scorer) | None, _) | (_, None) => {}
                (Some(other), Some(_)) => {
                    let message = format!("a {} has no weight", other.noun());
                    notes.add(Level::Unused, place, message, "leave it out");
                }
            }
        }
    }
    picks(document, config, notes);
    blind(config, notes);
}

fn picks(document: &raw::Document, config: &Config, notes: &mut Notes) {
    let profile = &config.profile;
    let blind = matches!(profile.picker, Picker::Random | Picker::RoundRobin);
    if blind && !profile.scorers.is_empty() {
        let message = "the picker looks at no score: the scorers of the profile change nothing";
        let advice = "write max-score-picker or weighted-random-picker, or leave the scorers out";
        notes.add(Level::Unreachable, "schedulingProfiles", message, advice);
    }
    if !blind && profile.scorers.is_empty() {
        let message =
            "no scorer of the profile rates anything: any endpoint is as good as any other";
        notes.add(
            Level::Caution,
            "schedulingProfiles",
            message,
            "add a scorer",
        );
    }
    for (place, _, entry) in document.listed() {
        let Some(endpoints @ 2..) = entry.parameters["maxNumOfEndpoints"].as_u64() else {
            continue;
        };
        let message = format!(
            "{endpoints} endpoints are named for a request: a proxy whose cluster is ORIGINAL_DST reads one address and fails on a list"
        );
        let advice = "let the proxy take its endpoints by override_host, or name 1";
        notes.add(
            Level::Caution,
            format!("{place} maxNumOfEndpoints"),
            message,
            advice,
        );
    }
}

/// Plugins that read engines' metrics, where none are read.
fn blind(config: &Config, notes: &mut Notes) {
    if config.reads_metrics() && config.metrics.is_none() {
        let message = "engines' metrics are not read, and a scorer, detector or predictor of this configuration needs them: it sees every endpoint as unknown";
        let advice = "list a metrics-data-source, or leave the field out";
        notes.add(
            Level::Unreachable,
            "dataLayer.injectDefaults",
            message,
            advice,
        );
    }
}

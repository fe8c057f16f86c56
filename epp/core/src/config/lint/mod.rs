//! What will happen with a configuration, and what in it will not: for people, before anything runs.

mod deviation;
mod limits;
mod parsers;
mod profile;

use super::build;
use super::finding::{Finding, Level};
use super::position::Outline;
use super::yaml::from_yaml;
use super::{Config, raw};
use crate::objectives::Objectives;

/// What there is to say about the document `text`, by position. `objectives` are those that its requests will name;
/// without them nothing is said about bands and policies that need some.
///
/// ```
/// use epp_core::config::{Level, lint};
/// let findings = lint("{apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugin: []}", None);
/// assert_eq!(findings[0].level, Level::Error);
/// ```
pub fn lint(text: &str, objectives: Option<&Objectives>) -> Vec<Finding> {
    let (config, mut findings) = build::read(text);
    match config {
        Err(errors) => findings.extend(
            std::iter::once(*errors.first)
                .chain(errors.others)
                .map(Finding::from),
        ),
        // What has become a configuration can be read again.
        Ok(config) => {
            if let Ok(document) = from_yaml::<raw::Document>(text, "config") {
                findings.extend(checks(&document, &config, objectives, text));
            }
        }
    }
    findings.sort_by_key(|finding| (finding.position, finding.level));
    findings
}

fn checks(
    document: &raw::Document,
    config: &Config,
    objectives: Option<&Objectives>,
    text: &str,
) -> Vec<Finding> {
    let mut notes = Notes(Vec::new());
    profile::check(document, config, &mut notes);
    parsers::check(document, config, &mut notes);
    limits::check(document, config, &mut notes);
    if let Some(objectives) = objectives {
        limits::check_objectives(document, config, objectives, &mut notes);
    }
    deviation::check(document, config, &mut notes);
    let outline = Outline::read(text);
    let located = |finding: Finding| finding.located(outline.as_ref());
    notes.0.into_iter().map(located).collect()
}

/// Findings so far.
struct Notes(Vec<Finding>);

impl Notes {
    fn add(
        &mut self,
        level: Level,
        place: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.0.push(Finding::new(level, place, message, advice));
    }
}

impl raw::Document {
    /// The listed plugins with their places: place, name, entry.
    fn listed(&self) -> impl Iterator<Item = (String, &str, &raw::PluginEntry)> {
        self.plugins.iter().map(|entry| {
            let name = entry.goes_by();
            (format!("plugin `{name}`"), name, entry)
        })
    }

    /// The type of the plugin that `name` refers to: one that is not listed goes by its type.
    fn type_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.listed()
            .find(|(_, listed, _)| *listed == name)
            .map_or(name, |(_, _, entry)| &entry.type_name)
    }
}

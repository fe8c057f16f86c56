//! The plugins of a document by name, and who refers to them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::catalogue::{self, Stage, Status, plugin_type};
use super::error::ConfigError;
use super::finding::{Finding, Level};
use super::plugin::{Plugin, Role};
use super::stand_in::{self, StandIn};
use super::{alias, raw, validate};

/// All plugins by name, which of them something refers to, and what was noticed about them.
pub(super) struct Registry {
    plugins: Vec<Listed>,
    used: BTreeSet<String>,
    pub(super) stand_ins: Vec<StandIn>,
    pub(super) findings: Vec<Finding>,
}

struct Listed {
    name: String,
    plugin: Plugin,
    /// As written.
    parameters: Value,
    /// Whether another type was asked for, that is not built.
    stands_in: bool,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            plugins: Vec::new(),
            used: BTreeSet::new(),
            stand_ins: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Adds the plugin of one entry of the document.
    pub(super) fn add(&mut self, index: usize, entry: raw::PluginEntry) -> Result<(), ConfigError> {
        let name = entry.goes_by().to_owned();
        let place = format!("plugins[{index}] `{name}`");
        let listed = self.listed(&place, &name, &entry.type_name, entry.parameters)?;
        if self.get(&name).is_some() {
            let wanted = "is given twice; give each plugin a name of its own";
            return Err(ConfigError::value(
                format!("plugins[{index}].name"),
                name,
                wanted,
            ));
        }
        self.plugins.push(listed);
        Ok(())
    }

    /// The plugin that stands here for `type_name`; says where it is not that type itself.
    fn listed(
        &mut self,
        place: &str,
        name: &str,
        type_name: &str,
        parameters: Value,
    ) -> Result<Listed, ConfigError> {
        let unknown = || ConfigError::unknown(place, "plugin type", type_name, catalogue::names());
        let entry = plugin_type(type_name).ok_or_else(unknown)?;
        let (plugin, stands_in) = match entry.status {
            Status::Built => {
                if entry.stage == Stage::Alpha {
                    self.alpha(place, type_name);
                }
                let (parameters, renamed) = alias::renamed(type_name, &parameters);
                for (old, new) in renamed {
                    let field = format!("{place} parameters.{old}");
                    self.deprecated(&field, old, new);
                }
                let plugin = Plugin::parse(type_name, &parameters, place)?;
                validate::plugin(name, &plugin)?;
                (plugin, false)
            }
            Status::AliasOf(other) => {
                let translated = alias::translated(type_name, &parameters, place)?;
                let message = format!("type `{type_name}` is deprecated");
                let parameters = match &translated {
                    Value::Null => String::new(),
                    some => format!(" with parameters {some}"),
                };
                let advice = format!("write type `{other}`{parameters}");
                self.note(Finding::new(Level::Deprecated, place, message, advice));
                return self.listed(place, name, other, translated);
            }
            Status::StandIn {
                acts_as,
                instead,
                until,
            } => {
                self.stand_in(place, name, type_name, acts_as, (instead, until));
                let plugin = match acts_as {
                    Some("file-discovery") => Plugin::parse("file-discovery", &parameters, place)?,
                    Some(other) => Plugin::parse(other, &Value::Null, place)?,
                    None => Plugin::StandIn(entry),
                };
                validate::plugin(name, &plugin)?;
                (plugin, true)
            }
            Status::Refused(why) => return Err(ConfigError::value(place, type_name, why)),
        };
        for (parameter, instead, until) in stand_in::parameters(&plugin) {
            let field = format!("{place} parameters.{parameter}");
            let what = format!("{type_name}.{parameter}");
            self.stand_in(&field, name, &what, None, (instead, until));
        }
        Ok(Listed {
            name: name.to_owned(),
            plugin,
            parameters,
            stands_in,
        })
    }

    pub(super) fn note(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Notes that `old` should read `new`.
    pub(super) fn deprecated(&mut self, place: &str, old: &str, new: &str) {
        let message = format!("`{old}` is deprecated");
        self.note(Finding::new(
            Level::Deprecated,
            place,
            message,
            format!("write `{new}`"),
        ));
    }

    fn alpha(&mut self, place: &str, type_name: &str) {
        let message = format!(
            "`{type_name}` is alpha at llm-d, which takes it with --allow-experimental-plugins only; here it works without"
        );
        self.note(Finding::new(Level::Alpha, place, message, ""));
    }

    fn stand_in(
        &mut self,
        place: &str,
        plugin: &str,
        what: &str,
        acts_as: Option<&str>,
        (instead, until): (&'static str, &'static str),
    ) {
        let message = format!("`{what}` is not built yet and waits for {until}: {instead}");
        let advice = acts_as.map_or_else(String::new, |other| {
            format!("write type `{other}` to have just that")
        });
        self.note(Finding::new(Level::StandIn, place, message, advice));
        self.stand_ins.push(StandIn {
            plugin: plugin.to_owned(),
            what: what.to_owned(),
            instead,
            until,
        });
    }

    /// The plugin of that name, which must play `role` at `place`. A type name that is not listed stands for
    /// that plugin with its defaults, as auto-injection would add it.
    pub(super) fn find(
        &mut self,
        place: &str,
        name: &str,
        role: Role,
    ) -> Result<Plugin, ConfigError> {
        let plugin = self.named(place, name, role)?;
        self.used.insert(name.to_owned());
        Ok(plugin)
    }

    /// The same, of which nothing is made use of.
    pub(super) fn named(
        &mut self,
        place: &str,
        name: &str,
        role: Role,
    ) -> Result<Plugin, ConfigError> {
        let plugin = match self.get(name) {
            Some(plugin) => plugin,
            None => self.injected(place, name, role)?,
        };
        if plugin.role() != role {
            let (actual, wanted) = (plugin.role().noun(), role.noun());
            return Err(ConfigError::value(
                place,
                name,
                format!("is a {actual}; a {wanted} is wanted here"),
            ));
        }
        Ok(plugin)
    }

    pub(super) fn get(&self, name: &str) -> Option<Plugin> {
        self.plugins
            .iter()
            .find(|listed| listed.name == name)
            .map(|listed| listed.plugin.clone())
    }

    /// The policies, detectors and producers that are there without being listed.
    fn injected(&mut self, place: &str, name: &str, role: Role) -> Result<Plugin, ConfigError> {
        let injectable = matches!(
            role,
            Role::Fairness | Role::Ordering | Role::UsageLimit | Role::Detector | Role::Producer
        );
        if !injectable || plugin_type(name).is_none() {
            let known = self.plugins.iter().map(|listed| listed.name.as_str());
            return Err(ConfigError::unknown(place, "pluginRef", name, known));
        }
        self.inject(place, name)
    }

    /// The plugin of that type with its defaults, under its type's name; listed from now on.
    pub(super) fn inject(&mut self, place: &str, type_name: &str) -> Result<Plugin, ConfigError> {
        let listed = self.listed(place, type_name, type_name, Value::Null)?;
        let plugin = listed.plugin.clone();
        self.plugins.push(listed);
        self.used.insert(type_name.to_owned());
        Ok(plugin)
    }

    /// All, in the order listed.
    pub(super) fn plugins(&self) -> impl Iterator<Item = (&str, &Plugin)> {
        self.plugins
            .iter()
            .map(|listed| (listed.name.as_str(), &listed.plugin))
    }

    /// The parameters of the plugin of that name, as written.
    pub(super) fn parameters(&self, name: &str) -> Option<&Value> {
        let listed = self.plugins.iter().find(|listed| listed.name == name)?;
        Some(&listed.parameters)
    }

    /// What parameters of stand-ins refer to: place, name, role.
    pub(super) fn stand_in_references(&self) -> Vec<(String, String, Role)> {
        let stand_ins = self.plugins.iter().filter(|listed| listed.stands_in);
        stand_ins
            .flat_map(|listed| {
                let place = move |field| format!("plugin `{}` {field}", listed.name);
                let named = stand_in::named_in(&listed.parameters).into_iter();
                named.map(move |(field, name, role)| (place(field), name, role))
            })
            .collect()
    }

    /// The one plugin for which `pick` answers; two are an error, unless one of them only stands in for a type
    /// that is not built: then the other counts.
    pub(super) fn only<T>(
        &mut self,
        pick: impl Fn(&Plugin) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let mut found: Option<(&Listed, T)> = None;
        for listed in &self.plugins {
            let Some(value) = pick(&listed.plugin) else {
                continue;
            };
            match &found {
                Some((first, _)) if !first.stands_in && !listed.stands_in => {
                    let wanted = format!(
                        "is a second {}, beside `{}`; one is enough",
                        listed.plugin.type_name(),
                        first.name
                    );
                    return Err(ConfigError::value(
                        format!("plugin `{}`", listed.name),
                        &listed.name,
                        wanted,
                    ));
                }
                Some((first, _)) if !first.stands_in || listed.stands_in => {}
                _ => found = Some((listed, value)),
            }
        }
        let Some((listed, value)) = found else {
            return Ok(None);
        };
        self.used.insert(listed.name.clone());
        Ok(Some(value))
    }

    /// Notes the plugins that nothing refers to. Of a stand-in that has been said already.
    pub(super) fn note_unused(&mut self) {
        let unused: Vec<_> = self
            .plugins
            .iter()
            .filter(|listed| !listed.stands_in && !self.used.contains(&listed.name))
            .map(|listed| {
                let message = format!("a {} is not used by anything", listed.plugin.type_name());
                let advice = "refer to it by its name, or leave it out";
                Finding::new(
                    Level::Unused,
                    format!("plugin `{}`", listed.name),
                    message,
                    advice,
                )
            })
            .collect();
        self.findings.extend(unused);
    }
}

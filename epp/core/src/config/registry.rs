//! The plugins of a document by name, and who refers to them.

use std::collections::BTreeSet;

use super::error::ConfigError;
use super::plugin::{Plugin, Role};
use super::{raw, validate};

/// All plugins by name, and which of them something refers to.
pub(super) struct Registry {
    plugins: Vec<(String, Plugin)>,
    used: BTreeSet<String>,
}

impl Registry {
    pub(super) fn new(entries: Vec<raw::PluginEntry>) -> Result<Self, ConfigError> {
        let mut plugins: Vec<(String, Plugin)> = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let name = entry.name.unwrap_or_else(|| entry.type_name.clone());
            let plugin = Plugin::parse(
                &entry.type_name,
                &entry.parameters,
                &format!("plugins[{index}] `{name}`"),
            )?;
            if plugins.iter().any(|(other, _)| *other == name) {
                let wanted = "is given twice; give each plugin a name of its own";
                return Err(ConfigError::value(
                    format!("plugins[{index}].name"),
                    name,
                    wanted,
                ));
            }
            validate::plugin(&name, &plugin)?;
            plugins.push((name, plugin));
        }
        Ok(Self {
            plugins,
            used: BTreeSet::new(),
        })
    }

    /// The plugin of that name, which must play `role` at `place`. A type name that is not listed stands for
    /// that plugin with its defaults, as auto-injection would add it.
    pub(super) fn find(
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
        self.used.insert(name.to_owned());
        Ok(plugin)
    }

    pub(super) fn get(&self, name: &str) -> Option<Plugin> {
        self.plugins
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, plugin)| plugin.clone())
    }

    /// The policies, detectors and producers that are there without being listed.
    fn injected(&self, place: &str, name: &str, role: Role) -> Result<Plugin, ConfigError> {
        let injectable = matches!(
            role,
            Role::Fairness | Role::Ordering | Role::UsageLimit | Role::Detector | Role::Producer
        );
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

    /// All, in the order listed.
    pub(super) fn plugins(&self) -> impl Iterator<Item = (&str, &Plugin)> {
        self.plugins
            .iter()
            .map(|(name, plugin)| (name.as_str(), plugin))
    }

    /// The one plugin for which `pick` answers; two are an error.
    pub(super) fn only<T>(
        &mut self,
        pick: impl Fn(&Plugin) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let mut found: Option<(String, T)> = None;
        for (name, plugin) in &self.plugins {
            let Some(value) = pick(plugin) else { continue };
            if let Some((first, _)) = &found {
                let wanted = format!(
                    "is a second {}, beside `{first}`; one is enough",
                    plugin.type_name()
                );
                return Err(ConfigError::value("plugins", name, wanted));
            }
            found = Some((name.clone(), value));
        }
        let Some((name, value)) = found else {
            return Ok(None);
        };
        self.used.insert(name);
        Ok(Some(value))
    }

    pub(super) fn unused(&self) -> impl Iterator<Item = String> {
        let unused = self
            .plugins
            .iter()
            .filter(|(name, _)| !self.used.contains(name));
        unused.map(|(name, plugin)| {
            format!(
                "plugin `{name}` ({}) is not used by anything",
                plugin.type_name()
            )
        })
    }
}

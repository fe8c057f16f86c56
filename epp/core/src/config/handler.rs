//! Profile handlers: which of several scheduling profiles runs.
//!
//! One runs here. Where a handler would run several in turn, for servers that prefill and servers that decode, the one
//! that answers the request runs alone: the decode profile, or the handler's default.

use super::error::ConfigError;
use super::finding::{Finding, Level};
use super::plugin::{Plugin, Role};
use super::profile::profile;
use super::raw::{ProfileEntry, WeightedRef};
use super::registry::Registry;

/// The filter that keeps a profile off servers that do not decode.
const DECODE: &str = "decode-filter";
const ROLE_FILTERS: [&str; 3] = ["encode-filter", "prefill-filter", DECODE];
/// Parameters that name the profile that answers, and the profile where none does.
const PRIMARY: [&str; 3] = ["profiles.decode", "decodeProfile", "defaultProfile"];
const DEFAULT_PRIMARY: &str = "decode";
/// Parameters that name other profiles.
const OTHERS: [&str; 3] = ["profiles.prefill", "profiles.encode", "prefillProfile"];

/// A handler of several profiles.
struct Handler {
    name: String,
    type_name: &'static str,
    /// The profile that answers.
    primary: String,
    /// The profiles that its parameters name, and the one that answers: parameter, profile.
    named: Vec<(&'static str, String)>,
}

/// The profiles of which one runs; the others are checked and left out.
pub(super) fn running(
    entries: Vec<ProfileEntry>,
    registry: &mut Registry,
) -> Result<Vec<ProfileEntry>, ConfigError> {
    let Some(handler) = handler(registry)? else {
        return Ok(entries);
    };
    let names: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
    for (parameter, name) in &handler.named {
        if !names.contains(name) {
            let place = format!("plugin `{}` {parameter}", handler.name);
            let known = names.iter().map(String::as_str);
            return Err(ConfigError::unknown(place, "profile", name, known));
        }
    }
    let mut running = Vec::new();
    for entry in entries {
        if entry.name == handler.primary {
            running.push(with_role(entry, registry)?);
            continue;
        }
        let message = format!(
            "never runs: until disaggregation is built, `{}` runs `{}` alone",
            handler.type_name, handler.primary
        );
        let place = format!("schedulingProfiles `{}`", entry.name);
        registry.note(Finding::new(Level::Unreachable, place, message, ""));
        profile(vec![entry], registry)?;
    }
    Ok(running)
}

/// The handler of several profiles, if there is one; two handlers of any kind are one too many.
fn handler(registry: &Registry) -> Result<Option<Handler>, ConfigError> {
    let mut handlers = registry
        .plugins()
        .filter(|(_, plugin)| plugin.role() == Role::ProfileHandler);
    let Some((name, plugin)) = handlers.next() else {
        return Ok(None);
    };
    if let Some((second, _)) = handlers.next() {
        let wanted = format!("is a second profile handler, beside `{name}`; one is enough");
        return Err(ConfigError::value(
            format!("plugin `{second}`"),
            second,
            wanted,
        ));
    }
    let Plugin::StandIn(entry) = plugin else {
        return Ok(None);
    };
    let parameters = registry.parameters(name);
    let named = |path: &'static str| {
        let value = path
            .split('.')
            .try_fold(parameters?, |value, field| value.get(field))?;
        Some((path, value.as_str()?.to_owned()))
    };
    let primary = PRIMARY.into_iter().find_map(named);
    let primary = primary.unwrap_or_else(|| (PRIMARY[0], DEFAULT_PRIMARY.to_owned()));
    let mut all = vec![primary.clone()];
    all.extend(OTHERS.into_iter().filter_map(named));
    Ok(Some(Handler {
        name: name.to_owned(),
        type_name: entry.name,
        primary: primary.1,
        named: all,
    }))
}

/// The profile with a filter on the servers' role, unless it has one.
fn with_role(
    mut entry: ProfileEntry,
    registry: &mut Registry,
) -> Result<ProfileEntry, ConfigError> {
    let is_role_filter = |reference: &WeightedRef| {
        let plugin = registry.get(&reference.plugin_ref);
        plugin.is_some_and(|plugin| ROLE_FILTERS.contains(&plugin.type_name()))
    };
    if entry.plugins.iter().any(is_role_filter) {
        return Ok(entry);
    }
    let listed = registry
        .plugins()
        .find(|(_, plugin)| plugin.type_name() == DECODE);
    let name = match listed {
        Some((name, _)) => name.to_owned(),
        None => {
            registry.inject(&format!("schedulingProfiles `{}`", entry.name), DECODE)?;
            DECODE.to_owned()
        }
    };
    let first = WeightedRef {
        plugin_ref: name,
        weight: None,
    };
    entry.plugins.insert(0, first);
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::catalogue::plugin_type;

    #[test]
    fn the_role_filters_are_types() {
        for name in ROLE_FILTERS {
            assert_eq!(plugin_type(name).unwrap().role, Role::Filter);
        }
    }
}

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
/// The profile that answers, where the handler does not name one.
const PRIMARY: &str = "decode";

/// A handler of several profiles.
struct Handler {
    name: String,
    type_name: &'static str,
    /// The profile that answers.
    primary: String,
    /// The other profiles that its parameters name: parameter, name.
    others: Vec<(String, String)>,
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
    let primary = [("default".to_owned(), handler.primary.clone())];
    for (parameter, name) in primary.iter().chain(&handler.others) {
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
    let text = |field: &str| Some(parameters?.pointer(field)?.as_str()?.to_owned());
    let primary = ["/profiles/decode", "/decodeProfile", "/defaultProfile"]
        .into_iter()
        .find_map(text);
    let others = ["/profiles/prefill", "/profiles/encode", "/prefillProfile"]
        .into_iter()
        .filter_map(|field| {
            Some((
                field.trim_start_matches('/').replace('/', "."),
                text(field)?,
            ))
        });
    Ok(Some(Handler {
        name: name.to_owned(),
        type_name: entry.name,
        primary: primary.unwrap_or_else(|| PRIMARY.to_owned()),
        others: others.collect(),
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

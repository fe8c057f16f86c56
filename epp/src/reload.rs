//! The picker's configuration from a file, read again whenever it changes. What cannot be used leaves the last good one
//! in force.

use crate::extproc::hub::Hub;
use crate::telemetry::reloads::Reloaded;
use crate::watched_file::{LOOK, Watched};
use epp_core::Config;
use epp_core::config::{ConfigError, NeedsRestart};
use runtime::Shutdown;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Hexadecimal digits by which configurations and their texts are told apart.
const HASH_DIGITS: usize = 12;

/// Where the configuration came from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// [`hash`] of its text; empty = it has none.
    pub hash: Arc<str>,
    /// Its file, which is watched; `None` = it stays as it is.
    pub file: Option<PathBuf>,
    /// What goes before whatever the file says.
    pub flags: Flags,
}

/// What flags say beside a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Age from which a scrape no longer counts for scoring.
    pub metrics_staleness: Option<Duration>,
    /// Time for which requests wait for a first endpoint, whatever the configuration says.
    pub empty_pool_ttl: Option<Duration>,
    /// The same where the configuration says nothing of it.
    pub empty_pool_default: Option<Duration>,
}

impl Flags {
    /// `config` under these flags.
    #[must_use]
    pub fn over(&self, mut config: Config) -> Config {
        config.metrics_staleness = self.metrics_staleness.unwrap_or(config.metrics_staleness);
        let default = self
            .empty_pool_default
            .filter(|_| config.empty_pool_ttl.is_none());
        if let Some(ttl) = self.empty_pool_ttl.or(default) {
            config.hold_while_empty(ttl);
        }
        config
    }
}

/// Tells texts apart: the first digits of what `sha256sum` says.
pub fn hash(text: &str) -> Arc<str> {
    let digest = Sha256::digest(text);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..HASH_DIGITS].into()
}

/// Why a change is not in force.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    #[error("{}", list(.0))]
    NeedsRestart(Vec<NeedsRestart>),
}

fn list(needed: &[NeedsRestart]) -> String {
    let needed: Vec<_> = needed.iter().map(ToString::to_string).collect();
    needed.join("; ")
}

/// Puts the configuration that `text` is in force, whole or not at all.
fn reload(hub: &Hub, flags: &Flags, text: &str) -> Result<Reloaded, Refused> {
    let config = flags.over(Config::from_yaml(text)?);
    let old = hub.config();
    Config::reloadable(&old, &config).map_err(Refused::NeedsRestart)?;
    let unchanged = old.behaviour() == config.behaviour();
    for warning in config.warnings.iter().filter(|_| !unchanged) {
        tracing::warn!("configuration: {warning}");
    }
    hub.set_config(config, hash(text));
    Ok(if unchanged {
        Reloaded::Unchanged
    } else {
        Reloaded::Applied
    })
}

/// Keeps the hub's configuration as its file says, until `shutdown` is stopped.
pub(crate) async fn follow(path: PathBuf, origin: Origin, hub: Arc<Hub>, shutdown: Shutdown) {
    let mut watched = Watched::new(path);
    let mut seen = origin.hash;
    loop {
        let reloads = &hub.telemetry.reloads;
        let at_ms = || hub.clock.unix_ms();
        match watched.look(|text| Ok(text.to_owned())) {
            Some(Ok(text)) if hash(&text) != seen => {
                seen = hash(&text);
                let file = watched.path().display();
                match reload(&hub, &origin.flags, &text) {
                    Ok(result) => {
                        let version = hub.telemetry.configured().version.to_string();
                        tracing::info!(%file, version, result = result.name(), "configuration read again");
                        reloads.went(at_ms(), result, None);
                    }
                    Err(refused) => {
                        let result = match &refused {
                            Refused::Invalid(_) => Reloaded::Invalid,
                            Refused::NeedsRestart(_) => Reloaded::NeedsRestart,
                        };
                        tracing::error!(%file, error = %refused, "the configuration has changed and cannot be put in force: the last good one stays");
                        reloads.went(at_ms(), result, Some(refused.to_string()));
                    }
                }
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                // When it is back it is read, whatever it says.
                seen = Arc::default();
                let file = watched.path().display();
                tracing::error!(%file, %error, "the configuration's file cannot be read: the last good one stays");
                reloads.went(at_ms(), Reloaded::Invalid, Some(error));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.stopped() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extproc::hub::tests::hub_of;

    const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

    fn text(rest: &str) -> String {
        format!("{HEAD}{rest}")
    }

    #[test]
    fn a_change_is_in_force_whole_or_not_at_all() {
        let hub = hub_of(Config::from_yaml(&text("plugins: [{type: queue-scorer}]")).unwrap());
        let flags = Flags {
            metrics_staleness: Some(Duration::from_secs(7)),
            ..Flags::default()
        };
        let version = || hub.telemetry.configured().version.to_string();
        let two = text(
            "plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}]\n\
            schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: 3}, {pluginRef: kv-cache-utilization-scorer}]}]",
        );
        assert_eq!(reload(&hub, &flags, &two).unwrap(), Reloaded::Applied);
        let config = hub.config();
        assert_eq!(config.profile.scorers.len(), 2);
        assert_eq!(config.metrics_staleness, Duration::from_secs(7));
        let applied = version();
        let commented = format!("# the same\n{two}");
        assert_eq!(
            reload(&hub, &flags, &commented).unwrap(),
            Reloaded::Unchanged
        );
        assert_eq!(hub.telemetry.configured().hash, hash(&commented));

        let wrong = text("plugins: [{type: queue-scoer}]");
        let said = reload(&hub, &flags, &wrong).unwrap_err().to_string();
        assert!(
            said.contains("plugins[0]") && said.contains("queue-scorer"),
            "{said}"
        );
        let queue = two.replace(
            "plugins: [{type",
            "featureGates: [flowControl]\nplugins: [{type",
        );
        let said = reload(&hub, &flags, &queue.replace("weight: 3", "weight: 9"));
        let said = said.unwrap_err().to_string();
        assert!(
            said.starts_with("featureGates changes with a restart only"),
            "{said}"
        );
        assert_eq!(*hub.config(), *config);
        assert_eq!(version(), applied);
    }

    #[test]
    fn flags_go_before_the_file() {
        let second = Duration::from_secs(1);
        let flags = |flag, default| Flags {
            empty_pool_ttl: flag,
            empty_pool_default: default,
            ..Flags::default()
        };
        let ttl = |flags: &Flags, config| flags.over(config).empty_pool_ttl;
        assert_eq!(ttl(&flags(None, None), Config::default()), None);
        assert_eq!(
            ttl(&flags(None, Some(second)), Config::default()),
            Some(second)
        );
        let mut said = Config::default();
        said.hold_while_empty(second * 5);
        assert_eq!(
            ttl(&flags(None, Some(second)), said.clone()),
            Some(second * 5)
        );
        assert_eq!(
            ttl(&flags(Some(second * 2), Some(second)), said),
            Some(second * 2)
        );
    }
}

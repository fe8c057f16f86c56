//! The controller's file: the policy, and how servers are started on this machine.
//!
//! ```yaml
//! policy:
//!   model: llama-3.1-8b
//!   slo: {percentile: 0.9, ttftMs: 2000, tpotMs: 150}
//!   min: 1
//!   max: 10
//!   startupSeconds: 6
//!   scaleDownGuardSeconds: 10
//!   maxInFlight: 16
//! server:
//!   command: [headroom, simulate, server, --profile, llama-3.1-8b-rtxpro6000, --port, "{port}"]
//!   firstPort: 8101
//!   lastPort: 8140
//! objectives:
//!   - {name: batch, priority: -1, shed: true}
//! ```

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use controller_core::policy::seconds;
use controller_core::{Policy, PolicyError};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::local::ServerOptions;

/// What the file says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ControllerFile {
    /// What to decide by.
    pub policy: Policy,
    /// How servers are started.
    pub server: ServerOptions,
    /// Servers started before the first decision.
    pub initial: u32,
    /// Objectives for the endpoint picker, in its own format; null for none.
    pub objectives: Value,
}

/// Why a controller's file was refused.
#[derive(Debug, Error)]
pub enum FileError {
    /// A field that does not exist.
    #[error("controller file line {line}: unknown field `{field}`; {suggestion}")]
    UnknownField {
        /// Line, from 1.
        line: u64,
        /// The name given.
        field: String,
        /// The nearest known names.
        suggestion: String,
    },
    /// Not YAML, a missing field, or a value of the wrong type.
    #[error("controller file: {0}")]
    Shape(String),
    /// A value out of its range.
    #[error("controller file: policy.{0}")]
    Policy(#[from] PolicyError),
    /// A value out of its range.
    #[error("controller file: {field}: `{value}` is not {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it held.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    policy: Policy,
    server: Server,
    #[serde(default)]
    objectives: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Server {
    command: Vec<String>,
    first_port: u16,
    last_port: u16,
    address: Option<IpAddr>,
    health_path: Option<String>,
    initial: Option<u32>,
    logs: Option<PathBuf>,
    #[serde(default)]
    start_limit_seconds: Option<Seconds>,
    #[serde(default)]
    drain_limit_seconds: Option<Seconds>,
    #[serde(default)]
    stop_limit_seconds: Option<Seconds>,
}

#[derive(Deserialize)]
struct Seconds(#[serde(with = "seconds")] Duration);

impl ControllerFile {
    /// Reads the YAML text of a controller's file.
    ///
    /// # Errors
    /// [`FileError`], naming the field, its value and what would be right; an unknown field with the nearest names.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let document: Document = serde_saphyr::from_str(text).map_err(|error| shape(&error))?;
        let Document {
            policy,
            server,
            objectives,
        } = document;
        policy.validate()?;
        let initial = server.initial.unwrap_or(policy.min);
        if !(policy.min..=policy.max).contains(&initial) {
            let (field, expected) = ("server.initial", "between policy.min and policy.max");
            return Err(FileError::Value {
                field,
                value: initial.to_string(),
                expected,
            });
        }
        Ok(Self {
            server: server.options(policy.max)?,
            policy,
            initial,
            objectives,
        })
    }
}

impl Server {
    fn options(self, max: u32) -> Result<ServerOptions, FileError> {
        let wrong = |field, value: &dyn ToString, expected| FileError::Value {
            field,
            value: value.to_string(),
            expected,
        };
        let ports = self.first_port..=self.last_port;
        if self.first_port == 0 || ports.len() < max as usize {
            let expected =
                "far enough from server.firstPort for policy.max servers (and a few that drain)";
            return Err(wrong("server.lastPort", &self.last_port, expected));
        }
        let mut options = ServerOptions::new(self.command, ports);
        if let Some(path) = self.health_path {
            if !path.starts_with('/') {
                return Err(wrong(
                    "server.healthPath",
                    &path,
                    "a path that starts with /",
                ));
            }
            options.health_path = path;
        }
        options.address = self.address.unwrap_or(options.address);
        options.logs = self.logs;
        let set = |limit: &mut Duration, given: Option<Seconds>| {
            *limit = given.map_or(*limit, |Seconds(given)| given)
        };
        set(&mut options.start_limit, self.start_limit_seconds);
        set(&mut options.drain_limit, self.drain_limit_seconds);
        set(&mut options.stop_limit, self.stop_limit_seconds);
        Ok(options)
    }
}

fn shape(error: &serde_saphyr::Error) -> FileError {
    let error = error.without_snippet();
    match error {
        serde_saphyr::Error::SerdeUnknownField {
            field, expected, ..
        } => FileError::UnknownField {
            line: error.location().map_or(1, |at| at.line()),
            field: field.clone(),
            suggestion: nearest(field, expected),
        },
        other => FileError::Shape(
            other
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        ),
    }
}

/// The known names that differ least, by edits; all of them when none is near.
fn nearest(name: &str, known: &[&str]) -> String {
    let mut ranked: Vec<(usize, &str)> = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .collect();
    ranked.sort_unstable();
    let near = ranked
        .iter()
        .filter(|(edits, candidate)| 2 * edits <= name.len().max(candidate.len()))
        .count();
    let (word, shown) = if near > 0 {
        ("nearest known", near)
    } else {
        ("known", ranked.len())
    };
    let names: Vec<String> = ranked
        .iter()
        .take(shown)
        .map(|(_, candidate)| format!("`{candidate}`"))
        .collect();
    format!("{word}: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "
policy:
  model: llama
  slo: {percentile: 0.9, ttftMs: 2000, tpotMs: 150}
  min: 1
  max: 4
  startupSeconds: 6
server:
  command: [headroom, simulate, server, --port, \"{port}\"]
  firstPort: 8101
  lastPort: 8108
";

    fn refused(text: &str) -> String {
        ControllerFile::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_minimal_file_takes_the_defaults() {
        let file = ControllerFile::parse(MINIMAL).unwrap();
        assert_eq!(
            (
                file.initial,
                file.policy.step_up,
                file.policy.scale_down_guard.as_secs()
            ),
            (1, 4, 60)
        );
        assert_eq!(
            (file.server.ports.clone(), file.server.health_path.as_str()),
            (8101..=8108, "/health")
        );
        assert!(file.objectives.is_null());
    }

    #[test]
    fn everything_can_be_said() {
        let text = MINIMAL.replace(
            "  max: 4\n",
            "  max: 4\n  maxInFlight: 16\n  drainSeconds: 12.5\n  sheddableShare: 0.5\n",
        ) + "  address: \"::1\"\n  initial: 3\n  drainLimitSeconds: 7\n  logs: logs\nobjectives:\n  - {name: batch, priority: -1}\n";
        let file = ControllerFile::parse(&text).unwrap();
        assert_eq!(
            (file.policy.max_in_flight, file.policy.drain),
            (Some(16), Some(Duration::from_millis(12_500)))
        );
        assert_eq!((file.initial, file.server.drain_limit.as_secs()), (3, 7));
        assert!(file.server.address.is_ipv6() && file.objectives[0]["name"] == "batch");
    }

    #[test]
    fn an_unknown_field_is_answered_with_the_nearest_names() {
        let message = refused(&MINIMAL.replace("startupSeconds", "startUpSeconds"));
        let expected = "controller file line 7: unknown field `startUpSeconds`; nearest known: `startupSeconds`";
        assert!(message.starts_with(expected), "{message}");
        let message = refused(&MINIMAL.replace("ttftMs", "ttft"));
        assert!(message.contains("`ttftMs`"), "{message}");
        let message = refused(&MINIMAL.replace("  firstPort", "  colour"));
        assert!(
            message.contains("; known: ") && message.contains("`firstPort`"),
            "{message}"
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        let message = refused(&MINIMAL.replace("percentile: 0.9", "percentile: 90"));
        assert_eq!(
            message,
            "controller file: policy.slo.percentile: `90` is not a share above 0 and below 1, such as 0.9"
        );
        assert!(
            refused(&MINIMAL.replace("lastPort: 8108", "lastPort: 8102"))
                .contains("server.lastPort: `8102`")
        );
        assert!(refused(&(MINIMAL.to_owned() + "  initial: 9\n")).contains("server.initial: `9`"));
        assert!(
            refused(&(MINIMAL.to_owned() + "  healthPath: up\n"))
                .contains("server.healthPath: `up`")
        );
        let message = refused(&MINIMAL.replace("startupSeconds: 6", "startupSeconds: -6"));
        assert!(message.contains("-6"), "{message}");
        assert!(refused("policy: {}").starts_with("controller file: "));
    }
}

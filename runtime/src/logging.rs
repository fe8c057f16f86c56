//! Log set-up: one line per event on standard error, as text or JSON.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Environment variable that overrides the filter given on the command line.
pub const FILTER_VARIABLE: &str = "HEADROOM_LOG";

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// `tracing` filter directives, such as `info` or `info,epp=debug`.
    pub filter: String,
    /// One JSON object per line instead of text.
    pub json: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            json: false,
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not a list of directives.
    #[error(
        "log filter {filter:?} is not understood ({problem}): give a level (error, warn, info, debug, trace) or target=level pairs separated by commas"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What the parser found.
        problem: String,
    },
    /// Another subscriber is in place.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Installs the process-wide subscriber.
///
/// # Errors
/// [`LogError::Filter`] when the filter does not parse, [`LogError::AlreadySet`] on a second call.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    let filter =
        parse_filter(&std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| options.filter.clone()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would tell on standard error that standard error is gone, and panic in whatever task logged.
        .log_internal_errors(false);
    let installed = if options.json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
    installed.map_err(|_| LogError::AlreadySet)
}

/// The Kubernetes client logs every failed request as an error, also those that are tried again: who asked for one tells
/// what it means. Named in the filter it speaks.
const REPEATED_ELSEWHERE: &str = "kube_client::client::builder=off";

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let whole = format!("{REPEATED_ELSEWHERE},{filter}");
    EnvFilter::try_new(whole).map_err(|error| LogError::Filter {
        filter: filter.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_says_what_would_be_right() {
        let error = parse_filter("epp=loud").unwrap_err().to_string();
        assert!(
            error.contains("epp=loud") && error.contains("debug"),
            "{error}"
        );
        assert!(parse_filter("info,epp=debug").is_ok());
    }
}

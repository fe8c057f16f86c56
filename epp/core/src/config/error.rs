//! Configuration errors: each names the field, the value, and what would be right.

use thiserror::Error;

/// Names suggested at most.
const SUGGESTIONS: usize = 3;

/// Why a configuration was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Not YAML, or not of the right shape.
    #[error("{place}: {problem}")]
    Shape {
        /// Line and column, or the plugin whose parameters are wrong.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A name that nothing here goes by.
    #[error("{place}: unknown {kind} `{name}`; {suggestion}")]
    Unknown {
        /// Where it stands.
        place: String,
        /// What was expected to be named: a field, a plugin type, a plugin, …
        kind: &'static str,
        /// The name given.
        name: String,
        /// The nearest known names.
        suggestion: String,
    },
    /// A known name whose value cannot be used.
    #[error("{field}: {value} {wanted}")]
    Value {
        /// Path of the field.
        field: String,
        /// The value given.
        value: String,
        /// What would be right.
        wanted: String,
    },
}

impl ConfigError {
    pub(crate) fn unknown<'a>(
        place: impl Into<String>,
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::Unknown {
            place: place.into(),
            kind,
            name: name.into(),
            suggestion: suggestion(name, known),
        }
    }

    pub(crate) fn value(
        field: impl Into<String>,
        value: impl std::fmt::Display,
        wanted: impl Into<String>,
    ) -> Self {
        Self::Value {
            field: field.into(),
            value: format!("`{value}`"),
            wanted: wanted.into(),
        }
    }
}

/// Reads YAML into a strict type; unknown fields are answered with the nearest known ones. `place` names the
/// document in errors without a position of their own.
pub(crate) fn from_yaml<T: serde::de::DeserializeOwned>(
    text: &str,
    place: &str,
) -> Result<T, ConfigError> {
    use serde_saphyr::Error;
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let place = match error.location() {
            Some(at) if at.line() > 0 => {
                format!("{place} line {} column {}", at.line(), at.column())
            }
            _ => place.to_owned(),
        };
        match error {
            Error::SerdeUnknownField {
                field, expected, ..
            } => ConfigError::unknown(place, "field", field, expected.iter().copied()),
            Error::SerdeUnknownVariant {
                variant, expected, ..
            } => ConfigError::unknown(place, "value", variant, expected.iter().copied()),
            other => ConfigError::Shape {
                place,
                problem: first_line(&other.to_string()),
            },
        }
    })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The nearest names by edit distance, nearest first.
pub(crate) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut ranked: Vec<(usize, &str)> = known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .collect();
    ranked.sort_unstable();
    let nearest: Vec<_> = ranked
        .iter()
        .take(SUGGESTIONS)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    if nearest.is_empty() {
        "none is known here".to_owned()
    } else {
        format!("nearest known: {}", nearest.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_names_first() {
        let known = [
            "queue-scorer",
            "prefix-cache-scorer",
            "latency-scorer",
            "file-discovery",
        ];
        assert!(suggestion("queue-score", known).starts_with("nearest known: `queue-scorer`, "));
        assert!(
            suggestion("file-discover", known).starts_with("nearest known: `file-discovery`, ")
        );
        assert_eq!(suggestion("x", []), "none is known here");
    }
}

//! Configuration errors: each names the field, the value, and what would be right.

use thiserror::Error;

use super::position::{Outline, Position};

/// Names suggested at most.
const SUGGESTIONS: usize = 3;

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: a path such as `flowControl.maxBytes`, an entry by its name such as ``plugin `queue-scorer` ``, or the
    /// document.
    pub place: String,
    /// The same in the text, where that is known.
    pub position: Option<Position>,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a part of a configuration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// Not YAML, or not of the right shape.
    #[error("{0}")]
    Shape(String),
    /// A name that nothing here goes by.
    #[error("unknown {kind} `{name}`; {suggestion}")]
    Unknown {
        /// What was expected to be named: a field, a plugin type, a plugin, …
        kind: &'static str,
        /// The name given.
        name: String,
        /// The nearest known names.
        suggestion: String,
    },
    /// A known name whose value cannot be used.
    #[error("{value} {wanted}")]
    Value {
        /// The value given.
        value: String,
        /// What would be right.
        wanted: String,
    },
}

impl std::error::Error for ConfigError {}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)?;
        if let Some(position) = self.position {
            write!(f, " {position}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl ConfigError {
    pub(crate) fn unknown<'a>(
        place: impl Into<String>,
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            place: place.into(),
            position: None,
            problem: suggested(kind, name, known),
        }
    }

    pub(crate) fn value(
        field: impl Into<String>,
        value: impl std::fmt::Display,
        wanted: impl Into<String>,
    ) -> Self {
        Self {
            place: field.into(),
            position: None,
            problem: Problem::Value {
                value: format!("`{value}`"),
                wanted: wanted.into(),
            },
        }
    }

    /// The same with its position in the document.
    pub(super) fn located(self, outline: Option<&Outline>) -> Self {
        let position = self
            .position
            .or_else(|| outline.and_then(|outline| outline.locate(&self.place)));
        Self { position, ..self }
    }
}

/// An unknown name, with the nearest known ones.
pub(super) fn suggested<'a>(
    kind: &'static str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Problem {
    Problem::Unknown {
        kind,
        name: name.into(),
        suggestion: suggestion(name, known),
    }
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

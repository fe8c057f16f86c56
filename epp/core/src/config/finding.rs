//! What deserves a word in a configuration, whether it can be used or not.

use std::fmt;

use serde::Serialize;

use super::error::ConfigError;
use super::position::{Outline, Position};

/// How much a finding matters, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The configuration is refused.
    Error,
    /// A plugin or parameter is known and not built; something simpler stands in for it.
    StandIn,
    /// A name that will go; another one means the same.
    Deprecated,
    /// Something that others can take advantage of.
    Insecure,
    /// Something that can never happen, or never be reached.
    Unreachable,
    /// Something that nothing uses.
    Unused,
    /// It works, but needs something outside of the file, or hits a limit that is easily overlooked.
    Caution,
    /// It does another thing than at llm-d, on purpose.
    Differs,
    /// llm-d calls it alpha and asks for a flag; here it works without one.
    Alpha,
}

impl Level {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::StandIn => "stand-in",
            Self::Deprecated => "deprecated",
            Self::Insecure => "insecure",
            Self::Unreachable => "unreachable",
            Self::Unused => "unused",
            Self::Caution => "caution",
            Self::Differs => "differs",
            Self::Alpha => "alpha",
        }
    }

    /// Whether a program that starts with the configuration should say it.
    pub(super) fn is_warning(self) -> bool {
        self < Self::Caution
    }
}

/// Something that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// Where: a path such as `flowControl.maxBytes`, or an entry by its name such as ``plugin `queue-scorer` ``.
    pub place: String,
    /// The same in the text, where that is known.
    pub position: Option<Position>,
    /// What is so, or what will happen.
    pub message: String,
    /// What to write instead; empty where there is nothing to say.
    pub advice: String,
}

impl Finding {
    pub(super) fn new(
        level: Level,
        place: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            level,
            place: place.into(),
            position: None,
            message: message.into(),
            advice: advice.into(),
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

impl From<ConfigError> for Finding {
    fn from(error: ConfigError) -> Self {
        Self {
            level: Level::Error,
            message: error.problem.to_string(),
            place: error.place,
            position: error.position,
            advice: String::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if let Some(position) = self.position {
            write!(f, " {position}")?;
        }
        write!(f, ": {}", self.message)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

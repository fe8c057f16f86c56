//! What the model learns from, and how far it has come.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Features, Quantiles};

/// Which latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Service time to first token: dispatch to first token at the replica.
    Ttft,
    /// Time per output token after the first.
    Tpot,
}

impl Target {
    /// Both, in the order of every array indexed by target.
    pub const ALL: [Self; 2] = [Self::Ttft, Self::Tpot];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Ttft => 0,
            Self::Tpot => 1,
        }
    }

    /// `ttft` or `tpot`, as used in labels and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much one target's predictions deserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Too few labels even for the analytic base: a fixed guess.
    Prior,
    /// The base is fitted; the forest is missing, young or worse than the base.
    Warming,
    /// Enough labels, and the forest in force beats the base on the newest rows (or ties with it:
    /// where the base is exact there is nothing left to beat).
    Trained,
    /// No label for a while although requests are dispatched, or the drift alarm is on.
    Stale,
}

impl State {
    /// Lower-case name, as used in labels and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prior => "prior",
            Self::Warming => "warming",
            Self::Trained => "trained",
            Self::Stale => "stale",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One label: what a request turned out to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Which latency was measured.
    pub target: Target,
    /// What was known at dispatch.
    pub features: Features,
    /// The measured latency, ms; anything not finite and positive is counted and dropped.
    pub actual_ms: f32,
    /// When the label arrived.
    pub at: Duration,
    /// What was predicted for it at dispatch; it is what the reported scores are about.
    pub predicted: Option<Quantiles>,
}

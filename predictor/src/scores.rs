//! Scores of predictions against what happened: each label is scored with what was predicted at
//! its dispatch, before it could teach the model (prequential).

use serde::{Deserialize, Serialize};

use crate::State;

/// How one target's model is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetReport {
    /// How far the model is to be trusted.
    pub state: State,
    /// Labels learned from since the start.
    pub labels: u64,
    /// Labels dropped because they were not finite and positive.
    pub rejected: u64,
    /// Rows in the store.
    pub rows: usize,
    /// Refits put in force.
    pub refits: u64,
    /// Refits refused because they were worse than the model in force.
    pub refused: u64,
    /// Drift alarms raised since the start.
    pub alarms: u64,
    /// Labels in the window of the four scores below; 0 leaves them NaN (JSON `null`).
    pub scored: usize,
    /// Mean absolute error of p50, percent of the actual.
    #[serde(with = "crate::scores::nan_as_null")]
    pub mape: f32,
    /// Median absolute error of p50, percent of the actual.
    #[serde(with = "crate::scores::nan_as_null")]
    pub median_ape: f32,
    /// Mean of ln(p50 / actual); negative is optimistic.
    #[serde(with = "crate::scores::nan_as_null")]
    pub log_bias: f32,
    /// Share of labels at or below p90.
    #[serde(with = "crate::scores::nan_as_null")]
    pub coverage_p90: f32,
}

/// How both targets' models are doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Time to first token.
    pub ttft: TargetReport,
    /// Time per further token.
    pub tpot: TargetReport,
    /// Counts snapshots in which a refit came into force.
    pub version: u64,
    /// Labels dropped because the trainer's channel was full.
    pub dropped: u64,
}

impl Report {
    /// The report of one target.
    pub fn target(&self, target: crate::Target) -> &TargetReport {
        match target {
            crate::Target::Ttft => &self.ttft,
            crate::Target::Tpot => &self.tpot,
        }
    }
}

/// JSON has no NaN.
mod nan_as_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        (!value.is_nan()).then_some(*value).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f32::NAN))
    }
}

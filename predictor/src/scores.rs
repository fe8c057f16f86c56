//! Scores of predictions against what happened: each label is scored with what was predicted at
//! its dispatch, before it could teach the model (prequential).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Quantiles, State};

/// How one target's model is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetReport {
    /// How far the model is to be trusted.
    pub state: State,
    /// Labels learned from since the start.
    pub labels: u64,
    /// Of those, in the last minute (of this process; a restored learner counts them anew).
    #[serde(default)]
    pub labels_last_minute: u64,
    /// Labels weighted by age, half after each half-life of the rows: how well the model knows the present.
    #[serde(default)]
    pub fresh_labels: f64,
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
    /// When the model in force was installed (zero if before this process); none before the first refit.
    pub in_force_since: Option<Duration>,
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
    /// Counts snapshots in which a refit came into force, over all starts whose learner was kept.
    pub version: u64,
    /// Time since the newest of them; none before the first.
    #[serde(default)]
    pub fitted_age: Option<Duration>,
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

/// What one label says about its prediction.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Score {
    /// |p50 - actual| / actual.
    ape: f32,
    /// ln(p50 / actual).
    log_error: f32,
    covered: bool,
}

/// The newest labels' scores.
#[derive(Clone, Debug)]
pub(crate) struct Scores {
    window: VecDeque<Score>,
    capacity: usize,
}

/// Summary of the window; NaN where it is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) scored: usize,
    pub(crate) mape: f32,
    pub(crate) median_ape: f32,
    pub(crate) log_bias: f32,
    pub(crate) coverage_p90: f32,
}

impl Scores {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            window: VecDeque::new(),
            capacity,
        }
    }

    pub(crate) fn add(&mut self, predicted: &Quantiles, actual_ms: f32) {
        self.push(Score {
            ape: (predicted.p50 - actual_ms).abs() / actual_ms,
            log_error: (predicted.p50 / actual_ms).ln(),
            covered: actual_ms <= predicted.p90,
        });
    }

    pub(crate) fn push(&mut self, score: Score) {
        if self.window.len() >= self.capacity {
            self.window.pop_front();
        }
        self.window.push_back(score);
    }

    /// The window, oldest first.
    pub(crate) fn window(&self) -> impl Iterator<Item = Score> {
        self.window.iter().copied()
    }

    pub(crate) fn summary(&self) -> Summary {
        let scored = self.window.len();
        let mean = |of: fn(&Score) -> f32| {
            let sum: f64 = self.window.iter().map(|score| f64::from(of(score))).sum();
            (sum / scored as f64) as f32
        };
        let mut apes: Vec<f32> = self.window.iter().map(|score| score.ape).collect();
        apes.sort_unstable_by(f32::total_cmp);
        let median = match scored {
            0 => f32::NAN,
            n if n % 2 == 1 => apes[n / 2],
            n => (apes[n / 2 - 1] + apes[n / 2]) / 2.0,
        };
        Summary {
            scored,
            mape: 100.0 * mean(|score| score.ape),
            median_ape: 100.0 * median,
            log_bias: mean(|score| score.log_error),
            coverage_p90: mean(|score| if score.covered { 1.0 } else { 0.0 }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_newest_labels() {
        let mut scores = Scores::new(4);
        let predicted = Quantiles {
            p50: 100.0,
            p90: 150.0,
            p99: 200.0,
        };
        for actual in [1.0, 50.0, 100.0, 200.0, 100.0] {
            scores.add(&predicted, actual);
        }
        let summary = scores.summary();
        assert_eq!(summary.scored, 4);
        // 100 %, 0, 50 %, 0.
        assert_eq!(summary.mape, 37.5);
        assert_eq!(summary.median_ape, 25.0);
        assert!(summary.log_bias.abs() < 1e-6);
        assert_eq!(summary.coverage_p90, 0.75);
    }

    #[test]
    fn an_empty_window_is_null_and_not_zero() {
        let summary = Scores::new(3).summary();
        assert!(summary.mape.is_nan() && summary.coverage_p90.is_nan());
        let learner = crate::Learner::new(crate::LearnerConfig::default());
        let report = learner.report(Duration::ZERO);
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["ttft"]["mape"].is_null());
        let read: Report = serde_json::from_value(json).unwrap();
        assert!(read.ttft.mape.is_nan());
    }
}

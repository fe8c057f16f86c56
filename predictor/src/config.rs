//! Limits of the learner, every one with a default that works.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::DriftConfig;

/// Limits and parameters of a [`crate::Learner`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LearnerConfig {
    /// Seed of the forests' row sampling.
    pub seed: u64,
    /// Rows kept per target, at least 100.
    pub store_capacity: usize,
    /// Age at which a row counts half.
    pub half_life: Duration,
    /// Age at which a row is dropped, however rare its kind.
    pub max_age: Duration,
    /// Least time between two refits.
    pub min_refit_interval: Duration,
    /// Least share of new rows (of those in the store at the last refit) before a refit.
    pub min_new_rows: f32,
    /// Time between a fit and its being in force, for callers on a virtual clock.
    pub install_delay: Duration,
    /// Labels before the analytic base is fitted (`prior` until then).
    pub prior_labels: u64,
    /// Labels before a target can be `trained`.
    pub trained_labels: u64,
    /// Time under traffic without a label after which a target is `stale`.
    pub stale_after: Duration,
    /// A challenger is refused when its error on the newest rows exceeds the champion's by this
    /// share.
    pub challenger_tolerance: f32,
    /// Step of the quantile trackers per label, in log latency.
    pub tracker_step: f32,
    /// Labels over which the reported scores are taken.
    pub score_window: usize,
    /// The drift alarm.
    pub drift: DriftConfig,
    /// The residual forest.
    pub forest: gbdt::Params,
}

impl Default for LearnerConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            store_capacity: 20_000,
            half_life: Duration::from_secs(600),
            max_age: Duration::from_secs(7200),
            min_refit_interval: Duration::from_secs(5),
            min_new_rows: 0.10,
            install_delay: Duration::from_secs(1),
            prior_labels: 10,
            trained_labels: 100,
            stale_after: Duration::from_secs(60),
            challenger_tolerance: 0.05,
            tracker_step: 0.04,
            score_window: 1_000,
            drift: DriftConfig::default(),
            // Few, well filled leaves: the rows of one load are a small and correlated sample.
            forest: gbdt::Params {
                trees: 60,
                max_leaves: 24,
                min_leaf_weight: 30.0,
                l2: 20.0,
                ..gbdt::Params::default()
            },
        }
    }
}

/// A limit outside its range.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigError {
    /// A number is outside its range.
    #[error("{field} is {value}, it must be {right}")]
    Range {
        /// Name of the field.
        field: &'static str,
        /// What was given.
        value: f64,
        /// What would be right.
        right: &'static str,
    },
    /// The forest's parameters are wrong.
    #[error("forest: {0}")]
    Forest(gbdt::FitError),
}

impl LearnerConfig {
    /// Checks every limit.
    ///
    /// # Errors
    /// Names the first field that is wrong, its value and what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let range = |ok: bool, field, value: f64, right| {
            if ok {
                Ok(())
            } else {
                Err(ConfigError::Range {
                    field,
                    value,
                    right,
                })
            }
        };
        range(
            self.store_capacity >= 100,
            "store_capacity",
            self.store_capacity as f64,
            "at least 100 rows",
        )?;
        for (field, value) in [
            ("half_life", self.half_life),
            ("max_age", self.max_age),
            ("stale_after", self.stale_after),
        ] {
            range(
                !value.is_zero(),
                field,
                value.as_secs_f64(),
                "longer than 0 s",
            )?;
        }
        range(
            self.min_new_rows > 0.0,
            "min_new_rows",
            f64::from(self.min_new_rows),
            "a positive share such as 0.1",
        )?;
        range(
            self.prior_labels >= 1,
            "prior_labels",
            self.prior_labels as f64,
            "at least 1",
        )?;
        range(
            self.trained_labels >= self.prior_labels,
            "trained_labels",
            self.trained_labels as f64,
            "at least prior_labels",
        )?;
        range(
            self.challenger_tolerance >= 0.0,
            "challenger_tolerance",
            f64::from(self.challenger_tolerance),
            "a share of 0 or more",
        )?;
        range(
            self.tracker_step > 0.0 && self.tracker_step <= 1.0,
            "tracker_step",
            f64::from(self.tracker_step),
            "above 0 and at most 1",
        )?;
        range(
            self.score_window >= 1,
            "score_window",
            self.score_window as f64,
            "at least 1 label",
        )?;
        self.drift.validate()?;
        self.forest.validate().map_err(ConfigError::Forest)
    }
}

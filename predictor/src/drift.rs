//! Drift alarm: has the replica changed under the model?
//!
//! Two-sided Page–Hinkley test on the signed log error of predictions inside the trained range (an
//! error of extrapolation says that load grew, not that the replica changed). E. S. Page,
//! "Continuous inspection schemes", Biometrika 41 (1954).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// Thresholds of the drift alarm, in log latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DriftConfig {
    /// Mean error that is never held against the model.
    pub allowance: f32,
    /// Cumulated excess that raises the alarm.
    pub threshold: f32,
    /// Bound on one label's contribution, so that one outlier cannot raise it.
    pub clip: f32,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self {
            allowance: 0.15,
            threshold: 25.0,
            clip: 1.0,
        }
    }
}

impl DriftConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("drift.allowance", self.allowance),
            ("drift.threshold", self.threshold),
            ("drift.clip", self.clip),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::Range {
                    field,
                    value: f64::from(value),
                    right: "positive and finite",
                });
            }
        }
        Ok(())
    }
}

/// Which way and since when the errors lean.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Side {
    /// Cumulated excess over the allowance, never below zero.
    excess: f32,
    /// When the excess last left zero: the estimate of the change point.
    since: Duration,
}

/// The running test.
#[derive(Clone, Debug)]
pub(crate) struct Drift {
    config: DriftConfig,
    sides: [Side; 2],
}

impl Drift {
    pub(crate) fn new(config: DriftConfig) -> Self {
        let rest = Side {
            excess: 0.0,
            since: Duration::ZERO,
        };
        Self {
            config,
            sides: [rest; 2],
        }
    }

    /// Forgets all errors.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// Adds one signed log error; on an alarm returns when the change began and starts afresh.
    pub(crate) fn add(&mut self, error: f32, at: Duration) -> Option<Duration> {
        let error = error.clamp(-self.config.clip, self.config.clip);
        for (side, signed) in self.sides.iter_mut().zip([error, -error]) {
            if side.excess <= 0.0 {
                side.since = at;
            }
            side.excess = (side.excess + signed - self.config.allowance).max(0.0);
        }
        let alarm = self
            .sides
            .iter()
            .find(|side| side.excess > self.config.threshold)
            .map(|side| side.since);
        if alarm.is_some() {
            self.reset();
        }
        alarm
    }
}

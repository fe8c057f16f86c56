//! Drift alarm: has the replica changed under the model?
//!
//! Two-sided Page–Hinkley test on the signed log error of predictions inside the trained range (an
//! error of extrapolation says that load grew, not that the replica changed). E. S. Page,
//! "Continuous inspection schemes", Biometrika 41 (1954).

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

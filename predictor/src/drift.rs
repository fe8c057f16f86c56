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
            // A change of load moves the error by up to 0.3 for a while; twice the latency (0.7) is
            // an alarm after some 150 labels.
            allowance: 0.3,
            threshold: 60.0,
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
pub(crate) struct Side {
    /// Cumulated excess over the allowance, never below zero.
    pub(crate) excess: f32,
    /// When the excess last left zero: the estimate of the change point.
    pub(crate) since: Duration,
}

/// The running test.
#[derive(Clone, Debug)]
pub(crate) struct Drift {
    config: DriftConfig,
    pub(crate) sides: [Side; 2],
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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels_to_alarm(error: impl Fn(u64) -> f32) -> Option<(u64, Duration)> {
        let mut drift = Drift::new(DriftConfig::default());
        (0..5_000).find_map(|label| {
            drift
                .add(error(label), Duration::from_secs(label))
                .map(|since| (label, since))
        })
    }

    #[test]
    fn noise_and_a_small_bias_raise_no_alarm() {
        assert_eq!(
            labels_to_alarm(|label| if label.is_multiple_of(2) { 0.8 } else { -0.5 }),
            None
        );
    }

    #[test]
    fn a_doubling_either_way_is_found_and_dated() {
        for sign in [1.0, -1.0] {
            let noise = |label: u64| if label.is_multiple_of(2) { 0.2 } else { -0.2 };
            let (label, since) =
                labels_to_alarm(|label| noise(label) + if label < 300 { 0.0 } else { sign * 0.69 })
                    .unwrap();
            assert!((301..550).contains(&label), "{label}");
            let since = since.as_secs();
            assert!((295..=305).contains(&since), "{since}");
        }
    }

    #[test]
    fn one_absurd_label_is_not_a_change() {
        assert_eq!(
            labels_to_alarm(|label| if label == 7 { 1e9 } else { 0.0 }),
            None
        );
    }
}

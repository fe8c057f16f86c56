//! The learner: everything that changes, owned by one thread.

use std::time::Duration;

use crate::{Candidate, LatencyModel, LearnerConfig, Observation, Report};

/// Learns both targets from observations; pure, deterministic, bounded.
#[derive(Debug)]
pub struct Learner {
    config: LearnerConfig,
}

impl Learner {
    /// A learner that knows nothing yet. An invalid field of `config` is replaced by its default
    /// (check first with [`LearnerConfig::validate`]).
    pub fn new(config: LearnerConfig) -> Self {
        Self { config }
    }

    /// Notes that a request was dispatched (there is traffic, so labels should come).
    pub fn note_dispatch(&mut self, _now: Duration) {}

    /// Learns one label, in constant time: store, trackers, scores, drift.
    pub fn observe(&mut self, _observation: Observation) {}

    /// Whether a refit is worth its cost.
    pub fn due(&self, _now: Duration) -> bool {
        false
    }

    /// Fits base and forest from the store; heavy and deterministic.
    pub fn fit(&mut self, _now: Duration) -> Candidate {
        Candidate {}
    }

    /// Lets a candidate replace the model in force if it is not worse; false = refused.
    pub fn install(&mut self, _candidate: Candidate, _now: Duration) -> bool {
        false
    }

    /// Snapshot with offsets and states as of `now`.
    pub fn model(&self, _now: Duration) -> LatencyModel {
        LatencyModel::prior()
    }

    /// Counters and scores as of `now`.
    pub fn report(&self, _now: Duration) -> Report {
        let _ = &self.config;
        let target = || crate::TargetReport {
            state: crate::State::Prior, labels: 0, rejected: 0, rows: 0, refits: 0, refused: 0, alarms: 0,
            scored: 0, mape: f32::NAN, median_ape: f32::NAN, log_bias: f32::NAN, coverage_p90: f32::NAN,
        };
        Report { ttft: target(), tpot: target(), version: 0, dropped: 0 }
    }
}

//! The learner: everything that changes, owned by one thread.

use std::time::Duration;

use crate::target_learner::TargetLearner;
use crate::{Candidate, LatencyModel, LearnerConfig, Observation, Report, Target};

/// Learns both targets from observations; pure, deterministic, bounded.
#[derive(Debug)]
pub struct Learner {
    config: LearnerConfig,
    targets: [TargetLearner; 2],
    version: u64,
}

impl Learner {
    /// A learner that knows nothing yet; `config` should have passed
    /// [`LearnerConfig::validate`] (with wrong forest parameters no forest is ever fitted).
    pub fn new(config: LearnerConfig) -> Self {
        Self {
            targets: Target::ALL.map(|target| TargetLearner::new(target, &config)),
            config,
            version: 0,
        }
    }

    /// The limits it works within.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// Notes that a request was dispatched (there is traffic, so labels should come).
    pub fn note_dispatch(&mut self, now: Duration) {
        for target in &mut self.targets {
            target.note_dispatch(now);
        }
    }

    /// Learns one label, in constant time on average: scores, trackers, drift, store, base.
    pub fn observe(&mut self, observation: Observation) {
        self.targets[observation.target.index()].observe(&observation, &self.config);
    }

    /// Whether a refit is worth its cost: for either target, new rows enough and time enough since
    /// the last.
    pub fn due(&self, now: Duration) -> bool {
        self.targets
            .iter()
            .any(|target| target.due(now, &self.config))
    }

    /// Fits base and forest of each target that is due; heavy and deterministic. A target that is
    /// not due is left as it is.
    pub fn fit(&mut self, now: Duration) -> Candidate {
        let config = &self.config;
        Candidate {
            challengers: self
                .targets
                .each_mut()
                .map(|target| target.due(now, config).then(|| target.fit(now, config))),
        }
    }

    /// Lets a candidate replace the model in force where it is not worse on the newest rows; false
    /// if every target refused it.
    pub fn install(&mut self, candidate: Candidate, now: Duration) -> bool {
        let mut installed = false;
        for (target, challenger) in self.targets.iter_mut().zip(candidate.challengers) {
            if let Some(challenger) = challenger {
                installed |= target.install(challenger, now, &self.config);
            }
        }
        self.version += u64::from(installed);
        installed
    }

    /// Snapshot with offsets and states as of `now`.
    pub fn model(&self, now: Duration) -> LatencyModel {
        let targets = self.targets.each_ref();
        LatencyModel::new(
            targets.map(|target| target.model_at(now, &self.config)),
            self.version,
        )
    }

    /// Counters and scores as of `now`.
    pub fn report(&self, now: Duration) -> Report {
        let [ttft, tpot] = self
            .targets
            .each_ref()
            .map(|target| target.report(now, &self.config));
        Report {
            ttft,
            tpot,
            version: self.version,
            dropped: 0,
        }
    }
}

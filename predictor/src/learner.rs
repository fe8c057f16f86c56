//! The learner: everything that changes, owned by one thread.

use std::sync::Arc;
use std::time::Duration;

use crate::snapshot::{Flaw, Moment, SavedClass};
use crate::target_learner::TargetLearner;
use crate::{Candidate, LatencyModel, LearnerConfig, Observation, Report, Target, TargetReport};

/// Learns both targets from observations; pure, deterministic, bounded.
#[derive(Debug)]
pub struct Learner {
    config: LearnerConfig,
    targets: [TargetLearner; 2],
    version: u64,
    /// Added to every time that comes in and taken off every one that goes out: room before the caller's zero for
    /// what a restored learner knows from an earlier process.
    before: Duration,
}

impl Learner {
    /// A learner that knows nothing yet; `config` should have passed
    /// [`LearnerConfig::validate`] (with wrong forest parameters no forest is ever fitted).
    pub fn new(config: LearnerConfig) -> Self {
        Self {
            targets: Target::ALL.map(|target| TargetLearner::new(target, &config)),
            config,
            version: 0,
            before: Duration::ZERO,
        }
    }

    /// All that was learned, at `now`, for [`Learner::resumed`].
    pub(crate) fn saved(&self, class: Arc<str>, now: Duration) -> SavedClass {
        let moment = Moment {
            now: now + self.before,
            elapsed: Duration::ZERO,
        };
        let targets = self.targets.each_ref();
        SavedClass {
            class,
            version: self.version,
            targets: targets.map(|target| target.saved(moment, &self.config)),
        }
    }

    /// The learner that was saved `elapsed` before `now`.
    pub(crate) fn resumed(
        config: LearnerConfig,
        saved: SavedClass,
        now: Duration,
        elapsed: Duration,
    ) -> Result<Self, Flaw> {
        let [ttft, tpot] = saved.targets;
        let oldest = ttft.oldest().max(tpot.oldest()).saturating_add(elapsed);
        let before = oldest.saturating_sub(now);
        let moment = Moment {
            now: now.saturating_add(before),
            elapsed,
        };
        let resumed = |target, saved| TargetLearner::resumed(target, saved, moment, &config);
        Ok(Self {
            targets: [resumed(Target::Ttft, ttft)?, resumed(Target::Tpot, tpot)?],
            version: saved.version,
            before,
            config,
        })
    }

    /// The limits it works within.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// Notes that a request was dispatched (there is traffic, so labels should come).
    pub fn note_dispatch(&mut self, now: Duration) {
        for target in &mut self.targets {
            target.note_dispatch(now + self.before);
        }
    }

    /// Learns one label, in constant time on average: scores, trackers, drift, store, base.
    pub fn observe(&mut self, observation: Observation) {
        let observation = Observation {
            at: observation.at + self.before,
            ..observation
        };
        self.targets[observation.target.index()].observe(&observation, &self.config);
    }

    /// Whether a refit is worth its cost: for either target, new rows enough and time enough since
    /// the last.
    pub fn due(&self, now: Duration) -> bool {
        self.targets
            .iter()
            .any(|target| target.due(now + self.before, &self.config))
    }

    /// Fits base and forest of each target that is due; heavy and deterministic. A target that is
    /// not due is left as it is.
    pub fn fit(&mut self, now: Duration) -> Candidate {
        let now = now + self.before;
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
        let now = now + self.before;
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
            targets.map(|target| target.model_at(now + self.before, &self.config)),
            self.version,
        )
    }

    /// Counters and scores as of `now`.
    pub fn report(&self, now: Duration) -> Report {
        let inside = now + self.before;
        let [ttft, tpot] = self.targets.each_ref().map(|target| {
            let report = target.report(inside, &self.config);
            TargetReport {
                in_force_since: report
                    .in_force_since
                    .map(|at| at.saturating_sub(self.before)),
                ..report
            }
        });
        let fitted = self
            .targets
            .iter()
            .filter_map(TargetLearner::in_force_since)
            .max();
        Report {
            ttft,
            tpot,
            version: self.version,
            fitted_age: fitted.map(|at| inside.saturating_sub(at)),
            dropped: 0,
        }
    }
}

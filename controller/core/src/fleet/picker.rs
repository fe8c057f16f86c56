//! One endpoint picker of a fleet: its director, what it waits for, and what it learns.

use std::sync::Arc;
use std::time::Duration;

use epp_core::config::Config;
use epp_core::{Director, Endpoint, Pool, Ticket};
use predictor::{Candidate, Learner, LearnerConfig, Observation};
use rustc_hash::FxHashMap;

/// A director with its own counters, prefix index and latency model: pickers share nothing unless they exchange it.
pub(super) struct Picker {
    pub(super) director: Director,
    /// Offers in its queue, by ticket.
    pub(super) waiting: FxHashMap<Ticket, usize>,
    pub(super) learner: Option<Learner>,
    candidate: Option<Candidate>,
    wakeup: Option<Duration>,
}

impl Picker {
    pub(super) fn new(config: Config, learner: Option<LearnerConfig>, seed: u64) -> Self {
        Self {
            director: Director::new(config, seed),
            waiting: FxHashMap::default(),
            learner: learner.map(Learner::new),
            candidate: None,
            wakeup: None,
        }
    }

    pub(super) fn set_pool(&mut self, now: Duration, endpoints: Vec<Arc<Endpoint>>) {
        self.director.set_pool(now, Arc::new(Pool { endpoints }));
    }

    // --- the queue's clock ---

    /// When the director has to be woken, if that is not yet on the agenda.
    pub(super) fn wakeup_due(&mut self) -> Option<Duration> {
        let due = self.director.next_wakeup()?;
        let sooner = self.wakeup.is_none_or(|planned| due < planned);
        sooner.then(|| *self.wakeup.insert(due))
    }

    pub(super) fn wake(&mut self, now: Duration) {
        if self.wakeup.is_some_and(|planned| planned <= now) {
            self.wakeup = None;
        }
        self.director.advance(now);
    }

    // --- learning ---

    /// Learns labels; returns when the refit that they made due comes into force.
    pub(super) fn learn(
        &mut self,
        now: Duration,
        observations: impl IntoIterator<Item = Observation>,
    ) -> Option<Duration> {
        let learner = self.learner.as_mut()?;
        for observation in observations {
            learner.observe(observation);
        }
        let mut in_force = None;
        if self.candidate.is_none() && learner.due(now) {
            self.candidate = Some(learner.fit(now));
            in_force = Some(now + learner.config().install_delay);
        }
        self.director.set_model(Arc::new(learner.model(now)));
        in_force
    }

    pub(super) fn install(&mut self, now: Duration) {
        if let (Some(learner), Some(candidate)) = (&mut self.learner, self.candidate.take()) {
            learner.install(candidate, now);
            self.director.set_model(Arc::new(learner.model(now)));
        }
    }
}

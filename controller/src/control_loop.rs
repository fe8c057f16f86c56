//! Once a second: signals in, decision out.

use std::sync::Arc;
use std::time::Duration;

use controller_core::{Controller, Decision, Policy, Signals};
use runtime::{Clock, Shutdown, Tasks};
use tokio::time::{MissedTickBehavior, interval};

use crate::journal::Journal;
use crate::metrics::DecisionMetrics;

/// Time between two decisions.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Reads everything a decision needs, at the time given.
pub type Source = Box<dyn FnMut(Duration) -> Signals + Send>;
/// Carries a decision out; called for every decision, changed or not.
pub type Act = Box<dyn FnMut(&Decision) + Send>;

/// One controller and what it is connected to.
pub struct ControlLoop {
    /// What to decide by.
    pub policy: Policy,
    /// Where signals come from. Called on a thread that may block.
    pub source: Source,
    /// Where decisions go. Called on the same thread.
    pub act: Act,
    /// Keeps the decisions.
    pub journal: Journal,
    /// Shows the last one.
    pub metrics: DecisionMetrics,
}

impl ControlLoop {
    /// Runs as one of `tasks` until draining begins: a process that ends must not resize anything.
    pub fn spawn(self, clock: Clock, shutdown: Shutdown, tasks: &Tasks) {
        tasks.spawn(self.run(clock, shutdown));
    }

    async fn run(self, clock: Clock, shutdown: Shutdown) {
        let Self {
            policy,
            mut source,
            mut act,
            journal,
            metrics,
        } = self;
        let mut controller = Controller::new(policy);
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = shutdown.draining() => return,
                _ = ticks.tick() => {}
            }
            // Computing a capacity takes milliseconds: not on a thread that carries streams.
            let decided = tokio::task::spawn_blocking(move || {
                let decision = controller.tick(source(clock.now()));
                act(&decision);
                (controller, source, act, Arc::new(decision))
            });
            let decision;
            (controller, source, act, decision) = match decided.await {
                Ok(decided) => decided,
                Err(error) => {
                    tracing::error!(%error, "the control loop ended; the count stays as it is");
                    return;
                }
            };
            if decision.changes() {
                tracing::info!(
                    replicas = decision.replicas,
                    previous = decision.previous,
                    "{decision}"
                );
            } else {
                tracing::debug!(replicas = decision.replicas, "{decision}");
            }
            metrics.record(&decision);
            journal.record(decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use controller_core::signals::{Backlog, Replicas, Totals};
    use controller_core::{Mix, SloTargets};
    use predictor::LatencyModel;
    use tokio::sync::mpsc;

    use super::*;

    fn signals(now: Duration) -> Signals {
        Signals {
            now,
            demand: Totals::default(),
            mix: Mix::default(),
            queued: Backlog {
                requests: 9,
                ..Backlog::default()
            },
            in_flight: 3,
            replicas: Replicas {
                ready: 1,
                ..Replicas::default()
            },
            kv_tokens: None,
            model: Arc::new(LatencyModel::prior()),
        }
    }

    #[tokio::test]
    async fn decisions_are_acted_upon_and_recorded_until_draining() {
        let (sender, mut acted) = mpsc::unbounded_channel();
        let slo = SloTargets {
            percentile: 0.9,
            ttft_ms: 2000.0,
            tpot_ms: 150.0,
        };
        let journal = Journal::new();
        let control = ControlLoop {
            policy: Policy::new("m", slo, 1, 10, Duration::from_secs(6)),
            source: Box::new(signals),
            act: Box::new(move |decision| sender.send(decision.replicas).unwrap()),
            journal: journal.clone(),
            metrics: DecisionMetrics::default(),
        };
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        control.spawn(Clock::start(), shutdown.clone(), &tasks);
        assert_eq!(
            acted.recv().await,
            Some(4),
            "nine queued beside three in flight on one replica"
        );
        shutdown.begin_drain();
        tasks.join().await;
        let last = journal.latest().unwrap();
        assert_eq!((last.previous, last.replicas), (1, 4));
        assert_eq!(acted.recv().await, None, "the loop has ended");
    }
}

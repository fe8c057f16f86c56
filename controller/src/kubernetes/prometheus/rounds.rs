//! Asks Prometheus again and again about the models that no picker of ours tells of.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::Shutdown;

use super::Prometheus;
use crate::kubernetes::demand::Gathering;
use crate::kubernetes::pickers::Now;

/// Between two rounds: several to a scrape at the usual 15 s.
const PERIOD: Duration = Duration::from_secs(5);

/// The rounds, and where answers go.
#[derive(Debug)]
pub struct Rounds {
    /// Whom to ask.
    pub prometheus: Prometheus,
    /// Who wants to know.
    pub gathering: Arc<Mutex<Gathering>>,
    /// The epoch that demand is counted on.
    pub now: Now,
}

impl Rounds {
    /// Asks until `shutdown` is stopped.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            () = self.rounds() => {}
            () = shutdown.stopped() => {}
        }
    }

    async fn rounds(&self) {
        let mut told = String::new();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let subjects = self.gathering.lock().without_pickers();
            if subjects.is_empty() {
                continue;
            }
            let reason = match self.prometheus.ask(&subjects).await {
                Ok(answers) => {
                    let now = self.now.get();
                    self.gathering.lock().prometheus(now, &subjects, &answers);
                    String::new()
                }
                Err(error) => error.to_string(),
            };
            if reason != told && !reason.is_empty() {
                tracing::warn!(error = %reason, "Prometheus is not heard: demand that only it tells of is unknown");
            }
            told = reason;
        }
    }
}

//! One replica of a fleet: an engine, its endpoint, and where it is in its life.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use epp_core::endpoint::{Endpoint, Scraped};
use simulator_core::{Engine, Profile};

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Launched, not yet healthy.
    Starting,
    /// Listed and serving.
    Ready,
    /// Unlisted; finishing what it has.
    Draining,
    /// Gone.
    Gone,
}

/// A replica and the engine inside.
pub(super) struct Replica {
    pub(super) engine: Engine,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) phase: Phase,
    launched: Duration,
    gone: Option<Duration>,
    /// The step whose end is on the agenda, so that it is put there once.
    pub(super) step_due: Option<Duration>,
}

impl Replica {
    /// A replica launched at `now`; `index` gives it a name and an address of its own.
    pub(super) fn launch(index: usize, profile: &Profile, seed: u64, now: Duration) -> Self {
        let address = format!("10.0.{}.{}:8000", index / 250, index % 250 + 1);
        Self {
            engine: Engine::new(profile.clone(), seed),
            endpoint: Arc::new(Endpoint::new(
                &format!("replica-{index}"),
                &address,
                BTreeMap::new(),
            )),
            phase: Phase::Starting,
            launched: now,
            gone: None,
            step_due: None,
        }
    }

    /// What a scrape at `now` reads from the engine.
    pub(super) fn scrape(&self, now: Duration, block_tokens: u32) {
        let load = self.engine.load();
        self.endpoint.set_scraped(Scraped {
            at: now,
            waiting: load.waiting as f32,
            running: load.running as f32,
            kv_utilization: load.kv_usage as f32,
            block_tokens: Some(block_tokens),
            kv_blocks: load.kv_blocks_total,
        });
    }

    /// Whether a drain is over: nothing runs or waits.
    pub(super) fn idle(&self) -> bool {
        let load = self.engine.load();
        load.running == 0 && load.waiting == 0
    }

    /// Ends the replica's life.
    pub(super) fn end(&mut self, now: Duration) {
        self.phase = Phase::Gone;
        self.gone = Some(now);
    }

    /// Seconds it was paid for, up to `now`.
    pub(super) fn seconds(&self, now: Duration) -> f64 {
        (self.gone.unwrap_or(now).saturating_sub(self.launched)).as_secs_f64()
    }
}

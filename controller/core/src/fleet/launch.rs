//! One replica of a fleet: an engine, its endpoint, and where it is in its life.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use epp_core::endpoint::{Endpoint, Scraped};
use simulator_core::{Engine, Profile};

use super::crowding::Crowd;

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
    /// The replica as each picker knows it: what a picker has not dispatched there is not in its counters.
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) phase: Phase,
    /// Requests here, whoever sent them.
    in_flight: usize,
    pub(super) crowd: Crowd,
    launched: Duration,
    gone: Option<Duration>,
    /// The step whose end is on the agenda, so that it is put there once.
    pub(super) step_due: Option<Duration>,
}

impl Replica {
    /// A replica launched at `now`; `index` gives it a name and an address of its own.
    pub(super) fn launch(
        index: usize,
        profile: &Profile,
        pickers: usize,
        seed: u64,
        now: Duration,
    ) -> Self {
        let name = format!("replica-{index}");
        let address = format!("10.0.{}.{}:8000", index / 250, index % 250 + 1);
        let endpoint = |_| Arc::new(Endpoint::new(&name, &address, BTreeMap::new()));
        Self {
            engine: Engine::new(profile.clone(), seed),
            endpoints: (0..pickers).map(endpoint).collect(),
            phase: Phase::Starting,
            in_flight: 0,
            crowd: Crowd::default(),
            launched: now,
            gone: None,
            step_due: None,
        }
    }

    /// What a scrape at `now` reads from the engine.
    pub(super) fn scrape(&self, now: Duration, block_tokens: u32) {
        let load = self.engine.load();
        for endpoint in &self.endpoints {
            endpoint.set_scraped(Scraped {
                at: now,
                waiting: load.waiting as f32,
                running: load.running as f32,
                kv_utilization: load.kv_usage as f32,
                block_tokens: Some(block_tokens),
                kv_blocks: load.kv_blocks_total,
            });
        }
    }

    /// One request more (1) or fewer (−1) from `now` on, where `limit` should be the most.
    pub(super) fn serves(&mut self, now: Duration, change: isize, limit: Option<u32>) {
        self.in_flight = self.in_flight.saturating_add_signed(change);
        self.crowd.follow(now, self.in_flight, limit);
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

//! Where all streams meet: the director behind its lock, those who wait for it, and its timer.

use super::budget::Budget;
use super::evictions::Evictions;
use super::idle::Idleness;
use super::protocol::Rules;
use crate::api::paths::Parsers;
use crate::api::rewrite::Rewrites;
use crate::api::wanted::Wanted;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::{Configured, Telemetry};
use arc_swap::ArcSwap;
use epp_core::Config;
use epp_core::config::Detector;
use epp_core::{
    DemandLedger, Director, Endpoint, EndpointSpec, Objectives, Pool, QueueDepth, QueueGauges,
    Request, Revocations, Slo, StageSaturation, Ticket, Verdict,
};
use parking_lot::Mutex;
use predictor::trainer::Trainer;
use predictor::{LatencyModel, Models};
use runtime::{Clock, Shutdown};
use rustc_hash::FxHashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// Shared by all streams, the pump and the admin server.
#[derive(Debug)]
pub struct Hub {
    /// The picker's clock.
    pub clock: Clock,
    /// Learns from what streams observe.
    pub trainer: Arc<Trainer>,
    /// Metrics.
    pub telemetry: Telemetry,
    /// The last decisions.
    pub decisions: Decisions,
    state: Mutex<State>,
    rules: ArcSwap<Rules>,
    pool: watch::Sender<Arc<Pool>>,
    demand: DemandLedger,
    queue: QueueGauges,
    revocations: Revocations,
    config: ArcSwap<Config>,
    /// When a scrape was last told to the director, milliseconds on the picker's clock.
    scraped_ms: AtomicU64,
    timer: Timer,
    serial: AtomicU64,
    next_any: AtomicUsize,
    /// Whether requests come, and who rests while none do.
    pub(super) idleness: Idleness,
}

#[derive(Debug)]
struct State {
    director: Director,
    models: Arc<Models>,
    waiting: FxHashMap<Ticket, oneshot::Sender<Verdict>>,
    evictions: Evictions,
}

/// When the director wants to be woken; the sleeper is told only of what comes earlier.
#[derive(Debug)]
struct Timer {
    /// Nanoseconds on the picker's clock; `u64::MAX` = never.
    due: AtomicU64,
    earlier: Notify,
}

/// What became of a submission at once.
#[derive(Debug)]
pub enum Submitted {
    /// Decided.
    Decided(Verdict),
    /// Queued; the receiver is told.
    Queued(Ticket, oneshot::Receiver<Verdict>),
}

impl Hub {
    /// A hub around `director`. `first_serial` makes ids of requests without one differ from those of
    /// other processes.
    pub fn new(
        director: Director,
        rules: Rules,
        trainer: Arc<Trainer>,
        telemetry: Telemetry,
        clock: Clock,
        first_serial: u64,
    ) -> Self {
        let demand = director.demand().clone();
        let (queue, revocations) = (
            director.queue_gauges().clone(),
            director.revocations().clone(),
        );
        let config = ArcSwap::from_pointee(director.config().clone());
        let state = State {
            director,
            models: Arc::new(Models::one(LatencyModel::prior())),
            waiting: FxHashMap::default(),
            evictions: Evictions::default(),
        };
        Self {
            clock,
            trainer,
            telemetry,
            decisions: Decisions::default(),
            state: Mutex::new(state),
            rules: ArcSwap::from_pointee(rules),
            pool: watch::Sender::new(Arc::default()),
            demand,
            queue,
            revocations,
            config,
            scraped_ms: AtomicU64::new(0),
            timer: Timer {
                due: AtomicU64::new(u64::MAX),
                earlier: Notify::new(),
            },
            serial: AtomicU64::new(first_serial),
            next_any: AtomicUsize::new(0),
            idleness: Idleness::default(),
        }
    }

    /// The rules for a stream that begins now, and its number.
    pub fn begin(&self) -> (Arc<Rules>, u64) {
        (
            self.rules.load_full(),
            self.serial.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// What arriving request bodies take.
    pub fn bodies(&self) -> Arc<Budget> {
        Arc::clone(&self.rules.load().bodies)
    }

    /// Which APIs are read.
    pub fn parsers(&self) -> Arc<Parsers> {
        Arc::clone(&self.rules.load().parsers)
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Puts another configuration in force, whose text has that `hash`: for streams that begin from now on, and for what
    /// waits to be dispatched. What [`Config::reloadable`] says needs a restart must be the same as before.
    pub(crate) fn set_config(&self, config: Config, hash: Arc<str>) {
        let parsers = Arc::new(Parsers::new(&config.parsers));
        let wanted = Arc::new(Wanted::of(&config));
        // First, so that requests bring what filters and scorers will look for.
        self.rules.rcu(|rules| Rules {
            parsers: Arc::clone(&parsers),
            wanted: Arc::clone(&wanted),
            ..Rules::clone(rules)
        });
        let scores = self.telemetry.configured().scores;
        let configured = Configured::of(&config, hash, scores);
        let config = Arc::new(config);
        self.with_director(|director, now| director.set_config(now, Config::clone(&config)));
        self.config.store(config);
        self.telemetry.set_configured(configured);
        self.refresh_hashing();
    }

    /// The endpoints known now.
    pub fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool.borrow())
    }

    /// The endpoint at `address`.
    pub fn endpoint_at(&self, address: &str) -> Option<Arc<Endpoint>> {
        let pool = self.pool.borrow();
        let mut known = pool.endpoints.iter();
        known
            .find(|endpoint| &*endpoint.address == address)
            .map(Arc::clone)
    }

    /// Follows the endpoints as they change.
    pub fn watch_pool(&self) -> watch::Receiver<Arc<Pool>> {
        self.pool.subscribe()
    }

    /// Everything that arrived and what became of it. Reading it takes no lock of the request path.
    pub fn demand(&self) -> &DemandLedger {
        &self.demand
    }

    /// What is queued, by band. Reading it takes no lock of the request path, and neither do the next three.
    pub fn queued(&self) -> QueueDepth {
        self.queue.depth()
    }

    /// The queue in figures.
    pub fn queue(&self) -> &QueueGauges {
        &self.queue
    }

    /// Evictions in figures.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Share of the pool's room that is taken, stage by stage, as the configured detector sees it.
    pub fn stages(&self) -> StageSaturation {
        StageSaturation::of(&self.config().detector, &self.pool(), self.clock.now())
    }

    /// Share of the pool's room that is taken; `None` = empty or unknown.
    pub fn saturation(&self) -> Option<f64> {
        self.stages().effective
    }

    /// Blocks remembered in the prefix index, over all endpoints.
    pub fn prefix_blocks(&self) -> usize {
        self.state.lock().director.prefix_blocks()
    }

    /// Replaces what holds for requests that say nothing of it themselves: targets where their objective has none
    /// either, and the models that they are sent on under.
    pub fn set_defaults(&self, slo: Slo, rewrites: Rewrites) {
        self.telemetry.requests.exempt(rewrites.models());
        let rewrites = Arc::new(rewrites);
        self.rules.rcu(|rules| Rules {
            default_slo: slo,
            rewrites: Arc::clone(&rewrites),
            ..Rules::clone(rules)
        });
    }

    /// Replaces endpoints and objectives; an endpoint that stays keeps its load.
    pub fn set_endpoints(&self, endpoints: Vec<EndpointSpec>, objectives: Objectives) {
        self.rules.rcu(|rules| Rules {
            objectives: objectives.clone(),
            ..Rules::clone(rules)
        });
        self.pool
            .send_modify(|pool| *pool = Arc::new(pool.updated(endpoints)));
        let pool = self.pool();
        let addresses: Vec<&str> = pool
            .endpoints
            .iter()
            .map(|endpoint| &*endpoint.address)
            .collect();
        self.rules.load().dialects.retain(&addresses);
        self.with_director(|director, now| {
            director.pin_priorities(now, objectives.iter().map(|(_, one)| one.priority));
            director.set_pool(now, pool);
        });
    }

    /// An endpoint's metrics were read: where room shows in them and somebody waits, dispatches what there is room
    /// for. Many reads in one millisecond cost one look.
    pub fn scraped(&self) {
        let config = self.config.load();
        let reads = matches!(config.detector, Detector::Utilization { .. });
        if !reads || self.queue.is_empty() {
            return;
        }
        let now = u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX);
        if self.scraped_ms.swap(now, Ordering::Relaxed) != now {
            self.pump();
        }
    }

    /// Tells the stream of `ticket` when its request is taken off its server, and why. To be forgotten when it ends.
    pub fn follow_eviction(&self, ticket: Ticket) -> oneshot::Receiver<&'static str> {
        self.state.lock().evictions.follow(ticket)
    }

    /// The stream of `ticket` has ended.
    pub fn forget_eviction(&self, ticket: Ticket) {
        self.state.lock().evictions.forget(ticket);
    }

    /// Targets of requests that bring none, where their objective has none either.
    pub fn default_slo(&self) -> Slo {
        self.rules.load().default_slo
    }

    /// Whether latencies are learned: the configuration has a predicted-latency-producer.
    pub fn learns(&self) -> bool {
        self.state
            .lock()
            .director
            .config()
            .predicted_latency
            .is_some()
    }

    /// Engines may have told their block size since: prompts of streams to come are cut accordingly.
    pub fn refresh_hashing(&self) {
        let hashing = self.state.lock().director.prefix_hashing();
        if self.rules.load().hashing != hashing {
            self.rules.rcu(|rules| Rules {
                hashing,
                ..Rules::clone(rules)
            });
        }
    }

    /// Hands a request to the director.
    pub fn submit(&self, now: Duration, request: Request) -> Submitted {
        let mut state = self.state.lock();
        self.refresh_models(&mut state);
        // Under the lock: who comes next finds the hold.
        if self.idleness.request(now) && self.idleness.wake() {
            let hold = self.config.load().metrics.as_ref().map(|it| it.hold);
            let until = now.saturating_add(hold.unwrap_or_default());
            state.director.await_readings(now, until);
        }
        let ticket = state.director.submit(now, request);
        let own = state.deliver(Some(ticket));
        let submitted = match own {
            Some(verdict) => Submitted::Decided(verdict),
            None => {
                let (tell, told) = oneshot::channel();
                state.waiting.insert(ticket, tell);
                Submitted::Queued(ticket, told)
            }
        };
        self.arm(&state);
        submitted
    }

    /// The request behind `ticket` is no longer wanted.
    pub fn withdraw(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        state.waiting.remove(&ticket);
        state.evictions.forget(ticket);
        let now = self.clock.now();
        state.director.cancel(now, ticket);
        // What was dispatched but never read has just given its room back.
        state.director.advance(now);
        state.deliver(None);
        self.arm(&state);
    }

    /// Load was given back, or time passed: dispatches what there is room for and expires what waited too long.
    pub fn pump(&self) {
        let began = self.clock.now();
        self.with_director(|director, now| director.advance(now));
        let took = self.clock.now().saturating_sub(began);
        self.telemetry.dispatch_cycle.observe(took.as_secs_f64());
    }

    /// Refuses everything queued; for the end of a drain.
    pub fn refuse_queued(&self) {
        self.with_director(|director, now| director.drain(now));
    }

    /// Lets the director do something, and carries out what it decides on.
    pub(crate) fn with_director(&self, act: impl FnOnce(&mut Director, Duration)) {
        let mut state = self.state.lock();
        self.refresh_models(&mut state);
        act(&mut state.director, self.clock.now());
        state.deliver(None);
        self.arm(&state);
    }

    fn refresh_models(&self, state: &mut State) {
        let models = self.trainer.models();
        if !Arc::ptr_eq(&models, &state.models) {
            state.models = Arc::clone(&models);
            state.director.set_models(models);
        }
    }

    fn arm(&self, state: &State) {
        self.idleness.wanted(!state.waiting.is_empty());
        let due = state.director.next_wakeup().map_or(u64::MAX, |at| {
            u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
        });
        if due < self.timer.due.fetch_min(due, Ordering::AcqRel) {
            self.timer.earlier.notify_one();
        }
    }

    /// Wakes the director when it wants to be woken, until `shutdown` is stopped.
    pub async fn keep_time(&self, shutdown: Shutdown) {
        loop {
            let due = self.timer.due.load(Ordering::Acquire);
            let sleep = async {
                match due {
                    u64::MAX => std::future::pending().await,
                    due => {
                        tokio::time::sleep_until(self.clock.instant(Duration::from_nanos(due)))
                            .await
                    }
                }
            };
            tokio::select! {
                () = sleep => {
                    self.timer.due.store(u64::MAX, Ordering::Release);
                    self.pump();
                }
                () = self.timer.earlier.notified() => {}
                () = shutdown.stopped() => return,
            }
        }
    }

    /// Any endpoint among `subset` (`None` = all), in turn.
    pub fn any_endpoint(&self, subset: Option<&[String]>) -> Option<Arc<str>> {
        let pool = self.pool.borrow();
        let allowed: Vec<IpAddr> = subset
            .unwrap_or_default()
            .iter()
            .filter_map(|address| ip_of(address))
            .collect();
        let fits =
            |ip: Option<IpAddr>| subset.is_none() || ip.is_some_and(|ip| allowed.contains(&ip));
        let count = pool.endpoints.len();
        let start = self.next_any.fetch_add(1, Ordering::Relaxed);
        (0..count)
            .filter_map(|offset| pool.endpoints.get(start.wrapping_add(offset) % count))
            .find(|endpoint| fits(endpoint.ip))
            .map(|endpoint| Arc::clone(&endpoint.address))
    }
}

/// The IP part of `ip:port`, or of a bare `ip`.
fn ip_of(address: &str) -> Option<IpAddr> {
    address
        .parse::<SocketAddr>()
        .map(|socket| socket.ip())
        .or_else(|_| address.parse())
        .ok()
}

impl State {
    /// Empties the director's outbox; the verdict on `own` is returned, the others go to who waits.
    fn deliver(&mut self, own: Option<Ticket>) -> Option<Verdict> {
        let mut found = None;
        while let Some((ticket, verdict)) = self.director.poll() {
            if Some(ticket) == own {
                found = Some(verdict);
            } else if let Some(waiting) = self.waiting.remove(&ticket) {
                // A receiver that is gone drops the verdict, and the load it reserved with it.
                drop(waiting.send(verdict));
            }
        }
        while let Some((ticket, reason)) = self.director.poll_eviction() {
            self.evictions.evict(ticket, reason);
        }
        found
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
pub(crate) mod tests;

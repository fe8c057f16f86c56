//! The whole request path, sans-IO: submit → queue → route → verdict.

mod dispatch;
pub(crate) mod evict;
mod hold;
mod reload;
mod revocations;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use predictor::{LatencyModel, Models};

use crate::config::{Config, Detector, FlowConfig};
use crate::decision::Decision;
use crate::demand::DemandLedger;
use crate::endpoint::Endpoint;
use crate::flow::{
    Charge, DrainRate, Limits, PassedOver, Queue, QueueDepth, QueueGauges, Saturation,
    StageSaturation, Waiting,
};
use crate::in_flight::InFlight;
use crate::outcome::{Outcome, Refusal};
use crate::peers::{BandUse, Chain};
use crate::pool::Pool;
use crate::prefix::PrefixHashing;
use crate::request::Request;
use crate::router::Router;
use crate::stopwatch::Stopwatch;
use evict::{Reclaim, Stop};
use hold::Hold;
pub use revocations::{CONFIRMATION_BOUNDS, Confirmations, Revocations};

/// How soon to look again when room may show in scrapes, learned limits or running requests, for callers that do not
/// tell of them.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How soon to look again when a band that is closed may be open the next time.
const CYCLE: Duration = Duration::from_millis(1);
/// Time between two looks for flows and bands that nobody uses.
const SWEEP: Duration = Duration::from_secs(30);

/// Names one submitted request until its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(crate) number: u64,
    pub(crate) band: i32,
}

impl Ticket {
    /// Unique per director, ascending in order of submission.
    pub fn number(self) -> u64 {
        self.number
    }
}

/// What becomes of a request. Each ticket gets exactly one.
#[derive(Debug)]
pub enum Verdict {
    /// Send it there.
    Dispatched(Box<Dispatch>),
    /// Answer it with an error.
    Refused(Refusal),
}

/// A dispatched request.
#[derive(Debug)]
pub struct Dispatch {
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// Where to if that fails, best first; its load is not reserved.
    pub fallbacks: Vec<Arc<Endpoint>>,
    /// Time spent queued.
    pub waited: Duration,
    /// Why there.
    pub decision: Decision,
    /// The load reserved there. Keep it exactly as long as the stream.
    pub in_flight: InFlight,
    /// What the client may be told; `None` = the configuration does not say so.
    pub advice: Option<Advice>,
}

/// How the queue did when a request was dispatched, for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Time that the request was queued for.
    pub queued: Duration,
    /// Requests that its band still had room for.
    pub band_room: u64,
}

/// Decides over requests. One owner; everything it needs is passed in, time included.
#[derive(Debug)]
pub struct Director {
    router: Router,
    /// With flow control off it holds requests only while there is no endpoint, or is not there at all.
    queue: Option<Queue>,
    drain_rate: DrainRate,
    ledger: DemandLedger,
    outbox: VecDeque<(Ticket, Verdict)>,
    evictions: VecDeque<(Ticket, &'static str)>,
    reclaim: Reclaim,
    gauges: QueueGauges,
    submitted: u64,
    /// Requests dispatched.
    dispatched: u64,
    /// What the last pass found, as long as it holds.
    closed: Option<Closed>,
    /// Where the last pass stopped, if requests may be evicted for who waits there.
    stop: Option<Stop>,
    /// A band that is closed may be open the next time.
    alternating: bool,
    /// Those who wait for fresh readings, while such are on their way.
    hold: Option<Hold>,
    /// Somebody found no room although the pool has some: metrics, first tokens and deadlines that nobody tells the
    /// director of may change that.
    roomless: bool,
    /// Buffer of one pass.
    passed: Vec<PassedOver>,
    /// The latest instant seen.
    now: Duration,
    next_sweep: Duration,
    draining: bool,
}

/// The pool is too full for a band, and for all below it, until a stream ends.
#[derive(Clone, Copy, Debug)]
struct Closed {
    band: i32,
    /// Streams ended, and limits risen, when it was found.
    freed: u64,
}

impl Director {
    /// A director in front of an empty pool with an untrained model. `seed` decides all ties.
    pub fn new(config: Config, seed: u64) -> Self {
        let limits = || Limits::new(config.usage_limit.clone());
        let queue = config.queue().map(|flow| Queue::new(flow, limits()));
        let ledger = DemandLedger::default();
        ledger.keep_flows(config.flow.iter().flat_map(FlowConfig::weighted_flows));
        Self {
            gauges: queue
                .as_ref()
                .map(Queue::gauges)
                .cloned()
                .unwrap_or_default(),
            queue,
            reclaim: Reclaim::new(&config),
            router: Router::new(config, seed),
            drain_rate: DrainRate::default(),
            ledger,
            outbox: VecDeque::new(),
            evictions: VecDeque::new(),
            submitted: 0,
            dispatched: 0,
            closed: None,
            stop: None,
            alternating: false,
            hold: None,
            roomless: false,
            passed: Vec::new(),
            now: Duration::ZERO,
            next_sweep: SWEEP,
            draining: false,
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        self.router.config()
    }

    /// Lends a stopwatch, so that recorded picks tell how long their steps took.
    pub fn lend(&mut self, watch: Stopwatch) {
        self.router.lend(watch);
    }

    /// The pool in force.
    pub fn pool(&self) -> &Arc<Pool> {
        self.router.pool()
    }

    /// Puts another pool in force and dispatches what it has room for.
    pub fn set_pool(&mut self, now: Duration, pool: Arc<Pool>) {
        self.tick(now);
        let empty = pool.is_empty();
        self.router.set_pool(pool);
        self.closed = None;
        if let Some(queue) = &mut self.queue {
            queue.set_starved(now, empty);
        }
        self.expire(now);
        self.dispatch(now);
        self.reclaim(now);
    }

    /// Bands of these priorities, which objectives name, exist from now on and are kept however long they are empty.
    pub fn pin_priorities(&mut self, now: Duration, priorities: impl IntoIterator<Item = i32>) {
        self.tick(now);
        if let Some(queue) = &mut self.queue {
            queue.pin(priorities.into_iter().collect::<BTreeSet<_>>());
            // A policy may give bands other ceilings when there are more of them.
            self.closed = None;
        }
    }

    /// Puts other latency models in force, from the next request on: each endpoint is judged by that of its class.
    pub fn set_models(&mut self, models: Arc<Models>) {
        self.router.set_models(models);
    }

    /// Puts one latency model in force for endpoints of every class.
    pub fn set_model(&mut self, model: Arc<LatencyModel>) {
        self.set_models(Arc::new(Models::one(LatencyModel::clone(&model))));
    }

    /// Keeps note of the prompts that are sent to endpoints, for [`Director::take_sent`].
    pub fn share_prefixes(&mut self) {
        self.router.share_prefixes();
    }

    /// The prompts that were sent to endpoints since the last call, as far as there was room for them.
    pub fn take_sent(&mut self) -> Vec<Chain> {
        self.router.take_sent()
    }

    /// Other pickers told what they have in flight and which prompts they sent where, by slot of the pool in force.
    pub fn learn_elsewhere(&mut self, now: Duration, prompts: &[(usize, Chain)]) {
        self.tick(now);
        for (slot, chain) in prompts {
            self.router.learn_elsewhere(*slot, chain);
        }
        // They may have given room back.
        self.closed = None;
        self.dispatch(now);
        self.reclaim(now);
    }

    /// What other pickers have queued, by band: it counts against the limits of this one's queue.
    pub fn set_queued_elsewhere(&mut self, bands: BTreeMap<i32, BandUse>) {
        if let Some(queue) = &mut self.queue {
            queue.set_elsewhere(bands);
        }
    }

    /// Takes a request in. Its verdict comes through [`Director::poll`], often at once.
    pub fn submit(&mut self, now: Duration, request: Request) -> Ticket {
        self.tick(now);
        let band = self.band(request.priority);
        let ticket = Ticket {
            number: self.submitted,
            band,
        };
        self.submitted += 1;
        let counters = self.ledger.band(band, request.sheddable());
        counters.offered(request.prompt_tokens, request.slo.is_set());
        let account = self.ledger.flow(band, &request.flow, now);
        account.offered(request.prompt_tokens);
        let subset = request.subset.as_deref().map(addresses);
        let waiting = Box::new(Waiting {
            request,
            counters,
            account,
            subset,
            arrived: now,
            charge: Charge::default(),
        });
        if let Some(waiting) = self.kept_back(now, ticket, waiting) {
            self.admit(now, ticket, waiting);
            self.reclaim(now);
        }
        ticket
    }

    /// The band that requests of `priority` join.
    fn band(&mut self, priority: i32) -> i32 {
        let Some(queue) = &mut self.queue else {
            return priority;
        };
        let before = queue.bands();
        let band = queue.band(priority);
        if queue.bands() != before {
            self.closed = None;
        }
        band
    }

    /// The client of a queued request left. Without effect once the request has its verdict.
    pub fn cancel(&mut self, now: Duration, ticket: Ticket) {
        self.tick(now);
        let outcome = Outcome::EvictedContextCancelled;
        let message = "the client left while queued";
        if let Some(waiting) = self.hold.as_mut().and_then(|hold| hold.remove(ticket)) {
            return self.refuse(ticket, &waiting, outcome, None, message);
        }
        let Some(queue) = &mut self.queue else { return };
        let leads = queue.leads(ticket);
        let Some(waiting) = queue.remove(now, ticket) else {
            return;
        };
        self.refuse(ticket, &waiting, outcome, None, message);
        if leads {
            // Others may have waited behind it.
            self.dispatch(now);
            self.reclaim(now);
        }
    }

    /// Expires and dispatches whatever is due at `now`. Call it after a stream ended, and on
    /// [`Director::next_wakeup`].
    pub fn advance(&mut self, now: Duration) {
        self.tick(now);
        self.release_due(now);
        self.expire(now);
        self.dispatch(now);
        self.reclaim(now);
    }

    /// When [`Director::advance`] is needed next, if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let hold = self.hold.as_ref().map(Hold::until);
        let queue = self.queue_wakeup();
        hold.into_iter().chain(queue).min()
    }

    fn queue_wakeup(&self) -> Option<Duration> {
        let queue = self.queue.as_ref().filter(|queue| !queue.is_empty())?;
        // Scrapes and learned limits change without the director being told.
        let unseen = !matches!(self.config().detector, Detector::Concurrency(_)) || self.roomless;
        let unseen = unseen && !queue.starved();
        let soon = |wanted: bool, after: Duration| wanted.then(|| self.now.saturating_add(after));
        let due = [
            queue.next_deadline(),
            soon(unseen, LOOK_AGAIN),
            soon(self.alternating, CYCLE),
            self.reclaim.next_wakeup(),
        ];
        due.into_iter().flatten().min()
    }

    /// The next verdict, oldest first.
    pub fn poll(&mut self) -> Option<(Ticket, Verdict)> {
        self.outbox.pop_front()
    }

    /// A request in flight that is to be taken off its server, and the reason that its client is told. It still holds
    /// its room until its stream has ended, with [`crate::End::Evicted`].
    pub fn poll_eviction(&mut self) -> Option<(Ticket, &'static str)> {
        self.evictions.pop_front()
    }

    /// Begins shutdown: refuses what is queued and whatever still arrives. Streams in flight are not touched.
    pub fn drain(&mut self, now: Duration) {
        self.tick(now);
        self.draining = true;
        // Each is told the same as who arrives now.
        self.release(now);
        while let Some(queue) = &mut self.queue {
            let first = queue.first(now);
            let Some((ticket, waiting)) =
                first.and_then(|ticket| Some((ticket, queue.remove(now, ticket)?)))
            else {
                return;
            };
            let message = "the endpoint picker is shutting down";
            self.refuse(ticket, &waiting, Outcome::EvictedOther, None, message);
        }
    }

    /// Everything that arrived and what became of it. Clone it to read without the director.
    pub fn demand(&self) -> &DemandLedger {
        &self.ledger
    }

    /// What is queued, by band; empty when flow control is off.
    pub fn queued(&self) -> QueueDepth {
        self.gauges.depth()
    }

    /// What is queued, to be read without the director.
    pub fn queue_gauges(&self) -> &QueueGauges {
        &self.gauges
    }

    /// Evictions, to be read without the director.
    pub fn revocations(&self) -> &Revocations {
        self.reclaim.counts()
    }

    /// Tokens that each flow was served under `program-aware-fairness`, weighted and with the past fading: priority
    /// of the band, fairness id, tokens.
    pub fn attained_service(&self, now: Duration) -> Vec<(i32, Arc<str>, f64)> {
        let queue = self.queue.as_ref();
        queue.map(|queue| queue.attained(now)).unwrap_or_default()
    }

    /// Saturation of the pool: 1 = the configured capacity is in use, may exceed 1. `None` = empty or unknown.
    pub fn saturation(&mut self, now: Duration) -> Option<f64> {
        self.router.observe();
        match self.router.saturation(now) {
            Saturation::Level(level) => Some(level),
            Saturation::Empty | Saturation::Unknown => None,
        }
    }

    /// The same stage by stage.
    pub fn stage_saturation(&self, now: Duration) -> StageSaturation {
        StageSaturation::of(&self.config().detector, self.pool(), now)
    }

    /// How prompts are to be hashed; changes when engines have told their block size.
    pub fn prefix_hashing(&self) -> PrefixHashing {
        match (&self.config().prefix, self.router.block_tokens()) {
            (Some(prefix), Some(block_tokens)) => PrefixHashing {
                block_tokens,
                max_blocks: prefix.max_prefix_blocks_to_match,
                max_tokens: prefix.max_prefix_tokens_to_match,
            },
            _ => PrefixHashing {
                block_tokens: crate::prefix::MIN_BLOCK_TOKENS,
                max_blocks: 0,
                max_tokens: 0,
            },
        }
    }

    /// Blocks remembered in the prefix index, over all endpoints.
    pub fn prefix_blocks(&self) -> usize {
        self.router.prefix_blocks()
    }

    /// Time has come to `now`.
    fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if let Some(queue) = &self.queue {
            // Without an endpoint a queue stands still whatever its servers can do.
            self.drain_rate
                .advance(now, !queue.is_empty() && !queue.starved());
        }
        self.reclaim.progress(now);
        if now >= self.next_sweep {
            self.next_sweep = now.saturating_add(SWEEP);
            if self.queue.as_mut().is_some_and(|queue| queue.sweep(now)) {
                self.closed = None;
            }
            self.ledger.forget_idle_flows(now);
        }
    }

    /// Refuses what has waited longer than it may.
    fn expire(&mut self, now: Duration) {
        while let Some(queue) = &mut self.queue {
            let Some(ticket) = queue.expired(now) else {
                return;
            };
            let (outcome, message) = if queue.starved() {
                (
                    Outcome::EvictedNoEndpoints,
                    "no endpoint became ready while the request was queued",
                )
            } else {
                (
                    Outcome::EvictedTtl,
                    "the request was queued longer than its time to live",
                )
            };
            let Some(waiting) = queue.remove(now, ticket) else {
                return;
            };
            let wait = self.drain_rate.wait(now, queue.len());
            self.refuse(ticket, &waiting, outcome, wait, message);
        }
    }
}

/// The IP parts of a subset hint; entries that hold none are left out, so that they match nothing.
fn addresses(subset: &[String]) -> Vec<IpAddr> {
    let ip = |entry: &String| {
        let entry = entry.trim();
        let socket = entry.parse::<SocketAddr>().map(|socket| socket.ip());
        socket
            .or_else(|_| entry.trim_matches(['[', ']']).parse::<IpAddr>())
            .ok()
    };
    subset.iter().filter_map(ip).collect()
}

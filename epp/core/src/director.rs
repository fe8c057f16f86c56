//! The whole request path, sans-IO: submit → queue → route → verdict.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use predictor::{LatencyModel, Models};

use crate::config::{Config, Detector};
use crate::decision::Decision;
use crate::demand::{DemandLedger, Totals};
use crate::endpoint::Endpoint;
use crate::flow::{DrainRate, Full, Queue, QueueDepth, Saturation, Waiting};
use crate::in_flight::InFlight;
use crate::outcome::{Outcome, Refusal};
use crate::pool::Pool;
use crate::prefix::PrefixHashing;
use crate::request::Request;
use crate::router::{Among, Offer, Router};
use crate::stopwatch::Stopwatch;

/// Queued requests with a subset that is full which a dispatch pass looks past: their endpoints are full for
/// everybody, so nothing behind them can take their room.
const MAX_PASSED_OVER: usize = 32;
/// How soon to look again when room shows only in scrapes, which the director is not told of.
const SCRAPE_POLL: Duration = Duration::from_millis(10);

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
    submitted: u64,
    /// The latest instant seen.
    now: Duration,
    draining: bool,
}

impl Director {
    /// A director in front of an empty pool with an untrained model. `seed` decides all ties.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            queue: config.queue().map(Queue::new),
            router: Router::new(config, seed),
            drain_rate: DrainRate::default(),
            ledger: DemandLedger::default(),
            outbox: VecDeque::new(),
            submitted: 0,
            now: Duration::ZERO,
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
        if let Some(queue) = &mut self.queue {
            queue.set_starved(now, empty);
        }
        self.expire(now);
        self.dispatch(now);
    }

    /// Puts other latency models in force, from the next request on: each endpoint is judged by that of its class.
    pub fn set_models(&mut self, models: Arc<Models>) {
        self.router.set_models(models);
    }

    /// Puts one latency model in force for endpoints of every class.
    pub fn set_model(&mut self, model: Arc<LatencyModel>) {
        self.set_models(Arc::new(Models::one(LatencyModel::clone(&model))));
    }

    /// Takes a request in. Its verdict comes through [`Director::poll`], often at once.
    pub fn submit(&mut self, now: Duration, request: Request) -> Ticket {
        self.tick(now);
        let band = self
            .queue
            .as_mut()
            .map_or(request.priority, |queue| queue.band(request.priority));
        let ticket = Ticket {
            number: self.submitted,
            band,
        };
        self.submitted += 1;
        let counters = self.ledger.band(band, request.sheddable());
        counters.offered(request.prompt_tokens, request.slo.is_set());
        let subset = request.subset.as_deref().map(addresses);
        let waiting = Box::new(Waiting {
            request,
            counters,
            subset,
            arrived: now,
        });
        if self.draining {
            self.refuse(
                ticket,
                &waiting,
                Outcome::RejectedOther,
                None,
                "the endpoint picker is shutting down",
            );
            return ticket;
        }
        let queues = self.config().flow_control();
        match self
            .queue
            .as_mut()
            .filter(|queue| queues || queue.starved())
        {
            None => self.dispatch_at_once(now, ticket, waiting),
            Some(queue) => match queue.push(ticket, waiting) {
                Err((waiting, full)) => self.refuse_full(now, ticket, &waiting, full),
                Ok(()) => {
                    self.expire(now);
                    self.dispatch(now);
                    self.review_arrival(now, ticket);
                }
            },
        }
        ticket
    }

    /// The client of a queued request left. Without effect once the request has its verdict.
    pub fn cancel(&mut self, now: Duration, ticket: Ticket) {
        self.tick(now);
        if let Some(waiting) = self.queue.as_mut().and_then(|queue| queue.remove(ticket)) {
            self.refuse(
                ticket,
                &waiting,
                Outcome::EvictedContextCancelled,
                None,
                "the client left while queued",
            );
            // It may have been the head that others waited behind.
            self.dispatch(now);
        }
    }

    /// Expires and dispatches whatever is due at `now`. Call it after a stream ended, and on
    /// [`Director::next_wakeup`].
    pub fn advance(&mut self, now: Duration) {
        self.tick(now);
        self.expire(now);
        self.dispatch(now);
    }

    /// When [`Director::advance`] is needed next, if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let queue = self.queue.as_ref().filter(|queue| !queue.is_empty())?;
        let scraped =
            matches!(self.config().detector, Detector::Utilization { .. }) && !queue.starved();
        let poll = scraped.then(|| self.now.saturating_add(SCRAPE_POLL));
        [queue.next_deadline(), poll].into_iter().flatten().min()
    }

    /// The next verdict, oldest first.
    pub fn poll(&mut self) -> Option<(Ticket, Verdict)> {
        self.outbox.pop_front()
    }

    /// Begins shutdown: refuses what is queued and whatever still arrives. Streams in flight are not touched.
    pub fn drain(&mut self, now: Duration) {
        self.tick(now);
        self.draining = true;
        while let Some(ticket) = self.queue.as_ref().and_then(|queue| queue.next(None)) {
            let Some(waiting) = self.queue.as_mut().and_then(|queue| queue.remove(ticket)) else {
                return;
            };
            self.refuse(
                ticket,
                &waiting,
                Outcome::EvictedOther,
                None,
                "the endpoint picker is shutting down",
            );
        }
    }

    /// Everything that arrived and what became of it. Clone it to read without the director.
    pub fn demand(&self) -> &DemandLedger {
        &self.ledger
    }

    /// What is queued, by band; empty when flow control is off.
    pub fn queued(&self) -> QueueDepth {
        self.queue.as_ref().map(Queue::depth).unwrap_or_default()
    }

    /// Saturation of the pool: 1 = the configured capacity is in use, may exceed 1. `None` = empty or unknown.
    pub fn saturation(&mut self, now: Duration) -> Option<f64> {
        self.router.observe();
        match self.router.saturation(now) {
            Saturation::Level(level) => Some(level),
            Saturation::Empty | Saturation::Unknown => None,
        }
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
            let Some(waiting) = queue.remove(ticket) else {
                return;
            };
            let wait = self.drain_rate.wait(now, queue.depth().total().requests);
            self.refuse(ticket, &waiting, outcome, wait, message);
        }
    }

    /// Dispatches queued requests, strictly highest band first, while the pool has room. A head without room
    /// stops the pass for everybody behind it, unless only its own subset is full.
    fn dispatch(&mut self, now: Duration) {
        let (mut cursor, mut passed_over) = (None, 0);
        while let Some(queue) = &mut self.queue {
            let Some(ticket) = queue.next(cursor) else {
                return;
            };
            if !self.router.config().flow_control() {
                let held = (!queue.starved()).then(|| queue.remove(ticket)).flatten();
                let Some(waiting) = held else { return };
                self.dispatch_at_once(now, ticket, waiting);
                continue;
            }
            self.router.observe();
            if !self
                .router
                .saturation(now)
                .admits(self.router.config().ceiling)
            {
                return;
            }
            let Some(waiting) = queue.get(ticket) else {
                return;
            };
            let waited = now.saturating_sub(waiting.arrived);
            let offer = self.router.offer(now, waiting, waited, Among::WithRoom);
            if offer == Offer::NoRoom {
                passed_over += 1;
                if waiting.subset.is_none() || passed_over > MAX_PASSED_OVER {
                    return;
                }
                cursor = Some(ticket);
                continue;
            }
            let Some(waiting) = queue.remove(ticket) else {
                return;
            };
            if waited > Duration::ZERO && matches!(offer, Offer::Go | Offer::Hopeless { .. }) {
                self.drain_rate.dispatched(now);
            }
            self.settle(now, ticket, waiting, offer);
        }
    }

    /// A request that was not dispatched on arrival is refused now if its subset is empty, or if it is
    /// sheddable and its expected wait leaves no endpoint time to meet its SLO.
    fn review_arrival(&mut self, now: Duration, ticket: Ticket) {
        let Some(queue) = &self.queue else { return };
        let Some(waiting) = queue.get(ticket).filter(|_| !queue.starved()) else {
            return;
        };
        let may_shed = self.router.config().slo_admitter.is_some()
            && waiting.request.sheddable()
            && waiting.request.slo.is_set();
        if !may_shed && waiting.subset.is_none() {
            return;
        }
        let expected = self
            .drain_rate
            .wait(now, queue.ahead_of(ticket))
            .unwrap_or_default();
        self.router.observe();
        let offer = self.router.offer(now, waiting, expected, Among::Ever);
        let refused = match offer {
            Offer::NoEndpoint | Offer::Barred(_) => true,
            Offer::Hopeless { .. } => may_shed,
            Offer::NoRoom | Offer::Go => false,
        };
        if refused && let Some(waiting) = self.queue.as_mut().and_then(|queue| queue.remove(ticket))
        {
            self.settle(now, ticket, waiting, offer);
        }
    }

    /// Flow control off: sheddable requests are refused while the pool is full, all others go through.
    fn dispatch_at_once(&mut self, now: Duration, ticket: Ticket, waiting: Box<Waiting>) {
        self.router.observe();
        let saturation = self.router.saturation(now);
        if saturation == Saturation::Empty {
            return self.refuse(
                ticket,
                &waiting,
                Outcome::RejectedNoEndpoints,
                None,
                "the pool has no endpoint",
            );
        }
        if waiting.request.priority < 0 && !saturation.admits(self.router.config().ceiling) {
            let message = "the pool is saturated and the request is sheddable";
            return self.refuse(ticket, &waiting, Outcome::RejectedCapacity, None, message);
        }
        let waited = now.saturating_sub(waiting.arrived);
        let offer = self.router.offer(now, &waiting, waited, Among::Now);
        self.settle(now, ticket, waiting, offer);
    }

    /// Turns an offer into the request's verdict. The request is out of the queue.
    fn settle(&mut self, now: Duration, ticket: Ticket, waiting: Box<Waiting>, offer: Offer) {
        let sheds = self.router.config().slo_admitter.is_some() && waiting.request.sheddable();
        match offer {
            Offer::NoEndpoint => {
                let message = "no endpoint of the pool is among those the proxy offers";
                self.refuse(
                    ticket,
                    &waiting,
                    Outcome::RejectedNoEndpoints,
                    None,
                    message,
                );
            }
            Offer::Barred(message) => {
                self.refuse(ticket, &waiting, Outcome::RejectedCapacity, None, message);
            }
            Offer::NoRoom => {
                let message = "every endpoint was filtered out as full";
                self.refuse(ticket, &waiting, Outcome::RejectedCapacity, None, message);
            }
            Offer::Hopeless { over_ms } if sheds => {
                let wait = Duration::try_from_secs_f64(over_ms / 1e3).ok();
                let message = "no endpoint is predicted to meet the latency objective in time";
                self.refuse(ticket, &waiting, Outcome::RejectedSlo, wait, message);
            }
            Offer::Hopeless { .. } | Offer::Go => {
                let expected_miss = offer != Offer::Go;
                match self
                    .router
                    .dispatch(now, waiting, expected_miss, &self.ledger)
                {
                    Ok(dispatch) => self
                        .outbox
                        .push_back((ticket, Verdict::Dispatched(dispatch))),
                    Err(waiting) => self.settle(now, ticket, waiting, Offer::NoRoom),
                }
            }
        }
    }

    fn refuse_full(&mut self, now: Duration, ticket: Ticket, waiting: &Waiting, full: Full) {
        let starved = self.queue.as_ref().is_some_and(Queue::starved);
        let outcome = if starved {
            Outcome::RejectedNoEndpoints
        } else {
            Outcome::RejectedCapacity
        };
        let message = match full {
            Full::Requests(most) => format!("the queue is full: {most} requests"),
            Full::Bytes(most) => format!("the queue is full: {most} bytes"),
        };
        let wait = self.drain_rate.wait(now, self.queued().total().requests);
        self.refuse(ticket, waiting, outcome, wait, message);
    }

    fn refuse(
        &mut self,
        ticket: Ticket,
        waiting: &Waiting,
        outcome: Outcome,
        wait: Option<Duration>,
        message: impl Into<String>,
    ) {
        let prompt_tokens = u64::from(waiting.request.prompt_tokens);
        waiting.counters.ended(
            outcome,
            Totals {
                prompt_tokens,
                ..Totals::default()
            },
        );
        self.outbox.push_back((
            ticket,
            Verdict::Refused(Refusal::new(outcome, wait, message)),
        ));
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

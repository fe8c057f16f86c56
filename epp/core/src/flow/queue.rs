//! The queue itself: bands by priority, deadlines.

mod caps;
mod reload;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::account::FlowAccount;
use super::band::{Band, PassedOver};
use super::fairness::{Charge, Place};
use super::gauges::QueueGauges;
use super::held::{Full, Held};
use super::ordering;
use super::saturation::Saturation;
use super::usage_limit::Limits;
use crate::config::{BandConfig, FlowConfig};
use crate::demand::BandCounters;
use crate::director::Ticket;
use crate::request::Request;

/// Bands that may exist at once. Priorities come from objectives, which are configuration, but a file that is
/// edited for months must not grow the queue without bound.
const MAX_BANDS: usize = 64;
/// A band that nothing names is forgotten when it was empty for this long.
const BAND_IDLE: Duration = Duration::from_secs(600);

/// A request that waits for its verdict.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    pub(crate) counters: Arc<BandCounters>,
    pub(crate) account: Arc<FlowAccount>,
    /// `request.subset` as addresses.
    pub(crate) subset: Option<Vec<IpAddr>>,
    pub(crate) arrived: Duration,
    /// What its dispatch costs its flow.
    pub(crate) charge: Charge,
}

/// Who is next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Head {
    /// Nobody.
    Nobody,
    /// Somebody of a band that the pool is too full for; nobody below goes before them.
    Closed { band: i32, ceiling: f64 },
    /// This request, unless there is no room for it.
    Next { over: PassedOver, ceiling: f64 },
}

/// Bands of flows under common caps.
#[derive(Debug)]
pub(crate) struct Queue {
    config: FlowConfig,
    limits: Limits,
    bands: BTreeMap<Reverse<i32>, Band>,
    /// Their priorities, highest first.
    priorities: Vec<i32>,
    /// By number of arrival.
    items: FxHashMap<u64, Queued>,
    /// Earliest first; tickets are unique, so two equal deadlines stay apart.
    deadlines: BTreeSet<(Duration, Ticket)>,
    total: Held,
    /// What the bands that live off the common budget of sheddable traffic hold.
    shared: Held,
    gauges: QueueGauges,
    /// What other pickers hold, by band: all of it, and that of bands that share one budget.
    elsewhere: BTreeMap<i32, Held>,
    elsewhere_total: Held,
    elsewhere_shared: Held,
    /// Whether the pool is without endpoints, and since when it is (or is not).
    starved: bool,
    regime_since: Duration,
    /// Priorities that objectives name: their bands are kept.
    named: BTreeSet<i32>,
}

#[derive(Debug)]
struct Queued {
    waiting: Box<Waiting>,
    band: i32,
    flow: u32,
    /// Where it stands in its flow.
    place: Place,
    deadline: Option<Duration>,
}

impl Queue {
    /// An empty queue in front of an empty pool.
    pub(crate) fn new(config: FlowConfig, limits: Limits) -> Self {
        let gauges = QueueGauges::new(config.max_requests, config.max_bytes);
        let mut queue = Self {
            limits,
            bands: BTreeMap::new(),
            priorities: Vec::new(),
            items: FxHashMap::default(),
            deadlines: BTreeSet::new(),
            total: Held::default(),
            shared: Held::default(),
            gauges,
            elsewhere: BTreeMap::new(),
            elsewhere_total: Held::default(),
            elsewhere_shared: Held::default(),
            starved: true,
            regime_since: Duration::ZERO,
            named: BTreeSet::new(),
            config,
        };
        queue.create_kept();
        queue
    }

    /// What is queued, to be read without the queue.
    pub(crate) fn gauges(&self) -> &QueueGauges {
        &self.gauges
    }

    fn create(&mut self, priority: i32, pinned: bool) {
        if let Some(band) = self.bands.get_mut(&Reverse(priority)) {
            band.pinned |= pinned;
            return;
        }
        let config = self.config.band(priority);
        let gauge = self
            .gauges
            .add(priority, config.max_requests, config.max_bytes);
        let band = Band::new(config.fairness.clone(), gauge, pinned);
        self.bands.insert(Reverse(priority), band);
        self.list();
    }

    fn list(&mut self) {
        self.priorities.clear();
        self.priorities.extend(self.bands.keys().map(|band| band.0));
    }

    /// The band a request of that priority joins; it is created when there is still room for one, else the
    /// lowest band (negative priorities) or band 0 takes it, so that nobody gains by the overflow.
    pub(crate) fn band(&mut self, priority: i32) -> i32 {
        if self.bands.contains_key(&Reverse(priority)) {
            return priority;
        }
        if self.bands.len() < MAX_BANDS {
            self.create(priority, false);
            return priority;
        }
        let lowest = self.priorities.last().copied().unwrap_or(0);
        if priority < 0 { lowest } else { 0 }
    }

    /// Bands of these priorities, and of those configured, are kept however long they are empty; others are not.
    pub(crate) fn pin(&mut self, priorities: BTreeSet<i32>) {
        self.named = priorities;
        for (priority, band) in &mut self.bands {
            let configured = priority.0 == 0 || self.config.bands.contains_key(&priority.0);
            band.pinned = configured || self.named.contains(&priority.0);
        }
        self.create_kept();
    }

    /// Makes the bands that are kept however long they are empty.
    fn create_kept(&mut self) {
        let configured: Vec<i32> = self.config.bands.keys().copied().chain([0]).collect();
        for priority in configured {
            self.create(priority, true);
        }
        for priority in self.named.clone() {
            if self.bands.len() < MAX_BANDS {
                self.create(priority, true);
            }
        }
    }

    /// How many bands there are.
    pub(crate) fn bands(&self) -> usize {
        self.bands.len()
    }

    /// Adds a request, or gives it back with the cap that is reached.
    pub(crate) fn push(
        &mut self,
        ticket: Ticket,
        waiting: Box<Waiting>,
    ) -> Result<(), (Box<Waiting>, Full)> {
        match self.full(ticket.band, waiting.request.bytes) {
            Some(full) => Err((waiting, full)),
            None => {
                self.lodge(ticket, waiting);
                Ok(())
            }
        }
    }

    /// Adds a request whatever the caps say. One that may not wait is taken out again before anything else happens.
    pub(crate) fn lodge(&mut self, ticket: Ticket, waiting: Box<Waiting>) {
        let deadline = self.deadline(ticket.band, &waiting);
        let config = self.config.band(ticket.band);
        let (arrived, bytes) = (waiting.arrived, waiting.request.bytes);
        let ttl = time_to_live(&self.config, config, &waiting.request);
        let key = ordering::key(config.ordering, &waiting.request, arrived, ttl);
        let Some(band) = self.bands.get_mut(&Reverse(ticket.band)) else {
            return;
        };
        let flow = band.flow(arrived, &waiting.account);
        let place = band.place(key, ticket.number);
        band.add(arrived, flow, place);
        self.gauges.joined(&band.gauge, &waiting.request);
        waiting.account.enqueued(&waiting.request);
        self.total.add(bytes);
        if self.config.shares(ticket.band) {
            self.shared.add(bytes);
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, ticket));
        }
        let queued = Queued {
            waiting,
            band: ticket.band,
            flow,
            place,
            deadline,
        };
        self.items.insert(ticket.number, queued);
    }

    /// Takes a request out, wherever it stands.
    pub(crate) fn remove(&mut self, now: Duration, ticket: Ticket) -> Option<Box<Waiting>> {
        let queued = self.items.remove(&ticket.number)?;
        if let Some(deadline) = queued.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        let waiting = queued.waiting;
        if let Some(band) = self.bands.get_mut(&Reverse(ticket.band)) {
            band.take(now, queued.flow, queued.place);
            self.gauges.left(&band.gauge, &waiting.request);
        }
        waiting.account.dequeued(&waiting.request);
        self.total.remove(waiting.request.bytes);
        if self.config.shares(ticket.band) {
            self.shared.remove(waiting.request.bytes);
        }
        Some(waiting)
    }

    /// The request behind `ticket`, if it still waits.
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiting> {
        let queued = self.items.get(&ticket.number)?;
        Some(&queued.waiting)
    }

    /// The pool is looked at anew: what comes in turns takes its next turn.
    pub(crate) fn look(&mut self) {
        self.limits.look();
    }

    /// Who is next at that saturation: of the highest band in which somebody waits whom `passed` does not name,
    /// whoever's turn it is by the band's fairness.
    pub(crate) fn head(
        &mut self,
        now: Duration,
        saturation: Saturation,
        passed: &[PassedOver],
    ) -> Head {
        let ceilings = self.limits.compute(saturation.level(), &self.priorities);
        let items = &self.items;
        let arrived = |number: u64| items.get(&number).map_or(now, |item| item.waiting.arrived);
        for ((priority, band), &ceiling) in self.bands.iter_mut().zip(ceilings) {
            if band.is_empty() {
                continue;
            }
            let Some((flow, place)) = band.next(now, priority.0, passed, arrived) else {
                continue;
            };
            let band = priority.0;
            if !saturation.admits(ceiling) {
                return Head::Closed { band, ceiling };
            }
            let over = PassedOver { band, flow, place };
            return Head::Next { over, ceiling };
        }
        Head::Nobody
    }

    /// The first request of all, whatever the saturation.
    pub(crate) fn first(&mut self, now: Duration) -> Option<Ticket> {
        match self.head(now, Saturation::Unknown, &[]) {
            Head::Next { over, .. } => Some(over.ticket()),
            Head::Nobody | Head::Closed { .. } => None,
        }
    }

    /// The highest band in which somebody waits.
    pub(crate) fn highest_waiting(&self) -> Option<i32> {
        let mut bands = self.bands.iter();
        bands
            .find(|(_, band)| !band.is_empty())
            .map(|(priority, _)| priority.0)
    }

    /// The ceiling of one band at that saturation.
    pub(crate) fn ceiling(&mut self, band: i32, saturation: Saturation) -> f64 {
        let rank = self.priorities.partition_point(|&other| other > band);
        let ceilings = self.limits.compute(saturation.level(), &self.priorities);
        ceilings.get(rank).copied().unwrap_or(0.0)
    }

    /// Whether a band that is closed may open without any change of the pool.
    pub(crate) fn alternates(&self) -> bool {
        self.limits.alternates()
    }

    /// What dispatching `waiting` costs its flow.
    pub(crate) fn price(&mut self, now: Duration, band: i32, waiting: &Waiting) -> Charge {
        let Some(band) = self.bands.get_mut(&Reverse(band)) else {
            return Charge::default();
        };
        let flow = band.flow(now, &waiting.account);
        band.price(flow, &waiting.request)
    }

    /// A request of the flow that `account` counts was dispatched; `passing` = without having been queued.
    pub(crate) fn served(
        &mut self,
        now: Duration,
        band: i32,
        account: &Arc<FlowAccount>,
        charge: Charge,
        passing: bool,
    ) {
        if let Some(band) = self.bands.get_mut(&Reverse(band)) {
            let flow = band.flow(now, account);
            band.served(now, flow, charge, passing);
        }
    }

    /// About how many go before `ticket`, in its band and in those above.
    pub(crate) fn ahead_of(&self, ticket: Ticket) -> u64 {
        let higher = self.bands.range(..Reverse(ticket.band));
        let higher: u64 = higher.map(|(_, band)| band.gauge.requests()).sum();
        let within = self.items.get(&ticket.number).and_then(|queued| {
            let band = self.bands.get(&Reverse(ticket.band))?;
            Some(band.ahead_of(queued.flow, queued.place))
        });
        higher + within.unwrap_or(0)
    }

    /// Notes whether the pool is empty; a change restarts every budget under the other time to live.
    pub(crate) fn set_starved(&mut self, now: Duration, starved: bool) {
        if self.starved == starved {
            return;
        }
        (self.starved, self.regime_since) = (starved, now);
        let mut items = std::mem::take(&mut self.items);
        let mut deadlines = BTreeSet::new();
        for (&number, queued) in &mut items {
            let band = queued.band;
            queued.deadline = self.deadline(band, &queued.waiting);
            let due = queued.deadline.map(|due| (due, Ticket { number, band }));
            deadlines.extend(due);
        }
        (self.items, self.deadlines) = (items, deadlines);
    }

    /// Whether the pool is empty.
    pub(crate) fn starved(&self) -> bool {
        self.starved
    }

    /// When a queued request gives up: the shortest of its limits after the later of its arrival and the last
    /// change between an empty and a filled pool.
    pub(crate) fn deadline(&self, band: i32, waiting: &Waiting) -> Option<Duration> {
        let ttl = if self.starved {
            let general = self.config.no_endpoint_ttl;
            [general, waiting.request.ttl].into_iter().flatten().min()
        } else {
            time_to_live(&self.config, self.config.band(band), &waiting.request)
        };
        Some(waiting.arrived.max(self.regime_since).saturating_add(ttl?))
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// A request whose deadline has come.
    pub(crate) fn expired(&self, now: Duration) -> Option<Ticket> {
        self.deadlines
            .first()
            .filter(|&&(deadline, _)| deadline <= now)
            .map(|&(_, ticket)| ticket)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Requests queued.
    pub(crate) fn len(&self) -> u64 {
        self.total.requests
    }

    /// Whether `ticket` is the first of its flow, so that others may wait behind it.
    pub(crate) fn leads(&self, ticket: Ticket) -> bool {
        self.items.get(&ticket.number).is_some_and(|queued| {
            let band = self.bands.get(&Reverse(ticket.band));
            band.is_some_and(|band| band.leads(queued.flow, queued.place))
        })
    }

    /// Forgets flows and bands that were idle for long; true = there are fewer bands than before.
    pub(crate) fn sweep(&mut self, now: Duration) -> bool {
        let before = self.bands.len();
        self.forget(|_, band| band.sweep(now, BAND_IDLE) && !band.pinned);
        self.bands.len() < before
    }

    /// Forgets bands of which `forgotten` holds; nobody may wait there.
    fn forget(&mut self, forgotten: impl Fn(i32, &mut Band) -> bool) {
        let gauges = &self.gauges;
        self.bands.retain(|priority, band| {
            let forgotten = forgotten(priority.0, band);
            if forgotten {
                gauges.remove(priority.0);
            }
            !forgotten
        });
        self.list();
    }

    /// Time-decayed service by band and flow, where a band's fairness counts it.
    pub(crate) fn attained(&self, now: Duration) -> Vec<(i32, Arc<str>, f64)> {
        let bands = self.bands.iter();
        let of = |(priority, band): (&Reverse<i32>, &Band)| {
            let priority = priority.0;
            let flows = band.attained(now);
            flows
                .map(move |(flow, attained)| (priority, flow, attained))
                .collect::<Vec<_>>()
        };
        bands.flat_map(of).collect()
    }
}

impl PassedOver {
    /// The request.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket {
            number: self.place.number,
            band: self.band,
        }
    }
}

/// Time that a request may be queued for while there are endpoints: the shortest of its limits.
fn time_to_live(config: &FlowConfig, band: &BandConfig, request: &Request) -> Option<Duration> {
    let limits = [config.request_ttl, band.request_ttl, request.ttl];
    limits.into_iter().flatten().min()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

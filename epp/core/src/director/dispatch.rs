//! Hot path: who is let through, who waits, who is refused.

use std::sync::Arc;
use std::time::Duration;

use names::dropped_reason;

use super::evict::Stop;
use super::{Advice, Closed, Director, Dispatch, Ticket, Verdict};
use crate::config::Detector;
use crate::demand::Totals;
use crate::flow::{Full, Head, Queue, Saturation, Waiting};
use crate::outcome::{Outcome, Refusal};
use crate::router::{Among, Offer};

/// Queued requests for which only some endpoints are, and those full, that a dispatch pass looks past: their endpoints
/// are full for everybody, so nothing behind them can take their room.
const MAX_PASSED_OVER: usize = 32;

/// What came of letting a request through without queueing it.
enum Passing {
    Through,
    /// Not now.
    Not(Box<Waiting>, Look),
}

/// What the next pass begins with.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    /// Nothing is known.
    Anew,
    /// The pool has just been read, when so many streams had ended.
    Fresh { freed: u64 },
    /// There is no room for who came: there is no need for a pass.
    Needless,
}

impl Director {
    /// Gives an arriving request its verdict, or a place in the queue.
    pub(super) fn admit(&mut self, now: Duration, ticket: Ticket, waiting: Box<Waiting>) {
        if self.draining {
            let message = "the endpoint picker is shutting down";
            return self.refuse(ticket, &waiting, Outcome::RejectedOther, None, message);
        }
        let queues = self.config().flow_control();
        let starved = self.queue.as_ref().map(Queue::starved);
        if !(starved == Some(true) || queues && starved.is_some()) {
            return self.dispatch_at_once(now, ticket, waiting);
        }
        self.expire(now);
        let waits = self.queue.as_ref().is_some_and(|it| it.waits(ticket.band));
        if !self.first_in_line(ticket.band) {
            return if waits {
                self.enqueue(now, ticket, waiting, Look::Anew)
            } else {
                self.dispatch_or_refuse(now, ticket, waiting)
            };
        }
        match self.pass_through(now, ticket, waiting) {
            Passing::Through => {}
            Passing::Not(waiting, look) if waits => self.enqueue(now, ticket, waiting, look),
            Passing::Not(waiting, _) => self.refuse_full(now, ticket, &waiting, Full::NoWaiting),
        }
    }

    /// Whether nobody of that band or a higher one waits, and there is somewhere to go.
    fn first_in_line(&self, band: i32) -> bool {
        let queue = self.queue.as_ref().filter(|queue| !queue.starved());
        queue.is_some_and(|queue| queue.highest_waiting().is_none_or(|other| other < band))
    }

    /// Dispatches a request for which nobody waits, if there is room.
    fn pass_through(&mut self, now: Duration, ticket: Ticket, waiting: Box<Waiting>) -> Passing {
        if self.still_closed(ticket.band) {
            return Passing::Not(waiting, Look::Needless);
        }
        let freed = self.ledger.freed();
        self.router.observe();
        let saturation = self.router.saturation(now);
        let Some(queue) = &mut self.queue else {
            return Passing::Not(waiting, Look::Needless);
        };
        queue.look();
        let ceiling = queue.ceiling(ticket.band, saturation);
        if !saturation.admits(ceiling) {
            return Passing::Not(waiting, Look::Fresh { freed });
        }
        let next_room = self.drain_rate.wait(now, 1).unwrap_or_default();
        let waited = now.saturating_sub(waiting.arrived);
        let offer = self
            .router
            .offer_room(now, &waiting, waited, next_room, ceiling);
        if matches!(offer, Offer::NoRoom { .. }) {
            self.roomless = true;
            return Passing::Not(waiting, Look::Needless);
        }
        self.settle(now, ticket, waiting, offer, true);
        Passing::Through
    }

    /// Queues a request, unless the queue is full, and dispatches what `look` finds room for.
    fn enqueue(&mut self, now: Duration, ticket: Ticket, waiting: Box<Waiting>, look: Look) {
        let Some(queue) = &mut self.queue else { return };
        if let Err((waiting, full)) = queue.push(ticket, waiting) {
            return self.refuse_full(now, ticket, &waiting, full);
        }
        self.expire(now);
        match look {
            Look::Anew => self.dispatch(now),
            Look::Fresh { freed } => self.pass(now, freed),
            Look::Needless => {}
        }
        self.review_arrival(now, ticket);
    }

    /// Where nothing may wait: dispatches the request in its turn, else refuses it.
    fn dispatch_or_refuse(&mut self, now: Duration, ticket: Ticket, waiting: Box<Waiting>) {
        let Some(queue) = &mut self.queue else { return };
        queue.lodge(ticket, waiting);
        self.dispatch(now);
        let Some(queue) = &mut self.queue else { return };
        if let Some(waiting) = queue.remove(now, ticket) {
            self.refuse_full(now, ticket, &waiting, Full::NoWaiting);
        }
    }

    /// Dispatches queued requests, strictly highest band first, while the pool has room. A head without room
    /// stops the pass for everybody behind it, unless only the endpoints that are for it are full.
    pub(super) fn dispatch(&mut self, now: Duration) {
        let Some(queue) = &mut self.queue else {
            return;
        };
        let Some(band) = queue.highest_waiting() else {
            return;
        };
        queue.look();
        if !self.config().flow_control() {
            return self.release_waiting(now);
        }
        if self.still_closed(band) {
            return;
        }
        let freed = self.ledger.freed();
        self.router.observe();
        self.pass(now, freed);
    }

    /// One pass over the queue, by the last readings, taken when `freed` streams had ended.
    fn pass(&mut self, now: Duration, freed: u64) {
        (self.alternating, self.roomless) = (false, false);
        self.stop = None;
        self.passed.clear();
        let next_room = self.drain_rate.wait(now, 1).unwrap_or_default();
        while let Some(queue) = &mut self.queue {
            let saturation = self.router.saturation(now);
            let (over, ceiling) = match queue.head(now, saturation, &self.passed) {
                Head::Nobody => return,
                Head::Closed { band, ceiling } => {
                    return self.stopped(band, ceiling, saturation, freed);
                }
                Head::Next { over, ceiling } => (over, ceiling),
            };
            let ticket = over.ticket();
            let Some(waiting) = queue.get(ticket) else {
                return;
            };
            let waited = now.saturating_sub(waiting.arrived);
            let offer = self
                .router
                .offer_room(now, waiting, waited, next_room, ceiling);
            if let Offer::NoRoom { narrowed } = offer {
                self.roomless = true;
                if !narrowed || self.passed.len() >= MAX_PASSED_OVER {
                    return;
                }
                self.passed.push(over);
                continue;
            }
            let Some(waiting) = queue.remove(now, ticket) else {
                return;
            };
            if waited > Duration::ZERO && matches!(offer, Offer::Go | Offer::Hopeless { .. }) {
                self.drain_rate.dispatched(now);
            }
            self.settle(now, ticket, waiting, offer, false);
        }
    }

    /// Whether the pool is known to be too full for `band`, without looking.
    fn still_closed(&self, band: i32) -> bool {
        let freed = |closed: Closed| closed.freed == self.ledger.freed();
        self.closed
            .is_some_and(|closed| band <= closed.band && freed(closed))
    }

    /// A pass found the pool too full for `band`, in which somebody waits.
    fn stopped(&mut self, band: i32, ceiling: f64, saturation: Saturation, freed: u64) {
        let Saturation::Level(level) = saturation else {
            return;
        };
        let alternates = self.queue.as_ref().is_some_and(Queue::alternates);
        self.alternating = alternates && level < 1.0;
        if self.evicts() {
            self.stop = Some(Stop {
                band,
                level,
                ceiling,
                in_flight: self.router.in_flight(),
            });
            return;
        }
        // Where live counters are all that counts, nothing changes before a stream ends.
        let scraped = matches!(self.config().detector, Detector::Utilization { .. });
        self.closed = (!scraped && !alternates).then_some(Closed { band, freed });
    }

    /// Names who is taken off its server for those that the last pass left waiting.
    pub(super) fn reclaim(&mut self, now: Duration) {
        let Some(stop) = self.stop.take() else { return };
        // Who stopped the pass may have been refused since.
        let waiting = self.queue.as_ref().and_then(Queue::highest_waiting);
        if waiting == Some(stop.band) {
            let named = self.reclaim.step(now, stop).into_iter();
            self.evictions
                .extend(named.map(|ticket| (ticket, dropped_reason::EVICTED_PRIORITY)));
        }
    }

    fn evicts(&self) -> bool {
        let flow = self.config().flow.as_ref();
        flow.is_some_and(|flow| flow.eviction)
    }

    /// Flow control off: dispatches what was held while there was no endpoint.
    fn release_waiting(&mut self, now: Duration) {
        while let Some(queue) = self.queue.as_mut().filter(|queue| !queue.starved()) {
            let first = queue.first(now);
            let Some((ticket, waiting)) =
                first.and_then(|ticket| Some((ticket, queue.remove(now, ticket)?)))
            else {
                return;
            };
            self.dispatch_at_once(now, ticket, waiting);
        }
    }

    /// A request that was not dispatched on arrival is refused now if no endpoint is for it, or if it is
    /// sheddable and its expected wait leaves no endpoint time to meet its SLO.
    fn review_arrival(&mut self, now: Duration, ticket: Ticket) {
        let Some(queue) = &self.queue else { return };
        let Some(waiting) = queue.get(ticket).filter(|_| !queue.starved()) else {
            return;
        };
        let may_shed = self.router.config().slo_admitter.is_some()
            && waiting.request.sheddable()
            && waiting.request.slo.is_set();
        if !may_shed && waiting.subset.is_none() && !self.router.selects_by_request() {
            return;
        }
        let expected = self
            .drain_rate
            .wait(now, queue.ahead_of(ticket))
            .unwrap_or_default();
        self.router.observe();
        let ceiling = self.router.config().usage_limit.highest();
        let offer = self
            .router
            .offer(now, waiting, expected, Among::Ever, ceiling);
        let refused = match offer {
            Offer::NoEndpoint | Offer::Barred(_) => true,
            Offer::Hopeless { .. } => may_shed,
            Offer::NoRoom { .. } | Offer::Go => false,
        };
        let queue = self.queue.as_mut().filter(|_| refused);
        if let Some(waiting) = queue.and_then(|queue| queue.remove(now, ticket)) {
            self.settle(now, ticket, waiting, offer, false);
        }
    }

    /// Flow control off: sheddable requests are refused while the pool is full, all others go through.
    fn dispatch_at_once(&mut self, now: Duration, ticket: Ticket, waiting: Box<Waiting>) {
        self.router.observe();
        let saturation = self.router.saturation(now);
        if saturation == Saturation::Empty {
            let message = "the pool has no endpoint";
            let outcome = Outcome::RejectedNoEndpoints;
            return self.refuse(ticket, &waiting, outcome, None, message);
        }
        let ceiling = self.router.config().usage_limit.highest();
        if waiting.request.priority < 0 && !saturation.admits(ceiling) {
            let message = "the pool is saturated and the request is sheddable";
            return self.refuse(ticket, &waiting, Outcome::RejectedCapacity, None, message);
        }
        let waited = now.saturating_sub(waiting.arrived);
        let offer = self
            .router
            .offer(now, &waiting, waited, Among::Now, ceiling);
        self.settle(now, ticket, waiting, offer, true);
    }

    /// Turns an offer into the request's verdict. The request is out of the queue; `passing` = it never was in it.
    fn settle(
        &mut self,
        now: Duration,
        ticket: Ticket,
        waiting: Box<Waiting>,
        offer: Offer,
        passing: bool,
    ) {
        let sheds = self.router.config().slo_admitter.is_some() && waiting.request.sheddable();
        match offer {
            Offer::NoEndpoint => {
                let message = "no endpoint of the pool is among those the proxy offers";
                let outcome = Outcome::RejectedNoEndpoints;
                self.refuse(ticket, &waiting, outcome, None, message);
            }
            Offer::Barred(message) => {
                self.refuse(ticket, &waiting, Outcome::RejectedCapacity, None, message);
            }
            Offer::NoRoom { .. } => {
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
                if let Err(waiting) = self.send(now, ticket, waiting, expected_miss, passing) {
                    let offer = Offer::NoRoom { narrowed: false };
                    self.settle(now, ticket, waiting, offer, passing);
                }
            }
        }
    }

    /// Dispatches a request to whom the router picks, and charges its flow. It comes back if nobody is picked.
    fn send(
        &mut self,
        now: Duration,
        ticket: Ticket,
        mut waiting: Box<Waiting>,
        expected_miss: bool,
        passing: bool,
    ) -> Result<(), Box<Waiting>> {
        if let Some(queue) = &mut self.queue {
            waiting.charge = queue.price(now, ticket.band, &waiting);
        }
        let (account, charge) = (Arc::clone(&waiting.account), waiting.charge);
        let (priority, prompt_tokens) = (waiting.request.priority, waiting.request.prompt_tokens);
        let mut dispatch = self
            .router
            .dispatch(now, waiting, expected_miss, &self.ledger)?;
        account.dispatched(prompt_tokens);
        if let Some(queue) = &mut self.queue {
            queue.served(now, ticket.band, &account, charge, passing);
        }
        self.dispatched += 1;
        if priority < 0 && self.evicts() {
            let running = self.reclaim.evictables();
            let place = running.register(priority, self.dispatched, ticket);
            dispatch.in_flight.make_evictable(place);
        }
        dispatch.advice = self.advice(ticket.band, &dispatch);
        self.outbox
            .push_back((ticket, Verdict::Dispatched(dispatch)));
        Ok(())
    }

    /// What the client is told of the queue, where that is wanted.
    fn advice(&self, band: i32, dispatch: &Dispatch) -> Option<Advice> {
        let flow = self.config().flow.as_ref();
        let queue = self.queue.as_ref();
        let queue = queue.filter(|_| flow.is_some_and(|flow| flow.advisory_headers))?;
        Some(Advice {
            queued: dispatch.waited,
            band_room: queue.room(band),
        })
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
            Full::NoWaiting => {
                "there is no room now, and requests of this priority do not wait".to_owned()
            }
        };
        let queued = self.queue.as_ref().map_or(0, Queue::len);
        let wait = self.drain_rate.wait(now, queued);
        self.refuse(ticket, waiting, outcome, wait, message);
    }

    pub(super) fn refuse(
        &mut self,
        ticket: Ticket,
        waiting: &Waiting,
        outcome: Outcome,
        wait: Option<Duration>,
        message: impl Into<String>,
    ) {
        let prompt_tokens = u64::from(waiting.request.prompt_tokens);
        let tokens = Totals {
            prompt_tokens,
            ..Totals::default()
        };
        waiting.counters.ended(outcome, tokens);
        waiting.account.ended(outcome, tokens);
        let refusal = Refusal::new(outcome, wait, message);
        self.outbox.push_back((ticket, Verdict::Refused(refusal)));
    }
}

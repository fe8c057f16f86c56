//! Requests that wait for fresh readings: the first ones after an idle time, in which engines were hardly asked.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Director, Ticket};
use crate::flow::Waiting;

/// Requests held at once, at most; with one more, all are let go.
const MOST_HELD: usize = 256;
/// Bytes of their bodies, at most: what is held counts against no limit of the queue.
const MOST_BYTES: u64 = 64 << 20;

/// Those who wait, in order of arrival, and how long at most: nobody past their own deadline.
#[derive(Debug)]
pub(super) struct Hold {
    until: Duration,
    held: VecDeque<(Ticket, Box<Waiting>)>,
    bytes: u64,
}

impl Hold {
    /// When it ends by itself.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    fn is_full(&self) -> bool {
        self.held.len() > MOST_HELD || self.bytes > MOST_BYTES
    }

    fn push(&mut self, ticket: Ticket, waiting: Box<Waiting>, deadline: Option<Duration>) {
        self.until = deadline.map_or(self.until, |due| due.min(self.until));
        self.bytes = self.bytes.saturating_add(waiting.request.bytes);
        self.held.push_back((ticket, waiting));
    }

    /// Takes out the request behind `ticket`.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Box<Waiting>> {
        let place = self.held.iter().position(|(held, _)| *held == ticket)?;
        let (_, waiting) = self.held.remove(place)?;
        self.bytes = self.bytes.saturating_sub(waiting.request.bytes);
        Some(waiting)
    }
}

impl Director {
    /// Fresh readings are on their way: whoever arrives is held until [`Director::readings_came`], or until `until`,
    /// whatever comes first. Without effect while somebody is held already.
    pub fn await_readings(&mut self, now: Duration, until: Duration) {
        self.tick(now);
        if self.hold.is_none() && until > now && !self.draining {
            let (held, bytes) = (VecDeque::new(), 0);
            self.hold = Some(Hold { until, held, bytes });
        }
    }

    /// The readings are there: who was held goes on, in order of arrival.
    pub fn readings_came(&mut self, now: Duration) {
        self.tick(now);
        self.release(now);
    }

    /// Requests that wait for fresh readings.
    pub fn held(&self) -> usize {
        self.hold.as_ref().map_or(0, |hold| hold.held.len())
    }

    /// Holds an arriving request if fresh readings are on their way; else it comes back.
    pub(super) fn kept_back(
        &mut self,
        now: Duration,
        ticket: Ticket,
        waiting: Box<Waiting>,
    ) -> Option<Box<Waiting>> {
        self.release_due(now);
        let Some(hold) = &mut self.hold else {
            return Some(waiting);
        };
        let queue = self.queue.as_ref();
        let deadline = queue.and_then(|queue| queue.deadline(ticket.band, &waiting));
        hold.push(ticket, waiting, deadline);
        if hold.is_full() {
            self.release(now);
        }
        None
    }

    /// Lets go who was held long enough.
    pub(super) fn release_due(&mut self, now: Duration) {
        if self.hold.as_ref().is_some_and(|hold| hold.until <= now) {
            self.release(now);
        }
    }

    /// Lets go who is held.
    pub(super) fn release(&mut self, now: Duration) {
        let Some(hold) = self.hold.take() else { return };
        for (ticket, waiting) in hold.held {
            // A band of its own may have been forgotten since.
            self.band(ticket.band);
            self.admit(now, ticket, waiting);
        }
        self.reclaim(now);
    }
}

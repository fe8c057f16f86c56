//! The queue itself: bands by priority, first come first served within, caps and deadlines.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{BandDepth, QueueDepth};
use crate::config::FlowConfig;
use crate::demand::BandCounters;
use crate::director::Ticket;
use crate::request::Request;

/// Bands that may exist at once. Priorities come from objectives, which are configuration, but a file that is
/// edited for months must not grow the queue without bound.
const MAX_BANDS: usize = 64;

/// A request in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    pub(crate) counters: Arc<BandCounters>,
    /// `request.subset` as addresses.
    pub(crate) subset: Option<Vec<IpAddr>>,
    pub(crate) arrived: Duration,
}

/// Which cap refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Requests(u64),
    Bytes(u64),
}

/// Bands of first-come-first-served queues under common caps.
#[derive(Debug)]
pub(crate) struct Queue {
    config: FlowConfig,
    bands: BTreeMap<Reverse<i32>, Band>,
    /// Earliest first; tickets are unique, so two equal deadlines stay apart.
    deadlines: BTreeSet<(Duration, Ticket)>,
    requests: u64,
    bytes: u64,
    /// Whether the pool is without endpoints, and since when it is (or is not).
    starved: bool,
    regime_since: Duration,
}

#[derive(Debug, Default)]
struct Band {
    items: BTreeMap<u64, Box<Waiting>>,
    depth: BandDepth,
}

impl Queue {
    /// An empty queue in front of an empty pool.
    pub(crate) fn new(config: FlowConfig) -> Self {
        let mut bands = BTreeMap::new();
        for &priority in config.bands.keys().chain(&[0]) {
            bands.insert(Reverse(priority), Band::new(priority));
        }
        Self {
            config,
            bands,
            deadlines: BTreeSet::new(),
            requests: 0,
            bytes: 0,
            starved: true,
            regime_since: Duration::ZERO,
        }
    }

    /// The band a request of that priority joins; it is created when there is still room for one, else the
    /// lowest band (negative priorities) or band 0 takes it, so that nobody gains by the overflow.
    pub(crate) fn band(&mut self, priority: i32) -> i32 {
        if self.bands.contains_key(&Reverse(priority)) {
            return priority;
        }
        if self.bands.len() < MAX_BANDS {
            self.bands.insert(Reverse(priority), Band::new(priority));
            return priority;
        }
        let lowest = self.bands.keys().next_back().map_or(0, |lowest| lowest.0);
        if priority < 0 { lowest } else { 0 }
    }

    /// Adds a request, or gives it back with the cap that is reached.
    pub(crate) fn push(
        &mut self,
        ticket: Ticket,
        waiting: Box<Waiting>,
    ) -> Result<(), (Box<Waiting>, Full)> {
        let limits = self.config.band(ticket.band);
        let bytes = waiting.request.bytes;
        let Some(band) = self.bands.get_mut(&Reverse(ticket.band)) else {
            return Err((waiting, Full::Requests(0)));
        };
        let counts = [
            (self.requests, self.config.max_requests),
            (band.depth.requests, Some(limits.max_requests)),
        ];
        let sizes = [
            (self.bytes, self.config.max_bytes),
            (band.depth.bytes, Some(limits.max_bytes)),
        ];
        let over = |held: u64, add: u64, most: Option<u64>| {
            most.filter(|&most| held.saturating_add(add) > most)
        };
        let full = counts
            .iter()
            .find_map(|&(held, most)| over(held, 1, most).map(Full::Requests));
        let full = full.or_else(|| {
            sizes
                .iter()
                .find_map(|&(held, most)| over(held, bytes, most).map(Full::Bytes))
        });
        if let Some(full) = full {
            return Err((waiting, full));
        }
        band.depth.add(&waiting);
        band.items.insert(ticket.number, waiting);
        self.requests += 1;
        self.bytes += bytes;
        if let Some(deadline) = self.deadline(ticket) {
            self.deadlines.insert((deadline, ticket));
        }
        Ok(())
    }

    /// Takes a request out, wherever it stands.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Box<Waiting>> {
        if let Some(deadline) = self.deadline(ticket) {
            self.deadlines.remove(&(deadline, ticket));
        }
        let band = self.bands.get_mut(&Reverse(ticket.band))?;
        let waiting = band.items.remove(&ticket.number)?;
        band.depth.remove(&waiting);
        self.requests -= 1;
        self.bytes -= waiting.request.bytes;
        Some(waiting)
    }

    /// The request behind `ticket`, if it still waits.
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiting> {
        self.bands
            .get(&Reverse(ticket.band))?
            .items
            .get(&ticket.number)
            .map(Box::as_ref)
    }

    /// The next request in dispatch order after `after`: first within its band, then in lower bands.
    pub(crate) fn next(&self, after: Option<Ticket>) -> Option<Ticket> {
        let in_band = |priority: i32, band: &Band, from: u64| {
            band.items.range(from..).next().map(|(&number, _)| Ticket {
                number,
                band: priority,
            })
        };
        let Some(after) = after else {
            return self
                .bands
                .iter()
                .find_map(|(priority, band)| in_band(priority.0, band, 0));
        };
        let here = self
            .bands
            .get(&Reverse(after.band))
            .and_then(|band| in_band(after.band, band, after.number + 1));
        here.or_else(|| {
            let below = self.bands.range((
                std::ops::Bound::Excluded(Reverse(after.band)),
                std::ops::Bound::Unbounded,
            ));
            below
                .into_iter()
                .find_map(|(priority, band)| in_band(priority.0, band, 0))
        })
    }

    /// Requests of that band or a higher one, other than `ticket` and those behind it.
    pub(crate) fn ahead_of(&self, ticket: Ticket) -> u64 {
        let higher = self
            .bands
            .range(..Reverse(ticket.band))
            .map(|(_, band)| band.depth.requests)
            .sum::<u64>();
        let Some(band) = self.bands.get(&Reverse(ticket.band)) else {
            return higher;
        };
        // A new arrival is last of its band; only then is the count cheap, and only then is it asked for.
        let behind = band.items.range(ticket.number..).count() as u64;
        higher + band.depth.requests - behind
    }

    /// Notes whether the pool is empty; a change restarts every budget under the other time to live.
    pub(crate) fn set_starved(&mut self, now: Duration, starved: bool) {
        if self.starved == starved {
            return;
        }
        (self.starved, self.regime_since) = (starved, now);
        let tickets = self.bands.iter().flat_map(|(priority, band)| {
            band.items.keys().map(|&number| Ticket {
                number,
                band: priority.0,
            })
        });
        let deadlines = tickets
            .filter_map(|ticket| Some((self.deadline(ticket)?, ticket)))
            .collect();
        self.deadlines = deadlines;
    }

    /// Whether the pool is empty.
    pub(crate) fn starved(&self) -> bool {
        self.starved
    }

    /// When a queued request gives up: the shortest of its limits after the later of its arrival and the last
    /// change between an empty and a filled pool.
    fn deadline(&self, ticket: Ticket) -> Option<Duration> {
        let waiting = self.get(ticket)?;
        let general = if self.starved {
            self.config.no_endpoint_ttl
        } else {
            let band = self.config.band(ticket.band).request_ttl;
            [self.config.request_ttl, band].into_iter().flatten().min()
        };
        let ttl = [general, waiting.request.ttl].into_iter().flatten().min()?;
        Some(waiting.arrived.max(self.regime_since).saturating_add(ttl))
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
        self.requests == 0
    }

    /// What waits, by band.
    pub(crate) fn depth(&self) -> QueueDepth {
        QueueDepth {
            bands: self.bands.values().map(|band| band.depth).collect(),
        }
    }
}

impl Band {
    fn new(priority: i32) -> Self {
        Self {
            items: BTreeMap::new(),
            depth: BandDepth {
                priority,
                ..BandDepth::default()
            },
        }
    }
}

impl BandDepth {
    fn add(&mut self, waiting: &Waiting) {
        self.requests += 1;
        self.sheddable += u64::from(waiting.request.sheddable());
        self.prompt_tokens += u64::from(waiting.request.prompt_tokens);
        self.bytes += waiting.request.bytes;
    }

    fn remove(&mut self, waiting: &Waiting) {
        self.requests -= 1;
        self.sheddable -= u64::from(waiting.request.sheddable());
        self.prompt_tokens -= u64::from(waiting.request.prompt_tokens);
        self.bytes -= waiting.request.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BandConfig;
    use crate::demand::DemandLedger;

    fn waiting(seconds: u64, bytes: u64) -> Box<Waiting> {
        let request = Request {
            bytes,
            ..Request::default()
        };
        let counters = DemandLedger::default().band(0, false);
        Box::new(Waiting {
            request,
            counters,
            subset: None,
            arrived: Duration::from_secs(seconds),
        })
    }

    fn ticket(number: u64, band: i32) -> Ticket {
        Ticket { number, band }
    }

    fn filled(config: FlowConfig, bands: &[i32]) -> Queue {
        let mut queue = Queue::new(config);
        queue.set_starved(Duration::ZERO, false);
        for (number, &band) in bands.iter().enumerate() {
            let band = queue.band(band);
            queue
                .push(ticket(number as u64, band), waiting(0, 10))
                .unwrap();
        }
        queue
    }

    #[test]
    fn higher_bands_first_then_arrival() {
        let queue = filled(FlowConfig::default(), &[0, -1, 5, 0, 5]);
        let mut order = Vec::new();
        let mut cursor = None;
        while let Some(next) = queue.next(cursor) {
            order.push((next.band, next.number));
            cursor = Some(next);
        }
        assert_eq!(order, [(5, 2), (5, 4), (0, 0), (0, 3), (-1, 1)]);
        assert_eq!(queue.ahead_of(ticket(3, 0)), 3);
        assert_eq!(queue.ahead_of(ticket(1, -1)), 4);
    }

    #[test]
    fn caps_hold_for_the_band_and_for_all() {
        let tight = BandConfig {
            max_requests: 2,
            max_bytes: 25,
            request_ttl: None,
        };
        let config = FlowConfig {
            max_requests: Some(3),
            default_band: tight,
            ..FlowConfig::default()
        };
        let mut queue = filled(config, &[0, 0]);
        assert!(matches!(
            queue.push(ticket(8, 0), waiting(0, 1)),
            Err((_, Full::Requests(2)))
        ));
        queue.remove(ticket(0, 0)).unwrap();
        assert!(matches!(
            queue.push(ticket(8, 0), waiting(0, 16)),
            Err((_, Full::Bytes(25)))
        ));
        queue.push(ticket(8, 0), waiting(0, 15)).unwrap();
        let band = queue.band(-1);
        queue.push(ticket(9, band), waiting(0, 0)).unwrap();
        let band = queue.band(7);
        assert!(matches!(
            queue.push(ticket(10, band), waiting(0, 0)),
            Err((_, Full::Requests(3)))
        ));
        assert_eq!(
            (queue.depth().total().requests, queue.depth().total().bytes),
            (3, 25)
        );
    }

    #[test]
    fn budgets_restart_when_the_pool_empties_or_fills() {
        let seconds = Duration::from_secs;
        let config = FlowConfig {
            request_ttl: Some(seconds(10)),
            no_endpoint_ttl: Some(seconds(100)),
            ..FlowConfig::default()
        };
        let mut queue = filled(config, &[0]);
        assert_eq!(queue.next_deadline(), Some(seconds(10)));
        queue.set_starved(seconds(9), true);
        assert_eq!(queue.next_deadline(), Some(seconds(109)));
        queue.set_starved(seconds(50), false);
        assert_eq!(queue.next_deadline(), Some(seconds(60)));
        let mut short = waiting(55, 1);
        short.request.ttl = Some(seconds(2));
        queue.push(ticket(7, 0), short).unwrap();
        assert_eq!(queue.expired(seconds(57)), Some(ticket(7, 0)));
        assert_eq!(queue.expired(seconds(56)), None);
        queue.remove(ticket(7, 0)).unwrap();
        assert_eq!(queue.next_deadline(), Some(seconds(60)));
    }

    #[test]
    fn the_number_of_bands_is_bounded_and_nobody_gains() {
        let mut queue = Queue::new(FlowConfig::default());
        for priority in -200..200 {
            let band = queue.band(priority);
            assert!(
                band <= priority.max(0),
                "priority {priority} joined band {band}"
            );
        }
        assert_eq!(queue.depth().bands.len(), MAX_BANDS);
    }
}

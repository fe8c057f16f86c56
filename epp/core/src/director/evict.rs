//! Taking running requests of negative priority off their servers, so that requests of higher bands find room.
//!
//! Stop and wait: at most two are named at once; the next only once these have ended and the detector has had time to
//! see it, or once they have not ended for long.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Ticket;
use super::revocations::{Revocations, Revoked};
use crate::config::{Config, Detector};

/// Requests named at once, at most.
const MOST_AT_ONCE: usize = 2;
/// A named request that runs on for this long is no longer waited for.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// Time until a detector that counts live has seen that a request ended.
const COUNTED_GRACE: Duration = Duration::from_millis(10);
/// What is added to the age that a scrape may have, for one to have come.
const SCRAPED_GRACE: Duration = Duration::from_millis(250);
/// Time between scrapes where the configuration does not say it.
const REFRESH: Duration = Duration::from_millis(50);

/// Lowest priority first, then newest first.
type Rank = (i32, Reverse<u64>);

#[derive(Debug)]
struct Running {
    ticket: Ticket,
    revoked: bool,
}

/// Running requests that may be taken off their server; shared with their streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evictables {
    running: Arc<Mutex<BTreeMap<Rank, Running>>>,
    counts: Revocations,
}

impl Evictables {
    /// A request of `priority`, the `number`-th dispatched, runs until what is returned is dropped.
    pub(crate) fn register(&self, priority: i32, number: u64, ticket: Ticket) -> Evictable {
        let rank = (priority, Reverse(number));
        let running = Running {
            ticket,
            revoked: false,
        };
        self.running().insert(rank, running);
        Evictable {
            of: self.clone(),
            rank,
            ticket,
            taken: false,
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Rank, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running request's place among those that may be taken off their server.
#[derive(Debug)]
pub(crate) struct Evictable {
    of: Evictables,
    rank: Rank,
    ticket: Ticket,
    taken: bool,
}

impl Evictable {
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Its stream was ended for it.
    pub(crate) fn taken(&mut self) {
        self.taken = true;
    }
}

impl Drop for Evictable {
    fn drop(&mut self) {
        let ended = self.of.running().remove(&self.rank);
        if ended.is_some_and(|running| running.revoked) {
            self.of.counts.ended(if self.taken {
                Revoked::Evicted
            } else {
                Revoked::Finished
            });
        }
    }
}

/// Why a pass of dispatches stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Somebody of this band waits,
    pub(crate) band: i32,
    /// at this saturation,
    pub(crate) level: f64,
    /// from which on the band is closed,
    pub(crate) ceiling: f64,
    /// with so many requests in flight in the pool.
    pub(crate) in_flight: u64,
}

impl Stop {
    /// Requests that must end before the band opens, when `pending` of them are already named:
    /// `max(1, ⌈(saturation − ceiling − pending) ÷ (saturation ÷ in flight)⌉)`.
    fn to_free(self, pending: usize) -> usize {
        let share = self.level / self.in_flight as f64;
        let excess = self.level - self.ceiling - pending as f64 * share;
        // NaN and negative numbers become 0 on their way to an integer.
        ((excess / share).ceil() as usize).max(1)
    }
}

#[derive(Debug)]
enum Phase {
    Ready,
    /// These were named and are to end.
    Confirming {
        named: Vec<Rank>,
        since: Duration,
    },
    /// They have; the detector is to see it.
    Settling {
        until: Duration,
    },
}

/// Who is taken off its server next, and when.
#[derive(Debug)]
pub(crate) struct Reclaim {
    evictables: Evictables,
    grace: Duration,
    phase: Phase,
}

impl Reclaim {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            evictables: Evictables::default(),
            grace: grace(config),
            phase: Phase::Ready,
        }
    }

    /// Another configuration is in force.
    pub(crate) fn set_config(&mut self, config: &Config) {
        self.grace = grace(config);
    }

    pub(crate) fn evictables(&self) -> &Evictables {
        &self.evictables
    }

    pub(crate) fn counts(&self) -> &Revocations {
        &self.evictables.counts
    }

    /// Somebody of a higher band finds no room: names who is to end for it, if it is time.
    pub(crate) fn step(&mut self, now: Duration, stop: Stop) -> Vec<Ticket> {
        self.progress(now);
        if !matches!(self.phase, Phase::Ready) {
            return Vec::new();
        }
        let mut running = self.evictables.running();
        let pending = running.values().filter(|one| one.revoked).count();
        let wanted = stop.to_free(pending);
        self.evictables.counts.aim(wanted as u64);
        let lower = |rank: &Rank| rank.0 < 0 && rank.0 < stop.band;
        let candidates = running
            .iter_mut()
            .filter(|(rank, one)| lower(rank) && !one.revoked);
        let (mut named, mut tickets) = (Vec::new(), Vec::new());
        for (rank, one) in candidates.take(wanted.min(MOST_AT_ONCE)) {
            one.revoked = true;
            named.push(*rank);
            tickets.push(one.ticket);
            self.evictables.counts.issued(rank.0);
        }
        drop(running);
        if !named.is_empty() {
            self.phase = Phase::Confirming { named, since: now };
        }
        tickets
    }

    /// Looks who has ended.
    pub(crate) fn progress(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Ready => {}
            Phase::Confirming { named, since } => {
                let running = self.evictables.running();
                let took = now.saturating_sub(*since);
                named.retain(|rank| {
                    let runs = running.contains_key(rank);
                    if !runs {
                        self.evictables.counts.confirmed(took);
                    }
                    runs
                });
                drop(running);
                if named.is_empty() {
                    let until = now.saturating_add(self.grace);
                    self.phase = Phase::Settling { until };
                } else if took >= CONFIRM_WITHIN {
                    self.evictables.counts.overdue(named.len() as u64);
                    self.phase = Phase::Ready;
                }
            }
            Phase::Settling { until } if now >= *until => self.phase = Phase::Ready,
            Phase::Settling { .. } => {}
        }
    }

    /// When the next step may be due.
    pub(crate) fn next_wakeup(&self) -> Option<Duration> {
        match self.phase {
            Phase::Ready => None,
            Phase::Confirming { since, .. } => Some(since.saturating_add(CONFIRM_WITHIN)),
            Phase::Settling { until } => Some(until),
        }
    }
}

/// Time until the detector has seen that a request ended.
fn grace(config: &Config) -> Duration {
    match &config.detector {
        Detector::Concurrency(_) | Detector::Adaptive { .. } => COUNTED_GRACE,
        Detector::Utilization { staleness, .. } => {
            let scrape = config.metrics.as_ref();
            let refresh = scrape.and_then(|scrape| scrape.source.interval);
            refresh.unwrap_or(REFRESH) + *staleness + SCRAPED_GRACE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn reclaim(config: &Config) -> Reclaim {
        Reclaim::new(config)
    }

    fn stop(band: i32, level: f64, in_flight: u64) -> Stop {
        Stop {
            band,
            level,
            ceiling: 1.0,
            in_flight,
        }
    }

    fn runs(reclaim: &Reclaim, priorities: &[i32]) -> Vec<Evictable> {
        let of = reclaim.evictables();
        let one = |(number, &priority): (usize, &i32)| {
            let number = number as u64;
            let ticket = Ticket {
                number,
                band: priority,
            };
            of.register(priority, number, ticket)
        };
        priorities.iter().enumerate().map(one).collect()
    }

    fn numbers(tickets: Vec<Ticket>) -> Vec<u64> {
        tickets.into_iter().map(Ticket::number).collect()
    }

    #[test]
    fn the_lowest_and_of_those_the_newest_go_first_two_at_a_time() {
        let mut reclaim = reclaim(&Config::llmd_default());
        let mut running = runs(&reclaim, &[-1, -5, -1, -5, -2]);
        let named = reclaim.step(ms(0), stop(0, 2.0, 10));
        assert_eq!(numbers(named), [3, 1], "five must end, two are named");
        assert!(reclaim.step(ms(5), stop(0, 2.0, 10)).is_empty());
        running.remove(3).taken();
        assert!(
            reclaim.step(ms(6), stop(0, 1.9, 9)).is_empty(),
            "one runs on"
        );
        drop(running.remove(1));
        reclaim.progress(ms(7));
        assert_eq!(reclaim.next_wakeup(), Some(ms(17)));
        assert!(reclaim.step(ms(16), stop(0, 1.8, 8)).is_empty());
        assert_eq!(numbers(reclaim.step(ms(17), stop(0, 1.8, 8))), [4, 2]);
        let counts = reclaim.counts();
        assert_eq!(counts.issued_by_priority(), [(-1, 1), (-2, 1), (-5, 2)]);
        assert_eq!((counts.pending(), counts.target()), (2, 4));
        let outcomes = counts.outcomes().map(|(_, count)| count);
        assert_eq!(outcomes, [1, 1, 0], "evicted, finished, overdue");
    }

    #[test]
    fn only_lower_bands_are_touched_and_nothing_of_priority_zero() {
        let mut reclaim = reclaim(&Config::llmd_default());
        let _running = runs(&reclaim, &[-1, 0, 3, -4]);
        assert!(numbers(reclaim.step(ms(0), stop(-4, 2.0, 4))).is_empty());
        assert_eq!(numbers(reclaim.step(ms(0), stop(-2, 2.0, 4))), [3]);
    }

    #[test]
    fn one_that_does_not_end_is_waited_for_ten_seconds_and_counted_as_pending() {
        let mut reclaim = reclaim(&Config::llmd_default());
        let _running = runs(&reclaim, &[-1, -1, -1]);
        assert_eq!(numbers(reclaim.step(ms(0), stop(0, 1.0, 10))), [2]);
        assert_eq!(reclaim.next_wakeup(), Some(ms(10_000)));
        assert!(reclaim.step(ms(9_999), stop(0, 1.2, 10)).is_empty());
        // 0.2 too much are two requests' worth; one of them is on its way.
        assert_eq!(numbers(reclaim.step(ms(10_000), stop(0, 1.2, 12))), [1]);
        assert_eq!(reclaim.counts().outcomes()[2].1, 1);
    }

    #[test]
    fn a_detector_that_reads_scrapes_is_given_time_for_one() {
        let config = Config {
            detector: Detector::utilization_default(),
            ..Config::llmd_default()
        };
        assert_eq!(reclaim(&config).grace, ms(50 + 200 + 250));
        assert_eq!(reclaim(&Config::llmd_default()).grace, ms(10));
    }

    #[test]
    fn how_many_must_end() {
        let to_free = |level, in_flight, pending| stop(0, level, in_flight).to_free(pending);
        assert_eq!(to_free(1.0, 10, 0), 1, "at the ceiling one must go");
        assert_eq!(to_free(1.25, 10, 0), 2);
        assert_eq!(to_free(1.25, 10, 1), 1);
        assert_eq!(to_free(1.25, 10, 50), 1, "never none");
        assert_eq!(to_free(1.0, 0, 0), 1);
    }
}

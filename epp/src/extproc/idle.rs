//! Times in which no requests come and none waits, in which engines are hardly asked, and the round of reads that ends
//! them.
//!
//! A reader that rests is woken by the first request. That request, and those that come while the round is under way,
//! are held until all who were woken have read (or failed to), or the director's patience ends.

use super::hub::Hub;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Without a request for this long the picker is idle, and what it does for requests can slow down.
const IDLE: Duration = Duration::from_secs(5);

/// When the last request came, and who rests.
#[derive(Debug, Default)]
pub(super) struct Idleness {
    /// Milliseconds on the picker's clock.
    last_ms: AtomicU64,
    /// Whether somebody waits: whoever has no reading to go by may think that there is room.
    wanted: AtomicBool,
    resumed: Notify,
    rounds: Mutex<Rounds>,
}

impl Idleness {
    fn idle(&self, now: Duration) -> bool {
        now > Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + IDLE
            && !self.wanted.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for room or for readings.
    pub(super) fn wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// A request came; true = the first after an idle time.
    pub(super) fn request(&self, now: Duration) -> bool {
        let resumed = self.idle(now);
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms, Ordering::Relaxed);
        resumed
    }

    /// Wakes who rests; true = somebody is to read now that is waited for.
    pub(super) fn wake(&self) -> bool {
        let begun = self.rounds.lock().wake();
        self.resumed.notify_waiters();
        begun
    }
}

/// Who rests, and who of those that were woken last has not read yet.
#[derive(Debug, Default)]
struct Rounds {
    /// Of the last round.
    number: u64,
    resting: usize,
    missing: usize,
}

impl Rounds {
    /// A reader rests; the number is to be shown when it rises.
    fn rest(&mut self) -> u64 {
        self.resting += 1;
        self.number
    }

    /// A reader that has rested since `since` rises; the round that woke it, if one did.
    fn rise(&mut self, since: u64) -> Option<u64> {
        if since == self.number {
            self.resting -= 1;
            return None;
        }
        // Whoever rested at a wake is part of the round that it began.
        Some(since + 1)
    }

    /// All who rest are woken; true = a round begins with that.
    fn wake(&mut self) -> bool {
        if self.resting == 0 {
            return false;
        }
        self.number += 1;
        self.missing = std::mem::take(&mut self.resting);
        true
    }

    /// One of round `number` has read; true = it was the last of them.
    fn read(&mut self, number: u64) -> bool {
        if number != self.number {
            return false;
        }
        self.missing = self.missing.saturating_sub(1);
        self.missing == 0
    }
}

/// A reader that rests; if it is dropped, nobody waits for it.
#[derive(Debug)]
pub(crate) struct Rest<'h> {
    hub: &'h Hub,
    since: Option<u64>,
}

impl<'h> Rest<'h> {
    /// The reader goes on; `Some` = because it was woken, and it is waited for until that is dropped.
    pub(crate) fn rise(mut self) -> Option<Due<'h>> {
        self.risen()
    }

    fn risen(&mut self) -> Option<Due<'h>> {
        let since = self.since.take()?;
        let round = self.hub.idleness.rounds.lock().rise(since)?;
        Some(Due {
            hub: self.hub,
            round,
        })
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        drop(self.risen());
    }
}

/// A read that somebody waits for; it is over, well or not, when this is dropped.
#[derive(Debug)]
pub(crate) struct Due<'h> {
    hub: &'h Hub,
    round: u64,
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        let last = self.hub.idleness.rounds.lock().read(self.round);
        if last {
            self.hub
                .with_director(|director, now| director.readings_came(now));
        }
    }
}

impl Hub {
    /// Whether no request came for five seconds, and none waits.
    pub fn idle(&self, now: Duration) -> bool {
        self.idleness.idle(now)
    }

    /// Resolves when a request comes after five seconds without any; also if it comes before this is first polled.
    pub fn woken(&self) -> Notified<'_> {
        self.idleness.resumed.notified()
    }

    /// A reader of what picks go by rests from now on.
    pub(crate) fn rest(&self) -> Rest<'_> {
        let since = Some(self.idleness.rounds.lock().rest());
        Rest { hub: self, since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extproc::hub::Submitted;
    use crate::extproc::hub::tests::hub_of;
    use epp_core::{Config, Request, Verdict};

    #[test]
    fn a_round_is_over_when_the_last_who_was_woken_has_read() {
        let mut rounds = Rounds::default();
        assert!(!rounds.wake(), "nobody rests");
        let (first, second, third) = (rounds.rest(), rounds.rest(), rounds.rest());
        assert_eq!(rounds.rise(first), None, "it was time by itself");
        assert!(rounds.wake());
        let (one, two) = (rounds.rise(second).unwrap(), rounds.rise(third).unwrap());
        assert!(!rounds.wake(), "the round goes on");
        assert!(!rounds.read(one));
        assert!(rounds.read(two));
        let again = rounds.rest();
        assert!(rounds.wake());
        assert!(!rounds.read(one), "of an earlier round");
        assert!(rounds.rise(again).is_some_and(|round| rounds.read(round)));
    }

    /// A hub that has been idle, as far as it knows.
    fn idle(config: Config) -> (Hub, Duration) {
        let hub = hub_of(config);
        let now = hub.clock.now() + IDLE + Duration::from_millis(1);
        assert!(hub.idle(now));
        (hub, now)
    }

    fn queued(submitted: Submitted) -> tokio::sync::oneshot::Receiver<Verdict> {
        match submitted {
            Submitted::Queued(_, verdict) => verdict,
            Submitted::Decided(verdict) => panic!("decided at once: {verdict:?}"),
        }
    }

    #[test]
    fn the_first_request_waits_for_those_whom_it_woke() {
        let (hub, now) = idle(Config::default());
        let (reads, fails, leaves) = (hub.rest(), hub.rest(), hub.rest());
        let mut verdict = queued(hub.submit(now, Request::default()));
        let later = now + Duration::from_millis(5);
        let mut other = queued(hub.submit(later, Request::default()));
        let (reads, fails) = (reads.rise().unwrap(), fails.rise().unwrap());
        drop(leaves);
        drop(reads);
        assert!(verdict.try_recv().is_err());
        drop(fails);
        assert!(matches!(verdict.try_recv(), Ok(Verdict::Dispatched(_))));
        assert!(
            other.try_recv().is_ok(),
            "and so does who came in the meantime"
        );
        let next = hub.submit(later, Request::default());
        assert!(matches!(next, Submitted::Decided(_)));
    }

    #[test]
    fn nobody_waits_where_nobody_rests_or_the_configuration_says_so() {
        let (hub, now) = idle(Config::default());
        let awake = hub.rest();
        drop(awake);
        assert!(matches!(
            hub.submit(now, Request::default()),
            Submitted::Decided(_)
        ));
        let mut config = Config::default();
        config.metrics.as_mut().unwrap().hold = Duration::ZERO;
        let (hub, now) = idle(config);
        let resting = hub.rest();
        assert!(matches!(
            hub.submit(now, Request::default()),
            Submitted::Decided(_)
        ));
        assert!(resting.rise().is_some(), "it reads all the same");
    }

    /// A detector that has no readings to go by thinks that there is room.
    #[test]
    fn nobody_rests_while_somebody_waits() {
        let (hub, now) = idle(Config::llmd_default().with_max_concurrency(1));
        let Submitted::Decided(first) = hub.submit(now, Request::default()) else {
            panic!("there is room")
        };
        let (ticket, _verdict) = match hub.submit(now, Request::default()) {
            Submitted::Queued(ticket, verdict) => (ticket, verdict),
            Submitted::Decided(verdict) => panic!("decided at once: {verdict:?}"),
        };
        let later = now + 2 * IDLE;
        assert!(!hub.idle(later));
        hub.withdraw(ticket);
        assert!(hub.idle(later));
        drop(first);
    }
}

//! How fast the queue has been draining lately, from which waiting times are predicted.

use std::time::Duration;

/// Length of one slot.
const SLOT: Duration = Duration::from_millis(500);
/// Slots remembered: ten seconds.
const SLOTS: usize = 20;
/// Queued time that must have been seen before a rate is told.
const ENOUGH: f64 = 1.0;

/// Dispatches per second over the recent time in which something was queued. Time without a queue says
/// nothing about how fast one would drain, so it is left out.
#[derive(Debug, Default)]
pub(crate) struct DrainRate {
    slots: [Slot; SLOTS],
    last: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Which slot of all time this is.
    index: u128,
    queued_seconds: f64,
    dispatched: u32,
}

impl DrainRate {
    /// Time has come to `now`; `queued` = something waited since the last call.
    pub(crate) fn advance(&mut self, now: Duration, queued: bool) {
        let since = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        if queued {
            self.slot().queued_seconds += since;
        }
    }

    /// One request left the queue for an endpoint after having waited.
    pub(crate) fn dispatched(&mut self, now: Duration) {
        self.last = self.last.max(now);
        self.slot().dispatched += 1;
    }

    /// Expected time until `ahead` requests have left; `None` = too little has been seen to say.
    ///
    /// One dispatch is added to those seen, so that a queue that has not moved yet has a finite rate.
    pub(crate) fn wait(&self, now: Duration, ahead: u64) -> Option<Duration> {
        let newest = index(now);
        let recent = self
            .slots
            .iter()
            .filter(|slot| slot.index + (SLOTS as u128) > newest);
        let (seconds, dispatched) = recent.fold((0.0, 1.0), |(seconds, dispatched), slot| {
            (
                seconds + slot.queued_seconds,
                dispatched + f64::from(slot.dispatched),
            )
        });
        let wait = || {
            Duration::try_from_secs_f64(ahead as f64 * seconds / dispatched)
                .unwrap_or(Duration::MAX)
        };
        (seconds >= ENOUGH).then(wait)
    }

    /// The slot of the latest instant seen.
    fn slot(&mut self) -> &mut Slot {
        let index = index(self.last);
        let slot = &mut self.slots[(index % SLOTS as u128) as usize];
        if slot.index != index {
            *slot = Slot {
                index,
                ..Slot::default()
            };
        }
        slot
    }
}

fn index(now: Duration) -> u128 {
    now.as_nanos() / SLOT.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_only_queued_time() {
        let mut rate = DrainRate::default();
        let millis = Duration::from_millis;
        rate.advance(millis(60_000), false);
        assert_eq!(rate.wait(millis(60_000), 5), None);
        for step in 1..=40 {
            let now = millis(60_000 + step * 100);
            rate.advance(now, true);
            rate.dispatched(now);
        }
        let wait = rate.wait(millis(64_000), 41).unwrap().as_secs_f64();
        assert!(
            (wait - 4.0).abs() < 1e-6,
            "41 ahead at (40 + 1) per 4 s: {wait}"
        );
        assert_eq!(
            rate.wait(millis(80_000), 41),
            None,
            "what is old is forgotten"
        );
    }

    #[test]
    fn a_stuck_queue_has_a_growing_wait() {
        let mut rate = DrainRate::default();
        rate.advance(Duration::from_secs(2), true);
        assert_eq!(
            rate.wait(Duration::from_secs(2), 3),
            Some(Duration::from_secs(6))
        );
    }
}

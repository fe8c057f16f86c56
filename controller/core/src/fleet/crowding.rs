//! How far, and for how long, a fleet went beyond the room that its pickers give each replica.

use std::time::Duration;

use serde::Serialize;

/// What went beyond a limit of requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Crowding {
    /// The most requests that any replica had ÷ the limit; 0 without a limit.
    pub peak: f64,
    /// The longest time that a replica had more than the limit at a stretch.
    pub longest: Duration,
}

/// Follows one replica.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowd {
    since: Option<Duration>,
    seen: Crowding,
}

impl Crowd {
    /// The replica has `in_flight` requests from `now` on.
    pub(super) fn follow(&mut self, now: Duration, in_flight: usize, limit: Option<u32>) {
        let Some(limit) = limit.filter(|limit| *limit > 0) else {
            return;
        };
        self.seen.peak = self.seen.peak.max(in_flight as f64 / f64::from(limit));
        if in_flight > limit as usize {
            let since = *self.since.get_or_insert(now);
            self.seen.longest = self.seen.longest.max(now.saturating_sub(since));
        } else if let Some(since) = self.since.take() {
            self.seen.longest = self.seen.longest.max(now.saturating_sub(since));
        }
    }
}

impl Crowding {
    /// The worst of all replicas.
    pub(super) fn of<'c>(crowds: impl Iterator<Item = &'c Crowd>) -> Self {
        crowds.fold(Self::default(), |worst, crowd| Self {
            peak: worst.peak.max(crowd.seen.peak),
            longest: worst.longest.max(crowd.seen.longest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stretch_beyond_the_limit_counts() {
        let mut crowd = Crowd::default();
        let at = Duration::from_millis;
        for (ms, in_flight) in [(0, 9), (10, 11), (30, 12), (50, 10), (60, 11), (65, 10)] {
            crowd.follow(at(ms), in_flight, Some(10));
        }
        let seen = Crowding::of([crowd].iter());
        assert_eq!((seen.peak, seen.longest), (1.2, at(40)));
    }

    #[test]
    fn without_a_limit_nothing_is_beyond_it() {
        let mut crowd = Crowd::default();
        crowd.follow(Duration::ZERO, 1_000, None);
        assert_eq!(Crowding::of([crowd].iter()), Crowding::default());
    }
}

//! How often something is written or told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kubernetes::models::{Finding, Source};

/// At most one write per object in a while.
#[derive(Clone, Debug)]
pub struct Limiter<K> {
    every: Duration,
    written: BTreeMap<K, Duration>,
}

impl<K: Ord + Clone> Limiter<K> {
    /// A limiter that lets an object through once in `every`.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            written: BTreeMap::new(),
        }
    }

    /// Whether `key` may be written at `now`.
    pub fn would_pass(&self, now: Duration, key: &K) -> bool {
        let waited = |at: &Duration| now.saturating_sub(*at) >= self.every;
        self.written.get(key).is_none_or(waited)
    }

    /// Whether `key` may be written at `now`; then it counts as written.
    pub fn pass(&mut self, now: Duration, key: &K) -> bool {
        let passes = self.would_pass(now, key);
        if passes {
            self.written.insert(key.clone(), now);
        }
        passes
    }

    /// Forgets the objects that need not be remembered any more: what it holds is bounded by the writes in one `every`.
    pub fn forget(&mut self, now: Duration) {
        let every = self.every;
        self.written.retain(|_, at| now.saturating_sub(*at) < every);
    }
}

/// A finding that holds on is told again after this long: Kubernetes forgets Events after an hour.
const AGAIN: Duration = Duration::from_secs(1_800);
/// A finding that was gone for this long is told again when it comes back.
const GONE: Duration = Duration::from_secs(600);

/// Which findings were told, so that one that holds on is not told every second.
#[derive(Clone, Debug, Default)]
pub struct Told {
    told: BTreeMap<(Source, &'static str, String), Times>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    told: Duration,
    seen: Duration,
}

impl Told {
    /// Whether to tell `finding` at `now`; then it counts as told. Numbers in its message do not make it another one.
    pub fn tell(&mut self, now: Duration, finding: &Finding) -> bool {
        let about = Source {
            generation: None,
            ..finding.about.clone()
        };
        let words = finding
            .message
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect();
        let fresh = Times {
            told: now,
            seen: now,
        };
        match self.told.entry((about, finding.reason, words)) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(fresh);
                true
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let times = place.get_mut();
                times.seen = now;
                let again = now.saturating_sub(times.told) >= AGAIN;
                if again {
                    *times = fresh;
                }
                again
            }
        }
    }

    /// Forgets what has not been found for a while.
    pub fn forget(&mut self, now: Duration) {
        self.told
            .retain(|_, times| now.saturating_sub(times.seen) < GONE);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kubernetes::models::Topic;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn no_object_is_written_more_often_than_allowed(times in proptest::collection::vec((0_u64..4, 0_u64..3_000), 1..200)) {
            let mut limiter = Limiter::new(10 * SECOND);
            let mut now = Duration::ZERO;
            let mut last: BTreeMap<u64, Duration> = BTreeMap::new();
            for (object, step) in times {
                now += Duration::from_millis(step);
                let passes = limiter.pass(now, &object);
                let waited = last.get(&object).is_none_or(|at| now - *at >= 10 * SECOND);
                prop_assert_eq!(passes, waited);
                if passes {
                    last.insert(object, now);
                }
                limiter.forget(now);
            }
        }
    }

    fn finding(message: &str) -> Finding {
        Finding::new(Topic::Capacity, "PodsPending", &Source::default(), message)
    }

    #[test]
    fn a_finding_is_told_once_whatever_its_numbers_and_again_after_half_an_hour() {
        let mut told = Told::default();
        assert!(told.tell(SECOND, &finding("2 replicas wait")));
        assert!(!told.tell(2 * SECOND, &finding("3 replicas wait")));
        assert!(told.tell(2 * SECOND, &finding("quota")));
        assert!(!told.tell(1_800 * SECOND, &finding("3 replicas wait")));
        assert!(told.tell(1_801 * SECOND, &finding("3 replicas wait")));
    }

    #[test]
    fn a_finding_that_flickers_is_told_once_and_one_that_was_long_gone_anew() {
        let mut told = Told::default();
        assert!(told.tell(SECOND, &finding("a")));
        told.forget(60 * SECOND);
        assert!(!told.tell(60 * SECOND, &finding("a")));
        told.forget(700 * SECOND);
        assert!(told.tell(700 * SECOND, &finding("a")));
    }
}

//! How long to wait after a failure: doubling, capped, with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that double from `first` to `longest`, each taken between its half and its whole, so that many
/// clients of one server that was away do not come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    jitter: RandomState,
}

impl Backoff {
    /// A back-off that has seen no failure.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
            jitter: RandomState::new(),
        }
    }

    /// Something worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Something failed: how long to wait before the next attempt, at most `longest`.
    pub fn failed(&mut self, longest: Duration) -> Duration {
        let most = longest.min(self.longest);
        let wait = self
            .first
            .saturating_mul(1 << self.failures.min(20))
            .min(most);
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(self.jitter.hash_one(self.failures) as u32) / f64::from(u32::MAX);
        wait.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_cap_and_begin_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 8 * second);
        for (number, whole) in [1, 2, 4, 8, 8].into_iter().enumerate() {
            let wait = backoff.failed(Duration::MAX);
            assert!(
                wait >= whole * second / 2 && wait <= whole * second,
                "{number}: {wait:?}"
            );
        }
        assert!(backoff.failed(2 * second) <= 2 * second);
        backoff.reset();
        assert!(backoff.failed(Duration::MAX) <= second);
        for _ in 0..100 {
            assert!(backoff.failed(Duration::MAX) <= 8 * second);
        }
    }

    #[test]
    fn two_clients_do_not_come_back_together() {
        let waits = || {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
            [(); 8].map(|()| backoff.failed(Duration::MAX))
        };
        assert_ne!(waits(), waits());
    }
}

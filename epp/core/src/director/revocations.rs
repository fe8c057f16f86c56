//! Evictions in figures, readable without the director.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What became of a request that was to be taken off its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// It was.
    Evicted,
    /// It ended by itself before.
    Finished,
}

/// Evictions since the start. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    issued: Mutex<BTreeMap<i32, u64>>,
    evicted: AtomicU64,
    finished: AtomicU64,
    overdue: AtomicU64,
    target: AtomicU64,
    pending: AtomicU64,
    /// One more than bounds: what took longer than the last.
    confirmed: [AtomicU64; CONFIRMATION_BOUNDS.len() + 1],
    confirmed_micros: AtomicU64,
}

/// Upper bounds of the times from naming a request to its end, seconds.
pub const CONFIRMATION_BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How long requests took to end once they were named.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confirmations {
    /// Requests by [`CONFIRMATION_BOUNDS`], each in one place only; the last took longer than all bounds.
    pub counts: Vec<u64>,
    /// Sum of the times, seconds.
    pub sum: f64,
}

impl Revocations {
    /// Requests named, by priority, highest first.
    pub fn issued_by_priority(&self) -> Vec<(i32, u64)> {
        let issued = self.shared.issued.lock();
        let issued = issued.unwrap_or_else(PoisonError::into_inner);
        issued
            .iter()
            .rev()
            .map(|(&priority, &count)| (priority, count))
            .collect()
    }

    /// What became of them: evicted, finished by themselves, not confirmed in time (those may still end).
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        let shared = &self.shared;
        [
            ("evicted", shared.evicted.load(Relaxed)),
            ("finished", shared.finished.load(Relaxed)),
            ("overdue", shared.overdue.load(Relaxed)),
        ]
    }

    /// Requests that had to end when somebody was named last.
    pub fn target(&self) -> u64 {
        self.shared.target.load(Relaxed)
    }

    /// Requests named that have not ended.
    pub fn pending(&self) -> u64 {
        self.shared.pending.load(Relaxed)
    }

    /// How long requests took to end once they were named.
    pub fn confirmations(&self) -> Confirmations {
        let counts = self.shared.confirmed.iter();
        Confirmations {
            counts: counts.map(|count| count.load(Relaxed)).collect(),
            sum: self.shared.confirmed_micros.load(Relaxed) as f64 / 1e6,
        }
    }

    pub(crate) fn aim(&self, requests: u64) {
        self.shared.target.store(requests, Relaxed);
    }

    pub(crate) fn issued(&self, priority: i32) {
        let issued = self.shared.issued.lock();
        let mut issued = issued.unwrap_or_else(PoisonError::into_inner);
        *issued.entry(priority).or_default() += 1;
        self.shared.pending.fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self, how: Revoked) {
        let count = match how {
            Revoked::Evicted => &self.shared.evicted,
            Revoked::Finished => &self.shared.finished,
        };
        count.fetch_add(1, Relaxed);
        self.shared.pending.fetch_sub(1, Relaxed);
    }

    pub(crate) fn overdue(&self, requests: u64) {
        self.shared.overdue.fetch_add(requests, Relaxed);
    }

    pub(crate) fn confirmed(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = CONFIRMATION_BOUNDS.partition_point(|&bound| bound < seconds);
        if let Some(count) = self.shared.confirmed.get(place) {
            count.fetch_add(1, Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.shared.confirmed_micros.fetch_add(micros, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_one_place() {
        let counts = Revocations::default();
        for seconds in [0.001, 0.005, 0.3, 60.0] {
            counts.confirmed(Duration::from_secs_f64(seconds));
        }
        let told = counts.confirmations();
        assert_eq!(told.counts, [2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
        assert!((told.sum - 60.306).abs() < 1e-6);
    }
}

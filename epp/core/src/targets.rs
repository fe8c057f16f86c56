//! Hot path: what the requests on one endpoint have been promised, with the tightest promise readable without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// `tightest` when there is none.
const NO_TARGET: u64 = u64::MAX;

/// A multiset of targets. At most one entry per request in flight.
#[derive(Debug)]
pub(crate) struct Targets {
    counts: Mutex<BTreeMap<u64, u32>>,
    tightest: AtomicU64,
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            tightest: AtomicU64::new(NO_TARGET),
        }
    }
}

impl Targets {
    /// The least of them.
    pub(crate) fn tightest(&self) -> Option<u64> {
        Some(self.tightest.load(Relaxed)).filter(|&target| target != NO_TARGET)
    }

    pub(crate) fn add(&self, target: Option<u64>) {
        let Some(target) = target else { return };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(target).or_default() += 1;
        self.publish(&counts);
    }

    pub(crate) fn remove(&self, target: Option<u64>) {
        let Some(target) = target else { return };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&target);
            }
        }
        self.publish(&counts);
    }

    fn publish(&self, counts: &BTreeMap<u64, u32>) {
        self.tightest
            .store(counts.keys().next().copied().unwrap_or(NO_TARGET), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_leaves_with_its_last_holder() {
        let targets = Targets::default();
        assert_eq!(targets.tightest(), None);
        for target in [Some(40), Some(25), Some(25), None] {
            targets.add(target);
        }
        targets.remove(Some(25));
        assert_eq!(targets.tightest(), Some(25));
        targets.remove(Some(25));
        assert_eq!(targets.tightest(), Some(40));
        targets.remove(Some(40));
        assert_eq!(targets.tightest(), None);
    }
}

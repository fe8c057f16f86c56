//! A bound on what request bodies take together while they arrive.
//!
//! Each body has a limit of its own, and the queue counts what it holds; between the two, many slow uploads at
//! once would be bounded by nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be held, shared by all streams.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    /// Room for `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            held: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Requests that were refused for want of room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// What one stream holds of a budget; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    held: u64,
}

impl Share {
    /// Nothing yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0 }
    }

    /// Takes `bytes` more; `false` and a count if there is no room for them.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> bool {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.limit {
            self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
            self.budget.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.held += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_are_given_back() {
        let budget = Arc::new(Budget::new(100));
        let (mut one, mut two) = (
            Share::new(Arc::clone(&budget)),
            Share::new(Arc::clone(&budget)),
        );
        assert!(one.take(60) && !two.take(60) && two.take(40) && !one.take(1));
        assert_eq!((budget.held(), budget.refused()), (100, 2));
        drop(one);
        assert!(two.take(60));
        drop(two);
        assert_eq!(budget.held(), 0);
    }
}

//! `context-length-aware` with `enableFiltering`: endpoints whose range the prompt is outside of are dropped.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::pool::Pool;
use crate::schedule::context_length::{Declared, Ranges};
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// Keeps the endpoints whose range holds the prompt, and those without one; a range that cannot be read holds none.
#[derive(Debug)]
pub(super) struct ContextLengthFilter {
    ranges: Ranges,
}

impl ContextLengthFilter {
    pub(super) fn new(label: &str) -> Self {
        Self {
            ranges: Ranges::new(label),
        }
    }
}

impl Filter for ContextLengthFilter {
    fn stage(&self) -> Stage {
        Stage::Constraint
    }

    fn selects_by_request(&self) -> bool {
        true
    }

    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.ranges.pool_changed(pool);
    }

    fn retain(
        &mut self,
        _: Duration,
        ask: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        candidates.retain(|candidate| match self.ranges.of(candidate) {
            Declared::Nothing => true,
            Declared::Unreadable => false,
            Declared::Range { least, most } => (least..=most).contains(&ask.prompt_tokens()),
        });
    }
}

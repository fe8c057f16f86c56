//! `session-affinity-filter`: the endpoint that served the session before, as long as it is there.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::config::SessionAffinity;
use crate::pool::Pool;
use crate::schedule::bindings::Bindings;
use crate::schedule::{Ask, Candidate, Filter, Stage, prefer};

/// Keeps the endpoint of the session; without one, or when it is gone, all.
#[derive(Debug)]
pub(super) struct SessionFilter {
    bindings: Bindings,
}

impl SessionFilter {
    pub(super) fn new(parameters: &SessionAffinity) -> Self {
        Self {
            bindings: Bindings::new(parameters),
        }
    }
}

impl Filter for SessionFilter {
    fn stage(&self) -> Stage {
        Stage::Preference
    }

    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.bindings.pool_changed(pool);
    }

    fn retain(
        &mut self,
        _: Duration,
        ask: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        if let Some(slot) = self.bindings.slot(ask) {
            prefer(candidates, |candidate| candidate.slot == slot);
        }
    }

    fn dispatched(&mut self, ask: &Ask<'_>, chosen: &Candidate) {
        self.bindings.bind(ask, chosen.slot);
    }
}

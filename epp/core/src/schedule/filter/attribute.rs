//! `endpoint-attribute-filter`: endpoints whose attribute fails a comparison are dropped.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::config::{EndpointAttributeFilter, OnMissing};
use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// Keeps the endpoints whose attribute satisfies the comparison.
#[derive(Debug)]
pub(super) struct AttributeFilter {
    parameters: EndpointAttributeFilter,
    pool: Arc<Pool>,
}

impl AttributeFilter {
    pub(super) fn new(parameters: EndpointAttributeFilter) -> Self {
        Self {
            parameters,
            pool: Arc::default(),
        }
    }

    fn passes(&self, candidate: &Candidate) -> bool {
        let endpoint = self.pool.endpoints.get(candidate.slot as usize);
        let value = endpoint.and_then(|endpoint| endpoint.attribute(&self.parameters.attribute));
        match (value, self.parameters.algorithm.threshold) {
            (Some(value), Some(threshold)) => threshold.operator.holds(value, threshold.value),
            (None, _) => self.parameters.on_missing == OnMissing::Pass,
            (Some(_), None) => true,
        }
    }
}

impl Filter for AttributeFilter {
    fn stage(&self) -> Stage {
        Stage::Room
    }

    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.pool = Arc::clone(pool);
    }

    fn retain(
        &mut self,
        _: Duration,
        _: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        if self.parameters.fallback_on_empty {
            super::super::prefer(candidates, |candidate| self.passes(candidate));
        } else {
            candidates.retain(|candidate| self.passes(candidate));
        }
    }
}

//! `slo-headroom-tier-filter`: endpoints predicted to meet the SLO, else the others.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::config::{PredictedLatencyProducer, SloHeadroomTierFilter};
use crate::schedule::headroom::headroom;
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// Keeps the tier with headroom; with probability ε the other one, so that it is seen to recover. An endpoint
/// without a prediction cannot be confirmed and is in the lower tier. Without any prediction all stay.
#[derive(Debug)]
pub(super) struct HeadroomTier {
    pub(super) parameters: SloHeadroomTierFilter,
    pub(super) producer: PredictedLatencyProducer,
}

impl Filter for HeadroomTier {
    fn stage(&self) -> Stage {
        Stage::Preference
    }

    fn retain(
        &mut self,
        _: Duration,
        ask: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        rng: &mut StdRng,
    ) {
        let meets = |candidate: &Candidate| {
            headroom(&self.producer, ask, candidate).is_some_and(|room| room.is_positive())
        };
        let positive = candidates
            .iter()
            .filter(|candidate| meets(candidate))
            .count();
        if positive == 0 || positive == candidates.len() {
            return;
        }
        let epsilon = self.parameters.epsilon_explore_neg;
        let wanted = !(epsilon > 0.0 && rng.random_bool(epsilon));
        candidates.retain(|candidate| meets(candidate) == wanted);
    }
}

//! `prefix-cache-affinity-filter`: endpoints that have seen most of the prompt, unless their queues cost more.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::config::{PrefixCacheAffinityFilter, Quantile, TtftSource};
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// Keeps the sticky endpoints: those whose share of the prompt's blocks is at least the threshold.
///
/// All stay when none is sticky, when the draw says so, or when the best sticky TTFT is more than the allowed
/// penalty behind the best of the others. Where TTFT is predicted and a side has no prediction, all stay too.
#[derive(Debug)]
pub(super) struct PrefixAffinity {
    pub(super) parameters: PrefixCacheAffinityFilter,
}

impl Filter for PrefixAffinity {
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
        let threshold = self.parameters.affinity_threshold;
        if candidates.len() <= 1 || threshold <= 0.0 {
            return;
        }
        let explores = self.parameters.exploration_probability;
        if explores > 0.0 && rng.random_bool(explores) {
            return;
        }
        let sticky = |candidate: &Candidate| share(ask, candidate) >= threshold;
        let count = candidates
            .iter()
            .filter(|candidate| sticky(candidate))
            .count();
        if count == 0 || count == candidates.len() {
            return;
        }
        if self.parameters.max_ttft_penalty_ms > 0.0 {
            let best = |wanted: bool| {
                candidates
                    .iter()
                    .filter(|candidate| sticky(candidate) == wanted)
                    .filter_map(|candidate| self.ttft_ms(candidate))
                    .reduce(f64::min)
            };
            let (Some(stuck), Some(free)) = (best(true), best(false)) else {
                return;
            };
            if stuck - free > self.parameters.max_ttft_penalty_ms {
                return;
            }
        }
        candidates.retain(sticky);
    }
}

impl PrefixAffinity {
    fn ttft_ms(&self, candidate: &Candidate) -> Option<f64> {
        match self.parameters.ttft_source {
            TtftSource::PrefillThroughput => {
                let tokens = candidate.load.in_flight_tokens() as f64;
                Some(tokens / self.parameters.peak_prefill_throughput * 1e3)
            }
            TtftSource::LatencyPredictor => Some(Quantile::P50.of(&candidate.prediction?.ttft)),
        }
    }
}

/// Share of the prompt's blocks that the endpoint has seen; 0 for a prompt without any.
fn share(ask: &Ask<'_>, candidate: &Candidate) -> f64 {
    match ask.blocks() {
        0 => 0.0,
        blocks => f64::from(candidate.matched_blocks) / f64::from(blocks),
    }
}

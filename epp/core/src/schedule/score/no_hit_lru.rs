//! `no-hit-lru-scorer`: prompts that nobody has cached go where the last such prompt is longest ago.
//!
//! A prompt of which any candidate has a block scores 0.5 everywhere. Else the candidates are ranked, those that
//! never had a cold prompt first, then by how long ago they had one: `1 − rank/(candidates − 1)`.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Score};

/// Spreads the growth of caches.
#[derive(Debug)]
pub(super) struct NoHitLru {
    /// Endpoints remembered.
    size: usize,
    pool: Arc<Pool>,
    /// The last cold prompt of each endpoint, counted from 1; 0 = none, or forgotten. In pool order.
    last: Vec<u64>,
    count: u64,
    /// Candidates by their last cold prompt, for one call.
    ranked: Vec<(u64, usize)>,
}

impl NoHitLru {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            pool: Arc::default(),
            last: Vec::new(),
            count: 0,
            ranked: Vec::new(),
        }
    }

    /// Forgets the oldest when more are remembered than may be.
    fn bound(&mut self) {
        if self.last.iter().filter(|&&last| last > 0).count() <= self.size {
            return;
        }
        let oldest = self.last.iter_mut().filter(|last| **last > 0).min();
        if let Some(last) = oldest {
            *last = 0;
        }
    }
}

impl Score for NoHitLru {
    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        let known: FxHashMap<usize, u64> = self
            .pool
            .endpoints
            .iter()
            .zip(&self.last)
            .map(|(endpoint, &last)| (Arc::as_ptr(&endpoint.load) as usize, last))
            .collect();
        let last = pool.endpoints.iter().map(|endpoint| {
            let life = Arc::as_ptr(&endpoint.load) as usize;
            known.get(&life).copied().unwrap_or_default()
        });
        self.last = last.collect();
        self.pool = Arc::clone(pool);
    }

    fn score(&mut self, _: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        if !cold(candidates) {
            return scores.fill(0.5);
        }
        let last = |candidate: &Candidate| self.last.get(candidate.slot as usize).copied();
        self.ranked.clear();
        self.ranked.extend(
            candidates
                .iter()
                .enumerate()
                .map(|(index, candidate)| (last(candidate).unwrap_or_default(), index)),
        );
        self.ranked.sort_unstable();
        let most = candidates.len().saturating_sub(1).max(1) as f32;
        for (rank, &(_, index)) in self.ranked.iter().enumerate() {
            if let Some(score) = scores.get_mut(index) {
                *score = 1.0 - rank as f32 / most;
            }
        }
    }

    fn dispatched(&mut self, _: &Ask<'_>, candidates: &[Candidate], chosen: &Candidate) {
        if !cold(candidates) {
            return;
        }
        if let Some(last) = self.last.get_mut(chosen.slot as usize) {
            self.count += 1;
            *last = self.count;
            self.bound();
        }
    }
}

/// Whether nobody has any of the prompt.
fn cold(candidates: &[Candidate]) -> bool {
    candidates
        .iter()
        .all(|candidate| candidate.matched_blocks == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, labelled};

    fn scores(scorer: &mut NoHitLru, candidates: &[Candidate]) -> Vec<f32> {
        let mut scores = vec![9.0; candidates.len()];
        scorer.score(&ask(&Request::default()), candidates, &mut scores);
        scores
    }

    fn sent(scorer: &mut NoHitLru, candidates: &[Candidate], chosen: usize) {
        scorer.dispatched(&ask(&Request::default()), candidates, &candidates[chosen]);
    }

    #[test]
    fn cold_prompts_go_round_and_warm_ones_do_not_count() {
        let pool = labelled(&[&[], &[], &[]]);
        let mut scorer = NoHitLru::new(1_024);
        scorer.pool_changed(&pool);
        let cold = [candidate(0), candidate(1), candidate(2)];
        assert_eq!(scores(&mut scorer, &cold), [1.0, 0.5, 0.0]);
        sent(&mut scorer, &cold, 0);
        assert_eq!(scores(&mut scorer, &cold), [0.0, 1.0, 0.5]);
        sent(&mut scorer, &cold, 2);
        assert_eq!(scores(&mut scorer, &cold), [0.5, 1.0, 0.0]);
        let mut warm = cold;
        warm[1].matched_blocks = 1;
        assert_eq!(scores(&mut scorer, &warm), [0.5; 3]);
        sent(&mut scorer, &warm, 1);
        assert_eq!(scores(&mut scorer, &cold), [0.5, 1.0, 0.0]);
        assert_eq!(scores(&mut scorer, &cold[2..]), [1.0], "alone is best");
        let moved = Pool {
            endpoints: vec![
                Arc::clone(&pool.endpoints[2]),
                Arc::clone(&pool.endpoints[1]),
            ],
        };
        scorer.pool_changed(&Arc::new(moved));
        assert_eq!(scores(&mut scorer, &cold[..2]), [0.0, 1.0]);
    }

    #[test]
    fn remembers_no_more_than_it_may() {
        let mut scorer = NoHitLru::new(1);
        scorer.pool_changed(&labelled(&[&[], &[]]));
        let cold = [candidate(0), candidate(1)];
        sent(&mut scorer, &cold, 1);
        sent(&mut scorer, &cold, 0);
        assert_eq!(scorer.last, [2, 0]);
    }
}

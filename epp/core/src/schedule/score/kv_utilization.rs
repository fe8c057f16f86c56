//! `kv-cache-utilization-scorer`: `1 − kv`.

use crate::schedule::{Ask, Candidate, Score};

/// Prefers the emptiest KV cache.
#[derive(Debug)]
pub(super) struct KvUtilizationScorer;

impl Score for KvUtilizationScorer {
    fn score(&mut self, _: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let (mut sum, mut known) = (0.0, 0.0);
        for (candidate, score) in candidates.iter().zip(scores.iter_mut()) {
            *score = free_kv(candidate).unwrap_or(f32::NAN);
            if !score.is_nan() {
                (sum, known) = (sum + *score, known + 1.0);
            }
        }
        // An unknown cache is neither empty nor full: it is like the others.
        let typical = if known > 0.0 { sum / known } else { 0.5 };
        for score in scores {
            if score.is_nan() {
                *score = typical;
            }
        }
    }
}

/// Share of the KV cache that is free, if it is known.
pub(super) fn free_kv(candidate: &Candidate) -> Option<f32> {
    let used = candidate.scraped?.kv_utilization;
    (!used.is_nan()).then_some(1.0 - used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, scraped};

    fn with_kv(kv_utilization: f32) -> Candidate {
        Candidate {
            scraped: scraped(0.0, 0.0, kv_utilization),
            ..candidate(0)
        }
    }

    #[test]
    fn unknown_is_like_the_others() {
        let mut scores = [0.0; 4];
        let candidates = [
            with_kv(0.25),
            with_kv(0.75),
            candidate(2),
            with_kv(f32::NAN),
        ];
        KvUtilizationScorer.score(&ask(&Request::default()), &candidates, &mut scores);
        assert_eq!(scores, [0.75, 0.25, 0.5, 0.5]);
    }
}

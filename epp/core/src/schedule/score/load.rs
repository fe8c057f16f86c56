//! `load-aware-scorer`, `token-load-scorer`, `active-request-scorer`: less load scores higher, each endpoint by itself.

use super::queue::Requests;
use crate::schedule::{Ask, Candidate, Score};

/// `load-aware-scorer`: `0.5·(1 − min(queue, threshold)/threshold)`.
#[derive(Debug)]
pub(super) struct ShortQueue {
    pub(super) threshold: f32,
}

impl Score for ShortQueue {
    fn score(&mut self, _: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let scraped = Requests::Waiting.told(candidates);
        for (candidate, score) in candidates.iter().zip(scores) {
            let queue = Requests::Waiting.of(candidate, scraped);
            *score = 0.5 * (1.0 - queue.min(self.threshold) / self.threshold);
        }
    }
}

/// `token-load-scorer`: `1 − min(1, in-flight tokens/threshold)`.
#[derive(Debug)]
pub(super) struct FewTokens {
    pub(super) threshold: f64,
}

impl Score for FewTokens {
    fn score(&mut self, _: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        for (candidate, score) in candidates.iter().zip(scores) {
            let tokens = candidate.load.in_flight_tokens() as f64;
            *score = (1.0 - (tokens / self.threshold).min(1.0)) as f32;
        }
    }
}

/// `active-request-scorer`: 1 up to the idle threshold, else `(max − n)/max` of the highest score of the busy.
#[derive(Debug)]
pub(super) struct FewRequests {
    pub(super) idle: u32,
    pub(super) max_busy_score: f32,
}

impl Score for FewRequests {
    fn score(&mut self, _: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let in_flight = |candidate: &Candidate| candidate.load.in_flight;
        let most = candidates.iter().map(in_flight).max().unwrap_or_default();
        for (candidate, score) in candidates.iter().zip(scores) {
            let count = in_flight(candidate);
            *score = if count <= self.idle {
                1.0
            } else {
                (most - count) as f32 / most as f32 * self.max_busy_score
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, scraped};

    fn scored(scorer: &mut dyn Score, candidates: &[Candidate]) -> Vec<f32> {
        let mut scores = vec![9.0; candidates.len()];
        scorer.score(&ask(&Request::default()), candidates, &mut scores);
        scores
    }

    #[test]
    fn load_aware_halves_and_saturates() {
        let with_queue = |waiting| Candidate {
            scraped: scraped(waiting, 0.0, 0.0),
            ..candidate(0)
        };
        let queues = [with_queue(0.0), with_queue(32.0), with_queue(500.0)];
        let scores = scored(&mut ShortQueue { threshold: 128.0 }, &queues);
        assert_eq!(scores, [0.5, 0.375, 0.0]);
    }

    #[test]
    fn token_load_counts_prompts_not_read_and_output_expected() {
        let mut candidates = [candidate(0), candidate(1), candidate(2)];
        candidates[1].load.waiting_tokens = 1_000_000;
        candidates[1].load.estimated_tokens = 48_576;
        candidates[2].load.waiting_tokens = 9_000_000;
        // What an endpoint has read already is not in flight any more.
        candidates[0].load.resident_tokens = 5_000_000;
        let mut scorer = FewTokens {
            threshold: 4_194_304.0,
        };
        assert_eq!(scored(&mut scorer, &candidates), [1.0, 0.75, 0.0]);
    }

    #[test]
    fn active_requests_scale_below_the_busiest() {
        let mut candidates = [candidate(0), candidate(1), candidate(2), candidate(3)];
        for (candidate, count) in candidates.iter_mut().zip([0, 2, 4, 8]) {
            candidate.load.in_flight = count;
        }
        let mut plain = FewRequests {
            idle: 0,
            max_busy_score: 1.0,
        };
        assert_eq!(scored(&mut plain, &candidates), [1.0, 0.75, 0.5, 0.0]);
        let mut apart = FewRequests {
            idle: 2,
            max_busy_score: 0.5,
        };
        assert_eq!(scored(&mut apart, &candidates), [1.0, 1.0, 0.25, 0.0]);
    }
}

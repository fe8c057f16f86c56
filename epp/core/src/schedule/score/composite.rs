//! What scores an endpoint while there is no prediction: free KV, short queue, matched prefix.

use super::kv_utilization::free_kv;
use super::prefix::matched_share;
use super::queue::Requests;
use crate::schedule::{Ask, Candidate};

/// Weights of the three parts; only their ratios count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Composite {
    pub(super) kv: f64,
    pub(super) queue: f64,
    pub(super) prefix: f64,
}

impl Composite {
    /// `wkv·(1 − kv) + wq·(maxQ − q)/maxQ + wpref·matched/total` with weights normalised, rounded to
    /// hundredths. The queue part is 1 when all queues are empty; an unknown KV cache counts as half full.
    pub(super) fn score(&self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let sum = (self.kv + self.queue + self.prefix).max(f64::MIN_POSITIVE);
        let scraped = Requests::Waiting.told(candidates);
        let queue = |candidate: &Candidate| Requests::Waiting.of(candidate, scraped);
        let longest = candidates.iter().map(queue).fold(0.0, f32::max);
        for (candidate, score) in candidates.iter().zip(scores) {
            let queued = if longest > 0.0 {
                (longest - queue(candidate)) / longest
            } else {
                1.0
            };
            let parts = self.kv * f64::from(free_kv(candidate).unwrap_or(0.5))
                + self.queue * f64::from(queued)
                + self.prefix * f64::from(matched_share(ask, candidate));
            *score = ((100.0 * parts / sum).round() / 100.0) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate};

    #[test]
    fn adds_the_parts_by_weight_and_rounds() {
        let request = Request {
            prefix: [1, 2, 3].into(),
            ..Request::default()
        };
        let ask = ask(&request);
        let mut warm = candidate(0);
        warm.matched_blocks = 1;
        warm.load.waiting = 1;
        let mut long = candidate(1);
        long.load.waiting = 4;
        let mut scores = [0.0; 2];
        Composite {
            kv: 1.0,
            queue: 1.0,
            prefix: 1.0,
        }
        .score(&ask, &[warm, long], &mut scores);
        // (0.5 + 0.75 + 1/3)/3 = 0.5278 and (0.5 + 0 + 0)/3 = 0.1667
        assert_eq!(scores, [0.53, 0.17]);
    }
}

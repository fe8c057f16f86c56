//! `queue-scorer`: `(max − q)/(max − min)`, 1 if all are equal.

use crate::schedule::{Ask, Candidate, Score};

/// Prefers the shortest queue in the engines.
#[derive(Debug)]
pub(super) struct QueueScorer;

impl Score for QueueScorer {
    fn score(&self, _: &Ask, candidates: &[Candidate], scores: &mut [f32]) {
        let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
        let scraped = candidates
            .iter()
            .all(|candidate| queue(candidate, true).is_finite());
        for (candidate, score) in candidates.iter().zip(scores.iter_mut()) {
            *score = queue(candidate, scraped);
            (least, most) = (least.min(*score), most.max(*score));
        }
        let range = most - least;
        for score in scores {
            *score = if range > 0.0 {
                (most - *score) / range
            } else {
                1.0
            };
        }
    }
}

/// Requests waiting in the engine. Readings of different kinds do not compare: where one engine's is missing,
/// all are taken from the counters of what was dispatched and has no first token yet.
pub(super) fn queue(candidate: &Candidate, scraped: bool) -> f32 {
    match candidate.scraped {
        Some(reading) if scraped => reading.waiting,
        None if scraped => f32::NAN,
        _ => candidate.load.waiting as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Scraped;
    use crate::schedule::{ask, candidate};
    use std::time::Duration;

    fn scored(candidates: &[Candidate]) -> Vec<f32> {
        let mut scores = vec![0.0; candidates.len()];
        QueueScorer.score(&ask(), candidates, &mut scores);
        scores
    }

    fn with_queue(waiting: f32) -> Candidate {
        let at = Duration::ZERO;
        let scraped = Scraped {
            at,
            waiting,
            running: 0.0,
            kv_utilization: 0.0,
            block_tokens: None,
            kv_blocks: None,
        };
        Candidate {
            scraped: Some(scraped),
            ..candidate(0)
        }
    }

    #[test]
    fn shortest_is_one_longest_is_zero() {
        assert_eq!(
            scored(&[with_queue(2.0), with_queue(6.0), with_queue(3.0)]),
            [1.0, 0.0, 0.75]
        );
        assert_eq!(scored(&[with_queue(4.0), with_queue(4.0)]), [1.0, 1.0]);
    }

    #[test]
    fn without_a_scrape_all_are_compared_by_their_counters() {
        let mut unknown = candidate(1);
        unknown.load.waiting = 3;
        assert_eq!(scored(&[with_queue(100.0), unknown]), [1.0, 0.0]);
    }
}

//! `queue-scorer` and `running-requests-size-scorer`: `(max − n)/(max − min)`, 1 if all are equal.

use crate::schedule::{Ask, Candidate, Score};

/// A number of requests that an engine tells, and the counter that stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requests {
    /// Waiting in the engine.
    Waiting,
    /// Running in the engine.
    Running,
}

impl Requests {
    /// Readings of different kinds do not compare: where one engine's is missing, all are taken from the counters of
    /// what was dispatched and has, or has not, its first token yet.
    pub(super) fn of(self, candidate: &Candidate, scraped: bool) -> f32 {
        match (candidate.scraped, self) {
            (Some(reading), Self::Waiting) if scraped => reading.waiting,
            (Some(reading), Self::Running) if scraped => reading.running,
            (None, _) if scraped => f32::NAN,
            (_, Self::Waiting) => candidate.load.waiting as f32,
            (_, Self::Running) => candidate.load.running as f32,
        }
    }

    /// Whether every engine has told its number.
    pub(super) fn told(self, candidates: &[Candidate]) -> bool {
        candidates
            .iter()
            .all(|candidate| self.of(candidate, true).is_finite())
    }
}

/// Prefers the fewest.
#[derive(Debug)]
pub(super) struct FewestScorer {
    pub(super) requests: Requests,
}

impl Score for FewestScorer {
    fn score(&mut self, _: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
        let scraped = self.requests.told(candidates);
        for (candidate, score) in candidates.iter().zip(scores.iter_mut()) {
            *score = self.requests.of(candidate, scraped);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, scraped};

    fn scored(requests: Requests, candidates: &[Candidate]) -> Vec<f32> {
        let mut scores = vec![0.0; candidates.len()];
        FewestScorer { requests }.score(&ask(&Request::default()), candidates, &mut scores);
        scores
    }

    fn telling(waiting: f32, running: f32) -> Candidate {
        Candidate {
            scraped: scraped(waiting, running, 0.0),
            ..candidate(0)
        }
    }

    #[test]
    fn fewest_is_one_most_is_zero() {
        let told = [telling(2.0, 9.0), telling(6.0, 1.0), telling(3.0, 5.0)];
        assert_eq!(scored(Requests::Waiting, &told), [1.0, 0.0, 0.75]);
        assert_eq!(scored(Requests::Running, &told), [0.0, 1.0, 0.5]);
        let equal = [telling(4.0, 4.0), telling(4.0, 4.0)];
        assert_eq!(scored(Requests::Waiting, &equal), [1.0, 1.0]);
    }

    #[test]
    fn without_a_scrape_all_are_compared_by_their_counters() {
        let mut unknown = candidate(1);
        (unknown.load.waiting, unknown.load.running) = (3, 0);
        let candidates = [telling(100.0, 100.0), unknown];
        assert_eq!(scored(Requests::Waiting, &candidates), [1.0, 0.0]);
        assert_eq!(scored(Requests::Running, &candidates), [1.0, 1.0]);
    }
}

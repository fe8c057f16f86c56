//! A saturation detector applied to single endpoints.

use std::time::Duration;

use crate::config::Detector;
use crate::flow::{Reading, has_room};
use crate::schedule::{Candidate, Filter};

/// Drops endpoints that use more than their share of capacity; unknown readings stay.
#[derive(Debug)]
pub(super) struct RoomFilter {
    pub(super) detector: Detector,
    pub(super) ceiling: f64,
}

impl Filter for RoomFilter {
    fn retain(&self, now: Duration, candidates: &mut Vec<Candidate>) {
        candidates.retain(|candidate| {
            let reading = Reading {
                load: candidate.load,
                scraped: candidate.scraped,
            };
            has_room(&self.detector, &reading, self.ceiling, now)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConcurrencyDetector;
    use crate::schedule::candidate;

    #[test]
    fn keeps_those_with_room() {
        let parameters = ConcurrencyDetector {
            max_concurrency: 2,
            ..ConcurrencyDetector::default()
        };
        let filter = RoomFilter {
            detector: Detector::Concurrency(parameters),
            ceiling: 1.0,
        };
        let mut candidates = vec![candidate(0), candidate(1)];
        candidates[0].load.in_flight = 2;
        filter.retain(Duration::ZERO, &mut candidates);
        assert_eq!(
            candidates
                .iter()
                .map(|candidate| candidate.slot)
                .collect::<Vec<_>>(),
            [1]
        );
    }
}

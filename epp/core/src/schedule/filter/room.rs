//! A saturation detector applied to single endpoints.

use std::time::Duration;

use rand::rngs::StdRng;

use crate::config::Detector;
use crate::flow::{Reading, has_room};
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// Drops endpoints that use more than their capacity and the detector's headroom; unknown readings stay.
#[derive(Debug)]
pub(super) struct RoomFilter {
    pub(super) detector: Detector,
}

impl Filter for RoomFilter {
    fn stage(&self) -> Stage {
        Stage::Room
    }

    fn retain(
        &mut self,
        now: Duration,
        _: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        candidates.retain(|candidate| {
            let reading = Reading {
                load: candidate.load,
                scraped: candidate.scraped,
            };
            has_room(&self.detector, &reading, 1.0, now)
        });
    }
}

//! Filters of a profile.

mod room;

use super::Filter;
use crate::config::Detector;

pub(super) fn build(detector: &Detector, ceiling: f64) -> Box<dyn Filter> {
    Box::new(room::RoomFilter {
        detector: detector.clone(),
        ceiling,
    })
}

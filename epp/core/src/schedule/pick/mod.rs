//! Pickers, one file each. All return the pick first, then fallbacks.

mod max_score;
mod random;
mod round_robin;
mod weighted_random;

use super::Pick;
use crate::config::Picker;

pub(super) fn build(picker: Picker) -> Box<dyn Pick> {
    match picker {
        Picker::MaxScore => Box::new(max_score::MaxScore::default()),
        Picker::Random => Box::new(random::Random),
        Picker::WeightedRandom => Box::new(weighted_random::WeightedRandom::default()),
        Picker::RoundRobin => Box::new(round_robin::RoundRobin::default()),
    }
}

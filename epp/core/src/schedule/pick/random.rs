//! `random-picker`: every candidate with the same chance.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::schedule::{Candidate, Pick};

/// Picks blindly.
#[derive(Debug)]
pub(super) struct Random;

impl Pick for Random {
    fn pick(
        &mut self,
        _: &[Candidate],
        totals: &[f32],
        most: usize,
        rng: &mut StdRng,
        picked: &mut Vec<usize>,
    ) {
        let count = totals.len();
        picked.extend(0..count);
        // The first steps of a Fisher-Yates shuffle.
        for place in 0..most.min(count) {
            picked.swap(place, rng.random_range(place..count));
        }
        picked.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn covers_all_and_repeats_none() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen = [0; 4];
        for _ in 0..400 {
            let mut picked = Vec::new();
            Random.pick(&[], &[0.0; 4], 2, &mut rng, &mut picked);
            assert_eq!(picked.len(), 2);
            assert_ne!(picked[0], picked[1]);
            seen[picked[0]] += 1;
        }
        assert!(seen.iter().all(|&count| count > 60), "{seen:?}");
    }
}

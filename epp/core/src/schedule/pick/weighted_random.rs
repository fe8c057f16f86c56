//! `weighted-random-picker`: chances in proportion to the totals, by A-Res sampling (key = U^(1/total)).

use rand::RngExt;
use rand::rngs::StdRng;

use crate::schedule::{Candidate, Pick};

/// Picks at random, better totals more often.
#[derive(Debug, Default)]
pub(super) struct WeightedRandom {
    keys: Vec<(f64, usize)>,
}

impl Pick for WeightedRandom {
    fn pick(
        &mut self,
        _: &[Candidate],
        totals: &[f32],
        most: usize,
        rng: &mut StdRng,
        picked: &mut Vec<usize>,
    ) {
        self.keys.clear();
        self.keys
            .extend(totals.iter().enumerate().map(|(index, &total)| {
                // ln U / total orders like U^(1/total) and does not underflow; a total of 0 comes last.
                let uniform: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
                (uniform.ln() / f64::from(total).max(1e-12), index)
            }));
        self.keys.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        picked.extend(self.keys.iter().take(most).map(|&(_, index)| index));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn chances_follow_the_totals() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut picker = WeightedRandom::default();
        let mut counts = [0; 3];
        for _ in 0..4_000 {
            let mut picked = Vec::new();
            picker.pick(&[], &[3.0, 1.0, 0.0], 1, &mut rng, &mut picked);
            counts[picked[0]] += 1;
        }
        assert!((2_850..3_150).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[2], 0);
    }
}

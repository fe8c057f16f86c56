//! `max-score-picker`: the highest total; ties fall at random.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::schedule::{Candidate, Pick};

/// Picks the highest totals.
#[derive(Debug, Default)]
pub(super) struct MaxScore {
    /// Total, tie-breaker, index.
    ranked: Vec<(f32, u64, usize)>,
}

impl Pick for MaxScore {
    fn pick(
        &mut self,
        _: &[Candidate],
        totals: &[f32],
        most: usize,
        rng: &mut StdRng,
        picked: &mut Vec<usize>,
    ) {
        if most == 1 {
            picked.extend(best(totals, rng));
            return;
        }
        self.ranked.clear();
        self.ranked.extend(
            totals
                .iter()
                .enumerate()
                .map(|(index, &total)| (total, rng.next_u64(), index)),
        );
        self.ranked
            .sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        picked.extend(self.ranked.iter().take(most).map(|&(_, _, index)| index));
    }
}

/// The highest total, each of several equal ones with the same chance: the k-th replaces the one held with
/// probability 1/k, so that random numbers are drawn for ties only.
fn best(totals: &[f32], rng: &mut StdRng) -> Option<usize> {
    let (mut best, mut highest, mut ties) = (None, f32::NEG_INFINITY, 0_u32);
    for (index, &total) in totals.iter().enumerate() {
        if total > highest {
            (best, highest, ties) = (Some(index), total, 1);
        } else if total == highest {
            ties += 1;
            if rng.random_range(0..ties) == 0 {
                best = Some(index);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::schedule::candidate;

    fn pick(totals: &[f32], most: usize, seed: u64) -> Vec<usize> {
        let candidates: Vec<_> = (0..totals.len() as u32).map(candidate).collect();
        let mut picked = Vec::new();
        MaxScore::default().pick(
            &candidates,
            totals,
            most,
            &mut StdRng::seed_from_u64(seed),
            &mut picked,
        );
        picked
    }

    #[test]
    fn the_highest_wins_and_fallbacks_descend() {
        assert_eq!(pick(&[0.1, 0.9, 0.5], 1, 1), [1]);
        assert_eq!(pick(&[0.1, 0.9, 0.5], 2, 1), [1, 2]);
        assert_eq!(pick(&[0.1], 5, 1), [0]);
        assert!(pick(&[], 1, 1).is_empty());
    }

    #[test]
    fn ties_fall_evenly() {
        let mut counts = [0; 4];
        for seed in 0..3_000 {
            counts[pick(&[1.0, 1.0, 0.2, 1.0], 1, seed)[0]] += 1;
        }
        assert_eq!(counts[2], 0);
        assert!(
            [0, 1, 3]
                .iter()
                .all(|&tied| (850..1_150).contains(&counts[tied])),
            "{counts:?}"
        );
    }
}

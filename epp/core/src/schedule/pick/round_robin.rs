//! `round-robin-picker`, Headroom's own, for comparison: each endpoint in turn.

use rand::rngs::StdRng;

use crate::schedule::{Candidate, Pick};

/// Picks the next endpoint in pool order after the last one picked.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    next: u32,
}

impl Pick for RoundRobin {
    fn pick(
        &mut self,
        candidates: &[Candidate],
        _: &[f32],
        most: usize,
        _: &mut StdRng,
        picked: &mut Vec<usize>,
    ) {
        // Candidates are in pool order, possibly with gaps.
        let first = candidates.partition_point(|candidate| candidate.slot < self.next);
        let count = candidates.len();
        picked.extend((0..count.min(most)).map(|step| (first + step) % count));
        if let Some(candidate) = picked.first().and_then(|&index| candidates.get(index)) {
            self.next = candidate.slot + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::schedule::candidate;

    #[test]
    fn takes_turns_and_steps_over_gaps() {
        let mut rng = StdRng::seed_from_u64(0);
        let mut picker = RoundRobin::default();
        let mut turn = |slots: &[u32]| {
            let candidates: Vec<_> = slots.iter().copied().map(candidate).collect();
            let mut picked = Vec::new();
            picker.pick(
                &candidates,
                &vec![0.0; slots.len()],
                1,
                &mut rng,
                &mut picked,
            );
            slots[picked[0]]
        };
        assert_eq!(
            [
                turn(&[0, 1, 2]),
                turn(&[0, 1, 2]),
                turn(&[0, 2]),
                turn(&[0, 1, 2])
            ],
            [0, 1, 2, 0]
        );
        assert_eq!(turn(&[0]), 0);
    }
}

//! What a pick leaves behind: who was taken out by which filter, and how long each step took. Kept only of requests
//! that are recorded.

use std::sync::Arc;

use super::Candidate;
use crate::decision::Removal;
use crate::stopwatch::Laps;

/// An endpoint that a filter took out.
#[derive(Clone, Debug)]
pub(crate) struct Removed {
    pub(crate) candidate: Candidate,
    pub(crate) filter: Arc<str>,
}

/// The trail of the request at hand.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) laps: Laps,
    wanted: bool,
    before: Vec<Candidate>,
    removed: Vec<Removed>,
}

impl Trail {
    /// Another request is at hand, whose trail is `wanted` or not.
    pub(crate) fn begin(&mut self, wanted: bool) {
        self.wanted = wanted;
        self.laps.begin(wanted);
        self.removed.clear();
    }

    /// A filter is about to run on these.
    pub(crate) fn before(&mut self, candidates: &[Candidate]) {
        if self.wanted {
            self.before.clear();
            self.before.extend_from_slice(candidates);
        }
    }

    /// `filter` has left these of them, in the same order.
    pub(crate) fn after(&mut self, filter: &Arc<str>, left: &[Candidate]) {
        if !self.wanted || self.before.len() == left.len() {
            return;
        }
        let mut left = left.iter().peekable();
        for candidate in &self.before {
            if left.next_if(|one| one.slot == candidate.slot).is_none() {
                self.removed.push(Removed {
                    candidate: *candidate,
                    filter: Arc::clone(filter),
                });
            }
        }
    }

    /// Who was taken out so far.
    pub(crate) fn removed(&self) -> &[Removed] {
        &self.removed
    }
}

/// How many each filter took out, in the order that they ran.
pub(crate) fn removals(removed: &[Removed]) -> Vec<Removal> {
    let mut removals: Vec<Removal> = Vec::new();
    for one in removed {
        match removals.iter_mut().find(|known| known.filter == one.filter) {
            Some(known) => known.count += 1,
            None => removals.push(Removal {
                filter: Arc::clone(&one.filter),
                count: 1,
            }),
        }
    }
    removals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::candidate;

    #[test]
    fn those_taken_out_are_remembered_with_their_filter() {
        let all: Vec<_> = (0..5).map(candidate).collect();
        let some = |slots: &[u32]| {
            slots
                .iter()
                .map(|&slot| candidate(slot))
                .collect::<Vec<_>>()
        };
        let names: [Arc<str>; 2] = ["roles".into(), "room".into()];
        let mut trail = Trail::default();
        trail.begin(true);
        trail.before(&all);
        trail.after(&names[0], &some(&[1, 2, 4]));
        trail.before(&some(&[1, 2, 4]));
        trail.after(&names[1], &some(&[2]));
        let removed: Vec<_> = trail
            .removed()
            .iter()
            .map(|one| (one.candidate.slot, &*one.filter))
            .collect();
        assert_eq!(
            removed,
            [(0, "roles"), (3, "roles"), (1, "room"), (4, "room")]
        );
        let counts: Vec<_> = removals(trail.removed())
            .iter()
            .map(|one| one.count)
            .collect();
        assert_eq!(counts, [2, 2]);
        trail.begin(false);
        trail.before(&all);
        trail.after(&names[0], &[]);
        assert!(trail.removed().is_empty(), "not wanted");
    }
}

//! Room for what comes when the index is full: a hand goes round over all entries, looks at a few at a time and
//! forgets those whose blocks nobody stored or looked up for longest.

use super::{Ingest, let_go};
use crate::engine::{Held, Place};
use crate::index::Pod;
use crate::index::residency::Bit;
use crate::ingest::pod::TOLD;
use crate::tier::Tier;

/// Entries looked at together.
const SAMPLE: usize = 16;
/// Entries made per epoch, as a part of the bound.
const EPOCHS: usize = 8;
/// Age in epochs from which an entry is forgotten wherever the hand meets it. Stamps tell 16 epochs apart.
const OLD: u32 = 6;

/// Where the hand is.
#[derive(Debug, Default)]
pub(super) struct Hand {
    pod: usize,
    tier: usize,
    place: Place,
    sample: Vec<(u32, Held)>,
}

impl Ingest {
    /// Makes room for one entry; false if there is none.
    pub(super) fn make_room(&mut self) -> bool {
        while self.entries + self.pages >= self.settings.entries {
            if !self.slots.retired.is_empty() {
                self.tidy(SAMPLE);
            } else if !self.evict() {
                return false;
            }
        }
        true
    }

    /// One entry was made.
    pub(super) fn made_one(&mut self) {
        self.entries += 1;
        self.made += 1;
        if self.made >= (self.settings.entries / EPOCHS).max(1) {
            self.made = 0;
            self.holdings.advance_epoch();
        }
    }

    /// Forgets some entries; false if there are none.
    fn evict(&mut self) -> bool {
        // Once round, and one map more: the hand may have begun in the middle of one. Of the last few of a map the
        // oldest may be young; it goes only if there is nothing else.
        [SAMPLE, 1].into_iter().any(|enough| {
            (0..=(self.pods.len() + 1) * TOLD).any(|_| {
                let Some((pod, tier)) = self.sample() else {
                    return false;
                };
                let ages = self.hand.sample.iter().map(|(age, _)| *age);
                let oldest = ages.max().unwrap_or(0);
                let may = self.hand.sample.len() >= enough || oldest >= OLD;
                if may {
                    self.forget_oldest(pod, tier, oldest.min(OLD));
                }
                may
            })
        })
    }

    /// Looks at the next entries of the map the hand is at and moves it on; the endpoint and tier of that map if
    /// there were any.
    fn sample(&mut self) -> Option<(usize, usize)> {
        let Hand {
            pod,
            tier,
            place,
            sample,
        } = &mut self.hand;
        sample.clear();
        let at = (*pod, *tier);
        let state = self.pods.get(*pod).and_then(Option::as_ref);
        match state.and_then(|state| state.tiers[*tier].as_ref()) {
            Some(tiered) => tiered.engines.walk(place, SAMPLE, |held| {
                sample.push((self.holdings.age(held.block()), held));
            }),
            None => *place = Place::default(),
        }
        if *place == Place::default() {
            *tier = (*tier + 1) % TOLD;
            if *tier == 0 {
                *pod = (*pod + 1) % self.pods.len().max(1);
            }
        }
        (!sample.is_empty()).then_some(at)
    }

    /// Forgets those of the sample that are old, or if `limit` is less, one of that age.
    fn forget_oldest(&mut self, pod: usize, tier: usize, limit: u32) {
        let Some(state) = self.pods.get_mut(pod).and_then(Option::as_mut) else {
            return;
        };
        let slot = state.slot;
        let (Some(tiered), Some(name)) = (&mut state.tiers[tier], Tier::ALL.get(tier)) else {
            return;
        };
        let bit = Bit { tier: *name, slot };
        let sample = &mut self.hand.sample;
        let mut gone = 0;
        for (_, held) in sample.drain(..).filter(|(age, _)| *age >= limit) {
            if limit < OLD && gone > 0 {
                break;
            }
            tiered.engines.forget(held);
            let_go(&mut self.holdings, &mut tiered.aliases, bit, held.block());
            gone += 1;
        }
        self.entries -= gone;
        self.counts.evicted += gone as u64;
        self.knows_less(Pod(pod as u32));
    }
}

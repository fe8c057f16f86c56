//! What one engine calls the blocks it holds in one tier.
//!
//! Engine hashes are never computed here: an event that stores a block tells the hash together with the tokens, and
//! from then on the hash stands for the block. Engines may store a block again while they hold it (a second copy) and
//! then let it go once per copy; hence the count.

mod segment;

use rustc_hash::FxHashMap;

use crate::events::EngineHash;
use crate::keys::mix;

pub(crate) use segment::MAX_BLOCKS;
use segment::{Entry, Found, Segment};

/// A block in the index.
pub(crate) type BlockId = u32;

/// Segments that a map is cut into, so that growing one moves little. Their number tells hashes apart as well: with
/// the 36 bits that a segment keeps, 42.
const SEGMENTS: usize = 64;
const SEGMENT_BITS: u32 = SEGMENTS.trailing_zeros();

/// Engine hash → block, 8 to 9.1 bytes each.
#[derive(Debug)]
pub(crate) struct EngineMap {
    segments: Vec<Segment>,
    /// Copies beyond the first, by segment and entry.
    copies: FxHashMap<(u8, Entry), u32>,
    /// Hashes whose 42 bits another hash in the map has as well, or that the engine gave to another block.
    twins: FxHashMap<EngineHash, BlockId>,
}

/// What became of a hash that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It was not there.
    New,
    /// It was there for this block: one more copy.
    Again,
    /// It stood for that block, and now for this one.
    Instead(BlockId),
}

/// What became of a hash that was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// It was not there.
    Unknown,
    /// Another copy is left.
    Copy,
    /// It stood for this block and is gone.
    Gone(BlockId),
}

/// A place in a map, to go through it bit by bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    segment: usize,
    slot: usize,
}

/// One hash in a map, by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    segment: usize,
    entry: Entry,
}

impl Held {
    pub(crate) fn block(self) -> BlockId {
        self.entry.block()
    }
}

impl Default for EngineMap {
    fn default() -> Self {
        Self {
            segments: (0..SEGMENTS).map(|_| Segment::default()).collect(),
            copies: FxHashMap::default(),
            twins: FxHashMap::default(),
        }
    }
}

/// The segment of a hash and the 36 bits it is known by there.
fn split(hash: EngineHash) -> (usize, u64) {
    let mixed = mix(hash);
    (
        (mixed >> (u64::BITS - SEGMENT_BITS)) as usize,
        (mixed << SEGMENT_BITS) >> (u64::BITS - segment::TAG_BITS),
    )
}

impl EngineMap {
    /// Hashes in it.
    pub(crate) fn len(&self) -> usize {
        self.segments.iter().map(Segment::len).sum::<usize>() + self.twins.len()
    }

    /// The block that `hash` stands for.
    pub(crate) fn get(&self, hash: EngineHash) -> Option<BlockId> {
        if !self.twins.is_empty()
            && let Some(block) = self.twins.get(&hash)
        {
            return Some(*block);
        }
        let (segment, tag) = split(hash);
        match self.segments[segment].find(tag) {
            Found::At(_, entry) => Some(entry.block()),
            Found::Before(_) => None,
        }
    }

    /// `hash` stands for `block`.
    pub(crate) fn insert(&mut self, hash: EngineHash, block: BlockId) -> Inserted {
        let (segment, tag) = split(hash);
        if let Some(twin) = self.twins.get_mut(&hash) {
            if *twin == block {
                return Inserted::Again;
            }
            return Inserted::Instead(std::mem::replace(twin, block));
        }
        match self.segments[segment].find(tag) {
            Found::At(_, entry) if entry.block() == block => {
                *self.copies.entry((segment as u8, entry)).or_insert(0) += 1;
                Inserted::Again
            }
            Found::At(..) => {
                self.twins.insert(hash, block);
                Inserted::New
            }
            Found::Before(slot) => {
                self.segments[segment].insert(slot, Entry::new(tag, block));
                Inserted::New
            }
        }
    }

    /// The engine let one copy of `hash` go.
    pub(crate) fn remove(&mut self, hash: EngineHash) -> Removed {
        if !self.twins.is_empty()
            && let Some(block) = self.twins.remove(&hash)
        {
            return Removed::Gone(block);
        }
        let (segment, tag) = split(hash);
        let Found::At(slot, entry) = self.segments[segment].find(tag) else {
            return Removed::Unknown;
        };
        if !self.copies.is_empty()
            && let Some(copies) = self.copies.get_mut(&(segment as u8, entry))
        {
            *copies -= 1;
            if *copies == 0 {
                self.copies.remove(&(segment as u8, entry));
            }
            return Removed::Copy;
        }
        self.segments[segment].remove(slot);
        Removed::Gone(entry.block())
    }

    /// Up to `most` hashes from `place` on, which moves behind them; it is back at the start when the map is through.
    /// Hashes that were put in or taken out meanwhile may be seen twice or not at all.
    pub(crate) fn walk(&self, place: &mut Place, most: usize, mut visit: impl FnMut(Held)) {
        let mut left = most;
        while left > 0 {
            let Some(segment) = self.segments.get(place.segment) else {
                *place = Place::default();
                return;
            };
            match segment.next(place.slot) {
                Some((slot, entry)) => {
                    let segment = place.segment;
                    visit(Held { segment, entry });
                    place.slot = slot + 1;
                    left -= 1;
                }
                None => {
                    place.segment += 1;
                    place.slot = 0;
                }
            }
        }
    }

    /// Forgets one hash with all its copies.
    pub(crate) fn forget(&mut self, held: Held) {
        let Held { segment, entry } = held;
        if let Found::At(slot, found) = self.segments[segment].find(entry.tag())
            && found == entry
        {
            self.copies.remove(&(segment as u8, entry));
            self.segments[segment].remove(slot);
        }
    }

    /// Takes out up to `most` hashes and says which blocks they stood for; false when none is left.
    pub(crate) fn drain(&mut self, mut most: usize, mut visit: impl FnMut(BlockId)) -> bool {
        self.copies = FxHashMap::default();
        for (_, block) in std::mem::take(&mut self.twins) {
            visit(block);
        }
        while most > 0 {
            let Some(segment) = self.segments.pop() else {
                return false;
            };
            most = most.saturating_sub(segment.len());
            segment.entries().for_each(|entry| visit(entry.block()));
        }
        !self.segments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u64, u32),
        Remove(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u64..3_000).prop_map(|hash| Step::Insert(hash, hash as u32 + 1)),
            1 => (0_u64..3_000).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn counts_copies_like_a_map(steps in prop::collection::vec(step(), 0..6_000)) {
            let mut map = EngineMap::default();
            let mut truth: HashMap<u64, (u32, u32)> = HashMap::new();
            for step in steps {
                match step {
                    Step::Insert(hash, block) => {
                        let copies = truth.entry(hash).or_insert((block, 0));
                        copies.1 += 1;
                        let expected = if copies.1 == 1 { Inserted::New } else { Inserted::Again };
                        prop_assert_eq!(map.insert(hash, block), expected);
                    }
                    Step::Remove(hash) => {
                        let expected = match truth.get_mut(&hash) {
                            None => Removed::Unknown,
                            Some((block, 1)) => Removed::Gone(*block),
                            Some((_, copies)) => {
                                *copies -= 1;
                                Removed::Copy
                            }
                        };
                        if matches!(expected, Removed::Gone(_)) {
                            truth.remove(&hash);
                        }
                        prop_assert_eq!(map.remove(hash), expected);
                    }
                }
            }
            prop_assert_eq!(map.len(), truth.len());
            for hash in 0..3_000 {
                prop_assert_eq!(map.get(hash), truth.get(&hash).map(|(block, _)| *block));
            }
            let mut walked = Vec::new();
            let mut place = Place::default();
            loop {
                map.walk(&mut place, 7, |held| walked.push(held.block()));
                if place == Place::default() {
                    break;
                }
            }
            let mut blocks: Vec<u32> = truth.values().map(|(block, _)| *block).collect();
            blocks.sort_unstable();
            walked.sort_unstable();
            prop_assert_eq!(&walked, &blocks);
            let mut drained = Vec::new();
            while map.drain(100, |block| drained.push(block)) {}
            drained.sort_unstable();
            prop_assert_eq!(&drained, &blocks);
        }
    }

    #[test]
    fn a_hash_given_to_another_block_stands_for_that_one() {
        let mut map = EngineMap::default();
        assert_eq!(map.insert(7, 1), Inserted::New);
        assert_eq!(map.insert(7, 2), Inserted::New);
        assert_eq!((map.get(7), map.len()), (Some(2), 2));
        assert_eq!(map.insert(7, 3), Inserted::Instead(2));
        assert_eq!(map.insert(7, 3), Inserted::Again);
        assert_eq!(map.remove(7), Removed::Gone(3));
        assert_eq!(map.remove(7), Removed::Gone(1));
        assert_eq!(map.remove(7), Removed::Unknown);
    }

    #[test]
    fn a_forgotten_hash_is_gone_with_its_copies() {
        let mut map = EngineMap::default();
        map.insert(7, 1);
        map.insert(7, 1);
        let mut held = None;
        map.walk(&mut Place::default(), 1, |found| held = Some(found));
        map.forget(held.unwrap());
        assert_eq!(
            (map.get(7), map.remove(7), map.len()),
            (None, Removed::Unknown, 0)
        );
        map.forget(held.unwrap());
    }

    #[test]
    fn a_hash_costs_nine_bytes() {
        let mut most: f64 = 0.0;
        let mut bytes = 0;
        let mut map = EngineMap::default();
        let counted = allocation_counter::measure(|| {
            for hash in 0..200_000_u64 {
                map.insert(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1 + hash as u32);
            }
        });
        bytes += counted.bytes_current;
        for step in 1..20_u64 {
            let counted = allocation_counter::measure(|| {
                for hash in 0..10_000 {
                    map.insert(mix(step * 10_000 + hash + 1_000_000), 1);
                }
            });
            bytes += counted.bytes_current;
            most = most.max(bytes as f64 / map.len() as f64);
        }
        assert!(most < 9.6, "{most}");
    }
}

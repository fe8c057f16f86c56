//! Key → [`Word`], read by any number of threads while one writes.
//!
//! Keys are spread over segments by their first bits. A segment is an open-addressed array that is replaced when it
//! is full; until then its keys stay where they are, and a block nobody holds only loses its word. Readers go through
//! one pointer to all segments that is swapped whole (in two levels, so that replacing one copies little), so none of
//! them waits for the writer and none sees a segment half made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::residency::Word;
use crate::keys::Key;

/// Pairs of a key (0 = none) and its word.
type Slots = Arc<[AtomicU64]>;
type Group = Arc<[Slots]>;

/// Segments of a group are at most this many.
const GROUP_BITS: u32 = 7;
/// Blocks per segment that the table is made for.
const SEGMENT_BLOCKS: usize = 8_192;
/// Keys whose places are looked at together, so that their cache misses overlap.
pub(crate) const AHEAD: usize = 32;

/// All segments at one moment.
#[derive(Debug)]
pub(crate) struct View {
    groups: Box<[Group]>,
    segment_bits: u32,
}

/// Where a key's pair may be, in which segment.
#[derive(Clone, Copy)]
struct Place<'a> {
    slots: &'a [AtomicU64],
    at: usize,
}

/// The segment of a key and the bits that choose its place there.
fn split(key: Key, segment_bits: u32) -> (usize, u64) {
    let segment = key.get().checked_shr(u64::BITS - segment_bits).unwrap_or(0);
    (segment as usize, key.get() << segment_bits >> 32)
}

fn home(bits: u64, pairs: usize) -> usize {
    ((bits * pairs as u64) >> 32) as usize
}

impl View {
    fn place(&self, key: Key) -> Option<Place<'_>> {
        let (segment, bits) = split(key, self.segment_bits);
        let group = self.groups.get(segment >> GROUP_BITS)?;
        let slots: &[AtomicU64] = group.get(segment & ((1 << GROUP_BITS) - 1))?;
        let at = home(bits, slots.len() / 2) * 2;
        Some(Place { slots, at })
    }

    /// The word of `key`, to be read and stamped.
    pub(crate) fn word(&self, key: Key) -> Option<&AtomicU64> {
        let Place { slots, at } = self.place(key)?;
        find(slots, at, key).ok()
    }

    /// Looks at the places of up to [`AHEAD`] keys, whose cache misses then overlap.
    pub(crate) fn approach(&self, keys: &[Key]) -> u64 {
        keys.iter().fold(0, |seen, key| {
            let first = self
                .place(*key)
                .and_then(|place| place.slots.get(place.at))
                .map_or(0, |slot| slot.load(Ordering::Relaxed));
            seen ^ first
        })
    }
}

/// The word of `key` in a segment, or the free pair where it belongs (none in a segment of no pairs).
fn find(slots: &[AtomicU64], home: usize, key: Key) -> Result<&AtomicU64, Option<usize>> {
    let mut at = home;
    for _ in 0..slots.len() / 2 {
        let Some([found, word]) = slots.get(at..at + 2) else {
            return Err(None);
        };
        match found.load(Ordering::Acquire) {
            0 => return Err(Some(at)),
            found if found == key.get() => return Ok(word),
            _ => at += 2,
        }
        if at == slots.len() {
            at = 0;
        }
    }
    Err(None)
}

/// What readers share.
#[derive(Debug)]
pub(crate) struct Table {
    view: ArcSwap<View>,
}

impl Table {
    /// The segments now.
    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }
}

#[derive(Clone, Debug)]
struct Segment {
    slots: Slots,
    /// Pairs with a key, and of those the ones whose block somebody holds.
    used: u32,
    live: u32,
}

/// The writer's side.
#[derive(Debug)]
pub(crate) struct TableWriter {
    table: Arc<Table>,
    segments: Vec<Segment>,
    segment_bits: u32,
}

impl TableWriter {
    /// A table for about `blocks` blocks.
    pub(crate) fn new(blocks: usize) -> Self {
        let segments = (blocks / SEGMENT_BLOCKS)
            .next_power_of_two()
            .clamp(1, 1 << (2 * GROUP_BITS));
        let segment_bits = segments.trailing_zeros();
        let empty: Slots = Arc::default();
        let groups = (0..segments)
            .step_by(1 << GROUP_BITS)
            .map(|first| vec![empty.clone(); (segments - first).min(1 << GROUP_BITS)].into())
            .collect();
        let segment = Segment {
            slots: empty,
            used: 0,
            live: 0,
        };
        Self {
            table: Arc::new(Table {
                view: ArcSwap::from_pointee(View {
                    groups,
                    segment_bits,
                }),
            }),
            segments: vec![segment; segments],
            segment_bits,
        }
    }

    /// What readers share.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    fn find(&self, key: Key) -> (usize, Result<&AtomicU64, Option<usize>>) {
        let (segment, bits) = split(key, self.segment_bits);
        let slots = &self.segments[segment].slots;
        (segment, find(slots, home(bits, slots.len() / 2) * 2, key))
    }

    /// The word of `key`; empty if nobody holds it.
    pub(crate) fn get(&self, key: Key) -> Word {
        match self.find(key).1 {
            Ok(word) => Word(word.load(Ordering::Relaxed)),
            Err(_) => Word::EMPTY,
        }
    }

    /// The word of `key` changes to `word`. What a reader stamped meanwhile is lost, which matters little.
    pub(crate) fn set(&mut self, key: Key, word: Word) {
        let (segment, found) = self.find(key);
        let at = match found {
            Ok(place) => {
                let before = place.load(Ordering::Relaxed);
                place.store(word.0, Ordering::Release);
                return self.count(segment, before != 0, word != Word::EMPTY);
            }
            Err(_) if word == Word::EMPTY => return,
            Err(at) => at,
        };
        let Segment { slots, used, .. } = &self.segments[segment];
        let full = *used as usize * 16 >= slots.len() * 7;
        match at {
            Some(at) if !full => {
                slots[at + 1].store(word.0, Ordering::Relaxed);
                slots[at].store(key.get(), Ordering::Release);
            }
            _ => self.replace(segment, Some((key, word))),
        }
        self.segments[segment].used += 1;
        self.segments[segment].live += 1;
    }

    fn count(&mut self, segment: usize, was: bool, is: bool) {
        let of = &mut self.segments[segment];
        of.live = of.live + u32::from(is) - u32::from(was);
        if was && !is && of.slots.len() > 256 && (of.live as usize) * 6 < of.slots.len() {
            self.replace(segment, None);
        }
    }

    /// Makes a segment anew with room for a sixth more, without the blocks nobody holds, and with `new`.
    fn replace(&mut self, segment: usize, new: Option<(Key, Word)>) {
        let of = &mut self.segments[segment];
        let pairs = (of.live as usize + 1) * 4 / 3 + 4;
        let slots: Slots = (0..pairs * 2).map(|_| AtomicU64::new(0)).collect();
        let put = |key: Key, word: Word| {
            let (_, bits) = split(key, self.segment_bits);
            if let Err(Some(at)) = find(&slots, home(bits, pairs) * 2, key) {
                slots[at].store(key.get(), Ordering::Relaxed);
                slots[at + 1].store(word.0, Ordering::Relaxed);
            }
        };
        for pair in of.slots.chunks_exact(2) {
            let word = Word(pair[1].load(Ordering::Relaxed));
            if word != Word::EMPTY {
                put(Key::of(pair[0].load(Ordering::Relaxed)), word);
            }
        }
        if let Some((key, word)) = new {
            put(key, word);
        }
        of.used = of.live;
        of.slots = Arc::clone(&slots);
        self.publish(segment, slots);
    }

    fn publish(&self, segment: usize, slots: Slots) {
        let view = self.table.view.load();
        let mut groups = view.groups.clone();
        if let Some(group) = groups.get_mut(segment >> GROUP_BITS) {
            let mut segments = group.to_vec();
            segments[segment & ((1 << GROUP_BITS) - 1)] = slots;
            *group = segments.into();
        }
        drop(view);
        self.table.view.store(Arc::new(View {
            groups,
            segment_bits: self.segment_bits,
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::index::residency::{Bit, Residency};
    use crate::keys::mix;
    use crate::tier::Tier;

    fn word(number: u64) -> Word {
        let bit = Bit {
            tier: Tier::Device,
            slot: number as u16,
        };
        Word::new(number as u32 + 1, 3, Residency::one(bit))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn readers_find_what_was_set(
            steps in prop::collection::vec((0_u64..4_000, any::<bool>()), 0..8_000),
            blocks in prop_oneof![Just(1_usize), Just(20_000), Just(3_000_000)],
        ) {
            let mut writer = TableWriter::new(blocks);
            let table = Arc::clone(writer.table());
            let mut truth = HashMap::new();
            for (number, adds) in steps {
                let key = Key::of(mix(number + 1));
                if adds {
                    writer.set(key, word(number));
                    truth.insert(number, word(number));
                } else {
                    writer.set(key, Word::EMPTY);
                    truth.remove(&number);
                }
            }
            let view = table.view();
            for number in 0..4_000 {
                let key = Key::of(mix(number + 1));
                let seen = view.word(key).map_or(0, |word| word.load(Ordering::Relaxed));
                let expected = truth.get(&number).copied().unwrap_or(Word::EMPTY);
                prop_assert_eq!(Word(seen), expected);
                prop_assert_eq!(writer.get(key), expected);
            }
            let live: u32 = writer.segments.iter().map(|segment| segment.live).sum();
            prop_assert_eq!(live as usize, truth.len());
        }
    }

    #[test]
    fn what_a_reader_holds_stays_as_it_was() {
        let mut writer = TableWriter::new(1);
        let table = Arc::clone(writer.table());
        let key = Key::of(77);
        writer.set(key, word(1));
        let view = table.view();
        for number in 2..500 {
            writer.set(Key::of(mix(number)), word(number));
        }
        assert_eq!(
            view.word(key).map(|word| word.load(Ordering::Relaxed)),
            Some(word(1).0)
        );
        assert!(view.word(Key::of(mix(499))).is_none(), "made before it");
        assert!(table.view().word(Key::of(mix(499))).is_some());
    }
}

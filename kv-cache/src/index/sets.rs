//! Sets of holders, each kept once however many blocks it is the holders of.
//!
//! A set is a row of words: a version, the sum of its members' hashes, how many blocks have it, then pairs of a word's
//! number and its 64 bits, sorted. Rows do not move. One thread writes; a row that blocks refer to never changes, and
//! a row given to another set changes its version first, so that a reader who comes late notices, asks the block
//! again, and finds it elsewhere.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustc_hash::FxHashMap;

use super::residency::{Bit, Handle, Holders, Residency};
use crate::keys::mix;

/// Stores by size: a row of class c has up to 2ᶜ pairs.
const CLASSES: usize = 10;
/// Sets per class beyond which no holder is added to one.
const MOST_SETS: u32 = 1 << 21;
/// Rows per class: taking a holder out needs one where adding may not.
const MAX_ROWS: u32 = 1 << 22;
/// Rows that are allocated at once.
const CHUNK_ROWS: u32 = 512;

const VERSION: usize = 0;
const HASH: usize = 1;
/// Pairs (low half), blocks (high half).
const COUNTS: usize = 2;
const HEADER: usize = 3;

/// One word of a set: its number and its bits.
pub(crate) type Pair = (u64, u64);

type Chunk = OnceLock<Box<[AtomicU64]>>;

/// The rows, for readers and the writer.
#[derive(Debug)]
pub(crate) struct SetStore {
    classes: [OnceLock<Box<[Chunk]>>; CLASSES],
}

fn row_words(class: u32) -> usize {
    HEADER + (2 << class)
}

impl SetStore {
    pub(crate) fn new() -> Self {
        Self {
            classes: [const { OnceLock::new() }; CLASSES],
        }
    }

    fn row(&self, handle: Handle) -> Option<&[AtomicU64]> {
        let index = handle.row.checked_sub(1)?;
        let chunk = self
            .classes
            .get(handle.class as usize)?
            .get()?
            .get((index / CHUNK_ROWS) as usize)?
            .get()?;
        let words = row_words(handle.class);
        let start = (index % CHUNK_ROWS) as usize * words;
        chunk.get(start..start + words)
    }

    /// The same, made if it is not there yet.
    fn make_row(&self, handle: Handle) -> Option<&[AtomicU64]> {
        let words = row_words(handle.class) * CHUNK_ROWS as usize;
        let index = handle.row.checked_sub(1)?;
        self.classes
            .get(handle.class as usize)?
            .get_or_init(|| (0..MAX_ROWS / CHUNK_ROWS).map(|_| Chunk::new()).collect())
            .get((index / CHUNK_ROWS) as usize)?
            .get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
        self.row(handle)
    }

    /// The version of what the row holds now.
    pub(crate) fn version(&self, handle: Handle) -> u64 {
        self.row(handle)
            .map_or(0, |row| row[VERSION].load(Ordering::Acquire))
    }

    /// Copies the set to `into` and returns its version; none if the row changed meanwhile: then the block that
    /// referred to it refers to another one by now.
    pub(crate) fn read(&self, handle: Handle, into: &mut Vec<Pair>) -> Option<u64> {
        into.clear();
        let row = self.row(handle)?;
        let version = row[VERSION].load(Ordering::Acquire);
        if version % 2 != 0 {
            return None;
        }
        let pairs = row[COUNTS].load(Ordering::Relaxed) as u32 as usize;
        let words = row.get(HEADER..HEADER + 2 * pairs)?;
        into.extend(words.chunks_exact(2).map(|pair| {
            (
                pair[0].load(Ordering::Relaxed),
                pair[1].load(Ordering::Relaxed),
            )
        }));
        fence(Ordering::Acquire);
        (row[VERSION].load(Ordering::Acquire) == version).then_some(version)
    }
}

/// What a holder adds to the hash of a set.
fn hash_of(bit: Bit) -> u64 {
    mix(bit.word() << 6 | u64::from(bit.slot & 63) | 1 << 40)
}

/// More different sets than the store has rows for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A step from one set to another that was just taken: the blocks of a prompt take the same one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    from: Residency,
    from_version: u64,
    bit: Bit,
    adds: bool,
    to: Residency,
    to_version: u64,
}

/// The writer's side: finds the row of a set and counts the blocks that have it.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    by_hash: FxHashMap<u64, Residency>,
    /// Per class: rows given back, and rows ever used.
    free: [Vec<u32>; CLASSES],
    rows: [u32; CLASSES],
    /// Sets in the rows.
    sets: usize,
    last: Option<Step>,
    pairs: Vec<Pair>,
    other: Vec<Pair>,
}

impl Interner {
    /// Sets that several blocks or none have, besides those of one holder.
    pub(crate) fn len(&self) -> usize {
        self.sets
    }

    /// `from` and `bit` besides, for one block more: give `from` back once the block refers to the result.
    /// The same residency if the bit is in it.
    pub(crate) fn with(
        &mut self,
        store: &SetStore,
        from: Residency,
        bit: Bit,
    ) -> Result<Residency, Full> {
        match from.holders() {
            Holders::Nobody => Ok(Residency::one(bit)),
            Holders::One(one) if one == bit => Ok(from),
            holders => self.step(store, from, holders, bit, true),
        }
    }

    /// `from` without `bit`, likewise. The same residency if the bit is not in it.
    pub(crate) fn without(
        &mut self,
        store: &SetStore,
        from: Residency,
        bit: Bit,
    ) -> Result<Residency, Full> {
        match from.holders() {
            Holders::Nobody => Ok(from),
            Holders::One(one) if one == bit => Ok(Residency::NOBODY),
            Holders::One(_) => Ok(from),
            holders => self.step(store, from, holders, bit, false),
        }
    }

    /// One block has `residency` no longer.
    pub(crate) fn release(&mut self, store: &SetStore, residency: Residency) {
        let Holders::Set(handle) = residency.holders() else {
            return;
        };
        let Some(row) = store.row(handle) else {
            return;
        };
        let counts = row[COUNTS].load(Ordering::Relaxed) - (1 << 32);
        row[COUNTS].store(counts, Ordering::Relaxed);
        if counts >> 32 == 0 {
            self.by_hash.remove(&row[HASH].load(Ordering::Relaxed));
            let version = row[VERSION].load(Ordering::Relaxed);
            row[VERSION].store(version + 1, Ordering::Release);
            self.free[handle.class as usize].push(handle.row);
            self.sets -= 1;
        }
    }

    fn step(
        &mut self,
        store: &SetStore,
        from: Residency,
        holders: Holders,
        bit: Bit,
        adds: bool,
    ) -> Result<Residency, Full> {
        let from_version = version(store, from);
        if let Some(last) = self.last
            && (last.from, last.from_version, last.bit, last.adds)
                == (from, from_version, bit, adds)
            && last.to_version == version(store, last.to)
        {
            if last.to != from {
                acquire(store, last.to);
            }
            return Ok(last.to);
        }
        let hash = self.load(store, holders);
        let to = if self.flip(bit, adds) {
            let hash = if adds {
                hash.wrapping_add(hash_of(bit))
            } else {
                hash.wrapping_sub(hash_of(bit))
            };
            self.intern(store, hash, if adds { MOST_SETS } else { MAX_ROWS })?
        } else {
            from
        };
        self.last = Some(Step {
            from,
            from_version,
            bit,
            adds,
            to,
            to_version: version(store, to),
        });
        Ok(to)
    }

    /// Puts the set's pairs into `pairs` and returns its hash.
    fn load(&mut self, store: &SetStore, holders: Holders) -> u64 {
        match holders {
            Holders::One(bit) => {
                self.pairs.clear();
                self.pairs.push((bit.word(), bit.mask()));
                hash_of(bit)
            }
            Holders::Set(handle) => {
                store.read(handle, &mut self.pairs);
                store
                    .row(handle)
                    .map_or(0, |row| row[HASH].load(Ordering::Relaxed))
            }
            Holders::Nobody => {
                self.pairs.clear();
                0
            }
        }
    }

    /// Sets or clears the bit in `pairs`; false if it is as it should be.
    fn flip(&mut self, bit: Bit, adds: bool) -> bool {
        let at = self
            .pairs
            .binary_search_by_key(&bit.word(), |(word, _)| *word);
        match (at, adds) {
            (Ok(at), _) if (self.pairs[at].1 & bit.mask() != 0) == adds => false,
            (Ok(at), _) => {
                self.pairs[at].1 ^= bit.mask();
                if self.pairs[at].1 == 0 {
                    self.pairs.remove(at);
                }
                true
            }
            (Err(at), true) => {
                self.pairs.insert(at, (bit.word(), bit.mask()));
                true
            }
            (Err(_), false) => false,
        }
    }

    /// The set in `pairs`, for one block more.
    fn intern(&mut self, store: &SetStore, mut hash: u64, most: u32) -> Result<Residency, Full> {
        if let [(word, bits)] = self.pairs[..]
            && bits.is_power_of_two()
        {
            return Ok(Residency::one(bit_of(word, bits)));
        }
        if self.pairs.is_empty() {
            return Ok(Residency::NOBODY);
        }
        while let Some(found) = self.by_hash.get(&hash) {
            if let Holders::Set(handle) = found.holders()
                && store.read(handle, &mut self.other).is_some()
                && self.other == self.pairs
            {
                acquire(store, *found);
                return Ok(*found);
            }
            hash = hash.wrapping_add(1);
        }
        self.allocate(store, hash, most)
    }

    fn allocate(&mut self, store: &SetStore, hash: u64, most: u32) -> Result<Residency, Full> {
        let class = self.pairs.len().next_power_of_two().trailing_zeros();
        let free = self.free.get_mut(class as usize).ok_or(Full)?;
        let row = match free.pop() {
            Some(row) => row,
            None => {
                let rows = &mut self.rows[class as usize];
                if *rows >= most {
                    return Err(Full);
                }
                *rows += 1;
                *rows
            }
        };
        let handle = Handle { class, row };
        let words = store.make_row(handle).ok_or(Full)?;
        let version = words[VERSION].load(Ordering::Relaxed) | 1;
        words[VERSION].store(version, Ordering::Release);
        fence(Ordering::Release);
        words[HASH].store(hash, Ordering::Relaxed);
        words[COUNTS].store(1 << 32 | self.pairs.len() as u64, Ordering::Relaxed);
        for (pair, place) in self.pairs.iter().zip(words[HEADER..].chunks_exact(2)) {
            place[0].store(pair.0, Ordering::Relaxed);
            place[1].store(pair.1, Ordering::Relaxed);
        }
        words[VERSION].store(version + 1, Ordering::Release);
        let residency = Residency::set(handle);
        self.by_hash.insert(hash, residency);
        self.sets += 1;
        Ok(residency)
    }
}

fn bit_of(word: u64, bits: u64) -> Bit {
    Bit {
        tier: tier_of(word),
        slot: ((word & 0x3ff) << 6) as u16 | bits.trailing_zeros() as u16,
    }
}

/// The tier that a set's word is about.
pub(crate) fn tier_of(word: u64) -> crate::Tier {
    crate::Tier::ALL
        .get((word >> 10) as usize)
        .copied()
        .unwrap_or(crate::Tier::Device)
}

fn version(store: &SetStore, residency: Residency) -> u64 {
    match residency.holders() {
        Holders::Set(handle) => store.version(handle),
        _ => 0,
    }
}

fn acquire(store: &SetStore, residency: Residency) {
    if let Holders::Set(handle) = residency.holders()
        && let Some(row) = store.row(handle)
    {
        let counts = row[COUNTS].load(Ordering::Relaxed);
        row[COUNTS].store(counts + (1 << 32), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::tier::Tier;

    fn bit(number: u16) -> Bit {
        Bit {
            tier: Tier::ALL[usize::from(number) % 5],
            slot: number / 5 * 13,
        }
    }

    fn contains(store: &SetStore, residency: Residency, bit: Bit) -> bool {
        match residency.holders() {
            Holders::Nobody => false,
            Holders::One(one) => one == bit,
            Holders::Set(handle) => {
                let Some(row) = store.row(handle) else {
                    return false;
                };
                let pairs = row[COUNTS].load(Ordering::Relaxed) as u32 as usize;
                row[HEADER..].chunks_exact(2).take(pairs).any(|pair| {
                    pair[0].load(Ordering::Relaxed) == bit.word()
                        && pair[1].load(Ordering::Relaxed) & bit.mask() != 0
                })
            }
        }
    }

    fn members(store: &SetStore, residency: Residency) -> BTreeSet<u16> {
        (0..400)
            .filter(|number| contains(store, residency, bit(*number)))
            .collect()
    }

    proptest! {
        #[test]
        fn blocks_have_the_sets_they_were_given(
            steps in prop::collection::vec((0_usize..6, 0_u16..400, any::<bool>()), 0..600),
        ) {
            let store = SetStore::new();
            let mut interner = Interner::default();
            let mut blocks = [Residency::NOBODY; 6];
            let mut truth = vec![BTreeSet::new(); 6];
            for (block, number, adds) in steps {
                let from = blocks[block];
                let to = if adds {
                    truth[block].insert(number);
                    interner.with(&store, from, bit(number))
                } else {
                    truth[block].remove(&number);
                    interner.without(&store, from, bit(number))
                };
                let to = to.unwrap();
                if to != from {
                    blocks[block] = to;
                    interner.release(&store, from);
                }
                prop_assert_eq!(&members(&store, to), &truth[block]);
            }
            for block in 0..6 {
                prop_assert_eq!(&members(&store, blocks[block]), &truth[block]);
                for other in 0..6 {
                    prop_assert_eq!(blocks[block] == blocks[other], truth[block] == truth[other]);
                }
            }
            let several: BTreeSet<_> = truth.iter().filter(|set| set.len() > 1).collect();
            prop_assert_eq!(interner.len(), several.len());
            for residency in blocks {
                interner.release(&store, residency);
            }
            prop_assert_eq!(interner.len(), 0);
        }
    }

    #[test]
    fn a_row_given_to_another_set_has_another_version() {
        let store = SetStore::new();
        let mut interner = Interner::default();
        let mut pairs = Vec::new();
        let one = interner.with(&store, Residency::NOBODY, bit(1)).unwrap();
        let first = interner.with(&store, one, bit(2)).unwrap();
        let Holders::Set(handle) = first.holders() else {
            panic!("two holders are a set");
        };
        let version = store.read(handle, &mut pairs).unwrap();
        interner.release(&store, first);
        assert_eq!(store.read(handle, &mut pairs), None, "nobody has it");
        let second = interner.with(&store, one, bit(3)).unwrap();
        assert_eq!(first, second, "the row is used again");
        assert_ne!(store.read(handle, &mut pairs).unwrap(), version);
    }
}

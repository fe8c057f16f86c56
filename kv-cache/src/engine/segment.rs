//! Entries in the order of their tags, with gaps between them.
//!
//! An entry's place follows from its tag (`home`), and it stands there or, if that is taken, to the right of it, so
//! that all are sorted. A search ends at the first larger tag; growing is one pass from left to right.

use super::BlockId;

const BLOCK_BITS: u32 = 28;
/// Bits by which a segment knows a hash.
pub(super) const TAG_BITS: u32 = u64::BITS - BLOCK_BITS;
/// Blocks that can be told apart.
pub(crate) const MAX_BLOCKS: usize = (1 << BLOCK_BITS) - 1;

/// A tag and the block it stands for; block 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Entry(u64);

const GAP: Entry = Entry(0);

impl Entry {
    pub(super) fn new(tag: u64, block: BlockId) -> Self {
        Self(tag << BLOCK_BITS | u64::from(block))
    }

    pub(super) fn tag(self) -> u64 {
        self.0 >> BLOCK_BITS
    }

    pub(super) fn block(self) -> BlockId {
        (self.0 & MAX_BLOCKS as u64) as BlockId
    }
}

/// Where a tag is, or before which place it belongs.
pub(super) enum Found {
    At(usize, Entry),
    Before(usize),
}

#[derive(Debug, Default)]
pub(super) struct Segment {
    /// `homes` places, then some into which the last ones are pushed.
    slots: Box<[Entry]>,
    homes: u32,
    used: u32,
}

/// Places behind the last home.
fn spill(homes: usize) -> usize {
    8 + homes / 64
}

/// Where a tag belongs among `homes` places: the same order as the tags'.
fn home(tag: u64, homes: u32) -> usize {
    ((tag * u64::from(homes)) >> TAG_BITS) as usize
}

impl Segment {
    pub(super) fn len(&self) -> usize {
        self.used as usize
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.slots.iter().copied().filter(|entry| *entry != GAP)
    }

    /// The first entry at `slot` or behind it.
    pub(super) fn next(&self, slot: usize) -> Option<(usize, Entry)> {
        let slots = self.slots.get(slot..)?;
        let gaps = slots.iter().position(|entry| *entry != GAP)?;
        Some((slot + gaps, slots[gaps]))
    }

    pub(super) fn find(&self, tag: u64) -> Found {
        let start = home(tag, self.homes);
        for (slot, entry) in self.slots.iter().enumerate().skip(start) {
            if *entry == GAP || entry.tag() > tag {
                return Found::Before(slot);
            }
            if entry.tag() == tag {
                return Found::At(slot, *entry);
            }
        }
        Found::Before(self.slots.len())
    }

    /// Puts in an entry whose tag was not found, before `slot`.
    pub(super) fn insert(&mut self, slot: usize, entry: Entry) {
        let full = self.used as usize * 16 >= self.homes as usize * 15;
        if full || !self.place(slot, entry) {
            self.grow(entry);
        }
        self.used += 1;
    }

    /// Moves what is at `slot` to the right as far as the next gap; false if there is none.
    fn place(&mut self, slot: usize, entry: Entry) -> bool {
        let Some(right) = self.slots.get(slot..) else {
            return false;
        };
        let Some(gap) = right.iter().position(|entry| *entry == GAP) else {
            return false;
        };
        self.slots.copy_within(slot..slot + gap, slot + 1);
        self.slots[slot] = entry;
        true
    }

    /// Makes room for `entry` and puts it in.
    fn grow(&mut self, entry: Entry) {
        let mut homes = self.used as usize * 17 / 15 + 2;
        loop {
            if let Some(slots) = self.spread(homes, entry) {
                self.slots = slots;
                self.homes = homes as u32;
                return;
            }
            homes += homes / 16 + 1;
        }
    }

    /// All entries and `new` over that many homes; none if the last ones would be pushed out.
    fn spread(&self, homes: usize, new: Entry) -> Option<Box<[Entry]>> {
        let mut slots = vec![GAP; homes + spill(homes)].into_boxed_slice();
        let mut free = 0;
        let mut put = |entry: Entry| {
            let slot = free.max(home(entry.tag(), homes as u32));
            *slots.get_mut(slot)? = entry;
            free = slot + 1;
            Some(())
        };
        let mut waiting = Some(new);
        for entry in self.entries() {
            if let Some(new) = waiting.take_if(|new| *new < entry) {
                put(new)?;
            }
            put(entry)?;
        }
        if let Some(new) = waiting {
            put(new)?;
        }
        Some(slots)
    }

    /// Takes out what is at `slot` and moves what was pushed to the right back.
    pub(super) fn remove(&mut self, slot: usize) {
        let behind = &self.slots[slot + 1..];
        let moved = behind
            .iter()
            .zip(slot + 1..)
            .position(|(entry, at)| *entry == GAP || home(entry.tag(), self.homes) == at)
            .unwrap_or(behind.len());
        self.slots.copy_within(slot + 1..slot + 1 + moved, slot);
        self.slots[slot + moved] = GAP;
        self.used -= 1;
        if self.len() * 3 < self.slots.len() && self.slots.len() > 64 {
            self.shrink();
        }
    }

    /// Gives back room that removals left.
    fn shrink(&mut self) {
        let homes = self.len() * 4 / 3 + 2;
        let mut entries = self.entries();
        if let Some(first) = entries.next() {
            drop(entries);
            let rest = Self {
                slots: self.entries().skip(1).collect(),
                homes: 0,
                used: 0,
            };
            if let Some(slots) = rest.spread(homes, first) {
                self.slots = slots;
                self.homes = homes as u32;
            }
        }
    }
}

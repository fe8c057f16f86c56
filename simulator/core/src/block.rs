//! KV blocks: reference counts, and a prefix cache of the free ones in least-recently-used order.

use rustc_hash::FxHashMap;

/// End of the list of free blocks.
const NONE: u32 = u32::MAX;

/// Blocks an unbounded pool hands out before it starts to reuse cached ones, so that its memory stays bounded by the
/// larger of this and what requests hold at once.
const UNBOUNDED_CACHE_BLOCKS: usize = 1 << 18;

struct Block {
    /// Requests that hold the block; 0 = free (it may still be cached).
    holders: u32,
    /// Content hash under which the block is cached; 0 = not cached.
    hash: u64,
    /// Neighbours in the list of free blocks, meaningful while free.
    older: u32,
    newer: u32,
}

/// All KV blocks of one engine.
///
/// A free block keeps its content until it is taken for something else; the one freed longest ago is taken first, and
/// blocks never used before are taken before any that were.
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    total: Option<u32>,
    held: u32,
    oldest: u32,
    newest: u32,
    cached: FxHashMap<u64, u32>,
    changes: u64,
}

impl BlockPool {
    /// A pool of `total` blocks, all free; `None` = as many as are asked for.
    pub(crate) fn new(total: Option<u32>) -> Self {
        Self {
            blocks: Vec::new(),
            total,
            held: 0,
            oldest: NONE,
            newest: NONE,
            cached: FxHashMap::default(),
            changes: 0,
        }
    }

    /// Blocks there are; `None` = unbounded.
    pub(crate) fn total(&self) -> Option<u32> {
        self.total
    }

    /// Blocks that requests hold.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Blocks that can be taken now.
    pub(crate) fn free(&self) -> u32 {
        self.total.map_or(u32::MAX, |total| total - self.held)
    }

    /// Grows with every change that could let a request in that did not fit before: blocks released or cached.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The block that holds the content `hash`, free or not.
    pub(crate) fn find(&self, hash: u64) -> Option<u32> {
        self.cached.get(&hash).copied()
    }

    /// Whether no request holds `block`.
    pub(crate) fn is_free(&self, block: u32) -> bool {
        self.blocks[block as usize].holders == 0
    }

    /// Takes a free block for new content; `None` when all are held.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.free() == 0 {
            return None;
        }
        let fresh = self
            .total
            .map_or(UNBOUNDED_CACHE_BLOCKS, |total| total as usize);
        let block = if self.blocks.len() < fresh || self.oldest == NONE {
            self.blocks.push(Block {
                holders: 0,
                hash: 0,
                older: NONE,
                newer: NONE,
            });
            (self.blocks.len() - 1) as u32
        } else {
            let block = self.oldest;
            self.unlink(block);
            let hash = std::mem::take(&mut self.blocks[block as usize].hash);
            if hash != 0 {
                self.cached.remove(&hash);
            }
            block
        };
        self.blocks[block as usize].holders = 1;
        self.held += 1;
        Some(block)
    }

    /// Adds a holder to a block found by [`find`](Self::find).
    pub(crate) fn share(&mut self, block: u32) {
        if self.is_free(block) {
            self.unlink(block);
            self.held += 1;
        }
        self.blocks[block as usize].holders += 1;
    }

    /// Drops a holder; the last one frees the block, which stays cached until taken.
    pub(crate) fn release(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        entry.older = self.newest;
        entry.newer = NONE;
        match self.newest {
            NONE => self.oldest = block,
            newest => self.blocks[newest as usize].newer = block,
        }
        self.newest = block;
        self.held -= 1;
        self.changes += 1;
    }

    /// Caches a held block under the hash of its now complete content. Of equal blocks the first one cached is found.
    pub(crate) fn remember(&mut self, block: u32, hash: u64) {
        if let std::collections::hash_map::Entry::Vacant(slot) = self.cached.entry(hash) {
            slot.insert(block);
            self.blocks[block as usize].hash = hash;
            self.changes += 1;
        }
    }

    fn unlink(&mut self, block: u32) {
        let Block { older, newer, .. } = self.blocks[block as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.blocks[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.blocks[newer as usize].older = older,
        }
    }
}

#[cfg(test)]
#[path = "block/tests.rs"]
pub(crate) mod tests;

//! Blocks that an endpoint will hold soon because a request with them was just sent there.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::engine::BlockId;
use crate::index::Holdings;
use crate::index::residency::{Bit, Slot};
use crate::keys::Key;
use crate::tier::Tier;

/// What is expected, and until when.
#[derive(Debug)]
pub(super) struct Expected {
    most: usize,
    /// Until when a slot's block is expected.
    until: FxHashMap<(BlockId, Slot), Duration>,
    /// In the order in which it was added.
    queue: VecDeque<(Duration, Slot, Vec<BlockId>)>,
    /// Blocks in the queue, those that were added again since included.
    queued: usize,
    /// Parts of the queue by slot.
    by_slot: FxHashMap<Slot, u32>,
}

impl Expected {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            until: FxHashMap::default(),
            queue: VecDeque::new(),
            queued: 0,
            by_slot: FxHashMap::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }

    /// Whether anything of that slot is expected.
    pub(super) fn of(&self, slot: Slot) -> bool {
        self.by_slot.contains_key(&slot)
    }

    /// The slot will hold the blocks of `keys`; as many of the leading ones as there is room for are kept.
    pub(super) fn add(
        &mut self,
        holdings: &mut Holdings,
        slot: Slot,
        keys: &[Key],
        until: Duration,
    ) {
        let room = self.most - self.queued;
        let bit = Bit {
            tier: Tier::Expected,
            slot,
        };
        let mut blocks = Vec::with_capacity(keys.len().min(room));
        for key in &keys[..keys.len().min(room)] {
            let Ok((block, _)) = holdings.hold(bit, *key) else {
                break;
            };
            self.until.insert((block, slot), until);
            blocks.push(block);
        }
        if !blocks.is_empty() {
            self.queued += blocks.len();
            *self.by_slot.entry(slot).or_insert(0) += 1;
            self.queue.push_back((until, slot, blocks));
        }
    }

    /// Takes out what was expected until `now`.
    pub(super) fn expire(&mut self, holdings: &mut Holdings, now: Duration) {
        while self.queue.front().is_some_and(|(until, ..)| *until <= now) {
            let Some((until, slot, blocks)) = self.queue.pop_front() else {
                return;
            };
            self.queued -= blocks.len();
            let bit = Bit {
                tier: Tier::Expected,
                slot,
            };
            for block in blocks {
                if self.until.get(&(block, slot)) == Some(&until) {
                    self.until.remove(&(block, slot));
                    holdings.release(bit, block);
                }
            }
            if let Some(parts) = self.by_slot.get_mut(&slot) {
                *parts -= 1;
                if *parts == 0 {
                    self.by_slot.remove(&slot);
                }
            }
        }
    }
}

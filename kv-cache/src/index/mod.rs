//! Key → who holds the block: written by one thread, read by any number.

mod blocks;
mod lookup;
pub(crate) mod residency;
mod sets;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use crate::engine::BlockId;
use crate::keys::Key;
use crate::tier::TierWeights;
use blocks::Blocks;
pub use lookup::{Match, Matches, Reader};
use residency::{Bit, Residency, Slot, Word};
pub(crate) use sets::Full;
use sets::{Interner, SetStore};
use table::{Table, TableWriter};

/// An endpoint in the index, by a small number that is used again when the endpoint is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pod(pub(crate) u32);

impl Pod {
    /// Its place in [`Matches::all`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A slot that belongs to no endpoint.
const NO_POD: u32 = u32::MAX;

/// What the writer and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Arc<Table>,
    sets: SetStore,
    weights: TierWeights,
    /// The endpoint whose blocks a slot's are, slot by slot.
    owners: Box<[AtomicU32]>,
    /// What is known of an endpoint, endpoint by endpoint.
    knowledge: Box<[AtomicU8]>,
    /// Endpoints that have a number, or had one.
    pods: AtomicUsize,
    /// What blocks that are stored or looked up are stamped with.
    epoch: AtomicU32,
}

impl Shared {
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn set_knowledge(&self, pod: Pod, knowledge: u8) {
        if let Some(place) = self.knowledge.get(pod.index()) {
            place.store(knowledge, Ordering::Release);
            self.pods.fetch_max(pod.index() + 1, Ordering::Release);
        }
    }

    pub(crate) fn knowledge(&self, pod: Pod) -> u8 {
        self.knowledge
            .get(pod.index())
            .map_or(0, |knowledge| knowledge.load(Ordering::Acquire))
    }
}

/// The writer's side: who holds which block, whatever engines call it.
#[derive(Debug)]
pub(crate) struct Holdings {
    shared: Arc<Shared>,
    table: TableWriter,
    interner: Interner,
    blocks: Blocks,
}

impl Holdings {
    /// An empty index made for about `blocks` blocks, with room for `slots` holders and `pods` endpoints.
    pub(crate) fn new(blocks: usize, slots: usize, pods: usize, weights: TierWeights) -> Self {
        let table = TableWriter::new(blocks);
        let shared = Shared {
            table: Arc::clone(table.table()),
            sets: SetStore::new(),
            weights,
            owners: (0..slots).map(|_| AtomicU32::new(NO_POD)).collect(),
            knowledge: (0..pods).map(|_| AtomicU8::new(0)).collect(),
            pods: AtomicUsize::new(0),
            epoch: AtomicU32::new(0),
        };
        Self {
            shared: Arc::new(shared),
            table,
            interner: Interner::default(),
            blocks: Blocks::default(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Blocks that somebody holds.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Different sets of several holders.
    pub(crate) fn sets(&self) -> usize {
        self.interner.len()
    }

    /// What blocks are stamped with changes.
    pub(crate) fn advance_epoch(&self) {
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on what `slot` holds is `pod`'s, or nobody's.
    pub(crate) fn own(&self, slot: Slot, pod: Option<Pod>) {
        if let Some(owner) = self.shared.owners.get(usize::from(slot)) {
            owner.store(pod.map_or(NO_POD, |pod| pod.0), Ordering::Release);
        }
    }

    /// The key of a block that somebody holds.
    pub(crate) fn key(&self, block: BlockId) -> Key {
        self.blocks.key(block)
    }

    /// Epochs since somebody stored or looked up the block, modulo [`residency::STAMPS`].
    pub(crate) fn age(&self, block: BlockId) -> u32 {
        let stamp = self.table.get(self.blocks.key(block)).stamp();
        self.shared.epoch().wrapping_sub(stamp) % residency::STAMPS
    }

    /// `bit` holds the block with `key`. The block's number, and whether it did not hold it before.
    pub(crate) fn hold(&mut self, bit: Bit, key: Key) -> Result<(BlockId, bool), Full> {
        let word = self.table.get(key);
        let epoch = self.shared.epoch();
        if word == Word::EMPTY {
            let block = self.blocks.number(key).ok_or(Full)?;
            let one = Residency::one(bit);
            self.table.set(key, Word::new(block, epoch, one));
            return Ok((block, true));
        }
        let from = word.residency();
        if from == Residency::NOBODY {
            return Err(Full);
        }
        let to = self.interner.with(&self.shared.sets, from, bit)?;
        self.table.set(key, word.held(to).stamped(epoch));
        if to != from {
            self.interner.release(&self.shared.sets, from);
        }
        Ok((word.block(), to != from))
    }

    /// `bit` holds the block no longer.
    pub(crate) fn release(&mut self, bit: Bit, block: BlockId) {
        let key = self.blocks.key(block);
        let word = self.table.get(key);
        let from = word.residency();
        match self.interner.without(&self.shared.sets, from, bit) {
            Ok(to) if to == from => return,
            Ok(Residency::NOBODY) => {
                self.table.set(key, Word::EMPTY);
                self.blocks.free(block);
            }
            Ok(to) => self.table.set(key, word.held(to)),
            // No room for the smaller set: the index may know too little, never too much, so the block is taken from
            // everybody for good. Its number stays taken, because engine hashes of the others still stand for it.
            Err(Full) => self.table.set(key, word.held(Residency::NOBODY)),
        }
        self.interner.release(&self.shared.sets, from);
    }
}

//! One endpoint between two clearings, and the slots that endpoints have in the index.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rustc_hash::FxHashMap;

use super::Knowledge;
use super::expect::Expected;
use super::pages::Pages;
use crate::engine::{BlockId, EngineMap};
use crate::index::residency::Slot;
use crate::tier::Tier;

/// Tiers that engines tell of.
pub(super) const TOLD: usize = 4;

/// How an engine cuts blocks in one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// One of its blocks is so many of ours.
    Whole(u32),
    /// Several of its blocks are one of ours.
    Pages,
}

/// What an endpoint holds in one tier.
#[derive(Debug)]
pub(super) struct Tiered {
    pub(super) cut: Cut,
    pub(super) engines: EngineMap,
    /// Blocks that several hashes of the engine stand for: how many besides the first.
    pub(super) aliases: FxHashMap<BlockId, u32>,
    pub(super) pages: Pages,
}

impl Tiered {
    pub(super) fn new(cut: Cut) -> Self {
        Self {
            cut,
            engines: EngineMap::default(),
            aliases: FxHashMap::default(),
            pages: Pages::default(),
        }
    }
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) slot: Slot,
    /// What is known when no message is missing.
    pub(super) knowledge: Knowledge,
    /// Messages are missing and were asked for.
    pub(super) doubtful: bool,
    pub(super) tiers: [Option<Box<Tiered>>; TOLD],
    /// The group of a hybrid model's layers that is in the index.
    pub(super) group: Option<u32>,
}

impl PodState {
    pub(super) fn new(slot: Slot) -> Self {
        Self {
            slot,
            knowledge: Knowledge::Nothing,
            doubtful: false,
            tiers: [const { None }; TOLD],
            group: None,
        }
    }

    pub(super) fn holds_anything(&self) -> bool {
        self.tiers
            .iter()
            .flatten()
            .any(|tiered| tiered.holds_anything())
    }

    /// The block of ours that ends where the engine's block does, and how the engine cuts it.
    pub(super) fn find(&self, hash: u64) -> Option<(BlockId, Cut)> {
        self.tiers
            .iter()
            .flatten()
            .find_map(|tiered| Some((tiered.engines.get(hash)?, tiered.cut)))
    }
}

/// What is left of an endpoint that is gone.
#[derive(Debug)]
pub(super) struct Retired {
    pub(super) slot: Slot,
    pub(super) tiers: Vec<(Tier, Box<Tiered>)>,
}

/// Which slots are taken.
#[derive(Debug)]
pub(super) struct Slots {
    /// The lowest first, so that sets of holders stay short.
    free: BinaryHeap<Reverse<Slot>>,
    /// Taken by endpoints that are gone; their entries are being given back.
    pub(super) retired: VecDeque<Retired>,
    /// Given back, but for what is still expected.
    pub(super) idle: Vec<Slot>,
}

impl Slots {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            free: (0..slots).map(|slot| Reverse(slot as Slot)).collect(),
            retired: VecDeque::new(),
            idle: Vec::new(),
        }
    }

    pub(super) fn free(&mut self) -> Option<Slot> {
        self.free.pop().map(|Reverse(slot)| slot)
    }

    pub(super) fn retire(&mut self, state: PodState) {
        let tiers = Tier::ALL.into_iter().zip(state.tiers);
        self.retired.push_back(Retired {
            slot: state.slot,
            tiers: tiers
                .filter_map(|(tier, tiered)| Some((tier, tiered?)))
                .collect(),
        });
    }

    /// Idle slots of which nothing is expected are free.
    pub(super) fn free_idle(&mut self, expected: &Expected) {
        let free = &mut self.free;
        self.idle.retain(|slot| {
            let busy = expected.of(*slot);
            if !busy {
                free.push(Reverse(*slot));
            }
            busy
        });
    }
}

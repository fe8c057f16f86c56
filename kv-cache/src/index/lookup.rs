//! Hot path: how many of a request's leading blocks each endpoint holds.
//!
//! The endpoints that hold every block so far are a bit set, cut down block by block. Blocks of one prompt mostly have
//! the same holders, and the same holders are the same handle, so that most blocks cost one look at the table.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::Guard;

use super::residency::{Handle, Holders, Residency, Word};
use super::sets::{Pair, tier_of};
use super::table::{AHEAD, View};
use super::{NO_POD, Pod, Shared};
use crate::ingest::Knowledge;
use crate::keys::Key;
use crate::tier::Tier;

/// What one endpoint holds of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Match {
    /// Leading blocks it holds without a gap, in whatever tier.
    pub blocks: u32,
    /// The same, each counted by the weight of its best tier.
    pub worth: f32,
}

/// What every endpoint holds of a request, and room to find it out; to be used again for the next request.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    by_pod: Vec<Match>,
    /// Slots that held the first block, and those that held all blocks so far: bit sets.
    first: Vec<u64>,
    active: Vec<u64>,
    /// Slots that hold the block that is looked at.
    present: Vec<u64>,
    /// By slot: blocks held, and what of them lay in tiers of lesser weight.
    blocks: Vec<u32>,
    lost: Vec<f32>,
    /// Slots (a word's number and bits) for which each block of the run that is looked at is worth so much less.
    discounts: Vec<(usize, u64, f32)>,
    run_from: u32,
    pairs: Vec<Pair>,
}

impl Matches {
    /// By [`Pod::index`]; endpoints beyond the end hold nothing.
    pub fn all(&self) -> &[Match] {
        &self.by_pod
    }

    /// What `pod` holds.
    pub fn of(&self, pod: Pod) -> Match {
        self.by_pod.get(pod.index()).copied().unwrap_or_default()
    }

    fn reset(&mut self, pods: usize) {
        self.by_pod.clear();
        self.by_pod.resize(pods, Match::default());
        self.first.clear();
        self.active.clear();
        self.discounts.clear();
        self.run_from = 0;
    }
}

/// Asks the index. Cheap to clone; any number of threads may.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whether the index knows everything that `pod` holds.
    pub fn knowledge(&self, pod: Pod) -> Knowledge {
        Knowledge::from_number(self.shared.knowledge(pod))
    }

    /// How many of the leading blocks with `keys` each endpoint holds, into `out`. Takes no lock.
    pub fn matched(&self, keys: &[Key], out: &mut Matches) {
        out.reset(self.shared.pods.load(Ordering::Acquire));
        let walked = self.walk(keys, out);
        self.settle(walked, out);
    }

    /// Goes along the blocks until nobody holds all of them; returns how many that took.
    fn walk(&self, keys: &[Key], out: &mut Matches) -> u32 {
        let mut view = self.shared.table.view();
        let epoch = self.shared.epoch();
        let mut last: Option<(Residency, Option<(Handle, u64)>)> = None;
        let mut index = 0;
        let first = keys.len().min(1);
        for run in std::iter::once(&keys[..first]).chain(keys[first..].chunks(AHEAD)) {
            if run.len() > 1 {
                black_box(view.approach(run));
            }
            for key in run {
                let Some(place) = view.word(*key) else {
                    return index;
                };
                let word = Word(place.load(Ordering::Acquire));
                let same = last.is_some_and(|(residency, set)| {
                    residency == word.residency()
                        && set.is_none_or(|(handle, version)| {
                            self.shared.sets.version(handle) == version
                        })
                });
                if word.stamp() != epoch % super::residency::STAMPS {
                    stamp(place, word, epoch);
                }
                if !same {
                    last = Some(self.holders(&mut view, *key, out));
                    if !self.narrow(index, out) {
                        return index;
                    }
                }
                index += 1;
            }
        }
        index
    }

    /// The holders of the block with `key`, into `out.pairs`.
    ///
    /// A set's row is given to another set once no block has it. The row that was read is the block's if the block
    /// still has it afterwards, in segments that are still in force: a segment that was replaced changes no more.
    fn holders(
        &self,
        view: &mut Guard<Arc<View>>,
        key: Key,
        out: &mut Matches,
    ) -> (Residency, Option<(Handle, u64)>) {
        let sets = &self.shared.sets;
        loop {
            out.pairs.clear();
            let Some(place) = view.word(key) else {
                return (Residency::NOBODY, None);
            };
            let residency = Word(place.load(Ordering::Acquire)).residency();
            let handle = match residency.holders() {
                Holders::Nobody => return (residency, None),
                Holders::One(bit) => {
                    out.pairs.push((bit.word(), bit.mask()));
                    return (residency, None);
                }
                Holders::Set(handle) => handle,
            };
            let version = sets.read(handle, &mut out.pairs);
            let unchanged = Word(place.load(Ordering::Acquire)).residency() == residency;
            let now = self.shared.table.view();
            if let Some(version) = version
                && unchanged
                && Arc::ptr_eq(view, &now)
                && sets.version(handle) == version
            {
                return (residency, Some((handle, version)));
            }
            *view = now;
        }
    }

    /// Only the holders in `out.pairs` hold the block at `index`; false if then nobody holds all.
    fn narrow(&self, index: u32, out: &mut Matches) -> bool {
        out.close_run(index);
        out.present.clear();
        for (word, bits) in &out.pairs {
            let at = (word & 0x3ff) as usize;
            if out.present.len() <= at {
                out.present.resize(at + 1, 0);
            }
            out.present[at] |= bits;
        }
        if index == 0 {
            out.begin();
        }
        let mut any = 0;
        for (at, active) in out.active.iter_mut().enumerate() {
            let present = out.present.get(at).copied().unwrap_or(0);
            let mut gone = *active & !present;
            while gone != 0 {
                out.blocks[at * 64 + gone.trailing_zeros() as usize] = index;
                gone &= gone - 1;
            }
            *active &= present;
            any |= *active;
        }
        self.discount(out);
        any != 0
    }

    /// Notes whose blocks are worth less from here on.
    fn discount(&self, out: &mut Matches) {
        let weights = &self.shared.weights;
        if out
            .pairs
            .iter()
            .all(|(word, _)| weights.of(tier_of(*word)) >= 1.0)
        {
            return;
        }
        let mut tiers = Tier::ALL;
        tiers.sort_by(|one, other| weights.of(*other).total_cmp(&weights.of(*one)));
        // What a better tier covers is struck from here.
        out.present.clear();
        out.present.extend_from_slice(&out.active);
        for tier in tiers {
            for (word, bits) in &out.pairs {
                let at = (word & 0x3ff) as usize;
                if tier_of(*word) == tier
                    && let Some(open) = out.present.get_mut(at)
                {
                    let found = bits & *open;
                    *open &= !bits;
                    if found != 0 && weights.of(tier) != 1.0 {
                        out.discounts.push((at, found, 1.0 - weights.of(tier)));
                    }
                }
            }
        }
    }

    /// Slots to endpoints; who is still active holds all `walked` blocks.
    fn settle(&self, walked: u32, out: &mut Matches) {
        out.close_run(walked);
        for at in 0..out.first.len() {
            let mut bits = out.first[at];
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                let slot = at * 64 + bit;
                let active = out.active[at] >> bit & 1 != 0;
                let blocks = if active { walked } else { out.blocks[slot] };
                let owner = self.shared.owners[slot].load(Ordering::Acquire);
                if owner != NO_POD
                    && let Some(of) = out.by_pod.get_mut(owner as usize)
                {
                    let worth = blocks as f32 - out.lost[slot];
                    *of = Match { blocks, worth };
                }
                bits &= bits - 1;
            }
        }
    }
}

impl Matches {
    /// Everybody in `present` holds the first block.
    fn begin(&mut self) {
        self.first.extend_from_slice(&self.present);
        self.active.extend_from_slice(&self.present);
        let slots = self.present.len() * 64;
        self.blocks.clear();
        self.blocks.resize(slots, 0);
        self.lost.clear();
        self.lost.resize(slots, 0.0);
    }

    /// The run of blocks with the same holders ends before `index`.
    fn close_run(&mut self, index: u32) {
        let length = (index - self.run_from) as f32;
        self.run_from = index;
        for (at, bits, less) in self.discounts.drain(..) {
            let mut bits = bits;
            while bits != 0 {
                self.lost[at * 64 + bits.trailing_zeros() as usize] += less * length;
                bits &= bits - 1;
            }
        }
    }
}

/// The block was looked up in `epoch`. If the writer changed it meanwhile, it has a stamp of its own.
fn stamp(place: &AtomicU64, word: Word, epoch: u32) {
    let stamped = word.stamped(epoch);
    if word != Word::EMPTY {
        let _ = place.compare_exchange(word.0, stamped.0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

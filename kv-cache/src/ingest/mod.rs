//! Events to the index: the one writer.

mod apply;
mod evict;
mod expect;
mod pages;
mod pod;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use crate::engine::BlockId;
use crate::events::{DecodeError, Event, decode};
use crate::index::residency::Bit;
use crate::index::{Holdings, Pod, Reader};
use crate::keys::Key;
use evict::Hand;
use expect::Expected;
use pod::{PodState, Slots, Tiered};
pub use settings::{Counts, IngestError, Knowledge, Settings, SettingsError};

/// Entries of endpoints that are gone given back per event, besides what the event does.
const TIDIED_PER_EVENT: usize = 512;

/// Takes events in and keeps the index.
#[derive(Debug)]
pub struct Ingest {
    settings: Settings,
    holdings: Holdings,
    pods: Vec<Option<PodState>>,
    slots: Slots,
    expected: Expected,
    hand: Hand,
    /// Engine hashes in all maps, and pages.
    entries: usize,
    pages: usize,
    /// Entries made since the epoch changed.
    made: usize,
    counts: Counts,
}

impl Ingest {
    /// An empty index.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let slots = 2 * settings.pods + 64;
        Ok(Self {
            holdings: Holdings::new(settings.entries, slots, settings.pods, settings.weights),
            pods: Vec::new(),
            slots: Slots::new(slots),
            expected: Expected::new(settings.expected),
            hand: Hand::default(),
            entries: 0,
            pages: 0,
            made: 0,
            counts: Counts::default(),
            settings,
        })
    }

    /// A reader of this index.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(self.holdings.shared()))
    }

    /// What the index was made for.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What became of the events so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// (Block, endpoint, tier) entries, those of endpoints that are gone and not yet tidied included.
    pub fn entries(&self) -> usize {
        self.entries + self.pages
    }

    /// Different blocks.
    pub fn blocks(&self) -> usize {
        self.holdings.blocks()
    }

    /// Different sets of several holders.
    pub fn sets(&self) -> usize {
        self.holdings.sets()
    }

    /// Entries that are expected and not yet told of.
    pub fn expected(&self) -> usize {
        self.expected.len()
    }

    /// Takes in an endpoint of which nothing is known yet.
    ///
    /// # Errors
    /// When there are as many as the index was made for.
    pub fn add_pod(&mut self) -> Result<Pod, IngestError> {
        let full = IngestError::Pods(self.settings.pods);
        let number = match self.pods.iter().position(Option::is_none) {
            Some(number) => number,
            None if self.pods.len() < self.settings.pods => {
                self.pods.push(None);
                self.pods.len() - 1
            }
            None => return Err(full),
        };
        let pod = Pod(number as u32);
        let slot = self.free_slot().ok_or(full)?;
        self.holdings.own(slot, Some(pod));
        self.pods[number] = Some(PodState::new(slot));
        self.know(pod);
        Ok(pod)
    }

    /// Forgets an endpoint. Readers find nothing of it from now on; its entries are given back bit by bit.
    pub fn remove_pod(&mut self, pod: Pod) {
        if let Some(state) = self.pods.get_mut(pod.index()).and_then(Option::take) {
            self.retire(state);
            self.know(pod);
        }
    }

    /// The endpoint's engine begins anew, or what is known of it does: it holds nothing that is known of. `complete` says
    /// that it holds nothing at all.
    pub fn restart(&mut self, pod: Pod, complete: bool) {
        self.clear(pod);
        if let Some(state) = self.state(pod) {
            state.knowledge = if complete {
                Knowledge::All
            } else {
                Knowledge::Some
            };
        }
        self.know(pod);
    }

    /// Messages of the endpoint's engine are missing and were asked for; or no longer.
    pub fn doubt(&mut self, pod: Pod, doubtful: bool) {
        if let Some(state) = self.state(pod) {
            state.doubtful = doubtful;
        }
        self.know(pod);
    }

    /// How far the index can be believed about the endpoint.
    pub fn knowledge(&self, pod: Pod) -> Knowledge {
        let state = self.pods.get(pod.index()).and_then(Option::as_ref);
        state.map_or(Knowledge::Nothing, |state| {
            if state.doubtful && state.knowledge != Knowledge::Nothing {
                Knowledge::Doubtful
            } else {
                state.knowledge
            }
        })
    }

    /// One message of `pod`'s engine, which serves `model`. Where it cannot be read, what it told is lost, and what
    /// was known of the endpoint with it.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub fn read(&mut self, pod: Pod, model: &str, message: &[u8]) -> Result<(), DecodeError> {
        let batch = decode(message).inspect_err(|_| self.restart(pod, false))?;
        self.counts.unknown_events += u64::from(batch.unknown);
        self.counts.malformed_events += u64::from(batch.malformed);
        for event in &batch.events {
            self.apply(pod, model, event);
        }
        if batch.malformed > 0 {
            self.restart(pod, false);
        }
        Ok(())
    }

    /// One event of `pod`'s engine, which serves `model`.
    pub fn apply(&mut self, pod: Pod, model: &str, event: &Event) {
        match event {
            Event::Stored(stored) => self.store(pod, model, stored),
            Event::Removed(removed) => self.remove(pod, removed),
            Event::Cleared => self.restart(pod, true),
        }
        if !self.slots.retired.is_empty() {
            self.tidy(TIDIED_PER_EVENT);
        }
    }

    fn state(&mut self, pod: Pod) -> Option<&mut PodState> {
        self.pods.get_mut(pod.index()).and_then(Option::as_mut)
    }

    /// Tells readers.
    fn know(&self, pod: Pod) {
        let knowledge = self.knowledge(pod).number();
        self.holdings.shared().set_knowledge(pod, knowledge);
    }

    /// Something the endpoint holds is not in the index.
    fn knows_less(&mut self, pod: Pod) {
        if let Some(state) = self.state(pod)
            && state.knowledge == Knowledge::All
        {
            state.knowledge = Knowledge::Some;
            self.know(pod);
        }
    }

    /// Takes out what is known to be there; what is known of it stays.
    fn clear(&mut self, pod: Pod) {
        let Some(mut old) = self.pods.get_mut(pod.index()).and_then(Option::take) else {
            return;
        };
        self.counts.cleared += 1;
        old.group = None;
        if old.holds_anything() || self.expected.of(old.slot) {
            let (knowledge, doubtful) = (old.knowledge, old.doubtful);
            self.retire(old);
            let Some(slot) = self.free_slot() else {
                return;
            };
            self.holdings.own(slot, Some(pod));
            old = PodState::new(slot);
            (old.knowledge, old.doubtful) = (knowledge, doubtful);
        }
        self.pods[pod.index()] = Some(old);
    }

    /// A request with the blocks of `keys` was sent to `pod`, which will hold them soon: until `until` they count as
    /// held. Times are since any one moment, and do not decrease.
    pub fn expect(&mut self, pod: Pod, keys: &[Key], until: Duration) {
        if let Some(state) = self.pods.get(pod.index()).and_then(Option::as_ref) {
            self.expected
                .add(&mut self.holdings, state.slot, keys, until);
        }
    }

    /// Takes out what was expected and did not come until `now`.
    pub fn expire(&mut self, now: Duration) {
        self.expected.expire(&mut self.holdings, now);
        self.slots.free_idle(&self.expected);
    }

    /// Gives back about that many entries of endpoints that are gone; false when none is left.
    pub fn tidy(&mut self, mut entries: usize) -> bool {
        while entries > 0 {
            let Some(retired) = self.slots.retired.front_mut() else {
                break;
            };
            let slot = retired.slot;
            let Some((tier, tiered)) = retired.tiers.last_mut() else {
                if let Some(done) = self.slots.retired.pop_front() {
                    self.slots.idle.push(done.slot);
                }
                continue;
            };
            let bit = Bit { tier: *tier, slot };
            let before = tiered.engines.len();
            let holdings = &mut self.holdings;
            let aliases = &mut tiered.aliases;
            let more = tiered.engines.drain(entries, |block| {
                let_go(holdings, aliases, bit, block);
            });
            let gone = before - tiered.engines.len();
            self.entries -= gone;
            entries = entries.saturating_sub(gone.max(1));
            if !more {
                self.pages -= tiered.pages.len();
                retired.tiers.pop();
            }
        }
        self.slots.free_idle(&self.expected);
        !self.slots.retired.is_empty()
    }

    fn retire(&mut self, state: PodState) {
        self.holdings.own(state.slot, None);
        self.slots.retire(state);
    }

    /// A slot nobody has. There are more than endpoints; only when many were cleared at once has one to be tidied first.
    fn free_slot(&mut self) -> Option<u16> {
        if let Some(slot) = self.slots.free() {
            return Some(slot);
        }
        while self.tidy(usize::MAX) {}
        if let Some(slot) = self.slots.free() {
            return Some(slot);
        }
        self.expire(Duration::MAX);
        self.slots.free()
    }
}

/// `bit` lets go of one engine hash's block: unless another hash of the engine stands for it as well, the block itself.
fn let_go(
    holdings: &mut Holdings,
    aliases: &mut rustc_hash::FxHashMap<BlockId, u32>,
    bit: Bit,
    block: BlockId,
) {
    if !aliases.is_empty()
        && let Some(others) = aliases.get_mut(&block)
    {
        *others -= 1;
        if *others == 0 {
            aliases.remove(&block);
        }
        return;
    }
    holdings.release(bit, block);
}

impl Tiered {
    fn holds_anything(&self) -> bool {
        self.engines.len() > 0 || self.pages.len() > 0
    }
}

//! What one event changes.

use super::pages::After;
use super::pod::{Cut, TOLD, Tiered};
use super::{Ingest, let_go};
use crate::engine::{Inserted, Removed as Taken};
use crate::events::{EngineHash, ExtraKey, Removed, Stored};
use crate::index::Pod;
use crate::index::residency::Bit;
use crate::keys::{Digest, Extras, Key, mix};
use crate::tier::Tier;

/// Kinds of attention under which a block in the cache means that the prompt up to it need not be computed.
const WHOLE_PREFIX: [&str; 3] = ["full_attention", "mla_attention", "sink_full_attention"];

/// Part `part` of `parts` of an engine's block: the last has the engine's hash, so that what follows finds it.
fn part_hash(hash: EngineHash, part: u32, parts: u32) -> EngineHash {
    if part + 1 == parts {
        hash
    } else {
        mix(hash ^ u64::from(part + 1) << 48)
    }
}

/// What a stored event is about, once it is clear that it can be entered.
struct Run<'a> {
    pod: Pod,
    bit: Bit,
    parts: u32,
    lora: Option<&'a str>,
    event: &'a Stored,
}

impl Ingest {
    pub(super) fn store(&mut self, pod: Pod, model: &str, event: &Stored) {
        let tier = Tier::of(event.medium.as_deref(), event.locality.as_deref());
        let blocks = event.block_hashes.len();
        let Some(state) = self.state(pod) else {
            return;
        };
        let slot = state.slot;
        let kind = event.kv_cache_spec_kind.as_deref();
        let whole = kind.is_none_or(|kind| WHOLE_PREFIX.contains(&kind));
        let group = event.group_idx;
        if !whole || group.is_some_and(|group| *state.group.get_or_insert(group) != group) {
            self.counts.other_groups += blocks as u64;
            return;
        }
        if event.token_ids.is_empty() {
            self.copy(pod, tier, event);
            return;
        }
        let cut = self.cut(event);
        if event.lora_id.is_some() && event.lora_name.is_none() {
            self.counts.unnamed_adapters += blocks as u64;
            self.knows_less(pod);
            return;
        }
        let Some(cut) = cut.filter(|cut| self.tiered(pod, tier, *cut)) else {
            self.counts.misfits += 1;
            self.knows_less(pod);
            return;
        };
        let lora = event.lora_name.as_deref();
        let root = Key::root(lora.unwrap_or(model));
        let parts = match cut {
            Cut::Whole(parts) => parts,
            Cut::Pages => 1,
        };
        let run = Run {
            pod,
            bit: Bit { tier, slot },
            parts,
            lora,
            event,
        };
        match cut {
            Cut::Whole(_) => self.store_blocks(&run, root),
            Cut::Pages => self.store_pages(&run, root),
        }
    }

    /// How the event's blocks relate to ours; none if they do not.
    fn cut(&self, event: &Stored) -> Option<Cut> {
        let (theirs, ours) = (event.block_size, self.settings.block_tokens);
        let tokens = event.block_hashes.len().checked_mul(theirs as usize)?;
        if theirs == 0 || tokens != event.token_ids.len() {
            None
        } else if theirs.is_multiple_of(ours) {
            Some(Cut::Whole(theirs / ours))
        } else if ours.is_multiple_of(theirs) {
            Some(Cut::Pages)
        } else {
            None
        }
    }

    /// Whether the endpoint's tier is cut so, or can be because nothing is in it. An engine that stores blocks of several
    /// sizes is believed about the first one; a new engine begins with an empty tier.
    fn tiered(&mut self, pod: Pod, tier: Tier, cut: Cut) -> bool {
        let Some(state) = self.state(pod) else {
            return false;
        };
        let tiered = state.tiers[tier.index()].get_or_insert_with(|| Box::new(Tiered::new(cut)));
        if tiered.cut != cut && !tiered.holds_anything() {
            tiered.cut = cut;
        }
        tiered.cut == cut
    }

    fn store_blocks(&mut self, run: &Run<'_>, root: Key) {
        let event = run.event;
        let mut key = root;
        if let Some(parent) = event.parent_block_hash {
            let found = self.state(run.pod).and_then(|state| state.find(parent));
            match found {
                Some((block, _)) => key = self.holdings.key(block),
                None => {
                    self.counts.orphaned += event.block_hashes.len() as u64;
                    return self.knows_less(run.pod);
                }
            }
        }
        let ours = self.settings.block_tokens as usize;
        let mut digests = event.token_ids.chunks_exact(ours).map(Digest::of_tokens);
        for (index, hash) in event.block_hashes.iter().enumerate() {
            let extras = extras(event, index, run.lora);
            if run.parts > 1 && !extras.is_empty() {
                self.counts.cut_extras += (event.block_hashes.len() - index) as u64;
                return self.knows_less(run.pod);
            }
            for part in 0..run.parts {
                let Some(digest) = digests.next() else {
                    return;
                };
                key = key.then(digest.with(&extras));
                if !self.enter(run, part_hash(*hash, part, run.parts), key) {
                    self.counts.refused += (event.block_hashes.len() - index) as u64;
                    return self.knows_less(run.pod);
                }
            }
            self.counts.stored += 1;
        }
    }

    /// The endpoint holds the block with `key` and calls it `hash`; false if there is no room for it.
    fn enter(&mut self, run: &Run<'_>, hash: EngineHash, key: Key) -> bool {
        if !self.make_room() {
            return false;
        }
        let Ok((block, newly)) = self.holdings.hold(run.bit, key) else {
            return false;
        };
        let Some(tiered) = self
            .pods
            .get_mut(run.pod.index())
            .and_then(Option::as_mut)
            .and_then(|state| state.tiers[run.bit.tier.index()].as_mut())
        else {
            return false;
        };
        let inserted = tiered.engines.insert(hash, block);
        if inserted != Inserted::Again && !newly {
            *tiered.aliases.entry(block).or_insert(0) += 1;
        }
        match inserted {
            Inserted::New => self.made_one(),
            Inserted::Instead(other) => {
                let_go(&mut self.holdings, &mut tiered.aliases, run.bit, other);
            }
            Inserted::Again => {}
        }
        true
    }

    fn store_pages(&mut self, run: &Run<'_>, root: Key) {
        let event = run.event;
        let size = event.block_size as usize;
        let ours = self.settings.block_tokens as usize;
        let mut after = match event.parent_block_hash {
            Some(parent) => After::Page(parent),
            None => After::Block(root),
        };
        let mut full = Vec::new();
        let pages = event.block_hashes.iter().zip(event.token_ids.chunks(size));
        for (reached, (hash, tokens)) in pages.enumerate() {
            let told_apart = !extras(event, reached, run.lora).is_empty();
            if !self.make_room() {
                self.counts.refused += (event.block_hashes.len() - reached) as u64;
                self.knows_less(run.pod);
                break;
            }
            let Some(tiered) = self
                .pods
                .get_mut(run.pod.index())
                .and_then(Option::as_mut)
                .and_then(|state| state.tiers[run.bit.tier.index()].as_mut())
            else {
                return;
            };
            let before = tiered.pages.len();
            let told = |hash, key| full.push((hash, key));
            let stored =
                !told_apart && tiered.pages.store(*hash, after, tokens, ours, told).is_ok();
            self.pages += tiered.pages.len() - before;
            if !stored {
                let left = (event.block_hashes.len() - reached) as u64;
                if told_apart {
                    self.counts.cut_extras += left;
                } else {
                    self.counts.orphaned += left;
                }
                self.knows_less(run.pod);
                break;
            }
            after = After::Page(*hash);
            self.counts.stored += 1;
        }
        for (hash, key) in full {
            if !self.enter(run, hash, key) {
                self.counts.refused += 1;
                self.knows_less(run.pod);
            }
        }
        // Pages cannot be forgotten one by one without knowing which ones the engine will ask for next.
        if self.pages > self.settings.entries / 2 {
            self.counts.evicted += self.pages as u64;
            self.clear(run.pod);
            self.knows_less(run.pod);
        }
    }

    /// Blocks that the engine told of before come to another tier.
    fn copy(&mut self, pod: Pod, tier: Tier, event: &Stored) {
        for hash in &event.block_hashes {
            let found = self.state(pod).and_then(|state| state.find(*hash));
            let entered = match found {
                Some((_, Cut::Whole(parts))) => self.copy_one(pod, tier, *hash, parts, event),
                _ => false,
            };
            if entered {
                self.counts.stored += 1;
            } else {
                self.counts.orphaned += 1;
                self.knows_less(pod);
            }
        }
    }

    fn copy_one(
        &mut self,
        pod: Pod,
        tier: Tier,
        hash: EngineHash,
        parts: u32,
        event: &Stored,
    ) -> bool {
        let Some(slot) = self.state(pod).map(|state| state.slot) else {
            return false;
        };
        if !self.tiered(pod, tier, Cut::Whole(parts)) {
            return false;
        }
        let run = Run {
            pod,
            bit: Bit { tier, slot },
            parts,
            lora: None,
            event,
        };
        (0..parts).all(|part| {
            let hash = part_hash(hash, part, parts);
            let found = self.state(pod).and_then(|state| state.find(hash));
            found.is_some_and(|(block, _)| {
                let key = self.holdings.key(block);
                self.enter(&run, hash, key)
            })
        })
    }

    pub(super) fn remove(&mut self, pod: Pod, event: &Removed) {
        let tier = Tier::of(event.medium.as_deref(), event.locality.as_deref());
        let blocks = event.block_hashes.len() as u64;
        let Some(state) = self.state(pod) else {
            return;
        };
        let slot = state.slot;
        let other = |(of, indexed): (u32, u32)| of != indexed;
        if event.group_idx.zip(state.group).is_some_and(other) {
            self.counts.other_groups += blocks;
            return;
        }
        let bit = Bit { tier, slot };
        let Some(cut) = self.tier_mut(pod, tier).map(|tiered| tiered.cut) else {
            self.counts.unknown_removed += blocks;
            return;
        };
        for hash in &event.block_hashes {
            let known = match cut {
                Cut::Whole(parts) => {
                    let taken = |part| self.take(pod, bit, part_hash(*hash, part, parts));
                    (0..parts).rev().map(taken).filter(|taken| *taken).count() > 0
                }
                Cut::Pages => self.take_page(pod, bit, *hash),
            };
            if known {
                self.counts.removed += 1;
            } else {
                self.counts.unknown_removed += 1;
            }
        }
    }

    fn tier_mut(&mut self, pod: Pod, tier: Tier) -> Option<&mut Tiered> {
        let index = tier.index().min(TOLD - 1);
        self.state(pod)?.tiers[index].as_deref_mut()
    }

    /// The engine let one copy of `hash` go; false if nobody told of it.
    fn take(&mut self, pod: Pod, bit: Bit, hash: EngineHash) -> bool {
        let Some(tiered) = self
            .pods
            .get_mut(pod.index())
            .and_then(Option::as_mut)
            .and_then(|state| state.tiers[bit.tier.index()].as_mut())
        else {
            return false;
        };
        match tiered.engines.remove(hash) {
            Taken::Unknown => false,
            Taken::Copy => true,
            Taken::Gone(block) => {
                let_go(&mut self.holdings, &mut tiered.aliases, bit, block);
                self.entries -= 1;
                true
            }
        }
    }

    fn take_page(&mut self, pod: Pod, bit: Bit, hash: EngineHash) -> bool {
        let ours = self.settings.block_tokens as usize;
        let Some(tiered) = self.tier_mut(pod, bit.tier) else {
            return false;
        };
        let before = tiered.pages.len();
        let mut broken = Vec::new();
        let known = tiered.pages.remove(hash, ours, |hash| broken.push(hash));
        let gone = before - tiered.pages.len();
        self.pages -= gone;
        for hash in broken {
            self.take(pod, bit, hash);
        }
        known
    }
}

/// What tells the engine's block with that number apart besides its tokens. The adapter's name is in the root already.
fn extras(event: &Stored, block: usize, lora: Option<&str>) -> Extras {
    let mut extras = Extras::default();
    if let (0, None, Some(salt)) = (block, event.parent_block_hash, &event.cache_salt) {
        extras.text(salt);
    }
    let keys = event.extra_keys.as_ref().and_then(|all| all.get(block));
    if let Some(Some(keys)) = keys {
        for key in keys {
            if !matches!(key, ExtraKey::Text(text) if Some(text.as_str()) == lora) {
                add(&mut extras, key);
            }
        }
    }
    extras
}

fn add(extras: &mut Extras, key: &ExtraKey) {
    match key {
        ExtraKey::Nil => {}
        ExtraKey::Text(text) => extras.text(text),
        ExtraKey::Bytes(bytes) => extras.bytes(bytes),
        ExtraKey::Integer(integer) => extras.integer(*integer),
        ExtraKey::Float(float) => extras.bytes(&float.to_bits().to_le_bytes()),
        ExtraKey::List(list) => list.iter().for_each(|key| add(extras, key)),
    }
}

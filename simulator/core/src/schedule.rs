//! Planning one step: which sequences compute how many tokens, as vLLM's V1 scheduler decides it.
//!
//! Running requests come first, in order of admission: one token for a decode, as much of the prompt as the budget
//! allows for a prefill. When a running request finds no block, the last one admitted is preempted. Then, unless a
//! preemption happened, waiting requests are admitted first come, first served, each only if the whole of its uncached
//! tokens fits into free blocks (vLLM 0.19 `scheduler_reserve_full_isl`).

use crate::engine::Engine;
use crate::event::{Event, EventKind};
use std::time::Duration;

/// The work of one step.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) entries: Vec<Entry>,
    /// When the step ends, once it has started.
    pub(crate) end: Duration,
    pub(crate) duration: Duration,
    prefill_tokens: u64,
    kv_tokens: u64,
}

/// One sequence's part in a step.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) slot: u32,
    /// Whether the step emits a token of the sequence.
    pub(crate) emits: bool,
}

impl Plan {
    /// Prompt (or recomputed) tokens the step computes.
    pub(crate) fn prefill_tokens(&self) -> u64 {
        self.prefill_tokens
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.prefill_tokens = 0;
        self.kv_tokens = 0;
    }

    /// Takes an aborted sequence out of the step, whose time stays as it is.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.entries.retain(|entry| entry.slot != slot);
    }
}

impl Engine {
    /// Plans the next step at time `at`; false if there is nothing to compute.
    pub(crate) fn plan(&mut self, at: Duration, plan: &mut Plan, out: &mut Vec<Event>) -> bool {
        plan.clear();
        let mut budget = self.profile.max_num_batched_tokens;
        let preempted = self.plan_running(at, &mut budget, plan, out);
        // Where the only request able to run gave up its blocks, it comes back at once with all of them free.
        if !preempted || plan.entries.is_empty() {
            self.plan_waiting(at, &mut budget, plan, out);
        }
        if plan.entries.is_empty() {
            return false;
        }
        plan.duration = self.step_time(plan);
        true
    }

    /// Cost formula of [`StepCost`](crate::StepCost).
    fn step_time(&mut self, plan: &Plan) -> Duration {
        let cost = &self.profile.step;
        let ms = cost.base_ms
            + cost.prefill_ms_per_token * plan.prefill_tokens as f64
            + cost.sequence_ms * plan.entries.len() as f64
            + cost.kv_ms_per_token * plan.kv_tokens as f64;
        Duration::from_secs_f64(ms * self.noise.factor() / 1e3).max(Duration::from_nanos(1))
    }

    /// Gives running sequences their tokens; true if one had to be preempted.
    fn plan_running(
        &mut self,
        at: Duration,
        budget: &mut u32,
        plan: &mut Plan,
        out: &mut Vec<Event>,
    ) -> bool {
        let mut preempted = false;
        let mut next = 0;
        while next < self.running.len() && *budget > 0 {
            let slot = self.running[next];
            let sequence = &self.sequences[slot as usize];
            let tokens = sequence.uncomputed_tokens().min(*budget);
            let context = sequence.computed + tokens;
            while tokens > 0 && !self.reserve(slot, context) {
                preempted = true;
                if self.preempt_last(at, out) == Some(slot) {
                    return true;
                }
            }
            if tokens > 0 {
                self.schedule(slot, tokens, budget, plan);
            }
            next += 1;
        }
        preempted
    }

    /// Admits waiting sequences while tokens, sequences and blocks last.
    fn plan_waiting(
        &mut self,
        at: Duration,
        budget: &mut u32,
        plan: &mut Plan,
        out: &mut Vec<Event>,
    ) {
        while let Some(&slot) = self.waiting.front() {
            let arrived = self.sequences[slot as usize].arrived <= at;
            if !arrived || *budget == 0 || self.running.len() >= self.profile.max_num_seqs as usize
            {
                return;
            }
            let Some(cached_tokens) = self.admit(slot, *budget) else {
                return;
            };
            self.waiting.pop_front();
            self.running.push(slot);
            let sequence = &self.sequences[slot as usize];
            let tokens = (sequence.known_tokens() - cached_tokens).min(*budget);
            out.push(Event {
                at,
                id: sequence.id,
                kind: EventKind::Scheduled { cached_tokens },
            });
            self.schedule(slot, tokens, budget, plan);
        }
    }

    /// Books a part of the step for a sequence that holds the blocks for it.
    fn schedule(&mut self, slot: u32, tokens: u32, budget: &mut u32, plan: &mut Plan) {
        let sequence = &mut self.sequences[slot as usize];
        let is_prefill = sequence.computed < sequence.prompt_tokens || tokens > 1;
        let emits = sequence.book(tokens);
        *budget -= tokens;
        plan.entries.push(Entry { slot, emits });
        plan.kv_tokens += u64::from(sequence.computed);
        if is_prefill {
            plan.prefill_tokens += u64::from(tokens);
        }
        self.cache_full_blocks(slot);
    }

    /// Lets `slot` hold the blocks of a context of `tokens`; false if there are too few free ones (none is taken then).
    fn reserve(&mut self, slot: u32, tokens: u32) -> bool {
        let blocks = &mut self.sequences[slot as usize].blocks;
        let missing = tokens.div_ceil(self.profile.block_tokens) as usize - blocks.len();
        if missing == 0 {
            return true;
        }
        if missing > self.pool.free() as usize {
            return false;
        }
        blocks.extend((0..missing).map_while(|_| self.pool.take()));
        true
    }

    /// Starts a waiting sequence: shares what is cached of it and takes blocks for its first `budget` tokens. Returns
    /// the cached tokens, or nothing if its known tokens do not all fit.
    fn admit(&mut self, slot: u32, budget: u32) -> Option<u32> {
        let block_tokens = self.profile.block_tokens;
        let sequence = &mut self.sequences[slot as usize];
        if sequence.refused_at == self.pool.changes() {
            return None;
        }
        let known = sequence.known_tokens();
        // At least one token is always computed: the next one comes from it.
        let limit = (known - 1) / block_tokens;
        let mut free_hits = 0;
        let mut hash = sequence.chain.root();
        sequence.cached_blocks = 0;
        sequence.cached_hash = hash;
        for index in 0..limit {
            hash = sequence.chain.next(hash, index);
            let Some(block) = self.pool.find(hash) else {
                break;
            };
            free_hits += u32::from(self.pool.is_free(block));
            sequence.blocks.push(block);
            sequence.cached_hash = hash;
            sequence.cached_blocks += 1;
        }
        let hits = sequence.cached_blocks;
        if known.div_ceil(block_tokens) - hits + free_hits > self.pool.free() {
            sequence.blocks.clear();
            sequence.refused_at = self.pool.changes();
            return None;
        }
        for &block in &sequence.blocks {
            self.pool.share(block);
        }
        let cached_tokens = hits * block_tokens;
        sequence.computed = cached_tokens;
        sequence.running = true;
        if !std::mem::replace(&mut sequence.admitted, true) {
            self.counters.prefix_query_tokens += u64::from(sequence.prompt_tokens);
            self.counters.prefix_hit_tokens += u64::from(cached_tokens);
        }
        let fits = self.reserve(slot, known.min(cached_tokens + budget));
        debug_assert!(fits, "a part of what fits must fit");
        Some(cached_tokens)
    }

    /// Caches the blocks whose content is complete and known.
    fn cache_full_blocks(&mut self, slot: u32) {
        let sequence = &mut self.sequences[slot as usize];
        let full = sequence.computed.min(sequence.known_tokens()) / self.profile.block_tokens;
        while sequence.cached_blocks < full {
            let index = sequence.cached_blocks;
            sequence.cached_hash = sequence.chain.next(sequence.cached_hash, index);
            self.pool
                .remember(sequence.blocks[index as usize], sequence.cached_hash);
            sequence.cached_blocks += 1;
        }
    }

    /// Sends the running sequence admitted last back to the head of the queue, without its blocks.
    fn preempt_last(&mut self, at: Duration, out: &mut Vec<Event>) -> Option<u32> {
        let slot = self.running.pop()?;
        self.release_blocks(slot);
        let sequence = &mut self.sequences[slot as usize];
        sequence.computed = 0;
        sequence.running = false;
        sequence.refused_at = u64::MAX;
        out.push(Event {
            at,
            id: sequence.id,
            kind: EventKind::Preempted,
        });
        self.waiting.push_front(slot);
        self.counters.preemptions += 1;
        Some(slot)
    }

    /// Gives up all blocks of a sequence, the last first: the end of a prefix is worth less than its beginning.
    pub(crate) fn release_blocks(&mut self, slot: u32) {
        let sequence = &mut self.sequences[slot as usize];
        for block in sequence.blocks.drain(..).rev() {
            self.pool.release(block);
        }
    }
}

//! The engine: requests in, events out, time from the caller.

use crate::block::BlockPool;
use crate::chain::Chain;
use crate::event::{Event, EventKind, FinishReason, Load, Submission};
use crate::noise::Noise;
use crate::profile::Profile;
use crate::schedule::Plan;
use crate::sequence::Sequence;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::Duration;

/// A model server's engine that steps like vLLM's.
///
/// Time is the caller's: [`submit`](Self::submit) and [`abort`](Self::abort) say when they happen,
/// [`advance`](Self::advance) plays everything up to an instant and hands out what happened, each event with its exact
/// time, however late the call. Times must not go backwards.
pub struct Engine {
    pub(crate) profile: Profile,
    pub(crate) noise: Noise,
    pub(crate) pool: BlockPool,
    pub(crate) sequences: Vec<Sequence>,
    pub(crate) running: Vec<u32>,
    pub(crate) waiting: VecDeque<u32>,
    pub(crate) counters: Load,
    vacant: Vec<u32>,
    slots: FxHashMap<u64, u32>,
    submitted: u64,
    /// Latest time told by the caller: nothing arrives before it any more.
    latest_arrival: Duration,
    step_end: Duration,
    executing: Plan,
    is_executing: bool,
    queued: Plan,
    is_queued: bool,
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Prompt and output do not fit the context.
    #[error(
        "prompt_tokens {prompt_tokens} + output_tokens {output_tokens} exceed max_model_len {max_model_len}"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens asked for.
        output_tokens: u32,
        /// Longest context of the profile.
        max_model_len: u32,
    },
    /// The request could never run: it needs more blocks than there are.
    #[error(
        "prompt_tokens {prompt_tokens} + output_tokens {output_tokens} need {needed} KV blocks, kv_blocks is {total}"
    )]
    KvTooSmall {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens asked for.
        output_tokens: u32,
        /// Blocks the request grows to.
        needed: u32,
        /// Blocks there are.
        total: u32,
    },
    /// A count that must be positive is not.
    #[error("{field} is 0, must be at least 1")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A request with this id is still there.
    #[error("id {id} belongs to a request that has not ended")]
    DuplicateId {
        /// The id.
        id: u64,
    },
    /// Groups of the prefix do not fall on block boundaries.
    #[error(
        "prefix.tokens_per_id {tokens_per_id} is not a positive multiple of block_tokens {block_tokens}"
    )]
    PrefixGroup {
        /// Tokens per prefix id.
        tokens_per_id: u32,
        /// Tokens per KV block.
        block_tokens: u32,
    },
    /// The prefix is longer than the prompt.
    #[error("prefix.ids cover {covered} tokens, prompt_tokens is {prompt_tokens}")]
    PrefixTooLong {
        /// Tokens the ids stand for.
        covered: u64,
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
}

impl Engine {
    /// An idle engine. Equal profiles, seeds and calls give equal events.
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            noise: Noise::new(profile.step.noise, seed),
            pool: BlockPool::new(profile.kv_blocks),
            profile,
            sequences: Vec::new(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            counters: Load::default(),
            vacant: Vec::new(),
            slots: FxHashMap::default(),
            submitted: 0,
            latest_arrival: Duration::ZERO,
            step_end: Duration::ZERO,
            executing: Plan::default(),
            is_executing: false,
            queued: Plan::default(),
            is_queued: false,
        }
    }

    /// The profile the engine runs.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Adds a request to the waiting queue as of `now`. An idle engine starts a step at the next
    /// [`advance`](Self::advance).
    ///
    /// # Errors
    /// If the request could never run as asked; see [`SubmitError`].
    pub fn submit(&mut self, now: Duration, submission: Submission) -> Result<(), SubmitError> {
        self.check(&submission)?;
        self.latest_arrival = self.latest_arrival.max(now);
        self.submitted += 1;
        let Submission {
            id,
            prompt_tokens,
            prefix,
            output_tokens,
        } = submission;
        let chain = Chain::new(prefix, self.profile.block_tokens, self.submitted);
        let sequence = Sequence {
            id,
            arrived: self.latest_arrival,
            prompt_tokens,
            output_tokens,
            cached_hash: chain.root(),
            chain,
            emitted: 0,
            pending: 0,
            computed: 0,
            blocks: Vec::new(),
            cached_blocks: 0,
            running: false,
            admitted: false,
            refused_at: u64::MAX,
        };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                let old = &mut self.sequences[slot as usize];
                let blocks = std::mem::take(&mut old.blocks);
                *old = Sequence { blocks, ..sequence };
                slot
            }
            None => {
                self.sequences.push(sequence);
                (self.sequences.len() - 1) as u32
            }
        };
        self.slots.insert(id, slot);
        self.waiting.push_back(slot);
        Ok(())
    }

    fn check(&self, submission: &Submission) -> Result<(), SubmitError> {
        let Submission {
            id,
            prompt_tokens,
            output_tokens,
            ref prefix,
        } = *submission;
        let Profile {
            max_model_len,
            block_tokens,
            ..
        } = self.profile;
        if prompt_tokens == 0 || output_tokens == 0 {
            let field = if prompt_tokens == 0 {
                "prompt_tokens"
            } else {
                "output_tokens"
            };
            return Err(SubmitError::Zero { field });
        }
        if prompt_tokens
            .checked_add(output_tokens)
            .is_none_or(|context| context > max_model_len)
        {
            return Err(SubmitError::TooLong {
                prompt_tokens,
                output_tokens,
                max_model_len,
            });
        }
        // The last token is never fed back, so it takes no room.
        let needed = (prompt_tokens + output_tokens - 1).div_ceil(block_tokens);
        if let Some(total) = self.pool.total().filter(|&total| total < needed) {
            return Err(SubmitError::KvTooSmall {
                prompt_tokens,
                output_tokens,
                needed,
                total,
            });
        }
        if self.slots.contains_key(&id) {
            return Err(SubmitError::DuplicateId { id });
        }
        if prefix.ids.is_empty() {
            return Ok(());
        }
        let tokens_per_id = prefix.tokens_per_id;
        if tokens_per_id == 0 || tokens_per_id % block_tokens != 0 {
            return Err(SubmitError::PrefixGroup {
                tokens_per_id,
                block_tokens,
            });
        }
        let covered = prefix.ids.len() as u64 * u64::from(tokens_per_id);
        if covered > u64::from(prompt_tokens) {
            return Err(SubmitError::PrefixTooLong {
                covered,
                prompt_tokens,
            });
        }
        Ok(())
    }

    /// Ends a request at once, without an event; false if there is none with this id. Call
    /// [`advance`](Self::advance) for the same `now` first: what happened before then is otherwise lost with it. The
    /// step in progress lasts as long as it would have.
    pub fn abort(&mut self, now: Duration, id: u64) -> bool {
        self.latest_arrival = self.latest_arrival.max(now);
        let Some(&slot) = self.slots.get(&id) else {
            return false;
        };
        self.executing.forget(slot);
        self.queued.forget(slot);
        if self.sequences[slot as usize].running {
            self.running.retain(|&running| running != slot);
        } else {
            self.waiting.retain(|&waiting| waiting != slot);
        }
        self.retire(slot);
        true
    }

    /// When something will happen without further calls: the end of the step in progress, or the arrival that an idle
    /// engine has yet to start. `None` = idle.
    pub fn next_event(&self) -> Option<Duration> {
        if self.is_executing {
            return Some(self.executing.end);
        }
        let &slot = self.waiting.front()?;
        Some(self.sequences[slot as usize].arrived.max(self.step_end))
    }

    /// Plays everything due by `now`, appending what happened to `out` in order of time: finishes the steps that end
    /// by then and starts the next.
    pub fn advance(&mut self, now: Duration, out: &mut Vec<Event>) {
        while let Some(due) = self.next_event().filter(|&due| due <= now) {
            if self.is_executing {
                self.finish_step(out);
            } else {
                self.step_end = due;
            }
            self.start_steps(out);
            if !self.is_executing && self.next_event() == Some(due) {
                break;
            }
        }
    }

    /// The state now, as of the last [`advance`](Self::advance).
    pub fn load(&self) -> Load {
        let total = self.pool.total();
        let used = self.pool.held();
        Load {
            running: self.running.len() as u32,
            waiting: self.waiting.len() as u32,
            kv_blocks_used: used,
            kv_blocks_total: total,
            kv_usage: total.map_or(0.0, |total| f64::from(used) / f64::from(total.max(1))),
            ..self.counters
        }
    }

    /// Emits what the step in progress computed and hands its place to the step queued behind it.
    fn finish_step(&mut self, out: &mut Vec<Event>) {
        let at = self.executing.end;
        let mut finished = false;
        let plan = std::mem::take(&mut self.executing);
        for entry in plan.entries.iter().filter(|entry| entry.emits) {
            let sequence = &mut self.sequences[entry.slot as usize];
            sequence.pending -= 1;
            sequence.emitted += 1;
            let kind = if sequence.emitted == 1 {
                EventKind::FirstToken
            } else {
                EventKind::Token
            };
            let id = sequence.id;
            out.push(Event { at, id, kind });
            self.counters.output_tokens += 1;
            if sequence.emitted == sequence.output_tokens {
                finished = true;
                out.push(Event {
                    at,
                    id,
                    kind: EventKind::Finished {
                        reason: FinishReason::Length,
                    },
                });
            }
        }
        if finished {
            self.retire_finished(&plan);
        }
        self.counters.steps += 1;
        self.counters.prefill_tokens += plan.prefill_tokens();
        self.step_end = at;
        self.executing = std::mem::replace(&mut self.queued, plan);
        self.is_executing = std::mem::take(&mut self.is_queued);
        self.executing.end = at + self.executing.duration;
    }

    fn retire_finished(&mut self, plan: &Plan) {
        let is_over = |sequence: &Sequence| sequence.emitted == sequence.output_tokens;
        let sequences = &self.sequences;
        self.running
            .retain(|&slot| !is_over(&sequences[slot as usize]));
        for entry in plan.entries.iter().filter(|entry| entry.emits) {
            let sequence = &self.sequences[entry.slot as usize];
            if !is_over(sequence) {
                continue;
            }
            if !sequence.running {
                // Preempted while its last token was in flight.
                self.waiting.retain(|&waiting| waiting != entry.slot);
            }
            self.retire(entry.slot);
        }
    }

    /// Starts a step if none is in progress and, scheduling asynchronously, plans the one after it.
    fn start_steps(&mut self, out: &mut Vec<Event>) {
        let at = self.step_end;
        if !self.is_executing {
            let mut plan = std::mem::take(&mut self.executing);
            self.is_executing = self.plan(at, &mut plan, out);
            plan.end = at + plan.duration;
            self.executing = plan;
        }
        if self.is_executing && !self.is_queued && self.profile.async_scheduling {
            let mut plan = std::mem::take(&mut self.queued);
            self.is_queued = self.plan(at, &mut plan, out);
            self.queued = plan;
        }
    }

    /// Forgets a sequence that is neither running nor waiting any more.
    fn retire(&mut self, slot: u32) {
        self.release_blocks(slot);
        self.slots.remove(&self.sequences[slot as usize].id);
        self.vacant.push(slot);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

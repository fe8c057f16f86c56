//! Which conversation a request continues, and the block ids its prompt gets from it.

use super::WorkloadSpec;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// Conversations whose users think or wait for their next turn.
///
/// A turn is known by its number, which rises with time. Full blocks of a turn's prompt are kept until the turn is
/// continued or its user leaves.
pub(super) struct Conversations<'a> {
    spec: &'a WorkloadSpec,
    next_block: u64,
    next_turn: usize,
    /// Users who think, earliest ready first: (ready at, turn).
    thinking: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Users ready for their next turn, by the length it starts from: (context tokens, turn).
    ready: BTreeSet<(u32, usize)>,
    /// The same users in the order they became ready: (ready since, context tokens, turn).
    waiting: VecDeque<(Duration, u32, usize)>,
    /// Per turn: what the next one builds on. Emptied when the turn is continued or given up.
    turns: Vec<Turn>,
}

/// What a turn leaves for the next.
#[derive(Default)]
struct Turn {
    /// Prompt and answer, tokens.
    context: u32,
    /// Ids of the prompt's full blocks.
    blocks: Vec<u64>,
}

impl<'a> Conversations<'a> {
    pub(super) fn new(spec: &'a WorkloadSpec) -> Self {
        Self {
            spec,
            next_block: u64::from(spec.system_blocks),
            next_turn: 0,
            thinking: BinaryHeap::new(),
            ready: BTreeSet::new(),
            waiting: VecDeque::new(),
            turns: Vec::new(),
        }
    }

    /// The block ids of a prompt of `input` tokens that arrives at `at`; arrivals never decrease.
    pub(super) fn turn(
        &mut self,
        at: Duration,
        input: u32,
        output: u32,
        rng: &mut StdRng,
    ) -> Vec<u64> {
        self.wake(at);
        let continues = rng.random_bool(self.spec.follow_up.clamp(0.0, 1.0));
        let message = self.spec.message.tokens(rng);
        let shared = match self.ending_before(input.saturating_sub(message)) {
            Some(key) if continues => self.resume(key),
            _ => (0..u64::from(self.spec.system_blocks)).collect(),
        };
        let blocks = self.extended(shared, input);
        if rng.random_bool(self.spec.another_turn.clamp(0.0, 1.0)) {
            let ready = at + Duration::from_secs_f64(self.spec.think_seconds.draw(rng));
            self.keep(ready, input, output, &blocks);
        }
        blocks
    }

    /// Lets users whose thinking is over wait for a turn, and those who waited too long leave.
    fn wake(&mut self, at: Duration) {
        while let Some(&Reverse((since, turn))) = self.thinking.peek()
            && since <= at
        {
            self.thinking.pop();
            let context = self.turns[turn].context;
            self.ready.insert((context, turn));
            self.waiting.push_back((since, context, turn));
        }
        while let Some(&(since, context, turn)) = self.waiting.front()
            && since + self.spec.patience < at
        {
            self.waiting.pop_front();
            if self.ready.remove(&(context, turn)) {
                self.turns[turn] = Turn::default();
            }
        }
    }

    /// The ready conversation with the longest context of at most `tokens`.
    fn ending_before(&self, tokens: u32) -> Option<(u32, usize)> {
        self.ready
            .range(..=(tokens, usize::MAX))
            .next_back()
            .copied()
    }

    fn resume(&mut self, key: (u32, usize)) -> Vec<u64> {
        self.ready.remove(&key);
        std::mem::take(&mut self.turns[key.1]).blocks
    }

    /// `shared` and new ids after it, one per block of `input` tokens.
    fn extended(&mut self, mut shared: Vec<u64>, input: u32) -> Vec<u64> {
        let blocks = input.div_ceil(self.spec.block_tokens.max(1)) as usize;
        shared.truncate(blocks);
        let fresh = (blocks - shared.len()) as u64;
        shared.extend(self.next_block..self.next_block + fresh);
        self.next_block += fresh;
        shared
    }

    fn keep(&mut self, ready: Duration, input: u32, output: u32, blocks: &[u64]) {
        let full = (input / self.spec.block_tokens.max(1)) as usize;
        self.turns.push(Turn {
            context: input.saturating_add(output),
            blocks: blocks[..full].to_vec(),
        });
        self.thinking.push(Reverse((ready, self.next_turn)));
        self.next_turn += 1;
    }
}

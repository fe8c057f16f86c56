//! Prompts that this picker sent to endpoints, until the others are told.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{Chain, MOST_BLOCKS};
use crate::request::Request;

/// Deltas after which a prompt that everybody knows is told again: long enough to cost little, short enough that no
/// picker forgets what another one still uses.
const TOLD_AGAIN_AFTER: u32 = 10;

/// What is to be told, within what one delta carries.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    chains: Vec<Chain>,
    blocks: usize,
    /// Prompts of the last deltas, by endpoint and last block.
    told: FxHashSet<(u32, u64)>,
    deltas: u32,
}

impl Sent {
    /// A request was sent to the endpoint in `slot`, which knew `matched` blocks of it.
    pub(crate) fn note(&mut self, slot: u32, request: &Request, matched: u32) {
        let blocks = &request.prefix;
        let Some(&last) = blocks.last() else { return };
        let known = matched as usize >= blocks.len();
        // What is new was not told before, unless this picker forgot it since.
        if (!self.told.insert((slot, last)) && known) || self.blocks + blocks.len() > MOST_BLOCKS {
            return;
        }
        self.blocks += blocks.len();
        self.chains.push(Chain {
            endpoint: slot,
            block_tokens: request.prefix_block_tokens,
            blocks: Arc::clone(blocks),
        });
    }

    /// Another delta is made of what there is.
    pub(crate) fn take(&mut self) -> Vec<Chain> {
        self.deltas += 1;
        if self.deltas >= TOLD_AGAIN_AFTER {
            self.deltas = 0;
            self.told.clear();
        }
        self.blocks = 0;
        std::mem::take(&mut self.chains)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(blocks: impl Into<Arc<[u64]>>) -> Request {
        Request {
            prefix: blocks.into(),
            ..Request::default()
        }
    }

    #[test]
    fn what_everybody_knows_is_told_once_a_second() {
        let mut sent = Sent::default();
        let known = request([1, 2, 3]);
        let mut told = 0;
        for _ in 0..30 {
            sent.note(0, &known, 3);
            sent.note(0, &known, 3);
            told += sent.take().len();
        }
        assert_eq!(told, 3);
        sent.note(0, &request([1, 2, 4]), 2);
        sent.note(1, &known, 0);
        sent.note(1, &request([]), 0);
        let slots: Vec<u32> = sent.take().iter().map(|chain| chain.endpoint).collect();
        assert_eq!(slots, [0, 1]);
    }

    #[test]
    fn one_delta_carries_so_much_and_no_more() {
        let mut sent = Sent::default();
        for prompt in 0..5_u64 {
            let blocks: Vec<u64> = (0..MOST_BLOCKS as u64 / 4).map(|at| at + prompt).collect();
            sent.note(0, &request(blocks), 0);
        }
        assert_eq!(sent.take().len(), 4);
        sent.note(0, &request([9]), 0);
        assert_eq!(sent.take().len(), 1);
    }
}

//! One request inside the engine.

use crate::chain::Chain;
use std::time::Duration;

/// A request from submission to its last token. Slots are reused, so that its block list is not allocated anew.
pub(crate) struct Sequence {
    pub(crate) id: u64,
    pub(crate) arrived: Duration,
    pub(crate) prompt_tokens: u32,
    pub(crate) output_tokens: u32,
    pub(crate) chain: Chain,
    /// Output tokens the client has.
    pub(crate) emitted: u32,
    /// Output tokens that steps in flight will emit.
    pub(crate) pending: u32,
    /// Tokens whose KV is computed, or will be by the steps in flight.
    pub(crate) computed: u32,
    /// KV blocks held, in order.
    pub(crate) blocks: Vec<u32>,
    /// How many of `blocks`, from the first, are cached, and the hash of the last of them.
    pub(crate) cached_blocks: u32,
    pub(crate) cached_hash: u64,
    pub(crate) running: bool,
    /// Whether the request was ever admitted.
    pub(crate) admitted: bool,
    /// State of the block pool when the request last failed to fit: while it is the same, trying again is useless.
    pub(crate) refused_at: u64,
}

impl Sequence {
    /// Tokens whose content is known: the prompt and what was emitted.
    pub(crate) fn known_tokens(&self) -> u32 {
        self.prompt_tokens + self.emitted
    }

    /// Tokens that remain to be computed before the next output token; 0 once the last output token is in flight.
    pub(crate) fn uncomputed_tokens(&self) -> u32 {
        if self.emitted + self.pending >= self.output_tokens {
            return 0;
        }
        self.known_tokens() + self.pending - self.computed
    }

    /// Books `tokens` computed by a step being planned; true if that step emits a token.
    pub(crate) fn book(&mut self, tokens: u32) -> bool {
        self.computed += tokens;
        let emits = self.computed == self.known_tokens() + self.pending;
        self.pending += u32::from(emits);
        emits
    }
}

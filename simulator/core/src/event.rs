//! What goes into the engine and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

/// One request, as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Names the request in every event; unique among the requests the engine still holds.
    pub id: u64,
    /// Length of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// What the prompt shares with others.
    pub prefix: Prefix,
    /// Tokens the request emits before it ends, at least 1.
    pub output_tokens: u32,
}

/// The leading part of a prompt as a chain of content ids.
///
/// Two prompts with equal leading ids share the KV blocks those ids cover. One id stands for one *full* group of
/// [`tokens_per_id`](Self::tokens_per_id) tokens; what follows the last id is private to the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Content ids from the start of the prompt; empty = nothing is shared.
    pub ids: Arc<[u64]>,
    /// Tokens each id stands for: a multiple of the engine's KV block size.
    pub tokens_per_id: u32,
}

/// Something that happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, on the caller's clock.
    pub at: Duration,
    /// The request.
    pub id: u64,
    /// What.
    pub kind: EventKind,
}

/// The kinds of [`Event`], in the order a request meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Admitted to the running batch; again after each preemption.
    Scheduled {
        /// Tokens found in the prefix cache, not computed again.
        cached_tokens: u32,
    },
    /// The first output token.
    FirstToken,
    /// Each further output token.
    Token,
    /// Pushed out of the batch because KV ran out; what it computed is recomputed when it is scheduled again.
    Preempted,
    /// The request is over and its blocks are released; its last token came just before.
    Finished {
        /// Why.
        reason: FinishReason,
    },
}

/// Why a request ended. An aborted request gets no event: [`Engine::abort`](crate::Engine::abort) answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// All `output_tokens` were emitted.
    Length,
}

/// The state of an engine at an instant; counters are cumulative since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests in the running batch.
    pub running: u32,
    /// Requests waiting for admission, preempted ones included.
    pub waiting: u32,
    /// KV blocks held by running requests.
    pub kv_blocks_used: u32,
    /// KV blocks there are; `None` = unbounded.
    pub kv_blocks_total: Option<u32>,
    /// Share of the KV blocks in use, 0 to 1; 0 when unbounded.
    pub kv_usage: f64,
    /// Preemptions so far.
    pub preemptions: u64,
    /// Prompt tokens looked up in the prefix cache so far (first admissions only).
    pub prefix_query_tokens: u64,
    /// Of those, tokens found.
    pub prefix_hit_tokens: u64,
    /// Prompt tokens computed so far, recomputation included.
    pub prefill_tokens: u64,
    /// Tokens emitted so far.
    pub output_tokens: u64,
    /// Steps finished so far.
    pub steps: u64,
}

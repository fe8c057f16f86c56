//! What one tick looks at.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::mix::Mix;

/// Requests and the prompt tokens they carried, cumulative since the request path started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Requests.
    pub requests: u64,
    /// Prompt tokens, cached ones included.
    pub prompt_tokens: u64,
}

/// The demand ledger's cumulative totals at one instant. Every request is in `offered` and, once it has ended, in
/// exactly one of the outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Everything that arrived, whatever became of it, sheddable bands included.
    pub offered: Volume,
    /// The part of `offered` that may be shed.
    pub sheddable: Volume,
    /// Requests answered to the end.
    pub served: u64,
    /// Requests refused for lack of room in the queue.
    pub rejected: u64,
    /// Requests that waited for longer than their time to live.
    pub expired: u64,
    /// Requests refused because no endpoint could meet their objective.
    pub shed: u64,
    /// Requests whose client left.
    pub cancelled: u64,
    /// Requests that a replica failed, cut off or gave up.
    pub failed: u64,
}

/// What waits in the queue in front of the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backlog {
    /// Waiting requests, sheddable ones included.
    pub requests: u64,
    /// The part of `requests` that may be shed.
    pub sheddable: u64,
    /// Their prompt tokens.
    pub prompt_tokens: u64,
}

/// Replicas by what they can do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Serving.
    pub ready: u32,
    /// Started, not yet serving: supply that is on its way.
    pub starting: u32,
    /// Finishing what they have; no supply.
    pub draining: u32,
}

impl Replicas {
    /// Ready and starting: what a decision is compared with.
    pub fn supply(&self) -> u32 {
        self.ready.saturating_add(self.starting)
    }
}

/// Everything one tick of the controller reads.
#[derive(Clone)]
pub struct Signals {
    /// Time since the clock's epoch; never goes back.
    pub now: Duration,
    /// The ledger's totals.
    pub demand: Totals,
    /// Shape of recent requests.
    pub mix: Mix,
    /// The queue in front of the replicas.
    pub queued: Backlog,
    /// Requests on the replicas.
    pub in_flight: u64,
    /// Replicas by state.
    pub replicas: Replicas,
    /// KV cache of one replica in tokens; `None` when no replica has told.
    pub kv_tokens: Option<f64>,
    /// The learned model in force.
    pub model: Arc<dyn Latency>,
}

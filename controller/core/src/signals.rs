//! What one tick looks at.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::mix::Mix;

/// Requests and the prompt tokens they carried, cumulative since the request path started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Requests.
    pub requests: u64,
    /// Prompt tokens, cached ones included.
    pub prompt_tokens: u64,
}

/// The demand ledger's cumulative totals at one instant. Every request is in `offered` and, once it has ended, in
/// exactly one of the outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl Totals {
    /// Each count of `self` and `other` as `of` joins them.
    fn zip(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        let volume = |a: &Volume, b: &Volume| Volume {
            requests: of(a.requests, b.requests),
            prompt_tokens: of(a.prompt_tokens, b.prompt_tokens),
        };
        Self {
            offered: volume(&self.offered, &other.offered),
            sheddable: volume(&self.sheddable, &other.sheddable),
            served: of(self.served, other.served),
            rejected: of(self.rejected, other.rejected),
            expired: of(self.expired, other.expired),
            shed: of(self.shed, other.shed),
            cancelled: of(self.cancelled, other.cancelled),
            failed: of(self.failed, other.failed),
        }
    }

    /// Every count, in one order.
    pub(crate) fn to_array(self) -> [u64; 10] {
        [
            self.offered.requests,
            self.offered.prompt_tokens,
            self.sheddable.requests,
            self.sheddable.prompt_tokens,
            self.served,
            self.rejected,
            self.expired,
            self.shed,
            self.cancelled,
            self.failed,
        ]
    }

    /// The counts in the order of [`Self::to_array`].
    pub(crate) fn from_array(counts: [u64; 10]) -> Self {
        let [
            offered,
            prompt,
            sheddable,
            sheddable_prompt,
            served,
            rejected,
            expired,
            shed,
            cancelled,
            failed,
        ] = counts;
        let volume = |requests, prompt_tokens| Volume {
            requests,
            prompt_tokens,
        };
        Self {
            offered: volume(offered, prompt),
            sheddable: volume(sheddable, sheddable_prompt),
            served,
            rejected,
            expired,
            shed,
            cancelled,
            failed,
        }
    }

    /// How much each count has grown since `before`; a count that went back has not grown.
    pub fn growth_since(&self, before: &Self) -> Self {
        self.zip(before, u64::saturating_sub)
    }

    /// The larger of each count.
    pub fn most(&self, other: &Self) -> Self {
        self.zip(other, u64::max)
    }

    /// This share (0 to 1) of each count, rounded down.
    pub fn share(&self, share: f64) -> Self {
        self.zip(self, |count, _| {
            (count as f64 * share.clamp(0.0, 1.0)) as u64
        })
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(&other, u64::saturating_add);
    }
}

/// What waits in the queue in front of the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Waiting requests, sheddable ones included.
    pub requests: u64,
    /// The part of `requests` that may be shed.
    pub sheddable: u64,
    /// Their prompt tokens.
    pub prompt_tokens: u64,
}

impl AddAssign for Backlog {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.sheddable = self.sheddable.saturating_add(other.sheddable);
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
    }
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
    /// Asked for but without a place: unschedulable, or refused by a quota. No supply.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pending: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Replicas {
    /// Ready and starting: what a decision is compared with.
    pub fn supply(&self) -> u32 {
        self.ready.saturating_add(self.starting)
    }

    /// All that were asked for and are not being given up: ready, starting and pending.
    pub fn existing(&self) -> u32 {
        self.supply().saturating_add(self.pending)
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

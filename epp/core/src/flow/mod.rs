//! Flow control: who waits, for how long, and when the pool has room.

mod account;
mod band;
mod drain_rate;
mod fairness;
mod gauges;
mod held;
mod limit;
mod ordering;
mod queue;
mod saturation;
mod stage;
mod usage_limit;

pub(crate) use account::{Accounts, FlowAccount};
pub use account::{FlowDepth, FlowTotals, MAX_FLOWS, MAX_FLOWS_PER_BAND, OTHER_FLOW};
pub(crate) use band::PassedOver;
pub(crate) use drain_rate::DrainRate;
pub(crate) use fairness::Charge;
pub use gauges::{CapacityUse, QueueGauges};
pub(crate) use held::Full;
pub(crate) use limit::{LearnedLimit, LimitRule};
pub(crate) use queue::{Head, Queue, Waiting};
pub use saturation::StageSaturation;
pub(crate) use saturation::{Meter, Reading, Saturation, has_room};
pub(crate) use usage_limit::Limits;

use serde::{Deserialize, Serialize};

/// What is queued, by band, highest priority first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDepth {
    /// One entry per band that exists.
    pub bands: Vec<BandDepth>,
}

/// What one band holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BandDepth {
    /// Priority.
    pub priority: i32,
    /// Requests queued.
    pub requests: u64,
    /// Of those, requests that may be refused for their SLO.
    pub sheddable: u64,
    /// Their prompt tokens.
    pub prompt_tokens: u64,
    /// Their body bytes.
    pub bytes: u64,
}

impl QueueDepth {
    /// Everything queued, over all bands; `priority` is 0.
    pub fn total(&self) -> BandDepth {
        self.bands
            .iter()
            .fold(BandDepth::default(), |sum, band| BandDepth {
                priority: 0,
                requests: sum.requests + band.requests,
                sheddable: sum.sheddable + band.sheddable,
                prompt_tokens: sum.prompt_tokens + band.prompt_tokens,
                bytes: sum.bytes + band.bytes,
            })
    }
}

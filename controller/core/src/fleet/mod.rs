//! A fleet on a virtual clock: the simulator's engines behind the endpoint picker's own director, sized by the
//! controller's own stages.
//!
//! What runs here is what runs in production, fed with virtual time: the same queue, the same scorers, the same learner,
//! the same plan. One seed gives one answer; no wall clock, thread or map order enters it.

pub mod client;
pub mod comparison;
mod crowding;
mod deltas;
#[cfg(test)]
mod deltas_tests;
mod event;
mod exchange;
#[cfg(test)]
mod late_binding_tests;
mod launch;
mod picker;
mod replay;
mod score;
mod sizing;
mod spec;
#[cfg(test)]
mod tests;

pub use crowding::Crowding;
pub use deltas::Deltas;
pub use exchange::{Exchange, Exchanging, Partition, Pickers};
pub use replay::replay;
pub use score::{Fate, KindScore, Percentiles, Slo};
pub use sizing::{Autoscaling, Sizing};
pub use spec::FleetSpec;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::Decision;

/// Everything a replay shows.
#[derive(Clone, Debug, Serialize)]
pub struct FleetReport {
    /// The policy's name, as the report prints it.
    pub policy: String,
    /// The score of all clients.
    pub all: KindScore,
    /// Scores by kind of client.
    pub kinds: BTreeMap<&'static str, KindScore>,
    /// From the first arrival to the last token.
    pub makespan: Duration,
    /// Tokens of the answers that were served.
    pub output_tokens: u64,
    /// How far replicas went beyond the room that the configuration gives them.
    pub crowding: Crowding,
    /// Replica-seconds from the start of each launch to the end of each drain.
    pub replica_seconds: f64,
    /// Prompt tokens of the served requests that a replica found cached, as a share.
    pub hit_share: f64,
    /// The decisions that changed the count of replicas.
    pub decisions: Vec<Decision>,
    /// The state of the fleet over time, for plots.
    pub timeline: Vec<Sample>,
    /// How the predictor fared, when one was learning.
    pub predictor: Option<predictor::Report>,
}

impl FleetReport {
    /// Tokens of served answers per second of the makespan.
    pub fn output_rate(&self) -> f64 {
        self.output_tokens as f64 / self.makespan.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Replica-seconds over the makespan.
    pub fn mean_replicas(&self) -> f64 {
        self.replica_seconds / self.makespan.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// The fleet at one instant.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Since the start of the run, in seconds.
    pub at: f64,
    /// Requests offered per second since the previous sample.
    pub offered: f64,
    /// Replicas that serve.
    pub ready: u32,
    /// Replicas that start or drain.
    pub in_transition: u32,
    /// Requests in the picker's queue.
    pub queued: u64,
    /// Requests on the replicas.
    pub in_flight: u64,
    /// Median user TTFT of the requests that got their first token since the previous sample, in ms.
    pub ttft_p50: Option<f64>,
    /// Their 90th percentile, in ms.
    pub ttft_p90: Option<f64>,
}

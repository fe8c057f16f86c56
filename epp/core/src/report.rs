//! What an endpoint picker tells a controller: its demand, its queue, its endpoints and how its models do.
//!
//! One JSON document in camelCase, [`SCHEMA`] 1. Everything that counts is cumulative since the picker's start and
//! belongs to its `incarnation`: a reader that sees another one begins anew. Readers pass over fields that they do
//! not know, so that pickers and controllers of neighbouring releases understand each other.

use std::collections::BTreeMap;
use std::time::Duration;

use predictor::State;
use serde::{Deserialize, Serialize};

use crate::demand::{DemandTotals, MixSample};
use crate::endpoint::Endpoint;
use crate::flow::{FlowTotals, QueueDepth};
use crate::pool::Pool;
use crate::slo::Slo;

/// Version of the document. It changes only when an old reader would misunderstand a new report.
pub const SCHEMA: u32 = 1;
/// Samples of the mix in one report, at most.
pub const MIX_SAMPLES: usize = 1000;
/// Model names in one report, at most: those with the most requests.
pub const MODEL_NAMES: usize = 32;

/// Flows in one report, at most: those that offered most, and one more per band for the rest.
pub const FLOWS: usize = 64;

/// The whole report at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DemandReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the picker among its peers, such as its pod's.
    pub epp: String,
    /// Another for each start of the picker, larger for a later one.
    pub incarnation: u64,
    /// When the report was made, unix milliseconds on the picker's machine.
    pub at_ms: u64,
    /// When the report was made, milliseconds since the picker's start.
    pub uptime_ms: u64,
    /// Whether the picker knows its endpoints and is not draining.
    pub ready: bool,
    /// The pool it picks from.
    pub pool: PoolName,
    /// Everything that arrived and what became of it, since the start.
    pub totals: DemandTotals,
    /// What waits in the queue.
    pub queued: QueueDepth,
    /// Requests dispatched and not ended, also those on endpoints that have left the pool.
    pub in_flight: u64,
    /// The endpoints of the pool, in its order.
    pub endpoints: Vec<EndpointReport>,
    /// Requests served before the first of `mix`; `mix_from + mix.len()` is what to ask with next.
    pub mix_from: u64,
    /// The requests served since the number asked with, oldest first: the newest [`MIX_SAMPLES`] of them.
    pub mix: Vec<MixSample>,
    /// The latency models, one per class of endpoints that has one.
    pub models: Vec<ClassReport>,
    /// Targets of requests that bring none.
    pub default_slo: Slo,
    /// Requests by the model that clients named: the [`MODEL_NAMES`] with the most.
    pub model_names: BTreeMap<String, u64>,
    /// Demand by priority and fairness id: the [`FLOWS`] flows with the most, the others of each band together. Empty
    /// in reports of older pickers.
    #[serde(default)]
    pub flows: Vec<FlowTotals>,
}

impl DemandReport {
    /// The mix on the reader's clock: each sample as old as it was when the report was made, at `now`.
    pub fn mix_at(&self, now: Duration) -> impl Iterator<Item = MixSample> {
        let made = Duration::from_millis(self.uptime_ms);
        self.mix.iter().map(move |sample| MixSample {
            at: now.saturating_sub(made.saturating_sub(sample.at)),
            ..*sample
        })
    }
}

/// A pool by its object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolName {
    /// Namespace; empty outside Kubernetes.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// One endpoint of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Name from discovery.
    pub name: String,
    /// `ip:port`.
    pub address: String,
    /// What it runs on, as its labels say; empty = they do not.
    pub class: String,
    /// Requests dispatched there and not ended.
    pub in_flight: u64,
    /// Of those, without a first token yet.
    pub waiting: u64,
    /// Share of its KV cache in use, 0 to 1, as last scraped.
    pub kv_utilization: Option<f32>,
    /// Its KV cache in tokens, as last scraped.
    pub kv_tokens: Option<u64>,
    /// Age of the last scrape, milliseconds; `None` = never scraped.
    pub scraped_age_ms: Option<u64>,
    /// Whether requests are sent there.
    pub ready: bool,
    /// Requests in flight that it takes, as learned from its latencies; `None` = nothing is learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl EndpointReport {
    /// What is known of `endpoint` at `now`.
    pub fn of(endpoint: &Endpoint, now: Duration) -> Self {
        let (load, scraped) = (endpoint.load.snapshot(), endpoint.scraped());
        let utilization = scraped.map(|scraped| scraped.kv_utilization);
        Self {
            name: endpoint.name.to_string(),
            address: endpoint.address.to_string(),
            class: endpoint.class.to_string(),
            in_flight: u64::from(load.in_flight),
            waiting: u64::from(load.waiting),
            // JSON has no NaN.
            kv_utilization: utilization.filter(|share| share.is_finite()),
            kv_tokens: scraped.and_then(|scraped| scraped.kv_tokens()),
            scraped_age_ms: scraped.map(|scraped| milliseconds(scraped.age(now))),
            ready: true,
            limit: load.limit,
        }
    }

    /// All endpoints of `pool` at `now`.
    pub fn all(pool: &Pool, now: Duration) -> Vec<Self> {
        pool.endpoints
            .iter()
            .map(|endpoint| Self::of(endpoint, now))
            .collect()
    }
}

/// The latency model of one class of endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassReport {
    /// The class; empty = endpoints whose labels name none.
    pub class: String,
    /// Refits put in force, over all starts whose learner was kept.
    pub version: u64,
    /// SHA-256 of the model that the picker serves, in hexadecimal; empty = it serves none yet.
    pub checksum: String,
    /// Time to first token.
    pub ttft: TargetReport,
    /// Time per output token after the first.
    pub tpot: TargetReport,
}

/// How the model of one latency does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReport {
    /// How far it is to be trusted.
    pub state: State,
    /// Labels learned from, over all starts whose learner was kept.
    pub labels: u64,
    /// Of those, in the last minute.
    pub labels_last_minute: u64,
    /// Labels weighted by age, each half after ten minutes: the larger, the better the model knows the present.
    pub fresh_labels: f64,
    /// Mean absolute error of the predicted median over recent labels, percent.
    pub mape: Option<f32>,
    /// Share of recent labels at or below the predicted 90th percentile.
    pub coverage_p90: Option<f32>,
}

impl From<&predictor::TargetReport> for TargetReport {
    fn from(report: &predictor::TargetReport) -> Self {
        let finite = |value: f32| value.is_finite().then_some(value);
        Self {
            state: report.state,
            labels: report.labels,
            labels_last_minute: report.labels_last_minute,
            fresh_labels: report.fresh_labels,
            mape: finite(report.mape),
            coverage_p90: finite(report.coverage_p90),
        }
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

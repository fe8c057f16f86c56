//! Why this endpoint: the inputs and scores of one pick, kept compact until somebody asks.
//!
//! What was predicted for the picked endpoint is there for every request. The rest is gathered only for those that
//! are recorded: it takes memory in proportion to the pool.

use std::sync::Arc;
use std::time::Duration;

use predictor::{Prediction, State};
use serde::{Deserialize, Serialize};

use crate::endpoint::Scraped;
use crate::pool::Pool;
use crate::request::Request;
use crate::schedule::Candidate;
use crate::slo::Slo;

/// One pick with everything that led to it. Names are looked up only by [`Decision::explain`].
#[derive(Clone, Debug)]
pub struct Decision {
    /// When the pick was made.
    pub at: Duration,
    /// Time the request spent queued.
    pub waited: Duration,
    /// Prompt tokens expected in the picked endpoint's prefix cache.
    pub cached_tokens: u32,
    /// What was predicted for the picked endpoint; `None` = nothing is configured to predict.
    pub prediction: Option<Prediction>,
    /// Whether the prediction for the picked endpoint is trusted: model trained, endpoint not cold.
    pub trusted: bool,
    /// No endpoint was predicted to meet the request's SLO; it was dispatched all the same.
    pub expected_miss: bool,
    pub(crate) state: Option<ModelState>,
    /// What led to it; `None` = this request is not recorded.
    pub(crate) record: Option<Box<Record>>,
}

/// What led to a pick.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) request: RequestFacts,
    pub(crate) removals: Vec<Removal>,
    pub(crate) picked: usize,
    pub(crate) pool: Arc<Pool>,
    pub(crate) scorers: Arc<[ScorerName]>,
    pub(crate) considered: Vec<Considered>,
    /// One row of weighted-in order per scorer: `scores[scorer * considered + candidate]`.
    pub(crate) scores: Vec<f32>,
}

/// How many endpoints a filter took out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Plugin name.
    pub filter: Arc<str>,
    /// Endpoints, at least 1.
    pub count: u32,
}

/// What routing knew of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Request id.
    pub id: String,
    /// Model asked for.
    pub model: String,
    /// Prompt tokens.
    pub prompt_tokens: u32,
    /// Blocks that the prompt was hashed into.
    pub blocks: u32,
    /// Body size in bytes.
    pub bytes: u64,
    /// Latency targets.
    pub slo: Slo,
    /// Band.
    pub priority: i32,
    /// Whether it may be shed.
    pub sheddable: bool,
    /// Fairness id.
    pub flow: Arc<str>,
    /// Session, where one is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<str>>,
    /// The client's own limit on output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
}

impl RequestFacts {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            id: request.id.clone(),
            model: request.model.clone(),
            prompt_tokens: request.prompt_tokens,
            blocks: request.prefix.len() as u32,
            bytes: request.bytes,
            slo: request.slo,
            priority: request.priority,
            sheddable: request.sheddable(),
            flow: Arc::clone(&request.flow),
            session: request.session.clone(),
            max_output_tokens: request.max_output_tokens,
        }
    }
}

/// State of both halves of the latency model when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ModelState {
    /// Time to first token.
    pub ttft: State,
    /// Time per output token.
    pub tpot: State,
}

/// A scorer and its weight in the profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScorerName {
    /// Plugin name.
    pub name: Arc<str>,
    /// Weight.
    pub weight: f64,
}

/// One candidate as the scorers saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Considered {
    pub(crate) slot: u32,
    pub(crate) total: f32,
    pub(crate) cached_tokens: u32,
    pub(crate) matched_blocks: u32,
    pub(crate) in_flight: u32,
    pub(crate) waiting: u32,
    pub(crate) waiting_tokens: u64,
    pub(crate) resident_tokens: u64,
    pub(crate) queue: f32,
    pub(crate) kv_utilization: f32,
    pub(crate) ttft_p50_ms: f32,
    pub(crate) tpot_p50_ms: f32,
}

impl Considered {
    pub(crate) fn of((candidate, &total): (&Candidate, &f32)) -> Self {
        let predicted =
            |read: fn(&Prediction) -> f32| candidate.prediction.as_ref().map_or(f32::NAN, read);
        let scraped = |read: fn(&Scraped) -> f32| candidate.scraped.as_ref().map_or(f32::NAN, read);
        Self {
            slot: candidate.slot,
            total,
            cached_tokens: candidate.cached_tokens,
            matched_blocks: candidate.matched_blocks,
            in_flight: candidate.load.in_flight,
            waiting: candidate.load.waiting,
            waiting_tokens: candidate.load.waiting_tokens,
            resident_tokens: candidate.load.resident_tokens,
            queue: scraped(|scraped| scraped.waiting),
            kv_utilization: scraped(|scraped| scraped.kv_utilization),
            ttft_p50_ms: predicted(|prediction| prediction.ttft.p50),
            tpot_p50_ms: predicted(|prediction| prediction.tpot.p50),
        }
    }
}

/// A [`Decision`] spelled out, for JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// When the pick was made, seconds on the picker's clock.
    pub at_seconds: f64,
    /// Time queued, milliseconds.
    pub waited_ms: f64,
    /// Name of the picked endpoint.
    pub picked: Arc<str>,
    /// What the pick rests on.
    pub bound_by: &'static str,
    /// Whether the prediction is trusted.
    pub trusted: bool,
    /// Whether no endpoint was predicted to meet the SLO.
    pub expected_miss: bool,
    /// State of the model, when it was asked.
    pub model: Option<ModelState>,
    /// Predicted quantiles for the picked endpoint, milliseconds.
    pub prediction: Option<Prediction>,
    /// The request; `None` = it was not recorded, and what follows is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestFacts>,
    /// What the filters took out, those that took out nobody left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<Removal>,
    /// The candidates that were left, best total first.
    pub candidates: Vec<ExplainedCandidate>,
}

/// One candidate of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedCandidate {
    /// Endpoint name.
    pub endpoint: Arc<str>,
    /// `ip:port`.
    pub address: Arc<str>,
    /// Weighted sum of the scores.
    pub total: f32,
    /// Score by scorer, 0 to 1, before its weight.
    pub scores: Vec<ExplainedScore>,
    /// Requests in flight there.
    pub in_flight: u32,
    /// Of those, without a first token yet.
    pub waiting: u32,
    /// Uncached prompt tokens of the waiting ones.
    pub waiting_tokens: u64,
    /// Context tokens of the running ones.
    pub resident_tokens: u64,
    /// Requests that the engine says are waiting.
    pub queue: Option<f32>,
    /// Share of the KV cache that the engine says is in use.
    pub kv_utilization: Option<f32>,
    /// Prompt tokens expected in its prefix cache.
    pub cached_tokens: u32,
    /// Leading blocks of the prompt that those are.
    pub matched_blocks: u32,
    /// Predicted median TTFT in milliseconds.
    pub ttft_p50_ms: Option<f32>,
    /// Predicted median TPOT in milliseconds.
    pub tpot_p50_ms: Option<f32>,
}

/// One score of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedScore {
    /// Scorer name.
    pub scorer: Arc<str>,
    /// Its weight.
    pub weight: f64,
    /// Its score, 0 to 1.
    pub score: f32,
}

impl Decision {
    /// Whether the request is recorded: candidates, scores, removals.
    pub fn recorded(&self) -> bool {
        self.record.is_some()
    }

    /// `(address, weighted score)` of every candidate, in pool order; none unless recorded.
    pub fn totals(&self) -> impl Iterator<Item = (&Arc<str>, f32)> {
        self.record.iter().flat_map(|record| {
            record.considered.iter().filter_map(|candidate| {
                let endpoint = record.pool.endpoints.get(candidate.slot as usize)?;
                Some((&endpoint.address, candidate.total))
            })
        })
    }

    /// What the filters took out of the candidates; none unless recorded.
    pub fn removals(&self) -> &[Removal] {
        self.record.as_ref().map_or(&[], |record| &record.removals)
    }

    /// The decision in words and names.
    pub fn explain(&self) -> Explanation {
        let record = self.record.as_deref();
        let mut candidates = record.map_or_else(Vec::new, Record::candidates);
        let picked = record
            .and_then(|record| candidates.get(record.picked))
            .map_or_else(|| Arc::from(""), |one| Arc::clone(&one.endpoint));
        candidates.sort_by(|a, b| b.total.total_cmp(&a.total));
        Explanation {
            at_seconds: self.at.as_secs_f64(),
            waited_ms: self.waited.as_secs_f64() * 1e3,
            picked,
            bound_by: self.bound_by(),
            trusted: self.trusted,
            expected_miss: self.expected_miss,
            model: self.state,
            prediction: self.prediction,
            request: record.map(|record| record.request.clone()),
            removals: self.removals().to_vec(),
            candidates,
        }
    }

    fn bound_by(&self) -> &'static str {
        let Some(record) = &self.record else {
            return "not recorded";
        };
        match (
            record.considered.len(),
            record.scorers.is_empty(),
            self.expected_miss,
        ) {
            (1, _, _) => "only candidate",
            (_, _, true) => "least bad: no endpoint was predicted to meet the SLO",
            (_, true, _) => "picker alone: no scorer is configured",
            (_, false, false) => "highest weighted score",
        }
    }
}

impl Record {
    fn candidates(&self) -> Vec<ExplainedCandidate> {
        (0..self.considered.len())
            .filter_map(|index| self.candidate(index))
            .collect()
    }

    fn candidate(&self, index: usize) -> Option<ExplainedCandidate> {
        let row = self.considered.get(index)?;
        let endpoint = self.pool.endpoints.get(row.slot as usize)?;
        let scores = self
            .scorers
            .iter()
            .enumerate()
            .map(|(scorer, name)| ExplainedScore {
                scorer: Arc::clone(&name.name),
                weight: name.weight,
                score: self
                    .scores
                    .get(scorer * self.considered.len() + index)
                    .copied()
                    .unwrap_or_default(),
            });
        let known = |value: f32| (!value.is_nan()).then_some(value);
        Some(ExplainedCandidate {
            endpoint: Arc::clone(&endpoint.name),
            address: Arc::clone(&endpoint.address),
            total: row.total,
            scores: scores.collect(),
            in_flight: row.in_flight,
            waiting: row.waiting,
            waiting_tokens: row.waiting_tokens,
            resident_tokens: row.resident_tokens,
            queue: known(row.queue),
            kv_utilization: known(row.kv_utilization),
            cached_tokens: row.cached_tokens,
            matched_blocks: row.matched_blocks,
            ttft_p50_ms: known(row.ttft_p50_ms),
            tpot_p50_ms: known(row.tpot_p50_ms),
        })
    }
}

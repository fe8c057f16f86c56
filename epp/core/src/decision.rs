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
use crate::schedule::{Candidate, Removed, removals};
use crate::slo::Slo;
use crate::stopwatch::Lap;

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
    pub(crate) removed: Vec<Removed>,
    pub(crate) picked: usize,
    pub(crate) pool: Arc<Pool>,
    pub(crate) scorers: Arc<[ScorerName]>,
    /// Those that were scored, in pool order.
    pub(crate) candidates: Vec<Candidate>,
    /// Their weighted sums.
    pub(crate) totals: Vec<f32>,
    /// One row of weighted-in order per scorer: `scores[scorer * candidates + candidate]`.
    pub(crate) scores: Vec<f32>,
    /// How long the steps took; empty without a stopwatch.
    pub(crate) laps: Vec<Lap>,
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
            let totalled = record.candidates.iter().zip(&record.totals);
            totalled.filter_map(|(candidate, total)| {
                let endpoint = record.pool.endpoints.get(candidate.slot as usize)?;
                Some((&endpoint.address, *total))
            })
        })
    }

    /// What the filters took out of the candidates; none unless recorded.
    pub fn removals(&self) -> Vec<Removal> {
        let record = self.record.as_ref();
        record.map_or_else(Vec::new, |record| removals(&record.removed))
    }

    /// The pool that it was made in; none unless recorded.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.record.as_ref().map(|record| &record.pool)
    }

    /// How long the steps took; none unless recorded, and a stopwatch was lent.
    pub fn laps(&self) -> &[Lap] {
        self.record.as_ref().map_or(&[], |record| &record.laps)
    }

    /// The decision in words and names.
    pub fn explain(&self) -> Explanation {
        let record = self.record.as_deref();
        let mut candidates = record.map_or_else(Vec::new, Record::explained);
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
            removals: self.removals(),
            candidates,
        }
    }

    fn bound_by(&self) -> &'static str {
        let Some(record) = &self.record else {
            return "not recorded";
        };
        match (
            record.candidates.len(),
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
    fn explained(&self) -> Vec<ExplainedCandidate> {
        (0..self.candidates.len())
            .filter_map(|index| self.candidate(index))
            .collect()
    }

    /// Scores of the candidate at `index`, in the order of the scorers.
    pub(crate) fn scores(&self, index: usize) -> impl Iterator<Item = f32> {
        let count = self.candidates.len();
        let row = move |scorer| self.scores.get(scorer * count + index).copied();
        (0..self.scorers.len()).map(move |scorer| row(scorer).unwrap_or_default())
    }

    fn candidate(&self, index: usize) -> Option<ExplainedCandidate> {
        let row = self.candidates.get(index)?;
        let endpoint = self.pool.endpoints.get(row.slot as usize)?;
        let scored = self.scorers.iter().zip(self.scores(index));
        let scores = scored.map(|(name, score)| ExplainedScore {
            scorer: Arc::clone(&name.name),
            weight: name.weight,
            score,
        });
        let known = |value: f32| (!value.is_nan()).then_some(value);
        let scraped = |read: fn(&Scraped) -> f32| known(row.scraped.as_ref().map(read)?);
        let predicted = |read: fn(&Prediction) -> f32| known(row.prediction.as_ref().map(read)?);
        Some(ExplainedCandidate {
            endpoint: Arc::clone(&endpoint.name),
            address: Arc::clone(&endpoint.address),
            total: self.totals.get(index).copied().unwrap_or_default(),
            scores: scores.collect(),
            in_flight: row.load.in_flight,
            waiting: row.load.waiting,
            waiting_tokens: row.load.waiting_tokens,
            resident_tokens: row.load.resident_tokens,
            queue: scraped(|scraped| scraped.waiting),
            kv_utilization: scraped(|scraped| scraped.kv_utilization),
            cached_tokens: row.cached_tokens,
            matched_blocks: row.matched_blocks,
            ttft_p50_ms: predicted(|prediction| prediction.ttft.p50),
            tpot_p50_ms: predicted(|prediction| prediction.tpot.p50),
        })
    }
}

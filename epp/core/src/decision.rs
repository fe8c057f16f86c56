//! Why this endpoint: the inputs and scores of one pick, kept compact until somebody asks.

use std::sync::Arc;
use std::time::Duration;

use predictor::{Prediction, State};
use serde::Serialize;

use crate::pool::Pool;

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
    pub(crate) picked: usize,
    pub(crate) pool: Arc<Pool>,
    pub(crate) scorers: Arc<[ScorerName]>,
    pub(crate) considered: Vec<Considered>,
    /// One row of weighted-in order per scorer: `scores[scorer * considered + candidate]`.
    pub(crate) scores: Vec<f32>,
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
    pub(crate) cached_tokens: u32,
    pub(crate) in_flight: u32,
    pub(crate) total: f32,
    pub(crate) ttft_p50_ms: f32,
    pub(crate) tpot_p50_ms: f32,
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
    /// The candidates, best total first.
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
    /// Prompt tokens expected in its prefix cache.
    pub cached_tokens: u32,
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
    /// `(address, weighted score)` of every candidate, in pool order.
    pub fn totals(&self) -> impl Iterator<Item = (&Arc<str>, f32)> {
        self.considered.iter().filter_map(|candidate| {
            let endpoint = self.pool.endpoints.get(candidate.slot as usize)?;
            Some((&endpoint.address, candidate.total))
        })
    }

    /// The decision in words and names.
    pub fn explain(&self) -> Explanation {
        let mut candidates: Vec<_> = (0..self.considered.len())
            .filter_map(|index| self.candidate(index))
            .collect();
        let picked = candidates
            .get(self.picked)
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
            candidates,
        }
    }

    fn bound_by(&self) -> &'static str {
        match (
            self.considered.len(),
            self.scorers.is_empty(),
            self.expected_miss,
        ) {
            (1, _, _) => "only candidate",
            (_, _, true) => "least bad: no endpoint was predicted to meet the SLO",
            (_, true, _) => "picker alone: no scorer is configured",
            (_, false, false) => "highest weighted score",
        }
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
            cached_tokens: row.cached_tokens,
            ttft_p50_ms: known(row.ttft_p50_ms),
            tpot_p50_ms: known(row.tpot_p50_ms),
        })
    }
}

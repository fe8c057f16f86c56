//! Hot path: from candidates to a pick: filters, weighted scores, picker.
//!
//! No allocation per endpoint, no lock, no text: the buffers live in the profile between requests.

pub mod filter;
pub mod pick;
pub mod score;

use std::sync::Arc;

use predictor::{Prediction, State};
use rand::rngs::StdRng;

use crate::admit::Trust;
use crate::config;
use crate::decision::ScorerName;
use crate::endpoint::{LoadSnapshot, Scraped};
use crate::slo::Slo;

/// What the scorers are asked about: one request.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Latency targets.
    pub slo: Slo,
    /// Time already spent queued, in milliseconds.
    pub waited_ms: f64,
    /// Prompt length in tokens.
    pub prompt_tokens: u32,
    /// Blocks the prompt was hashed into.
    pub blocks: u32,
    /// State of the candidates' latency models for TTFT, the prior if any is at it; `None` = no predictions are made.
    pub ttft_state: Option<State>,
}

/// One endpoint the request may go to, read once. Scorers see nothing else of it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Index in the pool.
    pub slot: u32,
    /// Counters.
    pub load: LoadSnapshot,
    /// Last scrape, unless it is older than the staleness threshold.
    pub scraped: Option<Scraped>,
    /// Leading blocks of the prompt the endpoint has seen.
    pub matched_blocks: u32,
    /// Prompt tokens those stand for.
    pub cached_tokens: u32,
    /// Predicted latencies there; `None` = nothing is configured to predict.
    pub prediction: Option<Prediction>,
    /// Which of them may be believed, as far as the model is concerned.
    pub trust: Trust,
}

/// Drops candidates that must not be picked.
pub trait Filter: Send {
    /// Removes from `candidates` what fails; the order of the rest stays.
    fn retain(&self, now: std::time::Duration, candidates: &mut Vec<Candidate>);
}

/// Rates candidates from 0 (worst) to 1 (best).
pub trait Score: Send {
    /// Writes one score per candidate; what is outside 0..=1 is clamped by the caller, NaN becomes 0.
    fn score(&self, ask: &Ask, candidates: &[Candidate], scores: &mut [f32]);
}

/// Chooses among scored candidates.
pub trait Pick: Send {
    /// Writes up to `most` distinct indexes into `picked`, best first; at least one if there is a candidate.
    fn pick(
        &mut self,
        candidates: &[Candidate],
        totals: &[f32],
        most: usize,
        rng: &mut StdRng,
        picked: &mut Vec<usize>,
    );
}

/// One scheduling profile with its buffers.
pub(crate) struct Profile {
    filters: Vec<Box<dyn Filter>>,
    scorers: Vec<Box<dyn Score>>,
    names: Arc<[ScorerName]>,
    picker: Box<dyn Pick>,
    endpoints: usize,
    /// Scorer by scorer, one per candidate.
    scores: Vec<f32>,
    totals: Vec<f32>,
    picked: Vec<usize>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("scorers", &self.names)
            .field("endpoints", &self.endpoints)
            .finish()
    }
}

/// What a profile decided; borrowed from its buffers.
#[derive(Debug)]
pub(crate) struct Picked<'a> {
    /// Indexes into the candidates, best first; empty only without candidates.
    pub(crate) order: &'a [usize],
    /// Weighted sum per candidate.
    pub(crate) totals: &'a [f32],
    /// Scorer by scorer, one per candidate.
    pub(crate) scores: &'a [f32],
    pub(crate) scorers: &'a Arc<[ScorerName]>,
}

impl Profile {
    pub(crate) fn new(config: &config::Config) -> Self {
        let profile = &config.profile;
        let names = profile.scorers.iter().map(|scorer| ScorerName {
            name: Arc::clone(&scorer.name),
            weight: scorer.weight,
        });
        Self {
            filters: profile
                .filters
                .iter()
                .map(|detector| filter::build(detector, config.usage_limit.highest()))
                .collect(),
            scorers: profile
                .scorers
                .iter()
                .map(|scorer| score::build(&scorer.scorer, config))
                .collect(),
            names: names.collect(),
            picker: pick::build(profile.picker),
            endpoints: profile.endpoints.max(1),
            scores: Vec::new(),
            totals: Vec::new(),
            picked: Vec::new(),
        }
    }

    /// Drops the candidates that a filter of the profile refuses.
    pub(crate) fn filter(&self, now: std::time::Duration, candidates: &mut Vec<Candidate>) {
        for filter in &self.filters {
            filter.retain(now, candidates);
        }
    }

    /// Scores the candidates and picks among them.
    pub(crate) fn pick(
        &mut self,
        ask: &Ask,
        candidates: &[Candidate],
        rng: &mut StdRng,
    ) -> Picked<'_> {
        let count = candidates.len();
        self.scores.clear();
        self.scores.resize(self.scorers.len() * count, 0.0);
        self.totals.clear();
        self.totals.resize(count, 0.0);
        let rows = self.scores.chunks_mut(count.max(1));
        for ((scorer, name), row) in self.scorers.iter().zip(self.names.iter()).zip(rows) {
            scorer.score(ask, candidates, row);
            for (total, score) in self.totals.iter_mut().zip(row) {
                // NaN clamps to NaN, which `max` turns into 0.
                *score = score.clamp(0.0, 1.0).max(0.0);
                *total += *score * name.weight as f32;
            }
        }
        self.picked.clear();
        self.picker.pick(
            candidates,
            &self.totals,
            self.endpoints,
            rng,
            &mut self.picked,
        );
        Picked {
            order: &self.picked,
            totals: &self.totals,
            scores: &self.scores,
            scorers: &self.names,
        }
    }
}

#[cfg(test)]
pub(crate) fn candidate(slot: u32) -> Candidate {
    Candidate {
        slot,
        load: LoadSnapshot::default(),
        scraped: None,
        matched_blocks: 0,
        cached_tokens: 0,
        prediction: None,
        trust: Trust::NONE,
    }
}

#[cfg(test)]
pub(crate) fn ask() -> Ask {
    Ask {
        slo: Slo::NONE,
        waited_ms: 0.0,
        prompt_tokens: 0,
        blocks: 0,
        ttft_state: None,
    }
}

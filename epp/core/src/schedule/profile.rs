//! Hot path: one scheduling profile with its buffers.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use super::{Ask, Candidate, Filter, Pick, Score, Stage, filter, pick, score};
use crate::config;
use crate::decision::{Removal, ScorerName};
use crate::health::Watch;
use crate::pool::Pool;

/// One scheduling profile with its buffers.
pub(crate) struct Profile {
    filters: Vec<Step>,
    scorers: Vec<Box<dyn Score>>,
    names: Arc<[ScorerName]>,
    picker: Box<dyn Pick>,
    endpoints: usize,
    /// Scorer by scorer, one per candidate.
    scores: Vec<f32>,
    totals: Vec<f32>,
    picked: Vec<usize>,
}

/// A filter and what it did to the request at hand.
struct Step {
    name: Arc<str>,
    filter: Box<dyn Filter>,
    removed: u32,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filters: Vec<_> = self.filters.iter().map(|step| &step.name).collect();
        f.debug_struct("Profile")
            .field("filters", &filters)
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
    pub(crate) fn new(config: &config::Config, watch: Option<&Arc<Watch>>) -> Self {
        let profile = &config.profile;
        let names = profile.scorers.iter().map(|scorer| ScorerName {
            name: Arc::clone(&scorer.name),
            weight: scorer.weight,
        });
        let step = |named: &config::NamedFilter| Step {
            name: Arc::clone(&named.name),
            filter: filter::build(&named.filter, config, watch),
            removed: 0,
        };
        Self {
            filters: profile.filters.iter().map(step).collect(),
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

    /// Another pool is in force.
    pub(crate) fn pool_changed(&mut self, pool: &Arc<Pool>) {
        for step in &mut self.filters {
            step.filter.pool_changed(pool);
        }
        for scorer in &mut self.scorers {
            scorer.pool_changed(pool);
        }
    }

    /// Another request is at hand.
    pub(crate) fn begin(&mut self) {
        for step in &mut self.filters {
            step.removed = 0;
        }
    }

    /// Runs the filters of one stage, in the order written.
    pub(crate) fn filter(
        &mut self,
        stage: Stage,
        now: Duration,
        ask: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        rng: &mut StdRng,
    ) {
        for step in &mut self.filters {
            if step.filter.stage() == stage {
                let before = candidates.len();
                step.filter.retain(now, ask, candidates, rng);
                step.removed = (before - candidates.len()) as u32;
            }
        }
    }

    /// What each filter removed from the request at hand, those that removed nobody left out.
    pub(crate) fn removals(&self) -> Vec<Removal> {
        let removal = |step: &Step| Removal {
            filter: Arc::clone(&step.name),
            count: step.removed,
        };
        self.filters
            .iter()
            .filter(|step| step.removed > 0)
            .map(removal)
            .collect()
    }

    /// Scores the candidates and picks among them.
    pub(crate) fn pick(
        &mut self,
        ask: &Ask<'_>,
        candidates: &[Candidate],
        rng: &mut StdRng,
    ) -> Picked<'_> {
        let count = candidates.len();
        self.scores.clear();
        self.scores.resize(self.scorers.len() * count, 0.0);
        self.totals.clear();
        self.totals.resize(count, 0.0);
        let rows = self.scores.chunks_mut(count.max(1));
        for ((scorer, name), row) in self.scorers.iter_mut().zip(self.names.iter()).zip(rows) {
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

    /// The request goes to the candidate at `chosen`.
    pub(crate) fn dispatched(&mut self, ask: &Ask<'_>, candidates: &[Candidate], chosen: usize) {
        let Some(candidate) = candidates.get(chosen) else {
            return;
        };
        for step in &mut self.filters {
            step.filter.dispatched(ask, candidate);
        }
        for scorer in &mut self.scorers {
            scorer.dispatched(ask, candidates, candidate);
        }
    }
}

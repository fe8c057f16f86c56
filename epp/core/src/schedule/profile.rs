//! Hot path: one scheduling profile with its buffers.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use super::{Ask, Candidate, Filter, Pick, Score, Stage, Trail, filter, pick, score};
use crate::config;
use crate::decision::ScorerName;
use crate::health::Watch;
use crate::pool::Pool;
use crate::stopwatch::Work;

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
    picker_name: Arc<str>,
    /// What the request at hand leaves behind.
    pub(crate) trail: Trail,
}

/// A filter under its name.
struct Step {
    name: Arc<str>,
    filter: Box<dyn Filter>,
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
            picker_name: profile.picker.type_name().into(),
            trail: Trail::default(),
        }
    }

    /// Puts the profile of `new` in force instead of that of `old`. Filters, scorers and the picker that are the same in
    /// both keep what they remember, such as the endpoints of sessions; `watch` is the same if its rules are.
    pub(crate) fn set_config(
        &mut self,
        old: &config::Config,
        new: &config::Config,
        watch: Option<&Arc<Watch>>,
        pool: &Arc<Pool>,
    ) {
        let mut before = std::mem::replace(self, Self::new(new, watch));
        self.trail = before.trail;
        self.pool_changed(pool);
        // What parts are made from besides their own parameters.
        let surroundings =
            |config: &config::Config| (config.topology.clone(), config.predicted_latency.clone());
        if surroundings(old) != surroundings(new) {
            return;
        }
        for (step, named) in self.filters.iter_mut().zip(&new.profile.filters) {
            let known = old.profile.filters.iter().position(|other| other == named);
            if let Some(known) = known.and_then(|known| before.filters.get_mut(known)) {
                std::mem::swap(&mut step.filter, &mut known.filter);
            }
        }
        for (scorer, named) in self.scorers.iter_mut().zip(&new.profile.scorers) {
            let mut others = old.profile.scorers.iter();
            let known = others
                .position(|other| (&other.name, &other.scorer) == (&named.name, &named.scorer));
            if let Some(known) = known.and_then(|known| before.scorers.get_mut(known)) {
                std::mem::swap(scorer, known);
            }
        }
        if old.profile.picker == new.profile.picker {
            self.picker = before.picker;
        }
    }

    /// Whether a constraint chooses endpoints by the request.
    pub(crate) fn selects_by_request(&self) -> bool {
        let mut constraints = self.filters.iter().map(|step| &step.filter);
        constraints.any(|filter| filter.stage() == Stage::Constraint && filter.selects_by_request())
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
                self.trail.before(candidates);
                let began = self.trail.laps.start();
                step.filter.retain(now, ask, candidates, rng);
                self.trail.laps.lap(Work::Filter, &step.name, began);
                self.trail.after(&step.name, candidates);
            }
        }
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
            let began = self.trail.laps.start();
            scorer.score(ask, candidates, row);
            self.trail.laps.lap(Work::Score, &name.name, began);
            for (total, score) in self.totals.iter_mut().zip(row) {
                // NaN clamps to NaN, which `max` turns into 0.
                *score = score.clamp(0.0, 1.0).max(0.0);
                *total += *score * name.weight as f32;
            }
        }
        self.picked.clear();
        let began = self.trail.laps.start();
        self.picker.pick(
            candidates,
            &self.totals,
            self.endpoints,
            rng,
            &mut self.picked,
        );
        self.trail.laps.lap(Work::Pick, &self.picker_name, began);
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

//! Hot path: what the latency models say of the candidates.

use std::sync::Arc;
use std::time::Duration;

use predictor::{Features, LatencyModel, State, Target};

use super::Router;
use crate::admit::Trust;
use crate::endpoint::{Endpoint, features};
use crate::flow::Waiting;
use crate::schedule::{Ask, Candidate};

impl Router {
    pub(super) fn assign_models(&mut self) {
        let models = &self.models;
        let index = |endpoint: &Arc<Endpoint>| models.index_of(&endpoint.class);
        self.of_slot.clear();
        self.of_slot.extend(self.pool.endpoints.iter().map(index));
        let first = self.of_slot.first().copied();
        self.only = first.filter(|first| self.of_slot.iter().all(|of| of == first));
    }

    /// The model of the endpoint in `slot`.
    pub(super) fn model_of(&self, slot: u32) -> &LatencyModel {
        let of = self.of_slot.get(slot as usize).copied();
        self.models.get(of.unwrap_or_default())
    }

    /// Asks the models about all candidates, each class at once, if anything reads predictions.
    pub(super) fn predict(&mut self, prompt_tokens: u32) {
        if self.config.predicted_latency.is_none() {
            return;
        }
        self.rows.clear();
        let row = |candidate: &Candidate| row(candidate, prompt_tokens);
        self.rows.extend(self.candidates.iter().map(row));
        let Some(of) = self.only else {
            return self.predict_by_class();
        };
        let model = self.models.get(of);
        let trust = Trust::of(model);
        model.predict(&self.rows, &mut self.predictions);
        for (candidate, prediction) in self.candidates.iter_mut().zip(&self.predictions) {
            candidate.prediction = Some(*prediction);
            candidate.trust = trust;
        }
    }

    fn predict_by_class(&mut self) {
        for of in 0..=self.models.names().len() {
            self.of_class.clear();
            self.class_rows.clear();
            for (at, candidate) in self.candidates.iter().enumerate() {
                if self.of_slot[candidate.slot as usize] == of {
                    self.of_class.push(at);
                    self.class_rows.push(self.rows[at]);
                }
            }
            if self.of_class.is_empty() {
                continue;
            }
            let model = self.models.get(of);
            model.predict(&self.class_rows, &mut self.predictions);
            for (&at, prediction) in self.of_class.iter().zip(&self.predictions) {
                self.candidates[at].prediction = Some(*prediction);
                self.candidates[at].trust = Trust::of(model);
            }
        }
    }

    /// What filters and scorers are asked about a request that has waited `waited`.
    pub(super) fn ask<'w>(&self, now: Duration, waiting: &'w Waiting, waited: Duration) -> Ask<'w> {
        Ask {
            request: &waiting.request,
            now,
            waited_ms: waited.as_secs_f64() * 1e3,
            ttft_state: self.ttft_state(),
        }
    }

    /// State of the pool's TTFT models, if anything reads predictions: that of the one that knows least, since a guess
    /// cannot be compared with what was learned.
    fn ttft_state(&self) -> Option<State> {
        self.config.predicted_latency.as_ref()?;
        let state = |of| self.models.get(of).state(Target::Ttft);
        if let Some(of) = self.only {
            return Some(state(of));
        }
        let of_candidate = |candidate: &Candidate| {
            let of = self.of_slot.get(candidate.slot as usize).copied();
            state(of.unwrap_or_default())
        };
        let knowledge = |state: &State| match state {
            State::Prior => 0,
            State::Warming => 1,
            State::Stale => 2,
            State::Trained => 3,
        };
        let states = self.candidates.iter().map(of_candidate);
        states.min_by_key(knowledge)
    }
}

/// What the model is asked about a candidate; counts exclude the request itself.
pub(super) fn row(candidate: &Candidate, prompt_tokens: u32) -> Features {
    features(
        &candidate.load,
        candidate.scraped.as_ref(),
        prompt_tokens,
        candidate.cached_tokens,
    )
}

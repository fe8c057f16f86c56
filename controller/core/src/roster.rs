//! All models of a controller, within what one cycle may cost.
//!
//! What costs is to compute a capacity. A cycle computes at most so many; the models take turns in going first, so that
//! none waits for ever, and a capacity that had to wait is counted by as it was, its age told
//! ([`ModelDecision::oldest_due`]).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::capacities::Allowance;
use crate::model::{
    ModelController, ModelDecision, ModelKey, ModelPolicy, ModelSignals, RestoreError, SavedState,
};

/// The models that one controller decides on.
#[derive(Clone, Debug)]
pub struct Roster {
    models: BTreeMap<ModelKey, ModelController>,
    computations: usize,
    /// The model whose turn it is to go first.
    turn: Option<ModelKey>,
}

/// The decisions of one cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycle {
    /// By model, in order.
    pub decisions: Vec<ModelDecision>,
    /// Capacities computed.
    pub computed: usize,
}

impl Roster {
    /// No model yet; a cycle computes at most `computations` capacities.
    pub fn new(computations: usize) -> Self {
        Self {
            models: BTreeMap::new(),
            computations,
            turn: None,
        }
    }

    /// Adds a model, or replaces the policy of one that is there; what was learned of it is kept. The policy is taken as
    /// valid (see [`ModelPolicy::validate`]).
    pub fn set(&mut self, policy: ModelPolicy) {
        match self.models.get_mut(&policy.key) {
            Some(controller) => controller.replace_policy(policy),
            None => {
                let key = policy.key.clone();
                self.models
                    .insert(key, ModelController::new(policy).thrifty());
            }
        }
    }

    /// Forgets a model.
    pub fn remove(&mut self, key: &ModelKey) {
        self.models.remove(key);
    }

    /// The models, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ModelKey> {
        self.models.keys()
    }

    /// Decides on every model that `signals` are given for; the others stay as they are.
    pub fn cycle(&mut self, mut signals: BTreeMap<ModelKey, ModelSignals>) -> Cycle {
        let mut allowance = Allowance::new(self.computations);
        let mut order: Vec<ModelKey> = self.models.keys().cloned().collect();
        let turn = self.turn.take();
        let first = turn.map_or(0, |turn| order.partition_point(|key| *key < turn));
        let first = first.checked_rem(order.len()).unwrap_or(0);
        order.rotate_left(first);
        let mut decisions = Vec::new();
        let mut spent_at = None;
        for (at, key) in order.iter().enumerate() {
            let (signals, controller) = (signals.remove(key), self.models.get_mut(key));
            if let Some((signals, controller)) = signals.zip(controller) {
                decisions.push(controller.tick_within(signals, &mut allowance));
            }
            if allowance.is_spent() {
                spent_at.get_or_insert(at);
            }
        }
        // Whoever could not compute all of it goes first next time, but not twice in a row.
        self.turn = spent_at.and_then(|at| order.get(at.max(1)).cloned());
        decisions.sort_by(|a, b| a.model.cmp(&b.model));
        Cycle {
            decisions,
            computed: allowance.spent(),
        }
    }

    /// What is remembered of a model at `now`.
    pub fn save(&self, key: &ModelKey, now: Duration) -> Option<SavedState> {
        Some(self.models.get(key)?.save(now))
    }

    /// Goes on from what another process remembered of a model; nothing happens if there is no such model.
    ///
    /// # Errors
    /// [`RestoreError`] when it makes no sense; then nothing is changed.
    pub fn restore(
        &mut self,
        key: &ModelKey,
        saved: SavedState,
        now: Duration,
    ) -> Result<(), RestoreError> {
        match self.models.get_mut(key) {
            Some(controller) => controller.restore(saved, now),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

//! All models of a controller.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{
    ModelController, ModelDecision, ModelKey, ModelPolicy, ModelSignals, RestoreError, SavedState,
};

/// The models that one controller decides on.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    models: BTreeMap<ModelKey, ModelController>,
    computations: usize,
}

impl Roster {
    /// No model yet; a cycle computes at most about `computations` capacities anew.
    pub fn new(computations: usize) -> Self {
        Self { models: BTreeMap::new(), computations }
    }

    /// Adds a model, or replaces the policy of one that is there; what was learned of it is kept.
    pub fn set(&mut self, policy: ModelPolicy) {
        match self.models.get_mut(&policy.key) {
            Some(controller) => controller.replace_policy(policy),
            None => {
                self.models.insert(policy.key.clone(), ModelController::new(policy));
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

    /// Decides on every model that `signals` are given for; others wait.
    pub fn cycle(&mut self, signals: BTreeMap<ModelKey, ModelSignals>) -> Vec<ModelDecision> {
        let decide = |(key, signals): (ModelKey, ModelSignals)| {
            self.models.get_mut(&key).map(|controller| controller.tick(signals))
        };
        signals.into_iter().filter_map(decide).collect()
    }

    /// What is remembered of a model.
    pub fn save(&self, key: &ModelKey) -> Option<SavedState> {
        self.models.get(key).map(ModelController::save)
    }

    /// Goes on from what another process remembered of a model; nothing happens if there is no such model.
    ///
    /// # Errors
    /// [`RestoreError`] when it makes no sense; then nothing is changed.
    pub fn restore(&mut self, key: &ModelKey, saved: SavedState, now: Duration) -> Result<(), RestoreError> {
        match self.models.get_mut(key) {
            Some(controller) => controller.restore(saved, now),
            None => Ok(()),
        }
    }
}

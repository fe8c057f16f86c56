//! The stages in a row for one model, and what is remembered between ticks.

use std::time::Duration;

use super::{
    ClassDecision, Evidence, ModelDecision, ModelPolicy, ModelSignals, RestoreError, SavedState,
    Startup, VariantDecision,
};
use crate::decision::{Basis, Hold, Reason};

/// Turns a model's signals into decisions, one tick after another. Deterministic: the same signals give the same
/// decisions.
#[derive(Clone, Debug)]
pub struct ModelController {
    policy: ModelPolicy,
}

impl ModelController {
    /// Follows `policy`, which is taken as valid (see [`ModelPolicy::validate`]).
    pub fn new(policy: ModelPolicy) -> Self {
        Self { policy }
    }

    /// The policy followed.
    pub fn policy(&self) -> &ModelPolicy {
        &self.policy
    }

    /// Follows another policy from now on; what was learned of the classes and variants that remain (by name) is kept.
    pub fn replace_policy(&mut self, policy: ModelPolicy) {
        self.policy = policy;
    }

    /// Decides how many replicas of each variant are wanted now. Call about once a second.
    pub fn tick(&mut self, signals: ModelSignals) -> ModelDecision {
        let variants = self.policy.variants.iter().zip(&signals.variants).map(|(variant, seen)| {
            let count = seen.replicas.existing();
            let (Startup::Fixed(startup) | Startup::Auto { fallback: startup }) = variant.startup;
            VariantDecision {
                name: variant.name.clone(),
                role: variant.role,
                replicas: count,
                previous: count,
                lower: count,
                upper: count,
                supply: seen.replicas,
                basis: Basis::Held,
                capacities: Vec::new(),
                requests_per_second: None,
                headroom: None,
                startup,
                reasons: vec![Reason::Held { because: Hold::NoModel }],
                guarded: None,
            }
        });
        ModelDecision {
            at: signals.now,
            model: self.policy.key.clone(),
            classes: Vec::<ClassDecision>::new(),
            variants: variants.collect(),
            reasons: Vec::new(),
            headroom: None,
            pressure: None,
            offered_tokens_per_second: None,
            queue_seconds: None,
            in_flight: signals.demand.in_flight,
            silent: signals.demand.silent,
            evidence: Evidence::Cold { reason: Hold::NoModel.to_string() },
        }
    }

    /// What is remembered, to go on from in another process.
    pub fn save(&self) -> SavedState {
        SavedState::new()
    }

    /// Goes on from what another process remembered. `now` and the times saved must be of one epoch.
    ///
    /// # Errors
    /// [`RestoreError`] when it makes no sense; then nothing is changed.
    pub fn restore(&mut self, saved: SavedState, now: Duration) -> Result<(), RestoreError> {
        let _ = now;
        saved.check()
    }
}

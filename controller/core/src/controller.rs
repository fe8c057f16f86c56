//! One model with one service level on one kind of replica: a [`ModelController`] and what is read off it.

use crate::capacities::Allowance;
use crate::decision::{Basis, Decision};
use crate::model::{ClassSeen, ModelController, ModelPolicy, Seen, VariantSignals};
use crate::policy::Policy;
use crate::signals::Signals;

/// Turns signals into decisions, one tick after another. Deterministic: the same signals give the same decisions.
#[derive(Clone, Debug)]
pub struct Controller {
    policy: Policy,
    model: ModelController,
}

impl Controller {
    /// Follows `policy`, which is taken as valid (see [`Policy::validate`]).
    pub fn new(policy: Policy) -> Self {
        let model = ModelController::new(ModelPolicy::from(&policy));
        Self { policy, model }
    }

    /// The policy followed.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides how many replicas are wanted now. Call about once a second, with `now` never going back.
    pub fn tick(&mut self, signals: Signals) -> Decision {
        let seen = Seen {
            now: signals.now,
            classes: vec![ClassSeen {
                totals: signals.demand,
                queued: signals.queued,
                mix: signals.mix,
            }],
            in_flight: signals.in_flight,
            heard: true,
            silent: Vec::new(),
            variants: vec![VariantSignals {
                replicas: signals.replicas,
                kv_tokens: signals.kv_tokens,
                model: Some(signals.model),
                ..VariantSignals::default()
            }],
        };
        let mut decided = self.model.decide(seen, &mut Allowance::new(usize::MAX));
        let (at, supply) = (decided.at, signals.replicas);
        let (class, variant) = (decided.classes.pop(), decided.variants.pop());
        let (Some(class), Some(variant)) = (class, variant) else {
            return Decision::unchanged(at, supply);
        };
        // What the capacity was last is no part of a decision that could not use it.
        let sized = variant.basis != Basis::Held;
        let capacity = variant.capacities.first().filter(|_| sized);
        Decision {
            at,
            replicas: variant.replicas,
            previous: variant.previous,
            basis: variant.basis,
            supply,
            demand: class.demand,
            forecast: class.forecast,
            capacity: capacity.map(|known| known.capacity),
            headroom: variant.headroom.filter(|_| sized),
            reasons: variant.reasons,
            guarded: variant.guarded,
        }
    }
}

#[cfg(test)]
mod tests;

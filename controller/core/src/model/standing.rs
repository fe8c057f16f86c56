//! What is known of each variant's capacity.

use std::time::Duration;

use predictor::State;

use super::VariantSignals;
use super::controller::{ModelController, Seen, VariantState};
use super::policy::{ModelPolicy, Role, VariantPolicy};
use super::sizing::Standing;
use crate::capacities::{Allowance, Care, Known, Question};
use crate::capacity::Terms;
use crate::decision::Hold;
use crate::latency::Latency;
use crate::mix::Mix;
use crate::policy::{SloTargets, Windows};

impl ModelController {
    /// What is known of each variant's capacity.
    pub(super) fn standings(
        &mut self,
        seen: &Seen,
        demand_known: bool,
        startup: Duration,
        allowance: &mut Allowance,
    ) -> Vec<Standing> {
        let window = Windows::of(startup).slow / 2;
        let (policy, care, now) = (&self.policy, self.care, seen.now);
        let mixes: Vec<(Role, Vec<Mix>)> = [Role::Both, Role::Prefill, Role::Decode]
            .into_iter()
            .filter(|&role| policy.variants.iter().any(|variant| variant.role == role))
            .map(|role| {
                (
                    role,
                    seen.classes
                        .iter()
                        .map(|class| part(role, &class.mix))
                        .collect(),
                )
            })
            .collect();
        let mut standings = vec![Standing::default(); self.variants.len()];
        // Where not all can be computed, those computed longest ago go first.
        let mut turns: Vec<usize> = (0..standings.len()).collect();
        turns.sort_by_key(|&index| self.variants[index].computed());
        for index in turns {
            let (variant, state) = (&policy.variants[index], &mut self.variants[index]);
            let mixes = mixes.iter().find(|(role, _)| *role == variant.role);
            let consultation = Consultation {
                now,
                seen: &seen.variants[index],
                demand_known,
                mixes: mixes.map_or(&[], |(_, mixes)| mixes),
                window,
                care,
            };
            standings[index] = consultation.standing(policy, variant, state, allowance);
        }
        standings
    }
}

/// What the capacities of one variant are asked for.
struct Consultation<'a> {
    now: Duration,
    seen: &'a VariantSignals,
    demand_known: bool,
    mixes: &'a [Mix],
    window: Duration,
    care: Care,
}

impl Consultation<'_> {
    fn standing(
        &self,
        policy: &ModelPolicy,
        variant: &VariantPolicy,
        state: &mut VariantState,
        allowance: &mut Allowance,
    ) -> Standing {
        match self.consult(policy, variant, state, allowance) {
            Ok(known) => Standing {
                known: Some(known),
                hold: None,
            },
            Err(hold) => Standing {
                known: (state.books.iter())
                    .map(|book| book.last_known(self.now))
                    .collect(),
                hold: Some(hold),
            },
        }
    }

    fn consult(
        &self,
        policy: &ModelPolicy,
        variant: &VariantPolicy,
        state: &mut VariantState,
        allowance: &mut Allowance,
    ) -> Result<Vec<Known>, Hold> {
        let model = sizable(self.seen, self.demand_known, self.mixes)?;
        let each = state.books.iter_mut().zip(&policy.classes).zip(self.mixes);
        each.map(|((book, class), mix)| {
            let terms = Terms::new(target(variant.role, class.slo), &policy.behavior);
            let question = Question {
                now: self.now,
                model,
                mix,
                terms: &terms,
                kv_tokens: self.seen.kv_tokens,
            };
            book.consult(&question, self.window, self.care, allowance)
        })
        .collect()
    }
}

/// What a replica of `role` sees of the requests.
fn part(role: Role, mix: &Mix) -> Mix {
    match role {
        Role::Both => mix.clone(),
        Role::Prefill => mix.prompts_only(),
        Role::Decode => mix.answers_only(),
    }
}

/// The part of the objective that a replica of `role` answers for; the other is never missed.
fn target(role: Role, slo: SloTargets) -> SloTargets {
    const NEVER_MISSED_MS: f64 = 1e12;
    match role {
        Role::Both => slo,
        Role::Prefill => SloTargets {
            tpot_ms: NEVER_MISSED_MS,
            ..slo
        },
        Role::Decode => SloTargets {
            ttft_ms: NEVER_MISSED_MS,
            ..slo
        },
    }
}

/// The model to size by, if the signals allow sizing at all.
fn sizable<'a>(
    seen: &'a VariantSignals,
    demand_known: bool,
    mixes: &[Mix],
) -> Result<&'a dyn Latency, Hold> {
    let model = seen.model.as_deref().ok_or(Hold::NoModel)?;
    match model.state() {
        State::Prior => Err(Hold::Prior),
        State::Stale => Err(Hold::Stale),
        State::Warming | State::Trained if !demand_known => Err(Hold::NoDemand),
        State::Warming | State::Trained if mixes.iter().any(Mix::is_empty) => Err(Hold::NoMix),
        State::Warming | State::Trained => Ok(model),
    }
}

//! Whose turn it is among the flows of a band.

use std::time::Duration;

use super::account::FlowAccount;
use crate::config::{Fairness, ProgramAwareFairness, VirtualTokenCounter};
use crate::request::Request;

/// Costs are counted in thousandths, so that weights may be fractions.
const UNIT: f64 = 1_000.0;
/// Cost of a prompt and of an output token under `program-aware-fairness`, tokens.
const PROGRAM_COST: (f64, f64) = (1.0, 2.0);
/// An idle flow is forgotten after this time, unless its policy says otherwise.
const KEEP_IDLE: Duration = Duration::from_secs(300);
/// Time between two looks for idle flows.
const SWEEP: Duration = Duration::from_secs(30);

/// Output tokens of a stream that are told at a time.
const TOLD_AT_A_TIME: u32 = 64;

/// Where a request stands in its flow, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// How often the order of the band had changed when it came: who came under an earlier order goes first.
    pub(crate) era: u32,
    /// By the band's order.
    pub(crate) key: Duration,
    /// Number of arrival.
    pub(crate) number: u64,
}

/// What a dispatched request was charged, and what its tokens cost its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Charge {
    per_input: f64,
    per_output: f64,
    charged: i64,
    /// Output tokens that were charged before there were any; `None` = tokens count when they are all known.
    guess: Option<u32>,
    /// Output tokens told so far.
    seen: u32,
    /// [`FlowAccount::policy`] when it was charged.
    policy: u32,
}

/// What a stream tells of its tokens, in what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Of what was charged for output to come, what has come or will not come.
    pub(super) served: i64,
    /// What was charged too little; below zero = too much.
    pub(super) owed: i64,
    /// [`FlowAccount::policy`] when it was charged.
    pub(super) policy: u32,
}

impl Charge {
    fn new((input, output): (f64, f64), weight: f64, policy: u32) -> Self {
        Self {
            per_input: UNIT * input / weight,
            per_output: UNIT * output / weight,
            charged: 0,
            guess: None,
            seen: 0,
            policy,
        }
    }

    fn cost(&self, prompt_tokens: u32, output_tokens: u32) -> i64 {
        // Saturates, as floats do on their way to integers.
        (self.per_input * f64::from(prompt_tokens) + self.per_output * f64::from(output_tokens))
            .round() as i64
    }

    /// What was charged for output that has not come.
    pub(super) fn unserved(&self) -> i64 {
        let left = |guess: u32| self.cost(0, guess.saturating_sub(self.seen));
        self.guess.map_or(0, left)
    }

    /// So many output tokens have come: what goes beyond the guess is charged as it comes. `None` = too few since the
    /// last time.
    pub(crate) fn emitted(&mut self, tokens: u32) -> Option<Told> {
        let guess = self.guess?;
        if tokens.saturating_sub(self.seen) < TOLD_AT_A_TIME {
            return None;
        }
        let (unserved, beyond) = (self.unserved(), tokens.max(guess) - self.seen.max(guess));
        self.seen = tokens;
        let owed = self.cost(0, beyond);
        self.charged = self.charged.saturating_add(owed);
        Some(Told {
            served: unserved - self.unserved(),
            owed,
            policy: self.policy,
        })
    }

    /// The real tokens are known.
    pub(crate) fn ended(&self, prompt_tokens: u32, output_tokens: u32) -> Told {
        let cost = self.cost(prompt_tokens, output_tokens);
        Told {
            served: self.unserved(),
            owed: cost.saturating_sub(self.charged),
            policy: self.policy,
        }
    }
}

/// One flow's standing under the policy of its band.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Share against the other flows.
    weight: f64,
    /// Round robin: the turn it waits for.
    turn: u64,
    /// Virtual tokens it was served, in thousandths.
    counter: i128,
    /// Weighted tokens it was served, with the past fading, as of `attained_at`.
    attained: f64,
    attained_at: Duration,
}

impl Standing {
    /// Share against the other flows.
    pub(crate) fn weight(&self) -> f64 {
        self.weight
    }
}

/// A flow that has something queued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender<'q> {
    pub(crate) slot: u32,
    pub(crate) head: Place,
    /// When its head arrived.
    pub(crate) arrived: Duration,
    pub(crate) standing: &'q Standing,
}

/// Fairness within one band.
#[derive(Debug)]
pub(crate) struct Turns {
    fairness: Fairness,
    /// The last turn given.
    turn: u64,
    /// What the flow served last had been served before: what a flow that returns to an empty band begins with.
    floor: i128,
}

impl Turns {
    pub(crate) fn new(fairness: Fairness) -> Self {
        Self {
            fairness,
            turn: 0,
            floor: 0,
        }
    }

    /// Puts another policy in force; true = what flows were served under the last one means nothing under it.
    pub(crate) fn set_fairness(&mut self, fairness: Fairness) -> bool {
        let anew = std::mem::discriminant(&self.fairness) != std::mem::discriminant(&fairness);
        self.fairness = fairness;
        if anew {
            (self.turn, self.floor) = (0, 0);
        }
        anew
    }

    /// Whether that policy is in force.
    pub(crate) fn goes_by(&self, fairness: &Fairness) -> bool {
        self.fairness == *fairness
    }

    /// A flow's share against the others.
    fn weight(&self, flow: &str) -> f64 {
        match &self.fairness {
            Fairness::VirtualTokens(it) => it.weights.get(flow).copied().unwrap_or(1.0),
            _ => 1.0,
        }
    }

    /// The flow's share under the policy in force.
    pub(crate) fn reweigh(&self, flow: &str, standing: &mut Standing) {
        standing.weight = self.weight(flow);
    }

    /// The standing of a flow seen for the first time.
    pub(crate) fn newcomer(&self, flow: &str) -> Standing {
        Standing {
            weight: self.weight(flow),
            turn: 0,
            counter: 0,
            attained: 0.0,
            attained_at: Duration::ZERO,
        }
    }

    /// Whether tokens count.
    pub(crate) fn counts_tokens(&self) -> bool {
        matches!(
            self.fairness,
            Fairness::ProgramAware(_) | Fairness::VirtualTokens(_)
        )
    }

    /// Whether it counts how long a head has waited.
    pub(crate) fn counts_waits(&self) -> bool {
        matches!(self.fairness, Fairness::ProgramAware(_))
    }

    /// Whether each flow has a share of its own.
    pub(crate) fn takes_turns(&self) -> bool {
        !matches!(self.fairness, Fairness::GlobalStrict)
    }

    /// Takes what the flow's streams have told since into its standing.
    pub(crate) fn settle(&self, now: Duration, standing: &mut Standing, account: &FlowAccount) {
        if !self.counts_tokens() {
            return;
        }
        let owed = account.take_owed();
        if owed == 0 {
            return;
        }
        match &self.fairness {
            Fairness::ProgramAware(it) => {
                standing.attained = attained(it, standing, now) + owed as f64 / UNIT;
                standing.attained_at = now;
            }
            _ => standing.counter += i128::from(owed),
        }
    }

    /// A flow without anything queued gets something. `least` is the lowest that any of the flows that have was
    /// really served ([`Turns::served_so_far`]): a flow that returns begins there, so that its absence earns it
    /// nothing, and that the others are charged for output that never comes earns them nothing either.
    pub(crate) fn joins(&mut self, standing: &mut Standing, unserved: i64, least: Option<i128>) {
        match self.fairness {
            Fairness::RoundRobin => standing.turn = self.next_turn(),
            Fairness::VirtualTokens(_) => {
                let least = least.unwrap_or(self.floor) + i128::from(unserved);
                standing.counter = standing.counter.max(least);
            }
            Fairness::GlobalStrict | Fairness::ProgramAware(_) => {}
        }
    }

    /// Virtual tokens that a flow was served, without the `unserved` that it was charged for output still to come.
    pub(crate) fn served_so_far(standing: &Standing, unserved: i64) -> i128 {
        standing.counter - i128::from(unserved)
    }

    /// What dispatching `request` costs its flow, as far as it can be told.
    pub(crate) fn price(
        &self,
        standing: &Standing,
        account: &FlowAccount,
        request: &Request,
    ) -> Charge {
        let charge = |cost| Charge::new(cost, standing.weight, account.policy());
        match &self.fairness {
            Fairness::GlobalStrict | Fairness::RoundRobin => Charge::default(),
            // Charged when the tokens are known, as llm-d does.
            Fairness::ProgramAware(_) => charge(PROGRAM_COST),
            Fairness::VirtualTokens(VirtualTokenCounter {
                input_weight,
                output_weight,
                ..
            }) => {
                let mut charge = charge((*input_weight, *output_weight));
                let most = request.max_output_tokens.unwrap_or(u32::MAX);
                let output = account.expected_output().min(most);
                charge.charged = charge.cost(request.prompt_tokens, output);
                charge.guess = Some(output);
                charge
            }
        }
    }

    /// One request of the flow, which was charged `unserved` for output of others that is still to come, was dispatched
    /// for `charge`.
    pub(crate) fn served(&mut self, standing: &mut Standing, unserved: i64, charge: Charge) {
        match self.fairness {
            Fairness::RoundRobin => standing.turn = self.next_turn(),
            Fairness::VirtualTokens(_) => {
                let served = Self::served_so_far(standing, unserved);
                self.floor = self.floor.max(served);
                standing.counter += i128::from(charge.charged);
            }
            Fairness::GlobalStrict | Fairness::ProgramAware(_) => {}
        }
    }

    /// Whose turn it is.
    pub(crate) fn best<'q>(
        &self,
        now: Duration,
        contenders: impl Iterator<Item = Contender<'q>> + Clone,
    ) -> Option<Contender<'q>> {
        let mut contenders = contenders;
        match &self.fairness {
            Fairness::GlobalStrict => contenders.min_by_key(|flow| flow.head),
            Fairness::RoundRobin => contenders.min_by_key(|flow| flow.standing.turn),
            Fairness::VirtualTokens(_) => {
                contenders.min_by_key(|flow| (flow.standing.counter, flow.head))
            }
            Fairness::ProgramAware(it) => {
                let service = |flow: &Contender<'_>| attained(it, flow.standing, now);
                let wait = |flow: &Contender<'_>| now.saturating_sub(flow.arrived).as_secs_f64();
                let services = Spread::of(contenders.clone().map(|flow| service(&flow)));
                let waits = Spread::of(contenders.clone().map(|flow| wait(&flow)));
                let score = |flow: &Contender<'_>| {
                    it.las_weight_service * (1.0 - services.place(service(flow)))
                        + it.las_weight_head_wait * waits.place(wait(flow))
                };
                let first = contenders.next()?;
                let mut best = (score(&first), first);
                for flow in contenders {
                    let score = score(&flow);
                    if score > best.0 || (score == best.0 && flow.head < best.1.head) {
                        best = (score, flow);
                    }
                }
                Some(best.1)
            }
        }
    }

    /// How long an idle flow is remembered.
    pub(crate) fn keep_idle(&self) -> Duration {
        match &self.fairness {
            Fairness::ProgramAware(it) => span(it.eviction_ttl_seconds),
            _ => KEEP_IDLE,
        }
    }

    /// Time between two looks for idle flows.
    pub(crate) fn sweep_every(&self) -> Duration {
        match &self.fairness {
            Fairness::ProgramAware(it) => span(it.eviction_sweep_seconds),
            _ => SWEEP,
        }
    }

    /// Weighted tokens that a flow was served, with the past fading; `None` under other policies.
    pub(crate) fn attained(&self, standing: &Standing, now: Duration) -> Option<f64> {
        match &self.fairness {
            Fairness::ProgramAware(it) => Some(attained(it, standing, now)),
            _ => None,
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Service as of `now`: half of it fades in each half-life.
fn attained(parameters: &ProgramAwareFairness, standing: &Standing, now: Duration) -> f64 {
    let seconds = now.saturating_sub(standing.attained_at).as_secs_f64();
    let remembered = if parameters.las_half_life_seconds > 0.0 {
        0.5_f64.powf(seconds / parameters.las_half_life_seconds)
    } else {
        parameters.las_decay_factor.powf(seconds)
    };
    standing.attained * remembered
}

/// The least and the most of what flows are compared by.
struct Spread {
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        let (least, most) = values.fold(ends, |(least, most), value| {
            (least.min(value), most.max(value))
        });
        Self { least, most }
    }

    /// From 0 (the least) to 1 (the most); the middle where all are equal.
    fn place(&self, value: f64) -> f64 {
        if self.most > self.least {
            (value - self.least) / (self.most - self.least)
        } else {
            0.5
        }
    }
}

#[cfg(test)]
#[path = "fairness_tests.rs"]
mod tests;

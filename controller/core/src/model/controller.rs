//! The stages in a row for one model, and what is remembered between ticks.

use std::time::Duration;

use super::activity::Activity;
use super::policy::{ModelPolicy, Startup};
use super::ranking::{prices, rank, rerank};
use super::report;
use super::sizing::{ClassLoad, Standing, Stuck, Trace, View, legs, size};
use super::{ModelDecision, ModelSignals, VariantSignals};
use crate::capacities::{Allowance, Book, Care};
use crate::decision::Hold;
use crate::demand::{Demand, Meter};
use crate::forecast::forecast;
use crate::guard::Guard;
use crate::mix::Mix;
use crate::plan::Load;
use crate::policy::Windows;
use crate::shares::{MergedDemand, Silent};
use crate::signals::{Backlog, Totals};
use crate::startup::StartTimes;

/// Turns a model's signals into decisions, one tick after another. Deterministic: the same signals give the same
/// decisions.
#[derive(Clone, Debug)]
pub struct ModelController {
    pub(super) policy: ModelPolicy,
    pub(super) care: Care,
    pub(super) classes: Vec<ClassState>,
    pub(super) variants: Vec<VariantState>,
    /// The variants of each leg, in the order in which they are filled.
    pub(super) legs: Vec<Vec<usize>>,
    pub(super) activity: Activity,
    /// The ledger that demand was metered from last.
    pub(super) ledger: Option<u8>,
    /// When a decision last rested on what was the case.
    pub(super) supported: Option<Duration>,
}

/// What is remembered of one class.
#[derive(Clone, Debug)]
pub(super) struct ClassState {
    pub(super) meter: Meter,
    /// The mix, and the version of the samples that it was made of.
    mix: Option<(u64, Mix)>,
}

/// What is remembered of one variant.
#[derive(Clone, Debug, Default)]
pub(super) struct VariantState {
    pub(super) guard: Guard,
    pub(super) wanted: Option<u32>,
    pub(super) pending_since: Option<Duration>,
    pub(super) starts: StartTimes,
    /// Capacities, by class.
    pub(super) books: Vec<Book>,
}

/// Demand as the stages see it: by class.
pub(crate) struct Seen {
    pub(crate) now: Duration,
    pub(crate) classes: Vec<ClassSeen>,
    pub(crate) in_flight: u64,
    /// Whether anybody tells of demand now.
    pub(crate) heard: bool,
    pub(crate) silent: Vec<Silent>,
    pub(crate) variants: Vec<VariantSignals>,
}

/// One class's demand.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassSeen {
    pub(crate) totals: Totals,
    pub(crate) queued: Backlog,
    pub(crate) mix: Mix,
}

impl ModelController {
    /// Follows `policy`, which is taken as valid (see [`ModelPolicy::validate`]).
    pub fn new(policy: ModelPolicy) -> Self {
        let mut controller = Self {
            policy,
            care: Care::Exact,
            classes: Vec::new(),
            variants: Vec::new(),
            legs: Vec::new(),
            activity: Activity::default(),
            ledger: None,
            supported: None,
        };
        let windows = Windows::of(controller.startup());
        controller.classes = (controller.policy.classes.iter())
            .map(|_| ClassState::new(windows))
            .collect();
        let classes = controller.classes.len();
        controller.variants = (controller.policy.variants.iter())
            .map(|_| VariantState::new(classes))
            .collect();
        controller.legs = by_cost(&controller.policy);
        controller
    }

    /// Computes capacities anew only when the mix has clearly moved: for a controller of many models.
    pub fn thrifty(self) -> Self {
        Self {
            care: Care::Thrifty,
            ..self
        }
    }

    /// The policy followed.
    pub fn policy(&self) -> &ModelPolicy {
        &self.policy
    }

    /// Follows another policy from now on; what was learned of the classes and variants that remain (by name) is kept.
    pub fn replace_policy(&mut self, policy: ModelPolicy) {
        if policy == self.policy {
            return;
        }
        let mut next = Self::new(policy);
        next.adopt(self);
        next.care = self.care;
        *self = next;
    }

    /// Takes over what `other` remembers of the classes and variants that both know by name.
    pub(super) fn adopt(&mut self, other: &Self) {
        let class_of = |name: &str| other.policy.classes.iter().position(|c| c.name == name);
        let classes: Vec<Option<usize>> = (self.policy.classes.iter())
            .map(|class| class_of(&class.name))
            .collect();
        for (state, from) in self.classes.iter_mut().zip(&classes) {
            let known = from.and_then(|from| other.classes.get(from));
            if let Some(known) = known {
                *state = ClassState {
                    mix: None,
                    ..known.clone()
                };
            }
        }
        let known = |name: &str| other.policy.variants.iter().position(|v| v.name == name);
        for (state, variant) in self.variants.iter_mut().zip(&self.policy.variants) {
            let Some(from) = known(&variant.name).and_then(|from| other.variants.get(from)) else {
                continue;
            };
            let books = classes.iter().map(|class| {
                let book = class.and_then(|class| from.books.get(class));
                book.cloned().unwrap_or_default()
            });
            *state = VariantState {
                books: books.collect(),
                ..from.clone()
            };
        }
        let place = |leg: &[usize], index: usize| {
            let name = &self.policy.variants[index].name;
            let before = known(name).and_then(|from| {
                let legs = other.legs.iter();
                legs.flatten().position(|&variant| variant == from)
            });
            (
                before.unwrap_or(usize::MAX),
                leg.iter().position(|&i| i == index),
            )
        };
        for leg in &mut self.legs {
            let by_cost = leg.clone();
            leg.sort_by_key(|&index| place(&by_cost, index));
        }
        (self.activity, self.supported) = (other.activity, other.supported);
        self.ledger = other.ledger;
    }

    /// Decides how many replicas of each variant are wanted now. Call about once a second.
    pub fn tick(&mut self, signals: ModelSignals) -> ModelDecision {
        self.tick_within(signals, &mut Allowance::new(usize::MAX))
    }

    /// The same, computing no more capacities than `allowance` has left: those that would be due are counted by as they
    /// were, and their age is told.
    pub fn tick_within(
        &mut self,
        signals: ModelSignals,
        allowance: &mut Allowance,
    ) -> ModelDecision {
        let seen = self.by_class(signals);
        self.decide(seen, allowance)
    }

    /// Sorts the demand into classes.
    fn by_class(&mut self, signals: ModelSignals) -> Seen {
        let ModelSignals {
            now,
            demand,
            variants,
        } = signals;
        let MergedDemand {
            ledger,
            bands,
            in_flight,
            heard,
            silent,
            arrears,
            samples,
        } = demand;
        if heard > 0
            && self
                .ledger
                .replace(ledger)
                .is_some_and(|before| before != ledger)
        {
            // Another source counts from elsewhere on: the difference is no traffic.
            for state in &mut self.classes {
                state.meter.restart();
            }
        }
        for late in arrears {
            let class = self.policy.class_of(late.priority);
            if let Some(state) = self.classes.get_mut(class) {
                state.meter.backfill(late.since, now, &late.totals);
            }
        }
        let mut classes = vec![ClassSeen::default(); self.classes.len()];
        for band in bands {
            if let Some(class) = classes.get_mut(self.policy.class_of(band.priority)) {
                class.totals += band.totals;
                class.queued += band.queued;
            }
        }
        let version = samples.version();
        let mut whole = None;
        for (index, (state, class)) in self.classes.iter_mut().zip(&mut classes).enumerate() {
            let known = state.mix.as_ref().filter(|(seen, _)| *seen == version);
            class.mix = match known {
                Some((_, mix)) => mix.clone(),
                None => {
                    let own = samples.mix(|priority| self.policy.class_of(priority) == index);
                    let mix = if own.is_empty() {
                        // A class that nothing was served of yet is taken to look like the others.
                        let whole = whole.get_or_insert_with(|| samples.mix(|_| true));
                        whole.clone()
                    } else {
                        own
                    };
                    state.mix = Some((version, mix.clone()));
                    mix
                }
            };
        }
        Seen {
            now,
            classes,
            in_flight,
            heard: heard > 0,
            silent,
            variants,
        }
    }

    /// The stages in a row.
    pub(crate) fn decide(&mut self, mut seen: Seen, allowance: &mut Allowance) -> ModelDecision {
        let now = seen.now;
        seen.variants
            .resize_with(self.variants.len(), VariantSignals::default);
        let stuck = self.note(now, &seen.variants);
        let startup = self.startup();
        let previous: Vec<u32> = (self.variants.iter().zip(&seen.variants))
            .map(|(state, seen)| state.wanted.unwrap_or_else(|| seen.replicas.existing()))
            .collect();
        let demands = self.measure(&seen, startup);
        let loads = self.loads(&seen, &demands, startup);
        let standings = self.standings(&seen, demands.is_some(), startup, allowance);
        self.reorder(&standings, loads.as_deref());
        let waiting = total_queued(&seen.classes);
        let active = seen.heard && {
            let offered = seen
                .classes
                .iter()
                .map(|class| class.totals.offered.requests);
            let present = waiting.requests.saturating_add(seen.in_flight);
            let offered = offered.fold(0, u64::saturating_add);
            let unknown = !seen.silent.is_empty();
            self.activity.observe(now, offered, present, unknown)
        };
        let zero = self.zero(&seen);
        let view = View {
            policy: &self.policy,
            seen: &seen.variants,
            previous: &previous,
            stuck: &stuck,
            standings: &standings,
            legs: &self.legs,
            loads: loads.as_deref(),
            queued: waiting,
            in_flight: seen.in_flight,
            startup,
            trace: self.trace(now, active, zero.is_some(), &previous),
            blind: blind(&seen),
        };
        let sizing = size(&view);
        let unsupported = sizing.unsupported;
        let outcomes = self.conclude(&seen, &previous, &stuck, zero, sizing);
        if unsupported.is_none() || zero.is_some() {
            self.supported = Some(now);
        }
        let evidence = report::evidence(now, self.supported, unsupported);
        report::decision(
            &self.policy,
            seen,
            report::Findings {
                demands,
                loads,
                standings,
                outcomes,
                legs: &self.legs,
                evidence,
            },
        )
    }

    /// Notes what is to be remembered of the replicas; returns those that cannot start.
    fn note(&mut self, now: Duration, seen: &[VariantSignals]) -> Vec<Option<Stuck>> {
        let patience = self.policy.patience;
        let each = self.variants.iter_mut().zip(seen).map(|(state, seen)| {
            seen.became_ready
                .iter()
                .for_each(|&took| state.starts.note(took));
            if seen.replicas.pending == 0 && !seen.quota_refused {
                state.pending_since = None;
                return None;
            }
            let since = now.saturating_sub(*state.pending_since.get_or_insert(now));
            Some(Stuck {
                pods: seen.replicas.pending,
                quota: seen.quota_refused,
                since,
                given_up: seen.quota_refused || since > patience,
            })
        });
        each.collect()
    }

    /// The start-up time of a variant: told, or learned.
    pub(super) fn startup_of(&self, index: usize) -> Duration {
        let Some(variant) = self.policy.variants.get(index) else {
            return Duration::ZERO;
        };
        match variant.startup {
            Startup::Fixed(startup) => startup,
            Startup::Auto { fallback } => {
                let learned = self
                    .variants
                    .get(index)
                    .and_then(|state| state.starts.p90());
                learned.unwrap_or(fallback)
            }
        }
    }

    /// The longest start-up time of all variants: what a forecast must reach.
    fn startup(&self) -> Duration {
        let each = (0..self.policy.variants.len()).map(|index| self.startup_of(index));
        each.max().unwrap_or_default()
    }

    /// The demand of each class; `None` while it is unknown.
    fn measure(&mut self, seen: &Seen, startup: Duration) -> Option<Vec<Demand>> {
        let windows = Windows::of(startup);
        let each = self
            .classes
            .iter_mut()
            .zip(&seen.classes)
            .map(|(state, class)| {
                state.meter.resize(windows);
                if seen.heard {
                    state.meter.observe(seen.now, class.totals);
                }
                state.meter.demand(&class.mix, class.queued)
            });
        each.collect::<Vec<_>>().into_iter().collect()
    }

    fn loads(
        &self,
        seen: &Seen,
        demands: &Option<Vec<Demand>>,
        startup: Duration,
    ) -> Option<Vec<ClassLoad>> {
        let behavior = &self.policy.behavior;
        let each = demands.as_ref()?.iter().zip(&seen.classes);
        Some(
            each.map(|(demand, class)| {
                let forecast = forecast(behavior, startup, demand);
                ClassLoad {
                    forecast,
                    load: Load::new(behavior, startup, &forecast, &class.queued),
                    queued: class.queued,
                }
            })
            .collect(),
        )
    }

    fn reorder(&mut self, standings: &[Standing], loads: Option<&[ClassLoad]>) {
        for leg in &mut self.legs {
            if let Some(prices) =
                loads.and_then(|loads| prices(&self.policy, standings, loads, leg))
            {
                rerank(leg, &prices);
            }
        }
    }

    /// For how long nothing has been asked of a model that is therefore to be at zero.
    fn zero(&self, seen: &Seen) -> Option<Duration> {
        let idle = self.activity.idle(seen.now);
        let known = seen.heard && seen.silent.is_empty();
        (known && self.policy.may_be_zero() && idle >= self.policy.idle).then_some(idle)
    }

    /// Whether one replica is to be there whatever the sizing says, and why.
    fn trace(&self, now: Duration, active: bool, zero: bool, previous: &[u32]) -> Option<Trace> {
        let any = previous.iter().any(|&count| count > 0);
        if !self.policy.may_be_zero() {
            return Some(Trace::Counterpart);
        }
        if zero || !(active || any) {
            return None;
        }
        Some(if any {
            Trace::Idle(self.policy.idle.saturating_sub(self.activity.idle(now)))
        } else {
            Trace::Woken
        })
    }
}

impl ClassState {
    fn new(windows: Windows) -> Self {
        Self {
            meter: Meter::new(windows),
            mix: None,
        }
    }
}

impl VariantState {
    fn new(classes: usize) -> Self {
        Self {
            books: vec![Book::default(); classes],
            ..Self::default()
        }
    }

    /// When the capacity that was computed longest ago was; `None` where one never was.
    pub(super) fn computed(&self) -> Option<Duration> {
        self.books.iter().map(Book::computed).min().flatten()
    }
}

/// The legs, each in the order of cost per hour: all that is known before any capacity is.
fn by_cost(policy: &ModelPolicy) -> Vec<Vec<usize>> {
    let costs: Vec<f64> = (policy.variants.iter())
        .map(|variant| variant.cost_per_hour)
        .collect();
    let ranked = rank(&costs);
    legs(policy)
        .into_iter()
        .map(|leg| {
            ranked
                .iter()
                .copied()
                .filter(|index| leg.contains(index))
                .collect()
        })
        .collect()
}

/// Why demand itself is unknown, if it is.
fn blind(seen: &Seen) -> Option<Hold> {
    if seen.heard {
        None
    } else if seen.silent.is_empty() {
        Some(Hold::NoPicker)
    } else {
        Some(Hold::Silent)
    }
}

fn total_queued(classes: &[ClassSeen]) -> Backlog {
    let mut total = Backlog::default();
    classes.iter().for_each(|class| total += class.queued);
    total
}

#[cfg(test)]
pub(super) mod tests;

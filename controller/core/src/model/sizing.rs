//! How many replicas of each variant the demand makes, before any guard.
//!
//! Variants for whole requests are one leg; where prompts and answers are served by different replicas, prefill and
//! decode are two, and every request passes through both: each leg is sized for all of the demand, by its own target.

use std::time::Duration;

use predictor::State;

use super::budget::exceeded;
use super::policy::{ModelPolicy, Role, VariantPolicy};
use super::signals::VariantSignals;
use crate::capacities::Known;
use crate::capacity::{Binding, Capacity};
use crate::decision::{Basis, Hold, Infeasible, Need, Reason};
use crate::forecast::Forecast;
use crate::plan::{Load, Place, Placed, Worth, backed, place, worth};
use crate::signals::Backlog;

/// Share of requests beyond help that is worth a reason.
const WORTH_TELLING: f64 = 0.005;
/// Replicas' worth of a demand that is none, where one replica is to be kept all the same.
const TRACE: f64 = 1e-6;

/// What is known of a variant's capacity.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// The capacity for each class; `None` while unknown.
    pub(super) known: Option<Vec<Known>>,
    /// Why it cannot be told now: `known` is what it was last.
    pub(super) hold: Option<Hold>,
}

impl Standing {
    fn rates(&self) -> Option<Vec<f64>> {
        let known = self.known.as_ref()?;
        Some(
            known
                .iter()
                .map(|known| known.capacity.requests_per_second)
                .collect(),
        )
    }
}

/// Replicas that cannot start, of one variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stuck {
    pub(super) pods: u32,
    pub(super) quota: bool,
    pub(super) since: Duration,
    /// They have been waited for long enough.
    pub(super) given_up: bool,
}

/// The demand of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassLoad {
    pub(super) forecast: Forecast,
    pub(super) load: Load,
    pub(super) queued: Backlog,
}

/// Why one replica is kept although nothing needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trace {
    /// Something has just arrived.
    Woken,
    /// Nothing arrives, for less than the policy's idle time; what remains of it.
    Idle(Duration),
    /// The model is not to be at zero.
    Counterpart,
}

/// Everything that sizing reads.
pub(super) struct View<'a> {
    pub(super) policy: &'a ModelPolicy,
    pub(super) seen: &'a [VariantSignals],
    pub(super) previous: &'a [u32],
    pub(super) stuck: &'a [Option<Stuck>],
    pub(super) standings: &'a [Standing],
    /// The legs' variants, in the order in which they are filled.
    pub(super) legs: &'a [Vec<usize>],
    /// By class; `None` while demand is unknown.
    pub(super) loads: Option<&'a [ClassLoad]>,
    /// Whatever waits, and what is on the replicas.
    pub(super) queued: Backlog,
    pub(super) in_flight: u64,
    /// The start-up time counted with.
    pub(super) startup: Duration,
    pub(super) trace: Option<Trace>,
    /// Demand itself is unknown.
    pub(super) blind: Option<Hold>,
}

/// What one variant should have.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) count: u32,
    /// Fewer than this may be too few.
    pub(super) relaxed: u32,
    pub(super) lower: u32,
    pub(super) upper: u32,
    pub(super) basis: Option<Basis>,
    pub(super) reasons: Vec<Reason>,
}

/// What all variants should have.
pub(super) struct Sizing {
    pub(super) wanted: Vec<Wanted>,
    pub(super) reasons: Vec<Reason>,
    /// Why a leg could not be sized and what is the case now does not support its count either.
    pub(super) unsupported: Option<Hold>,
}

/// The variants of each leg, in the policy's order.
pub(super) fn legs(policy: &ModelPolicy) -> Vec<Vec<usize>> {
    let of = |role: Role| -> Vec<usize> {
        let variants = policy.variants.iter().enumerate();
        variants
            .filter(|(_, variant)| variant.role == role)
            .map(|(index, _)| index)
            .collect()
    };
    [Role::Both, Role::Prefill, Role::Decode]
        .map(of)
        .into_iter()
        .filter(|leg| !leg.is_empty())
        .collect()
}

/// Sizes every leg.
pub(super) fn size(view: &View<'_>) -> Sizing {
    let plans: Vec<Option<LegPlan>> = view
        .legs
        .iter()
        .map(|leg| LegPlan::new(view, leg))
        .collect();
    let share = affordable_share(view, &plans);
    let mut sizing = Sizing {
        wanted: vec![Wanted::default(); view.policy.variants.len()],
        reasons: Vec::new(),
        unsupported: None,
    };
    for (leg, plan) in view.legs.iter().zip(&plans) {
        match plan {
            Some(plan) => plan.size(view, share, &mut sizing),
            None => hold(view, leg, &mut sizing),
        }
    }
    sizing
}

/// The share of the demand, at most all of it, that the budgets let every leg serve alike.
fn affordable_share(view: &View<'_>, plans: &[Option<LegPlan>]) -> f64 {
    let fits = |share: f64| {
        let mut counts = view.previous.to_vec();
        for plan in plans.iter().flatten() {
            for (&index, placed) in plan.leg.iter().zip(place(share, &plan.want)) {
                counts[index] = bounded(&view.policy.variants[index], placed.count);
            }
        }
        exceeded(view.policy, &counts).is_none()
    };
    if fits(1.0) {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..30 {
        let middle = (low + high) / 2.0;
        if fits(middle) {
            low = middle
        } else {
            high = middle
        }
    }
    low
}

fn bounded(variant: &VariantPolicy, count: u32) -> u32 {
    count.clamp(variant.min, variant.max.max(variant.min))
}

/// A leg whose demand and capacity are known.
struct LegPlan {
    leg: Vec<usize>,
    /// By position in the leg: what all the demand is worth, and the variant whose capacity that is.
    worths: Vec<(Worth, usize)>,
    want: Vec<Place>,
    /// Nothing is needed but a trace of demand is kept up.
    traced: bool,
}

impl LegPlan {
    /// `None` when the leg cannot be sized.
    fn new(view: &View<'_>, leg: &[usize]) -> Option<Self> {
        let loads = view.loads.filter(|_| view.blind.is_none())?;
        let current = |&index: &usize| {
            let standing = &view.standings[index];
            standing.hold.is_none() && standing.known.is_some()
        };
        if !leg.iter().any(current) {
            return None;
        }
        let loads: Vec<Load> = loads.iter().map(|class| class.load).collect();
        let behavior = &view.policy.behavior;
        let own = |index: usize| {
            let rates = view.standings[index].rates()?;
            Some((worth(behavior, &loads, &rates), index))
        };
        // A variant that has never served is counted like the weakest of those that have.
        let weakest = leg.iter().filter_map(|&index| own(index));
        let weakest = weakest.reduce(|a, b| if b.0.needed > a.0.needed { b } else { a })?;
        let mut worths: Vec<(Worth, usize)> = leg
            .iter()
            .map(|&index| own(index).unwrap_or(weakest))
            .collect();
        let stands = leg.iter().any(|&index| view.policy.variants[index].min > 0);
        let traced = view.trace.is_some() && !stands && weakest.0.needed < TRACE;
        if view.trace.is_some() && !stands {
            for (worth, _) in &mut worths {
                worth.needed = worth.needed.max(TRACE);
                worth.relaxed = worth.relaxed.max(TRACE);
            }
        }
        let mut plan = Self {
            leg: leg.to_vec(),
            worths,
            want: Vec::new(),
            traced,
        };
        plan.want = plan.places(view, |worth| worth.needed, Pending::CarriesNothing);
        Some(plan)
    }

    fn places(&self, view: &View<'_>, of: fn(&Worth) -> f64, pending: Pending) -> Vec<Place> {
        let members = self.leg.iter().zip(&self.worths);
        let place = |(&index, (worth, _)): (&usize, &(Worth, usize))| {
            let (variant, replicas) = (&view.policy.variants[index], view.seen[index].replicas);
            let given_up = view.stuck[index].is_some_and(|stuck| stuck.given_up);
            let (max, room) = match pending {
                Pending::CarriesNothing if given_up => {
                    (variant.max.min(replicas.existing()), replicas.supply())
                }
                Pending::CarriesNothing | Pending::WillStart => (variant.max, u32::MAX),
                Pending::OnlyReadyCarries => (variant.max, replicas.ready),
            };
            Place {
                worth: of(worth),
                min: variant.min,
                max,
                room,
            }
        };
        members.map(place).collect()
    }

    fn size(&self, view: &View<'_>, share: f64, sizing: &mut Sizing) {
        let want = place(share, &self.want);
        let all = place(1.0, &self.want);
        let level = place(
            1.0,
            &self.places(view, |worth| worth.level, Pending::WillStart),
        );
        let relaxed = self.places(view, |worth| worth.relaxed, Pending::OnlyReadyCarries);
        // Where a budget binds, what one leg keeps for comfort is what the other lacks.
        let relaxed = if share < 1.0 {
            want.clone()
        } else {
            place(1.0, &relaxed)
        };
        for (at, &index) in self.leg.iter().enumerate() {
            let variant = &view.policy.variants[index];
            let mut reasons = self.reasons(view, at, &want[at]);
            let mut count = want[at].count;
            let most = relaxed[at].count.min(variant.max);
            if most > count && self.costlier_is_left(view, at, &want) {
                reasons.push(Reason::TakesOver);
                count = most;
            }
            let unbounded = bounded(variant, all[at].count);
            if bounded(variant, count) < unbounded
                && let Some(budget) = over_budget(view, index, unbounded)
            {
                let wanted = unbounded;
                reasons.push(Reason::Budget { wanted, budget });
            }
            let upper = bounded(variant, relaxed[at].count.max(count));
            let infeasible = |known: &Known| known.capacity.infeasible;
            let known = view.standings[index].known.as_deref().unwrap_or_default();
            sizing.wanted[index] = Wanted {
                count,
                relaxed: relaxed[at].count,
                lower: bounded(variant, level[at].count).min(upper),
                upper,
                basis: Some(if known.iter().any(infeasible) {
                    Basis::Utilization
                } else {
                    Basis::Slo
                }),
                reasons,
            };
        }
        self.moved(view, &want, sizing);
    }

    /// Whether replicas of a variant further on are only there until this one has taken over.
    fn costlier_is_left(&self, view: &View<'_>, at: usize, want: &[Placed]) -> bool {
        let index = self.leg[at];
        let stuck = view.stuck[index].is_some_and(|stuck| stuck.given_up);
        let mut further = self.leg.iter().zip(want).skip(at + 1);
        !stuck
            && further.any(|(&later, placed)| {
                view.previous[later] > bounded(&view.policy.variants[later], placed.count)
            })
    }

    /// Tells which variants stand in for replicas that cannot start.
    fn moved(&self, view: &View<'_>, want: &[Placed], sizing: &mut Sizing) {
        let stuck = |&index: &usize| {
            let stuck = view.stuck[index].filter(|stuck| stuck.given_up)?;
            Some((index, stuck))
        };
        let Some((from, stuck)) = self.leg.iter().find_map(stuck) else {
            return;
        };
        let free = place(
            1.0,
            &self.places(view, |worth| worth.needed, Pending::WillStart),
        );
        for (at, &index) in self.leg.iter().enumerate() {
            let variant = &view.policy.variants[index];
            let with = bounded(variant, want[at].count);
            let more = with.saturating_sub(bounded(variant, free[at].count));
            if index != from && more > 0 {
                sizing.reasons.push(Reason::Moved {
                    from: view.policy.variants[from].name.clone(),
                    pods: stuck.pods,
                    quota: stuck.quota,
                    to: variant.name.clone(),
                    replicas: more,
                });
            }
        }
    }

    fn reasons(&self, view: &View<'_>, at: usize, placed: &Placed) -> Vec<Reason> {
        let index = self.leg[at];
        let source = self.worths[at].1;
        let mut reasons = Vec::new();
        let known = view.standings[source].known.as_deref().unwrap_or_default();
        let classes = &view.policy.classes;
        if placed.share > 0.0 {
            let loads = view.loads.unwrap_or_default();
            for ((class, load), known) in classes.iter().zip(loads).zip(known) {
                let each = class_reasons(
                    view,
                    load,
                    &known.capacity,
                    placed,
                    class.slo.percentile,
                    classes.len(),
                );
                reasons.extend(each.into_iter().map(|because| match classes.len() {
                    1 => because,
                    _ => Reason::Class {
                        class: class.name.clone(),
                        because: Box::new(because),
                    },
                }));
            }
            let any = |of: fn(&Capacity) -> bool| known.iter().any(|known| of(&known.capacity));
            reasons.extend(any(|capacity| capacity.extrapolated).then_some(Reason::Extrapolated));
            let warming = any(|capacity| capacity.confidence == State::Warming);
            reasons.extend(warming.then_some(Reason::Warming));
        }
        if at > 0 && placed.share < 1.0 {
            let share = placed.share;
            reasons.push(Reason::Remaining { share });
        }
        if source != index {
            let variant = view.policy.variants[source].name.clone();
            reasons.push(Reason::CountedLike { variant });
        } else if view.standings[index].hold.is_some() {
            let ages = known.iter().map(|known| known.age);
            let age = ages.max().unwrap_or_default();
            reasons.push(Reason::LastKnown { age });
        }
        if self.traced && placed.count > 0 {
            reasons.extend(view.trace.map(Trace::reason));
        }
        reasons
    }
}

/// What replicas that are not ready are worth to a plan.
#[derive(Clone, Copy)]
enum Pending {
    /// Those given up carry nothing, and no more are asked for; the others will.
    CarriesNothing,
    /// All will start.
    WillStart,
    /// Only ready replicas carry: what they do not, must not be removed elsewhere.
    OnlyReadyCarries,
}

impl Trace {
    fn reason(self) -> Reason {
        match self {
            Self::Woken => Reason::Woken,
            Self::Idle(remaining) => Reason::Idle { remaining },
            Self::Counterpart => Reason::Counterpart,
        }
    }
}

fn over_budget(view: &View<'_>, index: usize, wanted: u32) -> Option<crate::decision::Budget> {
    let mut counts = view.previous.to_vec();
    counts[index] = wanted;
    exceeded(view.policy, &counts)
}

/// What the forecast of one class makes of its capacity.
fn class_reasons(
    view: &View<'_>,
    class: &ClassLoad,
    capacity: &Capacity,
    placed: &Placed,
    percentile: f32,
    classes: usize,
) -> Vec<Reason> {
    let (load, behavior) = (&class.load, &view.policy.behavior);
    // Of one class, the variant's whole need; of several, each one's part in it.
    let needed = if classes == 1 {
        placed.needed
    } else {
        placed.share * (load.upper + load.backlog) / capacity.requests_per_second
    };
    let mut reasons = vec![Reason::Forecast(Need {
        rate: class.forecast.upper,
        horizon: class.forecast.horizon,
        needed,
        per_replica: capacity.requests_per_second,
        binding: capacity.binding,
        percentile,
    })];
    if load.backlog > 0.0 {
        reasons.push(Reason::Backlog {
            requests: class.queued.requests,
            rate: load.backlog,
            drain: behavior.drain(view.startup),
        });
    }
    let (target, reachable) = if capacity.reachable.ttft <= capacity.reachable.tpot {
        (Binding::Ttft, capacity.reachable.ttft)
    } else {
        (Binding::Tpot, capacity.reachable.tpot)
    };
    if capacity.infeasible {
        let utilization = behavior.utilization_fallback;
        reasons.push(Reason::Infeasible(Infeasible {
            target,
            reachable,
            percentile,
            utilization,
        }));
    } else if reachable < 1.0 - WORTH_TELLING {
        let share = 1.0 - reachable;
        reasons.push(Reason::Incurable { share });
    }
    reasons
}

/// Keeps a leg that cannot be sized as it is, but for what the backlog or an arrival is worth.
fn hold(view: &View<'_>, leg: &[usize], sizing: &mut Sizing) {
    let (policy, previous) = (view.policy, view.previous);
    // A variant that has replicas tells best why.
    let telling = leg
        .iter()
        .copied()
        .max_by_key(|&index| (previous[index] > 0, std::cmp::Reverse(index)));
    let told = telling.and_then(|index| view.standings[index].hold);
    let because = view.blind.or(told).unwrap_or(Hold::Unbounded);
    let given_up = |index: usize| view.stuck[index].is_some_and(|stuck| stuck.given_up);
    let carrying = |index: usize| {
        if given_up(index) {
            previous[index].min(view.seen[index].replicas.supply())
        } else {
            previous[index]
        }
    };
    let sum = |of: &dyn Fn(usize) -> u32| {
        leg.iter()
            .fold(0_u32, |sum, &index| sum.saturating_add(of(index)))
    };
    let (held, ready) = (
        sum(&carrying),
        sum(&|index| view.seen[index].replicas.ready),
    );
    let backed = backed(&policy.behavior, &view.queued, view.in_flight, ready);
    let stands = leg.iter().any(|&index| policy.variants[index].min > 0);
    let kept = u32::from(view.trace.is_some() && !stands);
    let mut extra = backed.max(kept).saturating_sub(held);
    let woken = extra > 0 && held == 0 && backed <= kept;
    for (at, &index) in leg.iter().enumerate() {
        let variant = &policy.variants[index];
        let last = at + 1 == leg.len();
        let room = variant.max.saturating_sub(previous[index]);
        let more = match (given_up(index), last) {
            (true, false) => 0,
            (false, false) => extra.min(room),
            (_, true) => extra,
        };
        extra -= more;
        let count = previous[index].max(carrying(index).saturating_add(more));
        let mut reasons = vec![Reason::Held { because }];
        if count > previous[index] && woken {
            reasons.push(Reason::Woken);
        } else if count > previous[index] {
            reasons.push(Reason::HeldBacklog {
                requests: view.queued.requests,
                in_flight: view.in_flight,
            });
        }
        sizing.wanted[index] = Wanted {
            count,
            relaxed: count,
            lower: count,
            upper: count,
            basis: Some(Basis::Held),
            reasons,
        };
    }
    // A backlog, or an arrival, that is worth as much now supports the count; the count itself does not.
    let waiting = view.queued.requests > 0 || kept > 0;
    let nothing = held == 0 && kept == 0 && view.blind.is_none();
    let supported = (waiting && backed.max(kept) >= held) || nothing;
    if !supported || view.blind.is_some() {
        sizing.unsupported = sizing.unsupported.or(Some(because));
    }
}

//! The stages in a row, and what is remembered between ticks.

use std::collections::VecDeque;
use std::time::Duration;

use predictor::State;

use crate::capacity::{self, Binding, Capacity};
use crate::decision::{Basis, Decision, Hold, Infeasible, Need, Reason};
use crate::demand::{Demand, Meter};
use crate::forecast::{Forecast, forecast};
use crate::guard::Guard;
use crate::plan::{Load, ceil, hold, worth};
use crate::capacity::Terms;
use crate::guard::Bounds;
use crate::policy::{Policy, Windows};
use crate::signals::Signals;

/// A capacity is computed anew when the model was refitted, and at least this often, since the mix moves too.
const CAPACITY_AGE: Duration = Duration::from_secs(5);
/// Share of requests beyond help that is worth a reason.
const WORTH_TELLING: f64 = 0.005;

/// Turns signals into decisions, one tick after another. Deterministic: the same signals give the same decisions.
#[derive(Clone, Debug)]
pub struct Controller {
    policy: Policy,
    meter: Meter,
    guard: Guard,
    wanted: Option<u32>,
    /// The capacities computed lately, oldest first.
    capacities: VecDeque<Computed>,
}

#[derive(Clone, Copy, Debug)]
struct Computed {
    at: Duration,
    version: u64,
    capacity: Capacity,
}

impl Controller {
    /// Follows `policy`, which is taken as valid (see [`Policy::validate`]).
    pub fn new(policy: Policy) -> Self {
        let meter = Meter::new(Windows::of(policy.startup));
        Self {
            policy,
            meter,
            guard: Guard::default(),
            wanted: None,
            capacities: VecDeque::new(),
        }
    }

    /// The policy followed.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides how many replicas are wanted now. Call about once a second, with `now` never going back.
    pub fn tick(&mut self, signals: Signals) -> Decision {
        let policy = &self.policy;
        let previous = self.wanted.unwrap_or_else(|| signals.replicas.supply());
        self.meter.observe(signals.now, signals.demand);
        let demand = self.meter.demand(&signals.mix, signals.queued);
        let forecast = demand.as_ref().map(|demand| forecast(&policy.behavior(), policy.startup, demand));
        let sizable = sizable(&signals, demand.is_some());
        let capacity = match sizable {
            Ok(()) => self.capacity(&signals),
            Err(_) => None,
        };

        let sized = match (sizable, forecast.as_ref(), capacity.as_ref()) {
            (Ok(()), Some(forecast), Some(capacity)) => self.size(&signals, forecast, capacity),
            (hold, ..) => self.hold(&signals, previous, hold.err().unwrap_or(Hold::Unbounded)),
        };
        let Sized {
            count,
            relaxed,
            basis,
            mut reasons,
        } = sized;
        let (replicas, guarded) =
            self.guard
                .apply(&Bounds::new(self.policy.min, self.policy.max, self.policy.startup, &self.policy.behavior()), signals.now, previous, count, relaxed);
        reasons.extend(guarded.map(Reason::Guard));
        self.wanted = Some(replicas);
        let headroom = capacity
            .zip(demand)
            .map(|(capacity, demand): (Capacity, Demand)| {
                capacity.requests_per_second * f64::from(signals.replicas.ready)
                    - demand.offered.requests
            });
        Decision {
            at: signals.now,
            replicas,
            previous,
            basis,
            supply: signals.replicas,
            demand,
            forecast,
            capacity,
            headroom,
            reasons,
            guarded,
        }
    }

    fn size(&self, signals: &Signals, forecast: &Forecast, capacity: &Capacity) -> Sized {
        let policy = &self.policy;
        let behavior = policy.behavior();
        let load = Load::new(&behavior, policy.startup, forecast, &signals.queued);
        let worth = worth(&behavior, &[load], &[capacity.requests_per_second]);
        let mut reasons = vec![Reason::Forecast(Need {
            rate: forecast.upper,
            horizon: forecast.horizon,
            needed: worth.needed,
            per_replica: capacity.requests_per_second,
            binding: capacity.binding,
            percentile: policy.slo.percentile,
        })];
        if load.backlog > 0.0 {
            reasons.push(Reason::Backlog {
                requests: signals.queued.requests,
                rate: load.backlog,
                drain: policy.behavior().drain(policy.startup),
            });
        }
        let (target, reachable) = if capacity.reachable.ttft <= capacity.reachable.tpot {
            (Binding::Ttft, capacity.reachable.ttft)
        } else {
            (Binding::Tpot, capacity.reachable.tpot)
        };
        if capacity.infeasible {
            let (percentile, utilization) = (policy.slo.percentile, policy.utilization_fallback);
            reasons.push(Reason::Infeasible(Infeasible {
                target,
                reachable,
                percentile,
                utilization,
            }));
        } else if reachable < 1.0 - WORTH_TELLING {
            reasons.push(Reason::Incurable {
                share: 1.0 - reachable,
            });
        }
        if capacity.extrapolated {
            reasons.push(Reason::Extrapolated);
        }
        if capacity.confidence == State::Warming {
            reasons.push(Reason::Warming);
        }
        let basis = if capacity.infeasible {
            Basis::Utilization
        } else {
            Basis::Slo
        };
        Sized {
            count: ceil(worth.needed),
            relaxed: ceil(worth.relaxed),
            basis,
            reasons,
        }
    }

    fn hold(&self, signals: &Signals, previous: u32, because: Hold) -> Sized {
        let held = hold(
            &self.policy.behavior(),
            previous,
            &signals.queued,
            signals.in_flight,
            signals.replicas.ready,
        );
        let mut reasons = vec![Reason::Held { because }];
        if held > previous {
            reasons.push(Reason::HeldBacklog {
                requests: signals.queued.requests,
                in_flight: signals.in_flight,
            });
        }
        Sized {
            count: held,
            relaxed: held,
            basis: Basis::Held,
            reasons,
        }
    }

    /// The median of the capacities computed lately; `None` = the newest is not known.
    ///
    /// What a replica can do changes as slowly as the mix; what a model refitted on a few new rows says of it jumps.
    fn capacity(&mut self, signals: &Signals) -> Option<Capacity> {
        let version = signals.model.version();
        let good = |computed: &Computed| {
            computed.version == version && signals.now < computed.at + CAPACITY_AGE
        };
        if !self.capacities.back().is_some_and(good) {
            let capacity = capacity::capacity(
                &*signals.model,
                &signals.mix,
                &Terms::new(self.policy.slo, &self.policy.behavior()),
                signals.kv_tokens,
            );
            let Some(capacity) = capacity else {
                self.capacities.clear();
                return None;
            };
            let oldest = signals.now.saturating_sub(Windows::of(self.policy.startup).slow / 2);
            self.capacities.retain(|computed| computed.at > oldest);
            self.capacities.push_back(Computed {
                at: signals.now,
                version,
                capacity,
            });
        }
        let mut lately: Vec<Capacity> = self
            .capacities
            .iter()
            .map(|computed| computed.capacity)
            .collect();
        lately.sort_by(|a, b| a.requests_per_second.total_cmp(&b.requests_per_second));
        lately.get(lately.len() / 2).copied()
    }
}

struct Sized {
    count: u32,
    relaxed: u32,
    basis: Basis,
    reasons: Vec<Reason>,
}

/// Whether the signals allow sizing at all.
fn sizable(signals: &Signals, demand_known: bool) -> Result<(), Hold> {
    match signals.model.state() {
        State::Prior => Err(Hold::Prior),
        State::Stale => Err(Hold::Stale),
        State::Warming | State::Trained if !demand_known => Err(Hold::NoDemand),
        State::Warming | State::Trained if signals.mix.is_empty() => Err(Hold::NoMix),
        State::Warming | State::Trained => Ok(()),
    }
}

#[cfg(test)]
mod tests;

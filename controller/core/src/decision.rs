//! The count and, in sentences, why.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capacity::{Binding, Capacity};
use crate::demand::Demand;
use crate::forecast::Forecast;
use crate::guard::Guarded;
use crate::policy::seconds;
use crate::signals::Replicas;

/// Why the count could not be computed and is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// The model has seen too few answers to size by.
    Prior,
    /// The model no longer describes what is seen.
    Stale,
    /// Demand has not been watched for long enough.
    NoDemand,
    /// No request has been seen whose shape could be sized for.
    NoMix,
    /// The model's predictions carry no bound.
    Unbounded,
    /// No latency model is known.
    NoModel,
    /// A capacity has not been computed yet; its turn comes.
    AwaitingCapacity,
    /// No endpoint picker tells of demand.
    NoPicker,
    /// Every endpoint picker is silent.
    Silent,
}

/// How the count came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// Sized so that the SLO is met.
    Slo,
    /// The SLO is infeasible on one idle replica: sized for utilisation.
    Utilization,
    /// Held.
    Held,
}

impl Basis {
    /// As written in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slo => "slo",
            Self::Utilization => "utilization",
            Self::Held => "held",
        }
    }

    /// Every basis.
    pub const ALL: [Self; 3] = [Self::Slo, Self::Utilization, Self::Held];
}

/// What the forecast makes of the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// Requests/s that replicas are counted for.
    pub rate: f64,
    /// How far ahead.
    #[serde(rename = "horizonSeconds", with = "seconds")]
    pub horizon: Duration,
    /// Replicas' worth of it and of the backlog, not rounded.
    pub needed: f64,
    /// Requests/s per replica.
    pub per_replica: f64,
    /// What binds a replica.
    pub binding: Binding,
    /// The SLO's percentile, 0 to 1.
    pub percentile: f32,
}

/// An SLO that one idle replica misses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Infeasible {
    /// TTFT or TPOT.
    pub target: Binding,
    /// Share of the requests that an idle replica serves in time.
    pub reachable: f64,
    /// Share that the SLO asks for.
    pub percentile: f32,
    /// Utilisation sized for instead.
    pub utilization: f64,
}

/// What all variants of a model together may take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Budget {
    /// So many GPUs.
    Gpus(u32),
    /// So much per hour.
    Cost(f64),
}

/// One of the reasons for a count, in the order in which they took effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Reason {
    /// Forecast over capacity.
    Forecast(Need),
    /// The queue adds to the forecast.
    Backlog {
        /// Waiting requests.
        requests: u64,
        /// Requests/s added to work them off.
        rate: f64,
        /// In this time.
        #[serde(rename = "drainSeconds", with = "seconds")]
        drain: Duration,
    },
    /// One idle replica misses the SLO.
    Infeasible(Infeasible),
    /// Some requests miss the SLO at any count; the rest is sized for.
    Incurable {
        /// Share of the requests.
        share: f64,
    },
    /// The predicted state lies outside of what the model was trained on.
    Extrapolated,
    /// The model is young: its analytic part alone was used.
    Warming,
    /// The count is held.
    Held {
        /// Why.
        because: Hold,
    },
    /// The queue raises a held count.
    HeldBacklog {
        /// Waiting requests.
        requests: u64,
        /// Requests on the replicas.
        in_flight: u64,
    },
    /// A guard changed the count.
    Guard(Guarded),
    /// Of the requests of one class, where there are several.
    Class {
        /// The class.
        class: String,
        /// What holds for it.
        because: Box<Reason>,
    },
    /// Cheaper variants cannot take all of the demand.
    Remaining {
        /// Share of it left to this one, 0 to 1.
        share: f64,
    },
    /// The variant's own capacity is not known yet.
    CountedLike {
        /// The variant whose capacity is taken instead.
        variant: String,
    },
    /// The variant's model cannot be used now; its capacity is the one computed last.
    LastKnown {
        /// How long ago.
        #[serde(rename = "ageSeconds", with = "seconds")]
        age: Duration,
    },
    /// More replicas of this variant are to take over from costlier ones.
    TakesOver,
    /// Replicas that exist on paper only.
    Pending {
        /// How many.
        pods: u32,
        /// A quota refuses them; else there is no room for them.
        quota: bool,
        /// For how long some have been pending.
        #[serde(rename = "forSeconds", with = "seconds")]
        since: Duration,
    },
    /// What pending replicas of one variant were to serve goes to another.
    Moved {
        /// The variant that cannot grow.
        from: String,
        /// Its pending replicas.
        pods: u32,
        /// A quota refuses them; else there is no room for them.
        quota: bool,
        /// The variant that takes over.
        to: String,
        /// Its replicas that stand in.
        replicas: u32,
    },
    /// A budget allows fewer.
    Budget {
        /// Replicas wanted of this variant.
        wanted: u32,
        /// The budget.
        budget: Budget,
    },
    /// Some endpoint pickers are silent: nothing is taken away while their demand is unknown.
    Silent {
        /// Their number.
        pickers: u32,
        /// The longest silence.
        #[serde(rename = "forSeconds", with = "seconds")]
        unheard: Duration,
    },
    /// Something arrived at a model without replicas.
    Woken,
    /// Nothing arrives, but not for long enough to go to zero.
    Idle {
        /// Until zero, if nothing arrives.
        #[serde(rename = "remainingSeconds", with = "seconds")]
        remaining: Duration,
    },
    /// Nothing has arrived for long enough.
    Zero {
        /// For how long.
        #[serde(rename = "forSeconds", with = "seconds")]
        idle: Duration,
    },
    /// The other role of the model has replicas: this one keeps one too.
    Counterpart,
    /// The autoscaler that carries the count out would ignore this step.
    DeadBand {
        /// The count wanted.
        wanted: u32,
    },
}

/// What the controller wants, what it saw, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When, since the clock's epoch.
    #[serde(rename = "atSeconds", with = "seconds")]
    pub at: Duration,
    /// Replicas wanted from now on.
    pub replicas: u32,
    /// Replicas wanted until now.
    pub previous: u32,
    /// How the count came about.
    pub basis: Basis,
    /// Replicas that exist.
    pub supply: Replicas,
    /// Demand; `None` while unknown.
    pub demand: Option<Demand>,
    /// Forecast; `None` while demand is unknown.
    pub forecast: Option<Forecast>,
    /// Capacity of one replica; `None` while unknown.
    pub capacity: Option<Capacity>,
    /// Requests/s that the ready replicas could take beyond the offered ones (negative: too many are offered);
    /// `None` while capacity or demand is unknown.
    pub headroom: Option<f64>,
    /// Why, in the order in which the reasons took effect.
    pub reasons: Vec<Reason>,
    /// The guard that changed the count, if one did; also the last of `reasons`.
    pub guarded: Option<Guarded>,
}

impl Decision {
    /// What exists stays, for a policy without any variant to decide on.
    pub(crate) fn unchanged(at: Duration, supply: Replicas) -> Self {
        Self {
            at,
            replicas: supply.supply(),
            previous: supply.supply(),
            basis: Basis::Held,
            supply,
            demand: None,
            forecast: None,
            capacity: None,
            headroom: None,
            reasons: Vec::new(),
            guarded: None,
        }
    }

    /// Whether the count changes.
    pub fn changes(&self) -> bool {
        self.replicas != self.previous
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes() {
            write!(f, "{} → {}: ", self.previous, self.replicas)?;
        } else {
            write!(f, "stay at {}: ", self.replicas)?;
        }
        for (index, reason) in self.reasons.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            reason.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forecast(need) => need.fmt(f),
            Self::Backlog {
                requests,
                rate,
                drain,
            } => {
                let drain = Span(*drain);
                write!(
                    f,
                    "{requests} queued add {rate:.1} req/s to be worked off in {drain}"
                )
            }
            Self::Infeasible(infeasible) => infeasible.fmt(f),
            Self::Incurable { share } => {
                let share = Percent(*share);
                write!(
                    f,
                    "{share}% of the requests miss the SLO even on an idle replica "
                )?;
                f.write_str("and are not sized for")
            }
            Self::Extrapolated => {
                f.write_str("capacity is extrapolated beyond the load seen so far")
            }
            Self::Warming => f.write_str("the latency model is warming up"),
            Self::Held { because } => write!(f, "held: {because}"),
            Self::HeldBacklog {
                requests,
                in_flight,
            } => {
                write!(
                    f,
                    "raised by the backlog: {requests} queued beside {in_flight} in flight"
                )
            }
            Self::Guard(guarded) => guarded.fmt(f),
            Self::Class { class, because } => write!(f, "{class}: {because}"),
            _ => self.fmt_placement(f),
        }
    }
}

impl Reason {
    /// The reasons that only a model with several variants, or one that may be at zero, has.
    fn fmt_placement(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remaining { share } => {
                let share = Percent(*share);
                write!(f, "cheaper variants leave {share}% of the demand")
            }
            Self::CountedLike { variant } => {
                write!(
                    f,
                    "its own capacity is not known yet: counted like {variant}"
                )
            }
            Self::LastKnown { age } => write!(f, "its capacity is that of {} ago", Span(*age)),
            Self::TakesOver => f.write_str("takes over from costlier variants"),
            Self::Pending { pods, quota, since } => {
                write!(f, "{} for {}", Stuck(*pods, *quota), Span(*since))
            }
            Self::Moved {
                from,
                pods,
                quota,
                to,
                replicas,
            } => write!(
                f,
                "{from}: {}; {replicas} more on {to}",
                Stuck(*pods, *quota)
            ),
            Self::Budget { wanted, budget } => match budget {
                Budget::Gpus(gpus) => write!(f, "{wanted} wanted; the budget is {gpus} GPUs"),
                Budget::Cost(cost) => write!(f, "{wanted} wanted; the budget is {cost} per hour"),
            },
            Self::Silent { pickers, unheard } => {
                let (plural, unheard) = (if *pickers == 1 { "" } else { "s" }, Span(*unheard));
                write!(
                    f,
                    "{pickers} endpoint picker{plural} silent for {unheard}: "
                )?;
                f.write_str("what arrives there is unknown, so nothing is removed")
            }
            Self::Woken => f.write_str("woken by demand"),
            Self::Idle { remaining } => {
                let remaining = Span(*remaining);
                write!(
                    f,
                    "no demand; none is needed after another {remaining} of it"
                )
            }
            Self::Zero { idle } => write!(f, "no demand for {}", Span(*idle)),
            Self::Counterpart => f.write_str("one at least beside the other role"),
            Self::DeadBand { wanted } => {
                write!(f, "{wanted} wanted; the autoscaler ignores so small a step")
            }
            _ => Ok(()),
        }
    }
}

/// Replicas that cannot start, and why.
struct Stuck(u32, bool);

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(pods, quota) = *self;
        let plural = if pods == 1 { "" } else { "s" };
        if quota {
            write!(f, "{pods} pod{plural} refused by a quota")
        } else {
            write!(f, "{pods} pod{plural} pending: no room")
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rate,
            needed,
            per_replica,
            binding,
            ..
        } = self;
        let horizon = Span(self.horizon);
        write!(
            f,
            "forecast {rate:.1} req/s at +{horizon} needs {needed:.1} replicas "
        )?;
        write!(f, "at {per_replica:.2} req/s each ({binding}")?;
        if matches!(binding, Binding::Ttft | Binding::Tpot) {
            write!(f, " p{}", Percent(f64::from(self.percentile)))?;
        }
        f.write_str(" binds)")
    }
}

impl fmt::Display for Infeasible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percentile, reachable) =
            (Percent(f64::from(self.percentile)), Percent(self.reachable));
        let (target, utilization) = (self.target, Percent(self.utilization));
        write!(
            f,
            "{target} p{percentile} is infeasible: an idle replica serves only "
        )?;
        write!(
            f,
            "{reachable}% of the requests in time; sized for {utilization}% utilisation"
        )
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prior => "the latency model has seen too few answers",
            Self::Stale => "the latency model is stale",
            Self::NoDemand => "demand has not been watched for long enough",
            Self::NoMix => "no request has been seen yet",
            Self::Unbounded => "the latency model's predictions carry no bound",
            Self::NoModel => "no endpoint picker has told of a latency model yet (it learns one where its configuration has a predicted-latency-producer)",
            Self::AwaitingCapacity => "the capacity has not been computed yet",
            Self::NoPicker => "no endpoint picker tells of demand",
            Self::Silent => "every endpoint picker is silent",
        })
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::StepUp { wanted, allowed } => {
                write!(
                    f,
                    "{wanted} wanted, at most {allowed} until those started last are ready"
                )
            }
            Self::ScaleDown { wanted, remaining } => {
                write!(
                    f,
                    "{wanted} would do; more were needed lately, fewer in {} at the earliest",
                    Span(remaining)
                )
            }
            Self::StepDown { wanted, allowed } => {
                write!(
                    f,
                    "{wanted} would do; at least {allowed} so that the count no more than halves within the guard time"
                )
            }
            Self::Minimum { wanted } => write!(f, "{wanted} would do; the policy's minimum holds"),
            Self::Maximum { wanted } => write!(f, "{wanted} wanted; the policy's maximum holds"),
        }
    }
}

/// Seconds without needless decimals.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0.as_secs_f64() * 10.0).round() / 10.0;
        write!(f, "{tenths} s")
    }
}

/// A share in percent, at most one decimal.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 1000.0).round() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast() -> Reason {
        Reason::Forecast(Need {
            rate: 21.4,
            horizon: Duration::from_secs(6),
            needed: 4.553,
            per_replica: 4.7,
            binding: Binding::Ttft,
            percentile: 0.9,
        })
    }

    fn decision(previous: u32, replicas: u32, reasons: Vec<Reason>) -> Decision {
        Decision {
            at: Duration::from_millis(1500),
            replicas,
            previous,
            basis: Basis::Slo,
            supply: Replicas {
                ready: previous,
                starting: 0,
                draining: 0,
                pending: 0,
            },
            demand: None,
            forecast: None,
            capacity: None,
            headroom: None,
            reasons,
            guarded: None,
        }
    }

    #[test]
    fn a_decision_reads_as_a_sentence() {
        let guard = Guarded::ScaleDown {
            wanted: 2,
            remaining: Duration::from_millis(7540),
        };
        assert_eq!(
            decision(3, 5, vec![forecast()]).to_string(),
            "3 → 5: forecast 21.4 req/s at +6 s needs 4.6 replicas at 4.70 req/s each (TTFT p90 binds)"
        );
        assert_eq!(
            decision(3, 3, vec![Reason::Extrapolated, Reason::Guard(guard)]).to_string(),
            "stay at 3: capacity is extrapolated beyond the load seen so far; 2 would do; more were needed lately, fewer in 7.5 s at the earliest"
        );
        let infeasible = Infeasible {
            target: Binding::Ttft,
            reachable: 0.6211,
            percentile: 0.95,
            utilization: 0.8,
        };
        assert_eq!(
            infeasible.to_string(),
            "TTFT p95 is infeasible: an idle replica serves only 62.1% of the requests in time; sized for 80% utilisation"
        );
    }

    #[test]
    fn json_names_kinds_and_units_and_reads_back() {
        let guarded = Guarded::StepUp {
            wanted: 9,
            allowed: 6,
        };
        let mut decision = decision(3, 6, vec![forecast(), Reason::Guard(guarded)]);
        decision.guarded = Some(guarded);
        let json = serde_json::to_value(&decision).unwrap();
        assert_eq!(json["atSeconds"], 1.5);
        assert_eq!(json["reasons"][0]["kind"], "forecast");
        assert_eq!(json["reasons"][0]["horizonSeconds"], 6.0);
        assert_eq!(
            json["reasons"][1],
            serde_json::json!({"kind": "guard", "by": "stepUp", "wanted": 9, "allowed": 6})
        );
        assert_eq!(serde_json::from_value::<Decision>(json).unwrap(), decision);
    }
}

//! How much one replica serves within its objective, asked of the learned model.
//!
//! For a rate λ the replica settles where what it holds is what λ puts there (`operating`); in that state the share
//! of the mix that meets the SLO is predicted (`attainment`); the capacity is the highest λ at which that share is
//! still enough. All of it is monotone in λ, so λ is found by doubling and bisection.
//!
//! An idle replica misses some requests whatever the load (a prompt too long for the TTFT): no count of replicas cures
//! those. The target is therefore relative: `percentile × reachable`, where *reachable* is the share that an idle
//! replica serves in time. If that share is itself below the percentile, the SLO is infeasible on this replica and it
//! is sized for a utilisation instead.

mod attainment;
mod operating;

use std::fmt;

use predictor::State;
use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::mix::Mix;
use crate::policy::{Behavior, SloTargets};
use attainment::Attainment;
pub use operating::Operating;
use operating::{Limits, Replica, Settled};

/// What stops a replica from taking more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Binding {
    /// Too few requests would see their first token in time.
    Ttft,
    /// Too few requests would get their tokens in time.
    Tpot,
    /// The engine has no time left: prefill work, or decoding that the batch slows down.
    Utilization,
    /// The requests that the endpoint picker lets onto one replica.
    InFlight,
    /// The KV cache.
    KvCache,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttft => "TTFT",
            Self::Tpot => "TPOT",
            Self::Utilization => "utilisation",
            Self::InFlight => "requests in flight",
            Self::KvCache => "KV cache",
        })
    }
}

/// Share of the mix that an idle replica serves within each target, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reachable {
    /// Within the TTFT target.
    pub ttft: f64,
    /// Within the TPOT target.
    pub tpot: f64,
}

/// What one replica carries of the observed mix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Requests/s that replicas are counted by: the highest rate found, less the margin.
    pub requests_per_second: f64,
    /// Prompt tokens to compute per second at that rate.
    pub uncached_tokens_per_second: f64,
    /// Output tokens per second at that rate.
    pub output_tokens_per_second: f64,
    /// What binds just beyond the highest rate.
    pub binding: Binding,
    /// Trust in the model that said so.
    pub confidence: State,
    /// The state at the highest rate lies outside of what the model was trained on.
    pub extrapolated: bool,
    /// One idle replica already misses the SLO; the capacity is that of the fallback utilisation.
    pub infeasible: bool,
    /// What an idle replica reaches.
    pub reachable: Reachable,
    /// The replica's predicted state at the highest rate.
    pub operating: Operating,
    /// TTFT at the SLO's percentile in that state, ms.
    pub ttft_ms: f64,
    /// TPOT at the SLO's percentile in that state, ms.
    pub tpot_ms: f64,
}

/// What a replica is asked to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The objective.
    pub slo: SloTargets,
    /// Share of the rate found that is kept free, 0 to 0.9.
    pub margin: f64,
    /// Utilisation sized for when an idle replica misses the objective, and the share of request slots and KV memory
    /// that may be used; above 0 and below 1.
    pub utilization_fallback: f64,
    /// Requests let onto one replica; `None`: any number.
    pub max_in_flight: Option<u32>,
}

impl Terms {
    /// The objective `slo`, pursued as carefully as `behavior` says.
    pub fn new(slo: SloTargets, behavior: &Behavior) -> Self {
        Self {
            slo,
            margin: behavior.margin,
            utilization_fallback: behavior.utilization_fallback,
            max_in_flight: behavior.max_in_flight,
        }
    }
}

/// Doublings tried before a model that binds nowhere is given up on.
const MAX_DOUBLINGS: u32 = 40;
/// Relative width at which the bisection stops.
const TOLERANCE: f64 = 0.01;
/// The search starts where, were there no interference, this many requests would be on a replica: fewer than nearly
/// every replica carries, since what is below costs a few halvings and what is far above as many doublings.
const START_OCCUPANCY: f64 = 3.2;

/// Capacity of one replica for `mix`, or `None` when the mix is empty or the model's predictions carry no bound (not
/// finite, or no latency at all): unknown is not unbounded.
///
/// `kv_tokens` is the replica's KV cache in tokens if known. Units of the result are per second and per replica.
pub fn capacity(
    model: &dyn Latency,
    mix: &Mix,
    terms: &Terms,
    kv_tokens: Option<f64>,
) -> Option<Capacity> {
    if mix.is_empty() {
        return None;
    }
    let limits = Limits {
        kv_tokens: kv_tokens.filter(|tokens| *tokens > 0.0),
        max_in_flight: terms.max_in_flight.map(f64::from),
        shared: terms.utilization_fallback,
        engine: operating::ENGINE_CEILING,
    };
    let mut replica = Replica::new(model, mix, limits);
    let idle = replica.idle()?;
    let mut attainment = Attainment::new(model, mix);
    let reachable = attainment.shares(&idle.operating, &terms.slo)?;
    let percentile = f64::from(terms.slo.percentile);
    let infeasible = reachable.ttft < percentile || reachable.tpot < percentile;
    if infeasible {
        replica.limits.engine = terms.utilization_fallback;
    }
    let found = search(&mut replica, idle, |operating| {
        if infeasible {
            return None;
        }
        let shares = attainment.shares(operating, &terms.slo)?;
        let missed = |share: f64, reachable: f64| share < percentile * reachable;
        if missed(shares.ttft, reachable.ttft) {
            Some(Binding::Ttft)
        } else {
            missed(shares.tpot, reachable.tpot).then_some(Binding::Tpot)
        }
    })?;
    // The fallback utilisation is a margin of its own.
    let kept = if infeasible { 1.0 } else { 1.0 - terms.margin };
    let rate = found.operating.rate * kept;
    let (ttft_ms, tpot_ms) = attainment.at_percentile(&found.operating, percentile);
    Some(Capacity {
        requests_per_second: rate,
        uncached_tokens_per_second: rate * mix.mean(|stratum| f64::from(stratum.uncached())),
        output_tokens_per_second: rate * mix.mean_output(),
        binding: found.binding,
        confidence: model.state(),
        extrapolated: model.extrapolates(&replica.typical(&found.operating)),
        infeasible,
        reachable,
        operating: found.operating,
        ttft_ms,
        tpot_ms,
    })
}

/// TTFT and TPOT at the objective's percentile on an idle replica, ms; `None` when the model has no finite answer.
pub fn idle_latency(model: &dyn Latency, mix: &Mix, terms: &Terms) -> Option<(f64, f64)> {
    let mut attainment = Attainment::new(model, mix);
    let (ttft, tpot) =
        attainment.at_percentile(&Operating::default(), f64::from(terms.slo.percentile));
    (ttft.is_finite() && tpot.is_finite()).then_some((ttft, tpot))
}

struct Found {
    operating: Operating,
    binding: Binding,
}

/// The highest rate at which the replica settles and `misses` names nothing.
fn search(
    replica: &mut Replica<'_>,
    idle: Settled,
    mut misses: impl FnMut(&Operating) -> Option<Binding>,
) -> Option<Found> {
    let mut low = idle;
    // A state reached at a lower rate lies below the one sought: the iteration may start there.
    let mut attempt = |replica: &mut Replica<'_>, from: &Settled, rate: f64| {
        let settled = replica.settle(rate, from)?;
        match misses(&settled.operating) {
            None => Ok(settled),
            Some(binding) => Err(binding),
        }
    };
    let mut rate = START_OCCUPANCY / replica.lone_seconds()?;
    let mut doublings = 0;
    let (mut high, mut binding) = loop {
        match attempt(replica, &low, rate) {
            Ok(settled) => low = settled,
            Err(binding) => break (rate, binding),
        }
        doublings += 1;
        if doublings > MAX_DOUBLINGS {
            return None;
        }
        rate *= 2.0;
    };
    // Even a rate below the start may be too much; then the answer lies between zero and the start, and is found to
    // the same relative width after a few more halvings.
    let mut halvings = 0;
    while high - low.operating.rate > TOLERANCE * high && halvings < MAX_DOUBLINGS {
        halvings += 1;
        let middle = (low.operating.rate + high) / 2.0;
        match attempt(replica, &low, middle) {
            Ok(settled) => low = settled,
            Err(reason) => (high, binding) = (middle, reason),
        }
    }
    (low.operating.rate > 0.0).then_some(Found {
        operating: low.operating,
        binding,
    })
}

#[cfg(test)]
mod tests;

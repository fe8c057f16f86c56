//! Where a replica settles under a rate: the fixed point of what the rate puts there and how long it stays.
//!
//! By Little's law, with λ in requests per millisecond and the latencies of the learned model in the state sought:
//!
//! - decoding = λ · E\[(n_out − 1) · TPOT\], and their context tokens alike, each holding its prompt and on average half
//!   of its output;
//! - prefill is a single server: utilisation ρ = λ·E\[S\], mean wait W = λ·E\[S²\] / 2(1 − ρ) (Pollaczek-Khinchine, the
//!   second moment taken over the mix);
//! - without a first token = λ · (W + E\[TTFT alone\]), and their uncached prompt tokens alike.
//!
//! The service time S of a prompt is what it takes from the others: the larger of its own TTFT beyond that of an empty
//! prompt, and its share of the delay that one waiting request of the mix adds to the next. The first is known early,
//! the second once queues have been seen.

use predictor::{Features, Prediction};
use serde::{Deserialize, Serialize};

use super::Binding;
use crate::latency::{Latency, mean_ms};
use crate::mix::{Mix, Stratum};

/// Share of an engine's time that a plan may use when the SLO does not stop it earlier.
pub(super) const ENGINE_CEILING: f64 = 0.9;
/// Iterations after which a state that still grows counts as one that never settles.
const MAX_ITERATIONS: u32 = 60;
/// Relative change at which the iteration has settled.
const SETTLED: f64 = 0.003;
/// A replica that would hold more requests than this has not settled, whatever the model says.
const MOST_REQUESTS: f64 = 1e5;

/// The state of a replica under a steady rate of the mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operating {
    /// Offered requests/s.
    pub rate: f64,
    /// Requests decoding.
    pub decoding: f64,
    /// Context tokens of those.
    pub resident_tokens: f64,
    /// Requests without a first token.
    pub waiting: f64,
    /// Their uncached prompt tokens.
    pub waiting_tokens: f64,
    /// Mean wait for the prefill of others, ms.
    pub wait_ms: f64,
    /// Mean prefill service time, ms.
    pub service_ms: f64,
    /// Share of the engine's time taken: by prefill, or by what the batch adds to a token, whichever is more.
    pub utilization: f64,
    /// Share of time prefill is busy.
    pub prefill: f64,
    /// Share of the KV cache held, 0 to 1; `None` when its size is not known.
    pub kv_utilization: Option<f64>,
}

/// What a replica may not exceed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// KV cache, tokens.
    pub(super) kv_tokens: Option<f64>,
    /// Requests let onto one replica.
    pub(super) max_in_flight: Option<f64>,
    /// Share of the two above that may be used.
    pub(super) shared: f64,
    /// Share of the engine's time that may be used.
    pub(super) engine: f64,
}

/// One replica as the model sees it, under the mix.
pub(super) struct Replica<'a> {
    model: &'a dyn Latency,
    mix: &'a Mix,
    pub(super) limits: Limits,
    mean: Stratum,
    idle_tpot_ms: f64,
    idle_ttft_ms: f64,
    mean_uncached: f64,
    rows: Vec<Features>,
    predictions: Vec<Prediction>,
}

impl<'a> Replica<'a> {
    pub(super) fn new(model: &'a dyn Latency, mix: &'a Mix, limits: Limits) -> Self {
        let mean =
            |value: fn(&Stratum) -> f32| mix.mean(|stratum| f64::from(value(stratum))) as f32;
        let mean = Stratum {
            weight: 1.0,
            input: mean(|s| s.input),
            cached: mean(|s| s.cached),
            output: mean(|s| s.output),
        };
        Self {
            model,
            mix,
            limits,
            mean,
            idle_tpot_ms: 0.0,
            idle_ttft_ms: 0.0,
            mean_uncached: mix.mean(|stratum| f64::from(stratum.uncached())),
            rows: Vec::new(),
            predictions: Vec::new(),
        }
    }

    /// The state without load; `None` when the model has no finite answer even there.
    pub(super) fn idle(&mut self) -> Option<Settled> {
        let sums = self.sums(&Operating::default());
        if !(sums.tpot.is_finite() && sums.alone.is_finite() && sums.service.is_finite()) {
            return None;
        }
        (self.idle_tpot_ms, self.idle_ttft_ms) = (sums.tpot, sums.alone);
        let operating = Operating {
            kv_utilization: self.limits.kv_tokens.map(|_| 0.0),
            service_ms: sums.service,
            ..Operating::default()
        };
        Some(Settled { operating, sums })
    }

    /// Time one request of the mix takes alone, in seconds; `None` when the model says none. After [`Self::idle`].
    pub(super) fn lone_seconds(&self) -> Option<f64> {
        let seconds = (self.idle_ttft_ms + self.mix.mean_output() * self.idle_tpot_ms) / 1000.0;
        (seconds > 0.0).then_some(seconds)
    }

    /// The mean request of the mix in a state.
    pub(super) fn typical(&self, operating: &Operating) -> Features {
        features(
            &self.mean,
            operating,
            operating.waiting,
            operating.waiting_tokens,
        )
    }

    /// The state that `rate` (requests/s) settles in, found by iteration from `start`, the state of a lower rate.
    ///
    /// Were the map from held load to load put there increasing, it would climb from below to the least fixed point. A
    /// learned model is not quite: its calibration changes from regime to regime, so that two states can send each
    /// other back and forth. What an iterate has reached is therefore not given up again: the iteration ends in a state
    /// that the rate does not push any higher, the fixed point or, by as much as the model contradicts itself, above it.
    ///
    /// What the model says of `start` was asked when that was found: the first step is free.
    pub(super) fn settle(&mut self, rate: f64, start: &Settled) -> Result<Settled, Binding> {
        let mut now = start.operating;
        let mut sums = start.sums;
        for iteration in 0..MAX_ITERATIONS {
            if iteration > 0 {
                sums = self.sums(&now);
            }
            let next = self.state(rate, &sums);
            if let Some(binding) = self.exceeded(&next) {
                return Err(binding);
            }
            let grows = |from: f64, to: f64| to > from + SETTLED * from.abs() + 1e-6;
            let settled = !grows(now.decoding, next.decoding)
                && !grows(now.resident_tokens, next.resident_tokens)
                && !grows(now.waiting_tokens, next.waiting_tokens);
            now = Operating {
                decoding: next.decoding.max(now.decoding),
                resident_tokens: next.resident_tokens.max(now.resident_tokens),
                waiting: next.waiting.max(now.waiting),
                waiting_tokens: next.waiting_tokens.max(now.waiting_tokens),
                ..next
            };
            if settled {
                return Ok(Settled {
                    operating: now,
                    sums,
                });
            }
        }
        Err(Binding::Utilization)
    }

    fn exceeded(&self, state: &Operating) -> Option<Binding> {
        let held = state.decoding + state.waiting;
        // Written so that NaN exceeds.
        let within = |value: f64, limit: f64| value <= limit;
        if !(within(state.utilization, self.limits.engine) && within(held, MOST_REQUESTS)) {
            return Some(Binding::Utilization);
        }
        if self
            .limits
            .max_in_flight
            .is_some_and(|most| held > most * self.limits.shared)
        {
            return Some(Binding::InFlight);
        }
        state
            .kv_utilization
            .is_some_and(|share| share > self.limits.shared)
            .then_some(Binding::KvCache)
    }

    /// What the model says of requests of the mix on a replica in state `now`.
    fn sums(&mut self, now: &Operating) -> Sums {
        let strata = self.mix.strata();
        let mean_uncached = self.mean_uncached;
        let empty = Stratum {
            input: 1.0,
            cached: 0.0,
            ..self.mean
        };
        self.rows.clear();
        self.rows.push(features(&empty, now, 0.0, 0.0));
        self.rows.push(features(&self.mean, now, 0.0, 0.0));
        self.rows
            .push(features(&self.mean, now, 1.0, mean_uncached));
        self.rows.extend(
            strata
                .iter()
                .map(|stratum| features(stratum, now, 0.0, 0.0)),
        );
        self.rows.extend(
            strata
                .iter()
                .map(|stratum| features(stratum, now, now.waiting, now.waiting_tokens)),
        );
        self.model.predict(&self.rows, &mut self.predictions);
        let ttft = |index: usize| {
            self.predictions
                .get(index)
                .map_or(f64::NAN, |p| mean_ms(&p.ttft))
        };
        let tpot = |index: usize| {
            self.predictions
                .get(index)
                .map_or(f64::NAN, |p| mean_ms(&p.tpot))
        };
        let per_waiting_token = ((ttft(2) - ttft(1)) / mean_uncached).max(0.0);

        let mut sums = Sums::default();
        for (index, stratum) in strata.iter().enumerate() {
            let alone = ttft(3 + index);
            let uncached = f64::from(stratum.uncached());
            let service = (alone - ttft(0)).max(per_waiting_token * uncached);
            sums.add(stratum, alone, service, tpot(3 + strata.len() + index));
        }
        sums
    }

    /// What `rate` puts on a replica in a state of which the model says `sums`: with those, one application of the map.
    fn state(&self, rate: f64, sums: &Sums) -> Operating {
        let per_ms = rate / 1000.0;
        let mean_uncached = self.mean_uncached;
        let prefill = per_ms * sums.service;
        let wait_ms = if prefill < 1.0 {
            per_ms * sums.service_squared / (2.0 * (1.0 - prefill))
        } else {
            f64::INFINITY
        };
        let waiting_tokens = per_ms * (wait_ms * mean_uncached + sums.uncached_alone);
        let resident_tokens = per_ms * sums.resident;
        // Of the time per token, what an idle replica would not need is taken by the load.
        let decode = if sums.tpot > 0.0 {
            1.0 - self.idle_tpot_ms / sums.tpot
        } else {
            0.0
        };
        Operating {
            rate,
            decoding: per_ms * sums.decoding,
            resident_tokens,
            waiting: per_ms * (wait_ms + sums.alone),
            waiting_tokens,
            wait_ms,
            service_ms: sums.service,
            utilization: if decode > prefill { decode } else { prefill },
            prefill,
            // A request that is being prefilled already holds its whole prompt.
            kv_utilization: self
                .limits
                .kv_tokens
                .map(|kv| (resident_tokens + per_ms * sums.input_service) / kv),
        }
    }
}

/// A state that a rate settles in, and what the model says of it (of the last state before it, less than [`SETTLED`]
/// away).
#[derive(Clone, Copy)]
pub(super) struct Settled {
    pub(super) operating: Operating,
    sums: Sums,
}

/// Means over the mix.
#[derive(Clone, Copy, Default)]
struct Sums {
    alone: f64,
    uncached_alone: f64,
    service: f64,
    service_squared: f64,
    input_service: f64,
    tpot: f64,
    decoding: f64,
    resident: f64,
}

impl Sums {
    fn add(&mut self, stratum: &Stratum, alone: f64, service: f64, tpot: f64) {
        let Stratum {
            weight,
            input,
            output,
            ..
        } = *stratum;
        let (input, output) = (f64::from(input), f64::from(output));
        let decoding = (output - 1.0).max(0.0) * tpot;
        self.alone += weight * alone;
        self.uncached_alone += weight * alone * f64::from(stratum.uncached());
        self.service += weight * service;
        self.service_squared += weight * service * service;
        self.input_service += weight * input * service;
        self.tpot += weight * tpot;
        self.decoding += weight * decoding;
        self.resident += weight * decoding * (input + output / 2.0);
    }
}

/// A request of `stratum` dispatched to a replica in state `now`, with `waiting` requests before it.
pub(super) fn features(
    stratum: &Stratum,
    now: &Operating,
    waiting: f64,
    waiting_tokens: f64,
) -> Features {
    Features {
        input_tokens: stratum.input,
        cached_tokens: stratum.cached,
        waiting: waiting as f32,
        waiting_tokens: waiting_tokens as f32,
        running: now.decoding as f32,
        resident_tokens: now.resident_tokens as f32,
        kv_utilization: now
            .kv_utilization
            .map_or(f32::NAN, |share| share.min(1.0) as f32),
    }
}

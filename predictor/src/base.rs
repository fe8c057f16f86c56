//! The analytic base: latency as a non-negative sum of the work ahead of a request.
//!
//! TTFT = queue and prefill: grows with the uncached tokens of the request and of those waiting,
//! with their number and with the decodes that share the engine's steps. TPOT = one step of the batch that is expected while the request decodes: grows
//! with the number of sequences and their context, never with the raw queue, because a full batch
//! makes requests wait and not step slower.
//!
//! Because every coefficient is non-negative, the base is monotone and goes on growing where a
//! forest goes flat. It is fitted by reweighted non-negative least squares with errors relative to
//! the prediction (the quasi-likelihood of a gamma distribution with identity link), so that it is
//! right on average; coefficients without evidence stay at the prior's, scaled like the others, so
//! that a model that has only seen an idle replica does not take queueing for free.

use serde::{Deserialize, Serialize};

use crate::nnls::Normal;
use crate::snapshot::Flaw;
use crate::store::Row;
use crate::{Features, Target};

/// Terms of the sum; targets with fewer leave the last at zero.
pub(crate) const TERMS: usize = 6;

/// Coefficients before any label, ms per unit of the terms: a mid-size model on one current
/// accelerator (about 12 k prompt tokens/s of prefill, 15 ms per step).
const PRIOR: [[f64; TERMS]; 2] = [
    [25.0, 0.08, 0.08, 4.0, 0.5, 2e-4],
    [15.0, 0.2, 4e-4, 0.0, 0.0, 0.0],
];

/// Pseudo-labels that hold each coefficient near the scaled prior.
const PRIOR_LABELS: f64 = 1.0;

/// Actual over predicted, at most, within one step.
const MOST_RATIO: f64 = 10.0;

/// Reweighted steps per fit.
const STEPS: usize = 6;

/// The shortest latency that is ever predicted, ms.
const LEAST_MS: f64 = 0.01;

/// The most that has been seen to run at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Decoding requests.
    pub(crate) running: f32,
    /// Context tokens of decoding requests.
    pub(crate) resident_tokens: f32,
}

impl Limits {
    pub(crate) const NONE: Self = Self {
        running: 0.0,
        resident_tokens: 0.0,
    };

    /// Widens the limits to what `features` shows.
    pub(crate) fn include(&mut self, features: &Features) {
        // `max` passes over unknown (NaN).
        self.running = self.running.max(features.running);
        self.resident_tokens = self.resident_tokens.max(features.resident_tokens);
    }

    /// Sequences expected in the batch while the request decodes, itself included: waiting requests
    /// join only up to the largest batch ever seen.
    pub(crate) fn batch(&self, features: &Features) -> f32 {
        1.0 + joined(features.running, features.waiting, self.running)
    }

    /// Context tokens expected in that batch, likewise.
    pub(crate) fn resident(&self, features: &Features) -> f32 {
        let now = features.resident_tokens + features.input_tokens;
        joined(now, features.waiting_tokens, self.resident_tokens)
    }
}

/// `now` and as much of `waiting` as fits under `limit`; unknown (NaN) if either is.
fn joined(now: f32, waiting: f32, limit: f32) -> f32 {
    let all = now + waiting;
    if all.is_nan() {
        return f32::NAN;
    }
    all.min(limit.max(now))
}

/// A fitted base for one target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Base {
    target: Target,
    coefficients: [f64; TERMS],
    pub(crate) limits: Limits,
    /// Stands in for unknown features: their mean over the training rows.
    typical: Features,
}

impl Base {
    /// The fixed guess before any label.
    pub(crate) fn prior(target: Target) -> Self {
        Self {
            target,
            coefficients: PRIOR[target.index()],
            limits: Limits::NONE,
            typical: Features {
                input_tokens: 512.0,
                kv_utilization: 0.0,
                ..Features::idle(512.0)
            },
        }
    }

    /// What a base from outside has that no fit produces, if anything: the field, its value and what is right.
    pub(crate) fn flaw(&self) -> Option<Flaw> {
        let amount = |value: f64| value.is_finite() && value >= 0.0;
        let Features {
            input_tokens,
            cached_tokens,
            waiting,
            waiting_tokens,
            running,
            resident_tokens,
            kv_utilization,
        } = self.typical;
        let coefficients = self.coefficients.map(|value| ("coefficient", value));
        let others = [
            ("most running", self.limits.running),
            ("most resident tokens", self.limits.resident_tokens),
            ("typical input tokens", input_tokens),
            ("typical cached tokens", cached_tokens),
            ("typical waiting", waiting),
            ("typical waiting tokens", waiting_tokens),
            ("typical running", running),
            ("typical resident tokens", resident_tokens),
            ("typical KV utilisation", kv_utilization),
        ];
        let others = others.map(|(field, value)| (field, f64::from(value)));
        coefficients
            .into_iter()
            .chain(others)
            .find(|(_, value)| !amount(*value))
            .map(|(field, value)| Flaw::new(field, value, "finite and not negative"))
    }

    /// Fits the coefficients to weighted rows; with none, the prior.
    pub(crate) fn fit(target: Target, rows: &[(Row, f32)]) -> Self {
        let mut base = Self::prior(target);
        if rows.is_empty() {
            return base;
        }
        base.typical = typical(rows, base.typical);
        for (row, _) in rows {
            base.limits.include(&row.features);
        }
        let scale = base.scale(rows);
        let drawn = base.coefficients.map(|prior| prior * scale);
        base.coefficients = drawn;
        let mean_weight = rows
            .iter()
            .map(|(_, weight)| f64::from(*weight))
            .sum::<f64>()
            / rows.len() as f64;
        for _ in 0..STEPS {
            base.coefficients = base.step(rows, mean_weight, &drawn);
        }
        base
    }

    /// Which latency it is about.
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// ln of the predicted latency in ms.
    pub(crate) fn ln_ms(&self, features: &Features) -> f32 {
        self.ms(&self.terms(features)).ln() as f32
    }

    fn ms(&self, terms: &[f64; TERMS]) -> f64 {
        let sum: f64 = terms
            .iter()
            .zip(&self.coefficients)
            .map(|(a, b)| a * b)
            .sum();
        sum.max(LEAST_MS)
    }

    /// How much slower than the prior this replica is: the median ratio.
    fn scale(&self, rows: &[(Row, f32)]) -> f64 {
        let mut ratios: Vec<f64> = rows
            .iter()
            .map(|(row, _)| f64::from(row.actual_ms) / self.ms(&self.terms(&row.features)))
            .collect();
        let middle = ratios.len() / 2;
        *ratios.select_nth_unstable_by(middle, f64::total_cmp).1
    }

    /// One reweighted step: errors relative to the present prediction. Relative to the actual
    /// value they would count an overestimate in full and an underestimate never above one, and in
    /// log space a rare slow label hardly counts: both make a base that is optimistic under load.
    fn step(&self, rows: &[(Row, f32)], mean_weight: f64, drawn: &[f64; TERMS]) -> [f64; TERMS] {
        let mut normal = Normal::<TERMS>::new();
        for (row, weight) in rows {
            let terms = self.terms(&row.features);
            let ms = self.ms(&terms);
            let relative = terms.map(|term| term / ms);
            // Bounded: one absurd label must not turn the whole step.
            let ratio = (f64::from(row.actual_ms) / ms).min(MOST_RATIO);
            normal.add(&relative, ratio, f64::from(*weight) / mean_weight);
        }
        for (term, &value) in drawn.iter().enumerate() {
            if value > 0.0 {
                normal.draw(term, value, PRIOR_LABELS / (value * value));
            }
        }
        normal.solve(self.coefficients)
    }

    /// What the coefficients multiply; unknown features count as typical ones.
    fn terms(&self, features: &Features) -> [f64; TERMS] {
        let known = known(features, &self.typical);
        let terms = match self.target {
            Target::Ttft => [
                1.0,
                known.uncached_tokens(),
                known.waiting_tokens,
                known.waiting,
                known.running,
                known.resident_tokens,
            ],
            Target::Tpot => [
                1.0,
                self.limits.batch(&known),
                self.limits.resident(&known),
                0.0,
                0.0,
                0.0,
            ],
        };
        terms.map(f64::from)
    }
}

/// `features` with unknown ones replaced.
fn known(features: &Features, typical: &Features) -> Features {
    let or = |value: f32, otherwise: f32| if value.is_nan() { otherwise } else { value };
    Features {
        input_tokens: or(features.input_tokens, typical.input_tokens),
        cached_tokens: or(features.cached_tokens, 0.0),
        waiting: or(features.waiting, typical.waiting),
        waiting_tokens: or(features.waiting_tokens, typical.waiting_tokens),
        running: or(features.running, typical.running),
        resident_tokens: or(features.resident_tokens, typical.resident_tokens),
        kv_utilization: or(features.kv_utilization, typical.kv_utilization),
    }
}

/// Mean of each feature over the rows where it is known.
fn typical(rows: &[(Row, f32)], otherwise: Features) -> Features {
    let mean = |of: fn(&Features) -> f32, otherwise: f32| {
        let (mut sum, mut total) = (0.0_f64, 0.0_f64);
        for (row, weight) in rows {
            let value = of(&row.features);
            if !value.is_nan() {
                sum += f64::from(value * weight);
                total += f64::from(*weight);
            }
        }
        if total > 0.0 {
            (sum / total) as f32
        } else {
            otherwise
        }
    };
    Features {
        input_tokens: mean(|f| f.input_tokens, otherwise.input_tokens),
        cached_tokens: 0.0,
        waiting: mean(|f| f.waiting, otherwise.waiting),
        waiting_tokens: mean(|f| f.waiting_tokens, otherwise.waiting_tokens),
        running: mean(|f| f.running, otherwise.running),
        resident_tokens: mean(|f| f.resident_tokens, otherwise.resident_tokens),
        kv_utilization: mean(|f| f.kv_utilization, otherwise.kv_utilization),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rows(count: u32, ms: impl Fn(&Features) -> f32, busy: bool) -> Vec<(Row, f32)> {
        (0..count)
            .map(|number| {
                let spread = |step: u32, most: u32| (number * step % most) as f32;
                let load = if busy { 1.0 } else { 0.0 };
                let features = Features {
                    waiting: load * spread(7, 5),
                    waiting_tokens: load * spread(131, 3_000),
                    running: load * spread(13, 40),
                    resident_tokens: load * spread(977, 30_000),
                    ..Features::idle(20.0 + spread(97, 2_000))
                };
                let row = Row {
                    features,
                    actual_ms: ms(&features),
                    at: Duration::ZERO,
                    number: u64::from(number),
                };
                (row, 1.0)
            })
            .collect()
    }

    #[test]
    fn finds_the_costs_that_made_the_latencies() {
        let ms = |f: &Features| 30.0 + 0.2 * f.input_tokens + 0.1 * f.waiting_tokens;
        let base = Base::fit(Target::Ttft, &rows(400, ms, true));
        let probe = Features {
            waiting_tokens: 8_000.0,
            ..Features::idle(3_000.0)
        };
        let ratio = base.ln_ms(&probe).exp() / ms(&probe);
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
    }

    #[test]
    fn an_idle_replica_does_not_teach_that_queueing_is_free() {
        // Twice as slow as the prior, never loaded.
        let slow = |f: &Features| 2.0 * Base::prior(Target::Ttft).ln_ms(f).exp();
        let base = Base::fit(Target::Ttft, &rows(300, slow, false));
        let queue = Features {
            waiting: 10.0,
            waiting_tokens: 5_000.0,
            ..Features::idle(500.0)
        };
        let ratio = base.ln_ms(&queue).exp() / slow(&queue);
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn waiting_requests_fill_the_batch_only_up_to_the_largest_seen() {
        let ms = |f: &Features| 10.0 + f.running;
        let base = Base::fit(Target::Tpot, &rows(400, ms, true));
        let at = |running, waiting| {
            base.ln_ms(&Features {
                running,
                waiting,
                ..Features::idle(100.0)
            })
        };
        assert!(at(10.0, 20.0) > at(10.0, 0.0));
        assert_eq!(at(39.0, 500.0), at(39.0, 0.0));
        assert!(at(80.0, 0.0) > at(39.0, 0.0));
    }

    #[test]
    fn unknown_load_counts_as_typical() {
        let ms = |f: &Features| 10.0 + f.running;
        let base = Base::fit(Target::Tpot, &rows(400, ms, true));
        let unknown = Features {
            running: f32::NAN,
            resident_tokens: f32::NAN,
            ..Features::idle(100.0)
        };
        let (low, high) = (10.0_f32.ln(), 50.0_f32.ln());
        assert!((low..high).contains(&base.ln_ms(&unknown)));
    }
}

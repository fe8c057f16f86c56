//! The share of a mix that meets its SLO on a replica in a given state.
//!
//! The mean state is not what a request meets: at half load most find no queue and some find a long one. The wait for
//! prefill is taken as in a single-server queue, none with probability 1 − ρ, else exponential with mean W/ρ, in four
//! atoms. The share is that of the mixture over strata and atoms, each with the model's own quantiles: not a quantile
//! at the mean prompt in the mean state.

use predictor::{Features, Prediction, Quantiles};

use super::Reachable;
use super::operating::{Operating, features};
use crate::latency::{Latency, share_within};
use crate::mix::Mix;
use crate::policy::SloTargets;

/// The exponential wait's atoms: (probability, mean within, in units of the exponential's mean). The intervals end at
/// its quantiles 0.5, 0.8, 0.95 and 1; the mean over [a, b] is ((a+1)e⁻ᵃ − (b+1)e⁻ᵇ) / (e⁻ᵃ − e⁻ᵇ).
const WAITS: [(f64, f64); 4] = [
    (0.5, 0.306_853),
    (0.3, 1.082_287),
    (0.15, 2.147_340),
    (0.05, 3.995_732),
];

/// One part of the mixture.
struct Part {
    weight: f64,
    ttft: Quantiles,
    tpot: Quantiles,
}

pub(super) struct Attainment<'a> {
    model: &'a dyn Latency,
    mix: &'a Mix,
    rows: Vec<Features>,
    predictions: Vec<Prediction>,
    parts: Vec<Part>,
}

impl<'a> Attainment<'a> {
    pub(super) fn new(model: &'a dyn Latency, mix: &'a Mix) -> Self {
        Self {
            model,
            mix,
            rows: Vec::new(),
            predictions: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Shares of the mix within the SLO's targets; `None` when the model did not answer every row.
    pub(super) fn shares(&mut self, operating: &Operating, slo: &SloTargets) -> Option<Reachable> {
        self.predict(operating)?;
        let share = |of: &dyn Fn(&Part) -> f64| {
            self.parts
                .iter()
                .map(|part| part.weight * of(part))
                .sum::<f64>()
        };
        Some(Reachable {
            ttft: share(&|part| share_within(&part.ttft, slo.ttft_ms)),
            tpot: share(&|part| share_within(&part.tpot, slo.tpot_ms)),
        })
    }

    /// TTFT and TPOT that `percentile` of the mixture stays within, ms.
    pub(super) fn at_percentile(&mut self, operating: &Operating, percentile: f64) -> (f64, f64) {
        if self.predict(operating).is_none() {
            return (f64::NAN, f64::NAN);
        }
        (
            self.quantile(percentile, |part| &part.ttft),
            self.quantile(percentile, |part| &part.tpot),
        )
    }

    fn quantile(&self, percentile: f64, of: impl Fn(&Part) -> &Quantiles) -> f64 {
        // Latencies of interest span 10 µs to three hours; 20 halvings of the logarithm are far below a percent.
        let (mut low, mut high) = (1e-2_f64.ln(), 1e7_f64.ln());
        for _ in 0..20 {
            let middle = (low + high) / 2.0;
            let share: f64 = self
                .parts
                .iter()
                .map(|part| part.weight * share_within(of(part), middle.exp()))
                .sum();
            if share < percentile {
                low = middle
            } else {
                high = middle
            }
        }
        high.exp()
    }

    fn predict(&mut self, operating: &Operating) -> Option<()> {
        let waits = waits(operating);
        let strata = self.mix.strata();
        self.rows.clear();
        for &(_, wait_ms) in &waits {
            // The wait in the model's own terms: requests of mean service time, with the mix's tokens.
            let ahead = if operating.service_ms > 0.0 {
                wait_ms / operating.service_ms
            } else {
                0.0
            };
            let tokens = ahead * self.mix.mean(|stratum| f64::from(stratum.uncached()));
            self.rows.extend(
                strata
                    .iter()
                    .map(|stratum| features(stratum, operating, ahead, tokens)),
            );
        }
        self.model.predict(&self.rows, &mut self.predictions);
        if self.predictions.len() != self.rows.len() {
            return None;
        }
        self.parts.clear();
        for (block, &(probability, wait_ms)) in waits.iter().enumerate() {
            for (index, stratum) in strata.iter().enumerate() {
                let queued = self.predictions.get(block * strata.len() + index)?;
                let alone = self.predictions.get(index)?;
                self.parts.push(Part {
                    weight: probability * stratum.weight,
                    ttft: at_least(&queued.ttft, &alone.ttft, wait_ms as f32),
                    tpot: queued.tpot,
                });
            }
        }
        Some(())
    }
}

/// No wait first, then the atoms of the wait: (probability, ms).
fn waits(operating: &Operating) -> Vec<(f64, f64)> {
    let busy = operating.prefill.clamp(0.0, 1.0);
    let mut waits = vec![(1.0 - busy, 0.0)];
    if busy > 0.0 {
        let mean = operating.wait_ms / busy;
        waits.extend(WAITS.map(|(probability, multiple)| (busy * probability, multiple * mean)));
    }
    waits
}

/// A model that has not seen queues yet must not wish them away: a wait delays by no less than itself.
fn at_least(queued: &Quantiles, alone: &Quantiles, wait_ms: f32) -> Quantiles {
    Quantiles {
        p50: queued.p50.max(alone.p50 + wait_ms),
        p90: queued.p90.max(alone.p90 + wait_ms),
        p99: queued.p99.max(alone.p99 + wait_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_atoms_are_those_of_a_unit_exponential() {
        let mean: f64 = WAITS
            .iter()
            .map(|(probability, value)| probability * value)
            .sum();
        assert!(
            (WAITS
                .iter()
                .map(|(probability, _)| probability)
                .sum::<f64>()
                - 1.0)
                .abs()
                < 1e-12
        );
        assert!((mean - 1.0).abs() < 1e-5, "{mean}");
        let ends = [0.0, 0.5_f64, 0.8, 0.95];
        for (index, (probability, value)) in WAITS.iter().enumerate() {
            let start = -(1.0 - ends[index]).ln();
            let tail = |x: f64| (x + 1.0) * (-x).exp();
            let end = ends
                .get(index + 1)
                .map_or(0.0, |end| tail(-(1.0 - end).ln()));
            assert!(
                ((tail(start) - end) / probability - value).abs() < 1e-5,
                "{index}"
            );
        }
    }

    #[test]
    fn waits_keep_the_mean_and_the_mass() {
        let operating = Operating {
            prefill: 0.5,
            wait_ms: 40.0,
            ..Operating::default()
        };
        let waits = waits(&operating);
        assert!(
            (waits
                .iter()
                .map(|(probability, _)| probability)
                .sum::<f64>()
                - 1.0)
                .abs()
                < 1e-9
        );
        assert!(
            (waits
                .iter()
                .map(|(probability, wait)| probability * wait)
                .sum::<f64>()
                - 40.0)
                .abs()
                < 1e-3
        );
    }
}

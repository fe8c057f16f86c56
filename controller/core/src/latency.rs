//! The learned latency model as capacity reads it, and the mathematics of its quantiles.

use predictor::{Features, Prediction, Quantiles, State, Target};

/// What the capacity computation asks of a latency model. `predictor::LatencyModel` is the one in use; tests and
/// what-if studies bring their own.
pub trait Latency: Send + Sync {
    /// Predicts every row; clears `out` first.
    fn predict(&self, rows: &[Features], out: &mut Vec<Prediction>);
    /// How far the model may be trusted: the weaker of its two targets.
    fn state(&self) -> State;
    /// Whether `row` lies outside of what either target was trained on.
    fn extrapolates(&self, row: &Features) -> bool;
    /// Changes with every refit in force. Two models of one version are taken to be the same: whoever brings models from
    /// several sources must see to it that they differ, for instance by their checksums.
    fn version(&self) -> u64;
}

impl Latency for predictor::LatencyModel {
    fn predict(&self, rows: &[Features], out: &mut Vec<Prediction>) {
        predictor::LatencyModel::predict(self, rows, out);
    }

    fn state(&self) -> State {
        weaker(self.state(Target::Ttft), self.state(Target::Tpot))
    }

    fn extrapolates(&self, row: &Features) -> bool {
        self.extrapolates(row, Target::Ttft) || self.extrapolates(row, Target::Tpot)
    }

    fn version(&self) -> u64 {
        self.version()
    }
}

/// The state that deserves less trust.
fn weaker(a: State, b: State) -> State {
    let rank = |state| match state {
        State::Prior => 0,
        State::Stale => 1,
        State::Warming => 2,
        State::Trained => 3,
    };
    if rank(b) < rank(a) { b } else { a }
}

/// Standard normal quantiles of the three that a model gives: 0.5, 0.9, 0.99.
const Z90: f64 = 1.281_551_6;
const Z99: f64 = 2.326_347_9;

/// Share of requests expected at or below `limit_ms`, 0 to 1: the quantiles are read as points of a distribution that
/// is log-normal between them, with the spread of the nearest pair beyond.
pub fn share_within(quantiles: &Quantiles, limit_ms: f64) -> f64 {
    let all = [quantiles.p50, quantiles.p90, quantiles.p99];
    // What cannot be predicted is not counted as met.
    if !(all.iter().all(|value| value.is_finite()) && limit_ms > 0.0) {
        return 0.0;
    }
    let [p50, p90, p99] = all.map(|value| f64::from(value).max(MIN_MS));
    let limit = limit_ms.ln();
    let (middle, high, top) = (p50.ln(), p90.ln().max(p50.ln() + MIN_SPREAD), p99.ln());
    let top = top.max(high + MIN_SPREAD);
    let z = if limit <= high {
        Z90 * (limit - middle) / (high - middle)
    } else {
        Z90 + (Z99 - Z90) * (limit - high) / (top - high)
    };
    normal_cdf(z)
}

/// Mean of the same distribution's log-normal body, in milliseconds.
pub fn mean_ms(quantiles: &Quantiles) -> f64 {
    let p50 = f64::from(quantiles.p50);
    let p90 = f64::from(quantiles.p90);
    if !(p50 > 0.0 && p90.is_finite()) {
        return p50.max(0.0);
    }
    // A spread beyond a factor of ten is a model's doubt, not a latency's tail: it must not drive the mean.
    let sigma = ((p90 / p50).max(1.0).ln() / Z90).min(1.0);
    p50 * (sigma * sigma / 2.0).exp()
}

/// Predictions below this are taken as this, so that logarithms exist.
const MIN_MS: f64 = 1e-3;
/// Least distance of two quantiles' logarithms: equal quantiles become a steep step, not a division by zero.
const MIN_SPREAD: f64 = 1e-4;

/// Standard normal distribution function (Abramowitz and Stegun 26.2.17, absolute error below 1e-7).
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if z >= 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: Quantiles = Quantiles {
        p50: 100.0,
        p90: 200.0,
        p99: 500.0,
    };

    #[test]
    fn the_quantiles_are_points_of_the_distribution() {
        for (limit, share) in [(100.0, 0.5), (200.0, 0.9), (500.0, 0.99)] {
            assert!((share_within(&Q, limit) - share).abs() < 1e-6, "{limit}");
        }
    }

    #[test]
    fn the_share_grows_with_the_limit_and_stays_a_share() {
        let shares: Vec<f64> = (1..2000)
            .map(|limit| share_within(&Q, f64::from(limit)))
            .collect();
        assert!(shares.is_sorted());
        assert!(shares[0] < 1e-6 && shares[1998] > 0.999 && shares[1998] <= 1.0);
    }

    #[test]
    fn equal_quantiles_are_a_step_and_nan_is_a_miss() {
        let step = Quantiles {
            p50: 100.0,
            p90: 100.0,
            p99: 100.0,
        };
        assert!(share_within(&step, 99.0) < 0.01 && share_within(&step, 101.0) > 0.99);
        assert_eq!(share_within(&Quantiles { p50: f32::NAN, ..Q }, 1e9), 0.0);
        assert_eq!(share_within(&Q, f64::NAN), 0.0);
    }

    #[test]
    fn the_mean_lies_above_the_median_by_the_spread() {
        let sigma = 2.0_f64.ln() / Z90;
        assert!((mean_ms(&Q) - 100.0 * (sigma * sigma / 2.0).exp()).abs() < 1e-3);
        assert!(
            mean_ms(&Quantiles {
                p50: f32::NAN,
                p90: 1.0,
                p99: 1.0
            }) == 0.0
        );
    }
}

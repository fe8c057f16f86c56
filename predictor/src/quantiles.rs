//! A predicted latency: three ordered quantiles in milliseconds.

use serde::{Deserialize, Serialize};

/// Predicted latency in milliseconds; `p50 <= p90 <= p99`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median, ms.
    pub p50: f32,
    /// 90th percentile, ms.
    pub p90: f32,
    /// 99th percentile, ms.
    pub p99: f32,
}

impl Quantiles {
    /// The latency at `percentile` (0 to 1), ms: log-linear between the three quantiles, clamped to
    /// the outer two (a percentile below 0.5 gives p50, one above 0.99 gives p99).
    pub fn at(&self, percentile: f32) -> f32 {
        let between = |low: f32, high: f32, share: f32| {
            let low = low.max(f32::MIN_POSITIVE);
            low * (high / low).max(1.0).powf(share)
        };
        if percentile <= 0.5 {
            self.p50
        } else if percentile < 0.9 {
            between(self.p50, self.p90, (percentile - 0.5) / 0.4)
        } else if percentile < 0.99 {
            between(self.p90, self.p99, (percentile - 0.9) / 0.09)
        } else {
            self.p99
        }
    }
}

/// Both latencies of one request on one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Dispatch to first token.
    pub ttft: Quantiles,
    /// Time per output token after the first.
    pub tpot: Quantiles,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_log_linear_between_the_quantiles_and_clamped_outside() {
        let of = Quantiles {
            p50: 100.0,
            p90: 400.0,
            p99: 800.0,
        };
        for (percentile, ms) in [(0.1, 100.0), (0.5, 100.0), (0.9, 400.0), (0.99, 800.0)] {
            assert_eq!(of.at(percentile), ms, "{percentile}");
        }
        assert_eq!(of.at(1.0), 800.0);
        assert!((of.at(0.7) - 200.0).abs() < 0.01);
        assert!((of.at(0.945) - 400.0 * 2.0_f32.sqrt()).abs() < 0.1);
    }
}

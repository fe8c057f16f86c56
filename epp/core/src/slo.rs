//! What a client asks of latency.

use serde::{Deserialize, Serialize};

/// Longest target that is kept as given, in milliseconds (about eleven days): client numbers are clamped
/// to it so that no arithmetic on them can overflow.
const LONGEST_MS: f64 = 1e9;

/// Latency targets of one request; `None` = not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Time from arrival at the picker to the first token, queueing included, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Mean time per output token after the first, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot_ms: Option<f64>,
}

impl Slo {
    /// No target at all.
    pub const NONE: Self = Self {
        ttft_ms: None,
        tpot_ms: None,
    };

    /// Whether any target is set.
    pub fn is_set(&self) -> bool {
        self.ttft_ms.is_some() || self.tpot_ms.is_some()
    }

    /// Each target of `self`, else that of `fallback`.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        Self {
            ttft_ms: self.ttft_ms.or(fallback.ttft_ms),
            tpot_ms: self.tpot_ms.or(fallback.tpot_ms),
        }
    }

    /// Whether latencies in milliseconds meet every target that is set.
    ///
    /// `tpot_ms` is `None` for an answer of fewer than two tokens, which has no time per output token and
    /// meets any target for it.
    pub fn met(&self, ttft_ms: f64, tpot_ms: Option<f64>) -> bool {
        let within =
            |target: Option<f64>, actual: f64| target.is_none_or(|target| actual <= target);
        within(self.ttft_ms, ttft_ms) && tpot_ms.is_none_or(|actual| within(self.tpot_ms, actual))
    }

    /// A target in milliseconds as a header carries it; `None` unless it is a finite number above zero.
    pub fn parse_ms(text: &str) -> Option<f64> {
        let value: f64 = text.trim().parse().ok()?;
        (value.is_finite() && value > 0.0).then(|| value.min(LONGEST_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_numbers_are_checked_and_clamped() {
        assert_eq!(Slo::parse_ms(" 150.5 "), Some(150.5));
        assert_eq!(Slo::parse_ms("1e300"), Some(LONGEST_MS));
        for bad in ["", "0", "-3", "NaN", "inf", "2s"] {
            assert_eq!(Slo::parse_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_target_counts_only_when_set() {
        let slo = Slo {
            ttft_ms: Some(100.0),
            tpot_ms: None,
        };
        assert!(slo.met(100.0, Some(9_999.0)));
        assert!(!slo.met(100.1, None));
        assert!(Slo::NONE.met(f64::INFINITY, None));
        let both = slo.or(Slo {
            ttft_ms: Some(1.0),
            tpot_ms: Some(20.0),
        });
        assert_eq!(
            both,
            Slo {
                ttft_ms: Some(100.0),
                tpot_ms: Some(20.0)
            }
        );
        assert!(!both.met(1.0, Some(21.0)));
    }
}

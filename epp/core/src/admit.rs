//! SLO admission: can any endpoint serve this request in time?

use predictor::{LatencyModel, State, Target};

use crate::config::Quantile;
use crate::schedule::{Ask, Candidate};

/// Which halves of a latency model may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// TTFT is trained.
    pub ttft: bool,
    /// TPOT is trained.
    pub tpot: bool,
}

/// What the predictions say of a request's chances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Chances {
    /// It has no SLO, or some endpoint is predicted to meet it, or some prediction is not trusted.
    Open,
    /// Every endpoint has a trusted prediction, and none meets the SLO.
    None {
        /// How far the nearest endpoint is over the TTFT target, in milliseconds; 0 if only TPOT misses.
        over_ms: f64,
    },
}

impl Trust {
    /// Neither.
    pub const NONE: Self = Self {
        ttft: false,
        tpot: false,
    };

    /// Those that are trained.
    pub fn of(model: &LatencyModel) -> Self {
        let trained = |target| model.state(target) == State::Trained;
        Self {
            ttft: trained(Target::Ttft),
            tpot: trained(Target::Tpot),
        }
    }

    /// Whether the prediction for `candidate` may be believed about every target that `ask` sets: the model
    /// is trained for it and the endpoint is past its first labels. An idle endpoint is not special.
    pub fn covers(self, ask: &Ask, candidate: &Candidate) -> bool {
        candidate.prediction.is_some()
            && !candidate.load.cold()
            && (self.ttft || ask.slo.ttft_ms.is_none())
            && (self.tpot || ask.slo.tpot_ms.is_none())
    }
}

/// Judges a request against all its candidates: time waited (or expected to be waited) plus predicted TTFT,
/// and predicted TPOT, each at `quantile`, against the targets.
pub fn chances(quantile: Quantile, ask: &Ask, candidates: &[Candidate]) -> Chances {
    if !ask.slo.is_set() || candidates.is_empty() {
        return Chances::Open;
    }
    let mut over_ms = f64::INFINITY;
    for candidate in candidates {
        let Some(prediction) = candidate
            .prediction
            .filter(|_| candidate.trust.covers(ask, candidate))
        else {
            return Chances::Open;
        };
        let ttft_ms = ask.waited_ms + quantile.of(&prediction.ttft);
        if ask.slo.met(ttft_ms, Some(quantile.of(&prediction.tpot))) {
            return Chances::Open;
        }
        over_ms = over_ms.min(
            ask.slo
                .ttft_ms
                .map_or(0.0, |target| (ttft_ms - target).max(0.0)),
        );
    }
    Chances::None { over_ms }
}

#[cfg(test)]
mod tests {
    use predictor::{Prediction, Quantiles};

    use super::*;
    use crate::endpoint::COLD_LABELS;
    use crate::schedule::{ask, candidate};
    use crate::slo::Slo;

    const TRAINED: Trust = Trust {
        ttft: true,
        tpot: true,
    };

    fn warm(ttft: f32, tpot: f32) -> Candidate {
        let spread = |p50| Quantiles {
            p50,
            p90: p50 * 2.0,
            p99: p50 * 3.0,
        };
        let mut candidate = candidate(0);
        candidate.prediction = Some(Prediction {
            ttft: spread(ttft),
            tpot: spread(tpot),
        });
        candidate.load.served = COLD_LABELS;
        candidate.trust = TRAINED;
        candidate
    }

    fn asked(waited_ms: f64) -> Ask {
        Ask {
            slo: Slo {
                ttft_ms: Some(1_000.0),
                tpot_ms: Some(50.0),
            },
            waited_ms,
            ..ask()
        }
    }

    #[test]
    fn refused_only_when_every_trusted_prediction_misses() {
        let late = warm(1_500.0, 20.0);
        let slow = warm(100.0, 60.0);
        let judge = |candidates: &[Candidate]| chances(Quantile::P50, &asked(0.0), candidates);
        assert_eq!(judge(&[late]), Chances::None { over_ms: 500.0 });
        assert_eq!(judge(&[late, slow]), Chances::None { over_ms: 0.0 });
        assert_eq!(judge(&[late, slow, warm(900.0, 40.0)]), Chances::Open);
        assert_eq!(judge(&[]), Chances::Open);
    }

    #[test]
    fn waiting_counts_and_so_does_the_quantile() {
        let good = [warm(400.0, 20.0)];
        assert_eq!(chances(Quantile::P50, &asked(600.0), &good), Chances::Open);
        assert_eq!(
            chances(Quantile::P50, &asked(700.0), &good),
            Chances::None { over_ms: 100.0 }
        );
        assert_eq!(chances(Quantile::P90, &asked(200.0), &good), Chances::Open);
        assert_eq!(
            chances(Quantile::P99, &asked(0.0), &good),
            Chances::None { over_ms: 200.0 }
        );
    }

    #[test]
    fn one_untrusted_prediction_admits_but_idleness_does_not() {
        let late = warm(1_500.0, 60.0);
        assert_eq!(late.load.in_flight, 0, "idle, and refused all the same");
        assert_ne!(chances(Quantile::P50, &asked(0.0), &[late]), Chances::Open);
        let mut cold = late;
        cold.load.served = COLD_LABELS - 1;
        assert_eq!(
            chances(Quantile::P50, &asked(0.0), &[late, cold]),
            Chances::Open
        );
        let mut half = late;
        half.trust.tpot = false;
        assert_eq!(chances(Quantile::P50, &asked(0.0), &[half]), Chances::Open);
        let only_ttft = Ask {
            slo: Slo {
                ttft_ms: Some(1_000.0),
                tpot_ms: None,
            },
            ..asked(0.0)
        };
        assert_eq!(
            chances(Quantile::P50, &only_ttft, &[half]),
            Chances::None { over_ms: 500.0 }
        );
        assert_eq!(
            chances(Quantile::P50, &ask(), &[late]),
            Chances::Open,
            "no SLO"
        );
    }
}

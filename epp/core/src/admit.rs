//! SLO admission: can any endpoint serve this request in time?

use predictor::{LatencyModel, State, Target};

use crate::config::{Config, ProbabilisticAdmitter, Quantile};
use crate::endpoint::Scraped;
use crate::schedule::headroom::harms;
use crate::schedule::{Ask, Candidate};
use crate::slo::Slo;

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
pub(crate) enum Chances {
    /// It has no SLO, or some endpoint is predicted to meet it, or some prediction is not trusted.
    Open,
    /// Every endpoint has a trusted prediction. Some meet the SLO, but there the request would make others miss theirs.
    Harmful,
    /// Every endpoint has a trusted prediction, and none meets the SLO.
    None {
        /// How far the nearest endpoint is over the TTFT target, in milliseconds; 0 if only TPOT misses.
        over_ms: f64,
    },
}

/// How chances are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The quantile compared with the SLO.
    pub(crate) quantile: Quantile,
    /// An idle endpoint, or one whose KV cache is nearly empty, has a chance whatever is predicted for it.
    pub(crate) idle_admits: bool,
    /// TPOT counts.
    pub(crate) streaming: bool,
    /// Factor on the TPOT target.
    pub(crate) buffer: f64,
    /// Those already there count: as llm-d does by the tightest of their targets if false, by what this request would
    /// do to them if true.
    pub(crate) protect_running: bool,
}

/// KV utilisation below which an endpoint has hardly served anything: llm-d's sign of untrustworthy predictions.
const COLD_KV: f32 = 0.02;

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

    /// Whether the prediction for `candidate` may be believed about every target that `slo` sets: the model
    /// is trained for it and the endpoint is past its first labels. An idle endpoint is not special.
    pub fn covers(self, slo: Slo, candidate: &Candidate) -> bool {
        candidate.prediction.is_some()
            && !candidate.load.cold()
            && (self.ttft || slo.ttft_ms.is_none())
            && (self.tpot || slo.tpot_ms.is_none())
    }
}

impl Rules {
    pub(crate) fn of(config: &Config) -> Self {
        let admitter = config.slo_admitter.as_ref();
        let producer = config.predicted_latency.as_ref();
        Self {
            quantile: admitter.map_or(Quantile::P50, |admitter| admitter.quantile),
            idle_admits: admitter.is_some_and(|admitter| admitter.idle_admits),
            streaming: producer.is_some_and(|producer| producer.streaming_mode),
            buffer: producer.map_or(1.0, |producer| producer.slo_buffer_factor),
            protect_running: producer.is_some_and(|producer| producer.protect_running),
        }
    }

    /// Judges a request against all its candidates: time waited (or expected to be waited) plus predicted TTFT,
    /// and predicted TPOT, each at the quantile, against the targets.
    pub(crate) fn chances(&self, ask: &Ask<'_>, candidates: &[Candidate]) -> Chances {
        if candidates.is_empty() || !(ask.slo().is_set() || self.protect_running) {
            return Chances::Open;
        }
        let (mut over_ms, mut harmful) = (f64::INFINITY, false);
        for candidate in candidates {
            match self.judge(ask, candidate) {
                Chances::Open => return Chances::Open,
                Chances::Harmful => harmful = true,
                Chances::None { over_ms: over } => over_ms = over_ms.min(over),
            }
        }
        if harmful {
            Chances::Harmful
        } else {
            Chances::None { over_ms }
        }
    }

    fn judge(&self, ask: &Ask<'_>, candidate: &Candidate) -> Chances {
        let nearly_empty = || {
            let scraped = candidate.scraped;
            scraped.is_some_and(|scraped| scraped.kv_utilization < COLD_KV)
        };
        let idle = self.idle_admits && (candidate.load.in_flight == 0 || nearly_empty());
        let Some(prediction) = candidate.prediction.filter(|_| !idle) else {
            return Chances::Open;
        };
        let ttft_ms = ask.waited_ms + self.quantile.of(&prediction.ttft);
        let tpot_ms = self.quantile.of(&prediction.tpot);
        let slo = ask.slo();
        let late_by = slo
            .ttft_ms
            .map_or(0.0, |target| (ttft_ms - target).max(0.0));
        let slow = self.streaming
            && candidate.decodes
            && self
                .tpot_target(slo, candidate)
                .is_some_and(|target| tpot_ms > target);
        if late_by > 0.0 || slow {
            return if candidate.trust.covers(slo, candidate) {
                Chances::None { over_ms: late_by }
            } else {
                Chances::Open
            };
        }
        let believed = candidate.trust.ttft && candidate.trust.tpot && !candidate.load.cold();
        if self.protect_running && believed && harms(self.quantile, ask, candidate) {
            return Chances::Harmful;
        }
        Chances::Open
    }

    /// The TPOT that the request needs there, in milliseconds; `None` = any.
    fn tpot_target(&self, slo: Slo, candidate: &Candidate) -> Option<f64> {
        let own = slo.tpot_ms?;
        let tightest = candidate
            .load
            .tightest_tpot_ms
            .filter(|_| !self.protect_running)
            .map_or(own, |running| own.min(f64::from(running)));
        Some(tightest * self.buffer)
    }
}

/// Probability with which a request of negative priority is refused: `min(1, k·sat^power)`, where sat is the mean over
/// endpoints of `max(queue/queueDepthThreshold, kv/kvCacheUtilThreshold)`. Endpoints that nothing is known of are left
/// out; without any the probability is 0.
pub(crate) fn refusal_probability(
    parameters: &ProbabilisticAdmitter,
    scraped: impl Iterator<Item = Option<Scraped>>,
) -> f64 {
    let level = |scraped: Scraped| {
        // `max` of f64 ignores a NaN operand: one absent metric leaves the other in charge.
        (f64::from(scraped.waiting) / parameters.queue_depth_threshold)
            .max(f64::from(scraped.kv_utilization) / parameters.kv_cache_util_threshold)
    };
    let known = scraped.flatten().map(level).filter(|level| !level.is_nan());
    let (sum, count) = known.fold((0.0, 0_u32), |(sum, count), level| (sum + level, count + 1));
    if count == 0 {
        return 0.0;
    }
    (parameters.k * (sum / f64::from(count)).powf(parameters.power)).min(1.0)
}

#[cfg(test)]
mod tests {
    use predictor::{Prediction, Quantiles};

    use super::*;
    use crate::endpoint::COLD_LABELS;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, scraped};

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

    const PLAIN: Rules = Rules {
        quantile: Quantile::P50,
        idle_admits: false,
        streaming: true,
        buffer: 1.0,
        protect_running: false,
    };

    fn at(quantile: Quantile) -> Rules {
        Rules { quantile, ..PLAIN }
    }

    fn with(ttft_ms: Option<f64>, tpot_ms: Option<f64>) -> Request {
        Request {
            slo: Slo { ttft_ms, tpot_ms },
            ..Request::default()
        }
    }

    fn judged(rules: Rules, waited_ms: f64, candidates: &[Candidate]) -> Chances {
        let request = with(Some(1_000.0), Some(50.0));
        let asked = Ask {
            waited_ms,
            ..ask(&request)
        };
        rules.chances(&asked, candidates)
    }

    #[test]
    fn refused_only_when_every_trusted_prediction_misses() {
        let late = warm(1_500.0, 20.0);
        let slow = warm(100.0, 60.0);
        let judge = |candidates: &[Candidate]| judged(PLAIN, 0.0, candidates);
        assert_eq!(judge(&[late]), Chances::None { over_ms: 500.0 });
        assert_eq!(judge(&[late, slow]), Chances::None { over_ms: 0.0 });
        assert_eq!(judge(&[late, slow, warm(900.0, 40.0)]), Chances::Open);
        assert_eq!(judge(&[]), Chances::Open);
    }

    #[test]
    fn waiting_counts_and_so_does_the_quantile() {
        let good = [warm(400.0, 20.0)];
        assert_eq!(judged(PLAIN, 600.0, &good), Chances::Open);
        assert_eq!(
            judged(PLAIN, 700.0, &good),
            Chances::None { over_ms: 100.0 }
        );
        assert_eq!(judged(at(Quantile::P90), 200.0, &good), Chances::Open);
        assert_eq!(
            judged(at(Quantile::P99), 0.0, &good),
            Chances::None { over_ms: 200.0 }
        );
    }

    #[test]
    fn one_untrusted_prediction_admits_but_idleness_does_not() {
        let late = warm(1_500.0, 60.0);
        assert_eq!(late.load.in_flight, 0, "idle, and refused all the same");
        assert_ne!(judged(PLAIN, 0.0, &[late]), Chances::Open);
        let mut cold = late;
        cold.load.served = COLD_LABELS - 1;
        assert_eq!(judged(PLAIN, 0.0, &[late, cold]), Chances::Open);
        let mut half = late;
        half.trust.tpot = false;
        assert_eq!(judged(PLAIN, 0.0, &[half]), Chances::Open);
        let only_ttft = with(Some(1_000.0), None);
        assert_eq!(
            PLAIN.chances(&ask(&only_ttft), &[half]),
            Chances::None { over_ms: 500.0 }
        );
        let nothing = with(None, None);
        assert_eq!(PLAIN.chances(&ask(&nothing), &[late]), Chances::Open);
    }

    #[test]
    fn by_llmds_rule_idleness_and_an_empty_cache_admit() {
        let rules = Rules {
            idle_admits: true,
            ..PLAIN
        };
        let idle = warm(1_500.0, 60.0);
        assert_eq!(judged(rules, 0.0, &[idle]), Chances::Open);
        let mut busy = idle;
        busy.load.in_flight = 1;
        assert_eq!(
            judged(rules, 0.0, &[busy]),
            Chances::None { over_ms: 500.0 }
        );
        busy.scraped = scraped(0.0, 1.0, 0.019);
        assert_eq!(judged(rules, 0.0, &[busy]), Chances::Open);
        busy.scraped = scraped(0.0, 1.0, 0.02);
        assert_ne!(judged(rules, 0.0, &[busy]), Chances::Open);
    }

    #[test]
    fn tpot_counts_with_streaming_buffered_and_tightened() {
        let mut there = warm(100.0, 40.0);
        assert_eq!(judged(PLAIN, 0.0, &[there]), Chances::Open);
        let buffered = Rules {
            buffer: 0.7,
            ..PLAIN
        };
        assert_ne!(judged(buffered, 0.0, &[there]), Chances::Open);
        there.load.tightest_tpot_ms = Some(30);
        assert_ne!(judged(PLAIN, 0.0, &[there]), Chances::Open);
        let whole = Rules {
            streaming: false,
            ..PLAIN
        };
        assert_eq!(judged(whole, 0.0, &[there]), Chances::Open);
    }

    #[test]
    fn whoever_is_already_there_is_protected_where_that_is_wanted() {
        let protecting = Rules {
            protect_running: true,
            ..PLAIN
        };
        let mut there = warm(100.0, 40.0);
        there.load.tightest_tpot_ms = Some(30);
        assert_eq!(
            judged(protecting, 0.0, &[there]),
            Chances::Open,
            "expected to miss by itself"
        );
        there.load.kept_tpot_ms = Some(30);
        assert_eq!(judged(protecting, 0.0, &[there]), Chances::Harmful);
        let late = warm(1_500.0, 10.0);
        assert_eq!(judged(protecting, 0.0, &[late, there]), Chances::Harmful);
        assert_eq!(
            judged(protecting, 0.0, &[there, warm(900.0, 40.0)]),
            Chances::Open
        );
        let plain = with(None, None);
        assert_eq!(
            protecting.chances(&ask(&plain), &[there]),
            Chances::Harmful,
            "also by who asks for nothing"
        );
        there.trust.tpot = false;
        assert_eq!(judged(protecting, 0.0, &[there]), Chances::Open);
    }

    #[test]
    fn the_probability_follows_the_formula() {
        let parameters = ProbabilisticAdmitter::default();
        let probability =
            |scraped: &[Option<Scraped>]| refusal_probability(&parameters, scraped.iter().copied());
        assert_eq!(probability(&[None]), 0.0);
        assert_eq!(probability(&[scraped(5.0, 0.0, 0.0)]), 1.0);
        // Mean of 0.5/5 = 0.1 and 0.24/0.8 = 0.3: 300·0.2⁵.
        let half = probability(&[scraped(0.5, 0.0, 0.0), None, scraped(1.0, 0.0, 0.24)]);
        assert!((half - 0.096).abs() < 1e-6, "{half}");
    }
}

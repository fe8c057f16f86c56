//! SLO minus prediction, by llm-d's rules, and what a request would do to those already there.

use crate::config::{PredictedLatencyProducer, Quantile};
use crate::schedule::{Ask, Candidate};

/// Prompt tokens that an engine reads in one step, vLLM's default for online serving: those of later requests can
/// share the last step of the requests before them, no more.
const STEP_TOKENS: u64 = 2_048;

/// SLO minus prediction, in milliseconds; negative = predicted to miss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Headroom {
    pub(crate) ttft: f64,
    pub(crate) tpot: f64,
}

impl Headroom {
    pub(crate) fn is_positive(self) -> bool {
        self.ttft >= 0.0 && self.tpot >= 0.0
    }
}

/// Headroom of one candidate; `None` = there is no prediction. A missing target counts as 0, so that the lowest
/// prediction wins; queue time is part of the user's TTFT. Without streaming, and where an endpoint only prefills,
/// TPOT never misses; else the target is tightened to that of the requests already running there.
pub(crate) fn headroom(
    producer: &PredictedLatencyProducer,
    ask: &Ask<'_>,
    candidate: &Candidate,
) -> Option<Headroom> {
    let prediction = candidate.prediction?;
    let quantile = producer.quantile;
    let ttft = ask.slo().ttft_ms.unwrap_or(0.0) - ask.waited_ms - quantile.of(&prediction.ttft);
    if !producer.streaming_mode || !candidate.decodes {
        return Some(Headroom { ttft, tpot: 0.0 });
    }
    let own = ask.slo().tpot_ms.unwrap_or(0.0);
    let tightest = candidate
        .load
        .tightest_tpot_ms
        .map_or(own, |running| own.min(f64::from(running)));
    Some(Headroom {
        ttft,
        tpot: tightest * producer.slo_buffer_factor - quantile.of(&prediction.tpot),
    })
}

/// Whether the request would make others on the endpoint miss what they were expected to meet.
///
/// Everybody in a batch decodes at one pace, so the TPOT predicted for the request is that of all who run there with
/// it; the tightest target among them must stand it. Of those still waiting for their first token, the most urgent
/// must have it before its deadline although the request's uncached tokens fill up the step that theirs end in:
/// `min(uncached, step − waiting mod step)` tokens, at the pace that the predicted TTFT implies. A deadline that
/// would be missed anyway is nobody's fault.
pub(crate) fn harms(quantile: Quantile, ask: &Ask<'_>, candidate: &Candidate) -> bool {
    let Some(prediction) = candidate.prediction else {
        return false;
    };
    let tpot_ms = quantile.of(&prediction.tpot);
    let load = &candidate.load;
    if candidate.decodes
        && load
            .kept_tpot_ms
            .is_some_and(|kept| tpot_ms > f64::from(kept))
    {
        return true;
    }
    let Some(deadline_ms) = load.kept_first_token_ms else {
        return false;
    };
    let uncached = ask.prompt_tokens().saturating_sub(candidate.cached_tokens);
    let ahead = load.waiting_tokens;
    let shared = u64::from(uncached).min(STEP_TOKENS - ahead % STEP_TOKENS);
    let per_token = quantile.of(&prediction.ttft) / (ahead + u64::from(uncached)).max(1) as f64;
    let left_ms = deadline_ms as f64 - ask.now.as_secs_f64() * 1e3;
    let without_ms = per_token * ahead as f64;
    without_ms <= left_ms && left_ms < without_ms + per_token * shared as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use predictor::{Prediction, Quantiles};

    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate};
    use crate::slo::Slo;

    fn predicted(ttft: f32, tpot: f32) -> Candidate {
        let spread = |p50: f32| Quantiles {
            p50,
            p90: 2.0 * p50,
            p99: 3.0 * p50,
        };
        Candidate {
            prediction: Some(Prediction {
                ttft: spread(ttft),
                tpot: spread(tpot),
            }),
            ..candidate(0)
        }
    }

    #[test]
    fn headroom_is_the_target_less_wait_and_prediction() {
        let request = Request {
            slo: Slo {
                ttft_ms: Some(1_000.0),
                tpot_ms: Some(50.0),
            },
            ..Request::default()
        };
        let asked = Ask {
            waited_ms: 100.0,
            ..ask(&request)
        };
        let mut producer = PredictedLatencyProducer {
            streaming_mode: true,
            slo_buffer_factor: 0.9,
            ..PredictedLatencyProducer::default()
        };
        let mut there = predicted(300.0, 30.0);
        let room = |producer: &PredictedLatencyProducer, candidate: &Candidate| {
            headroom(producer, &asked, candidate).map(|room| (room.ttft, room.tpot))
        };
        assert_eq!(room(&producer, &there), Some((600.0, 15.0)));
        there.load.tightest_tpot_ms = Some(20);
        assert_eq!(room(&producer, &there), Some((600.0, -12.0)));
        there.decodes = false;
        assert_eq!(room(&producer, &there), Some((600.0, 0.0)));
        there.decodes = true;
        producer.streaming_mode = false;
        assert_eq!(room(&producer, &there), Some((600.0, 0.0)));
        producer.quantile = Quantile::P99;
        assert_eq!(room(&producer, &there), Some((0.0, 0.0)));
        assert_eq!(room(&producer, &candidate(0)), None);
    }

    #[test]
    fn a_batch_decodes_at_one_pace() {
        let request = Request::default();
        let mut there = predicted(100.0, 30.0);
        let harms = |candidate: &Candidate| harms(Quantile::P50, &ask(&request), candidate);
        assert!(!harms(&there), "nobody there was promised anything");
        there.load.tightest_tpot_ms = Some(10);
        assert!(!harms(&there), "nor was who was expected to miss");
        there.load.kept_tpot_ms = Some(29);
        assert!(harms(&there));
        there.load.kept_tpot_ms = Some(30);
        assert!(!harms(&there));
    }

    #[test]
    fn only_the_step_that_is_shared_delays_those_who_wait() {
        let request = Request {
            prompt_tokens: 1_000,
            ..Request::default()
        };
        let asked = Ask {
            now: Duration::from_millis(5_000),
            ..ask(&request)
        };
        // 3,000 tokens take 300 ms: 2,000 ahead 200 ms, and 48 of ours fit into their last step, 4.8 ms.
        let mut there = predicted(300.0, 1.0);
        there.load.waiting_tokens = 2_000;
        let mut harms = |deadline_ms: u64| {
            there.load.kept_first_token_ms = Some(deadline_ms);
            harms(Quantile::P50, &asked, &there)
        };
        assert!(!harms(5_205), "they are through before");
        assert!(harms(5_204));
        assert!(harms(5_200));
        assert!(!harms(5_199), "lost anyway");
        assert!(!harms(4_000), "long lost");
    }
}

//! `predicted-ttft-scorer`, Headroom's own: the shortest predicted time to first token.
//!
//! Endpoints predicted to meet the SLO, and to let those already there meet theirs where that is protected, score in
//! 0.5..=1, the others in 0..0.5; within each part the score is the best cost ÷ the endpoint's cost.
//! Cost = predicted TTFT × (1 + w·u), where u is the share of the prompt that the endpoint would have to compute: work
//! that a cache hit saves is also saved to whoever comes next.
//!
//! Until the model is trained, queue, KV and prefix count 2, 2 and 3, as in llm-d's default. A model of a few labels
//! knows only the load that it began with: it would part prompts from their prefixes, and where a prompt has been once
//! it goes again.

use predictor::State;

use super::composite::Composite;
use crate::config::PredictedTtftScorer as Parameters;
use crate::schedule::headroom::harms;
use crate::schedule::{Ask, Candidate, Score};

/// Costs are not told apart below this many milliseconds.
const FLOOR_MS: f64 = 1.0;

/// Prefers the shortest predicted time to first token.
#[derive(Debug)]
pub(super) struct PredictedTtftScorer {
    pub(super) parameters: Parameters,
    /// Requests already there count too.
    pub(super) protect_running: bool,
}

impl Score for PredictedTtftScorer {
    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let trained = matches!(ask.ttft_state, Some(State::Trained | State::Stale));
        if !trained
            || candidates
                .iter()
                .any(|candidate| candidate.prediction.is_none())
        {
            return Composite {
                kv: 2.0,
                queue: 2.0,
                prefix: 3.0,
            }
            .score(ask, candidates, scores);
        }
        let mut least = [f64::INFINITY; 2];
        for candidate in candidates {
            let best = &mut least[usize::from(self.meets(ask, candidate))];
            *best = best.min(self.cost(ask, candidate));
        }
        for (candidate, score) in candidates.iter().zip(scores) {
            let meets = self.meets(ask, candidate);
            let relative = least[usize::from(meets)] / self.cost(ask, candidate);
            // Strictly below half for a miss, so that a miss never ties with the worst hit.
            let (base, span) = if meets { (0.5, 0.5) } else { (0.0, 0.499) };
            *score = (base + span * relative) as f32;
        }
    }
}

impl PredictedTtftScorer {
    fn cost(&self, ask: &Ask<'_>, candidate: &Candidate) -> f64 {
        let ttft = candidate
            .prediction
            .map_or(f64::INFINITY, |it| self.parameters.quantile.of(&it.ttft));
        let prompt = ask.prompt_tokens();
        let uncached = f64::from(prompt.saturating_sub(candidate.cached_tokens));
        let share = uncached / f64::from(prompt.max(1));
        ttft.max(FLOOR_MS) * (1.0 + self.parameters.prefill_weight * share)
    }

    fn meets(&self, ask: &Ask<'_>, candidate: &Candidate) -> bool {
        candidate.prediction.is_some_and(|prediction| {
            let quantile = self.parameters.quantile;
            let ttft = ask.waited_ms + quantile.of(&prediction.ttft);
            let tpot = candidate.decodes.then(|| quantile.of(&prediction.tpot));
            ask.slo().met(ttft, tpot) && !(self.protect_running && harms(quantile, ask, candidate))
        })
    }
}

#[cfg(test)]
mod tests {
    use predictor::{Prediction, Quantiles};

    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate};
    use crate::slo::Slo;

    fn predicted(ttft: f32, tpot: f32, cached_tokens: u32) -> Candidate {
        let sure = |p50| Quantiles {
            p50,
            p90: p50,
            p99: p50,
        };
        let prediction = Some(Prediction {
            ttft: sure(ttft),
            tpot: sure(tpot),
        });
        Candidate {
            prediction,
            cached_tokens,
            ..candidate(0)
        }
    }

    fn scores(state: State, candidates: &[Candidate]) -> Vec<f32> {
        let mut scorer = PredictedTtftScorer {
            parameters: Parameters {
                prefill_weight: 1.0,
                ..Parameters::default()
            },
            protect_running: true,
        };
        let request = Request {
            slo: Slo {
                ttft_ms: Some(1_000.0),
                tpot_ms: Some(50.0),
            },
            prompt_tokens: 100,
            ..Request::default()
        };
        let mut scores = vec![0.0; candidates.len()];
        let asked = Ask {
            ttft_state: Some(state),
            ..ask(&request)
        };
        scorer.score(&asked, candidates, &mut scores);
        scores
    }

    #[test]
    fn whoever_would_slow_down_those_already_there_comes_last() {
        let mut strict = predicted(100.0, 20.0, 0);
        strict.load.kept_tpot_ms = Some(15);
        let candidates = [strict, predicted(400.0, 20.0, 0)];
        assert_eq!(scores(State::Trained, &candidates), [0.499, 1.0]);
    }

    #[test]
    fn shortest_wins_among_those_that_meet_the_slo() {
        let candidates = [
            predicted(400.0, 20.0, 0),
            predicted(200.0, 20.0, 0),
            predicted(100.0, 60.0, 0),
        ];
        assert_eq!(scores(State::Trained, &candidates), [0.75, 1.0, 0.499]);
    }

    #[test]
    fn a_cache_hit_counts_beyond_its_own_saving() {
        // Costs 150·(1 + 1) and 200·(1 + 0.25).
        let candidates = [predicted(150.0, 20.0, 0), predicted(200.0, 20.0, 75)];
        let scored = scores(State::Trained, &candidates);
        assert_eq!(scored[1], 1.0);
        assert!((scored[0] - (0.5 + 0.5 * 250.0 / 300.0)).abs() < 1e-6);
    }

    #[test]
    fn a_model_is_believed_once_it_was_trained() {
        let mut busy = predicted(10.0, 1.0, 0);
        busy.load.waiting = 2;
        let candidates = [busy, predicted(900.0, 40.0, 0)];
        for state in [State::Prior, State::Warming] {
            let scored = scores(state, &candidates);
            assert!(scored[1] > scored[0], "{state:?}");
        }
        for state in [State::Trained, State::Stale] {
            let scored = scores(state, &candidates);
            assert!(scored[0] > scored[1], "{state:?}");
        }
    }
}

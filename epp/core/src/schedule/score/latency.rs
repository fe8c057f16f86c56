//! `latency-scorer`: predicted headroom against the SLO, by llm-d's rules.

use super::composite::Composite;
use crate::config::{LatencyScorer, PredictedLatencyProducer, Strategy};
use crate::schedule::headroom::{Headroom, headroom};
use crate::schedule::{Ask, Candidate, Score};

/// Range below which a dimension is treated as constant.
const FLAT: f64 = 1e-9;

/// Prefers, among the endpoints predicted to meet the SLO, the one with the least or the most headroom.
#[derive(Debug)]
pub(super) struct HeadroomScorer {
    pub(super) parameters: LatencyScorer,
    pub(super) producer: PredictedLatencyProducer,
}

/// Candidates are scored group by group; only one group gets more than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Meets,
    MissesTpot,
    MissesTtft,
    MissesBoth,
}

impl Group {
    fn of(room: Headroom) -> Self {
        match (room.ttft < 0.0, room.tpot < 0.0) {
            (false, false) => Self::Meets,
            (false, true) => Self::MissesTpot,
            (true, false) => Self::MissesTtft,
            (true, true) => Self::MissesBoth,
        }
    }
}

impl Score for HeadroomScorer {
    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        if candidates
            .iter()
            .all(|candidate| candidate.prediction.is_none())
        {
            let LatencyScorer {
                composite_kv_weight,
                composite_queue_weight,
                composite_prefix_weight,
                ..
            } = self.parameters;
            let composite = Composite {
                kv: composite_kv_weight,
                queue: composite_queue_weight,
                prefix: composite_prefix_weight,
            };
            return composite.score(ask, candidates, scores);
        }
        scores.fill(0.0);
        let group = |candidate: &Candidate| Group::of(self.headroom(ask, candidate));
        if candidates
            .iter()
            .any(|candidate| group(candidate) == Group::Meets)
        {
            let chosen = |candidate: &Candidate| group(candidate) == Group::Meets;
            return self.score_group(
                ask,
                candidates,
                scores,
                self.parameters.headroom_selection_strategy,
                chosen,
            );
        }
        if candidates
            .iter()
            .any(|candidate| candidate.load.in_flight == 0)
        {
            let idle = |candidate: &Candidate| candidate.load.in_flight == 0;
            return self.score_group(ask, candidates, scores, Strategy::Least, idle);
        }
        let buckets = [Group::MissesTpot, Group::MissesTtft, Group::MissesBoth];
        let first = buckets.into_iter().find(|&bucket| {
            candidates
                .iter()
                .any(|candidate| group(candidate) == bucket)
        });
        if let Some(bucket) = first {
            self.score_group(ask, candidates, scores, Strategy::Least, |candidate| {
                group(candidate) == bucket
            });
        }
    }
}

impl HeadroomScorer {
    /// Headroom of one candidate; no prediction = no miss.
    fn headroom(&self, ask: &Ask<'_>, candidate: &Candidate) -> Headroom {
        let none = Headroom {
            ttft: 0.0,
            tpot: 0.0,
        };
        headroom(&self.producer, ask, candidate).unwrap_or(none)
    }

    /// Scores the chosen candidates by |headroom|, min-max normalised among them; the others keep 0.
    fn score_group(
        &self,
        ask: &Ask<'_>,
        candidates: &[Candidate],
        scores: &mut [f32],
        strategy: Strategy,
        chosen: impl Fn(&Candidate) -> bool,
    ) {
        let distance = |candidate: &Candidate| {
            let headroom = self.headroom(ask, candidate);
            (headroom.ttft.abs(), headroom.tpot.abs())
        };
        let (mut ttft, mut tpot) = (Range::EMPTY, Range::EMPTY);
        for candidate in candidates.iter().filter(|candidate| chosen(candidate)) {
            let (ttft_ms, tpot_ms) = distance(candidate);
            ttft.include(ttft_ms);
            tpot.include(tpot_ms);
        }
        let (ttft_weight, tpot_weight) = self.weights(ttft, tpot);
        for (candidate, score) in candidates
            .iter()
            .zip(scores)
            .filter(|(candidate, _)| chosen(candidate))
        {
            let (ttft_ms, tpot_ms) = distance(candidate);
            let combined =
                ttft_weight * ttft.normalised(ttft_ms) + tpot_weight * tpot.normalised(tpot_ms);
            let share = match strategy {
                Strategy::Least => 1.0 - combined,
                Strategy::Most => combined,
            };
            *score = (((share * 100.0).floor() + 1.0) / 100.0) as f32;
        }
    }

    /// Weights of the two dimensions, summing to 1; a constant dimension yields its weight to the other.
    fn weights(&self, ttft: Range, tpot: Range) -> (f64, f64) {
        let (alpha, beta) = (self.parameters.ttft_weight, self.parameters.tpot_weight);
        let (alpha, beta) = (alpha / (alpha + beta), beta / (alpha + beta));
        match (ttft.is_flat(), tpot.is_flat()) {
            (true, false) => (0.0, 1.0),
            (false, true) => (1.0, 0.0),
            _ => (alpha, beta),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Range {
    least: f64,
    most: f64,
}

impl Range {
    const EMPTY: Self = Self {
        least: f64::INFINITY,
        most: f64::NEG_INFINITY,
    };

    fn include(&mut self, value: f64) {
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    fn is_flat(self) -> bool {
        self.most - self.least <= FLAT
    }

    fn normalised(self, value: f64) -> f64 {
        if self.is_flat() {
            0.5
        } else {
            (value - self.least) / (self.most - self.least)
        }
    }
}

#[cfg(test)]
mod tests {
    use predictor::{Prediction, Quantiles};

    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate};
    use crate::slo::Slo;

    fn predicted(ttft: f32, tpot: f32, in_flight: u32) -> Candidate {
        let sure = |p50| Quantiles {
            p50,
            p90: p50,
            p99: p50,
        };
        let mut candidate = candidate(0);
        candidate.prediction = Some(Prediction {
            ttft: sure(ttft),
            tpot: sure(tpot),
        });
        candidate.load.in_flight = in_flight;
        candidate
    }

    fn scores(strategy: Strategy, slo: Slo, waited_ms: f64, candidates: &[Candidate]) -> Vec<f32> {
        let mut scorer = HeadroomScorer {
            parameters: LatencyScorer {
                headroom_selection_strategy: strategy,
                ..LatencyScorer::default()
            },
            producer: PredictedLatencyProducer {
                streaming_mode: true,
                ..PredictedLatencyProducer::default()
            },
        };
        let mut scores = vec![0.0; candidates.len()];
        let request = Request {
            slo,
            ..Request::default()
        };
        let asked = Ask {
            waited_ms,
            ..ask(&request)
        };
        scorer.score(&asked, candidates, &mut scores);
        scores
    }

    const SLO: Slo = Slo {
        ttft_ms: Some(1_000.0),
        tpot_ms: Some(50.0),
    };

    #[test]
    fn only_those_that_meet_the_slo_score_and_least_packs() {
        // TTFT headrooms 800, 400, -200; TPOT headrooms 30, 10, 30.
        let candidates = [
            predicted(200.0, 20.0, 1),
            predicted(600.0, 40.0, 1),
            predicted(1_200.0, 20.0, 0),
        ];
        assert_eq!(
            scores(Strategy::Least, SLO, 0.0, &candidates),
            [0.01, 1.01, 0.0]
        );
        assert_eq!(
            scores(Strategy::Most, SLO, 0.0, &candidates),
            [1.01, 0.01, 0.0]
        );
    }

    #[test]
    fn time_already_waited_counts_against_the_slo() {
        let candidates = [predicted(200.0, 20.0, 1), predicted(600.0, 20.0, 1)];
        assert_eq!(
            scores(Strategy::Least, SLO, 500.0, &candidates),
            [0.51, 0.0]
        );
    }

    #[test]
    fn a_flat_dimension_yields_its_weight() {
        let candidates = [
            predicted(200.0, 20.0, 1),
            predicted(400.0, 20.0, 1),
            predicted(600.0, 20.0, 1),
        ];
        assert_eq!(
            scores(Strategy::Most, SLO, 0.0, &candidates),
            [1.01, 0.51, 0.01]
        );
    }

    #[test]
    fn when_all_miss_the_idle_ones_then_the_mildest_bucket_and_least() {
        let both = predicted(1_500.0, 60.0, 2);
        let tpot_only = predicted(500.0, 60.0, 2);
        let worse_tpot = predicted(500.0, 70.0, 2);
        let idle = predicted(9_000.0, 90.0, 0);
        assert_eq!(scores(Strategy::Most, SLO, 0.0, &[both, idle]), [0.0, 0.51]);
        assert_eq!(
            scores(Strategy::Most, SLO, 0.0, &[both, tpot_only, worse_tpot]),
            [0.0, 1.01, 0.01]
        );
    }

    #[test]
    fn without_targets_the_lowest_prediction_wins() {
        let candidates = [predicted(300.0, 20.0, 1), predicted(100.0, 20.0, 1)];
        assert_eq!(
            scores(Strategy::Most, Slo::NONE, 0.0, &candidates),
            [0.01, 1.01]
        );
    }

    #[test]
    fn running_requests_tighten_the_tpot_target() {
        let mut crowded = predicted(200.0, 20.0, 1);
        crowded.load.tightest_tpot_ms = Some(10);
        assert_eq!(
            scores(
                Strategy::Least,
                SLO,
                0.0,
                &[crowded, predicted(300.0, 30.0, 1)]
            ),
            [0.0, 0.51]
        );
    }

    #[test]
    fn without_any_prediction_the_composite_scores() {
        let mut busy = candidate(0);
        busy.load.waiting = 2;
        assert_eq!(
            scores(Strategy::Least, SLO, 0.0, &[busy, candidate(1)]),
            [0.17, 0.5]
        );
    }
}

//! `endpoint-attribute-scorer`: a number of the endpoint, scaled linearly; without it 0.

use std::sync::Arc;

use crate::config::{Direction, EndpointAttributeScorer, FixedRange};
use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Score};

/// Prefers one end of a range of numbers.
#[derive(Debug)]
pub(super) struct AttributeScorer {
    parameters: EndpointAttributeScorer,
    pool: Arc<Pool>,
    /// One per candidate, for one call.
    values: Vec<Option<f64>>,
}

impl AttributeScorer {
    pub(super) fn new(parameters: EndpointAttributeScorer) -> Self {
        Self {
            parameters,
            pool: Arc::default(),
            values: Vec::new(),
        }
    }

    /// `(value − min)/(max − min)`, turned over where lower is better.
    fn scaled(&self, value: f64, range: FixedRange) -> f64 {
        let share = (value.clamp(range.min, range.max) - range.min) / (range.max - range.min);
        match self.parameters.algorithm.direction {
            Direction::LinearHigherIsBetter => share,
            Direction::LinearLowerIsBetter => 1.0 - share,
        }
    }

    /// The range of the values at hand.
    fn adaptive(&self) -> FixedRange {
        let known = self.values.iter().flatten();
        let (min, max) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), &value| {
            (min.min(value), max.max(value))
        });
        FixedRange { min, max }
    }
}

impl Score for AttributeScorer {
    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.pool = Arc::clone(pool);
    }

    fn score(&mut self, _: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let key = &self.parameters.attribute_key;
        self.values.clear();
        self.values.extend(candidates.iter().map(|candidate| {
            let endpoint = self.pool.endpoints.get(candidate.slot as usize)?;
            endpoint.attribute(key).filter(|value| value.is_finite())
        }));
        let fixed = self.parameters.algorithm.normalization.fixed_range;
        let range = fixed.unwrap_or_else(|| self.adaptive());
        for (value, score) in self.values.iter().zip(scores) {
            *score = match *value {
                None => 0.0,
                // All are equal.
                Some(_) if range.min >= range.max => 1.0,
                Some(value) => self.scaled(value, range) as f32,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AttributeScale, Normalization};
    use crate::request::Request;
    use crate::schedule::{ask, candidate, labelled};

    fn scored(algorithm: AttributeScale, values: [Option<f64>; 3]) -> [f32; 3] {
        let pool = labelled(&[&[], &[], &[]]);
        for (endpoint, value) in pool.endpoints.iter().zip(values) {
            if let Some(value) = value {
                let told = vec![("other".into(), 1e9), ("depth".into(), value)];
                endpoint.set_attributes(Arc::new(told));
            }
        }
        let mut scorer = AttributeScorer::new(EndpointAttributeScorer {
            attribute_key: "depth".into(),
            algorithm,
            ..EndpointAttributeScorer::default()
        });
        scorer.pool_changed(&pool);
        let mut scores = [9.0; 3];
        let candidates = [candidate(0), candidate(1), candidate(2)];
        scorer.score(&ask(&Request::default()), &candidates, &mut scores);
        scores
    }

    #[test]
    fn over_the_range_of_the_candidates() {
        let lower = AttributeScale::default;
        assert_eq!(
            scored(lower(), [Some(2.0), Some(6.0), Some(3.0)]),
            [1.0, 0.0, 0.75]
        );
        assert_eq!(
            scored(lower(), [Some(4.0), None, Some(4.0)]),
            [1.0, 0.0, 1.0]
        );
        let higher = AttributeScale {
            direction: Direction::LinearHigherIsBetter,
            ..lower()
        };
        assert_eq!(
            scored(higher, [Some(2.0), Some(6.0), Some(f64::NAN)]),
            [0.0, 1.0, 0.0]
        );
    }

    #[test]
    fn over_a_fixed_range() {
        let fixed = AttributeScale {
            normalization: Normalization {
                fixed_range: Some(FixedRange { min: 0.0, max: 2.0 }),
                ..Normalization::default()
            },
            ..AttributeScale::default()
        };
        assert_eq!(
            scored(fixed, [Some(0.5), Some(9.0), Some(-1.0)]),
            [0.75, 0.0, 1.0]
        );
    }
}

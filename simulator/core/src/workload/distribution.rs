//! Distributions given by a few of their quantiles.

use rand::RngExt;
use rand::rngs::StdRng;

/// How a [`Distribution`] runs between two of its points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly in the value.
    Linear,
    /// Evenly in the logarithm of the value: for heavy tails. Needs values above 0.
    Logarithmic,
}

/// A distribution of positive numbers, as points (share of the draws at or below, value) of its quantile function.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    scale: Scale,
    points: Vec<(f64, f64)>,
}

/// Why points make no distribution.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum DistributionError {
    /// The ends are missing.
    #[error("points begin at share {first} and end at {last}, but should run from 0 to 1")]
    Ends {
        /// Share of the first point.
        first: f64,
        /// Share of the last point.
        last: f64,
    },
    /// A point does not follow from the one before it.
    #[error(
        "point {index} is ({share}, {value}), but should have a higher share than the point before it and a finite value above 0 that is no lower"
    )]
    Order {
        /// Which, from 0.
        index: usize,
        /// Its share.
        share: f64,
        /// Its value.
        value: f64,
    },
}

impl Distribution {
    /// A distribution through `points`, shares rising from 0 to 1, values positive and never falling.
    ///
    /// # Errors
    /// [`DistributionError`], naming the point.
    pub fn new(scale: Scale, points: &[(f64, f64)]) -> Result<Self, DistributionError> {
        let ends = (
            points.first().map_or(f64::NAN, |p| p.0),
            points.last().map_or(f64::NAN, |p| p.0),
        );
        if points.len() < 2 || ends != (0.0, 1.0) {
            return Err(DistributionError::Ends {
                first: ends.0,
                last: ends.1,
            });
        }
        let mut before = (-1.0, 0.0);
        for (index, &(share, value)) in points.iter().enumerate() {
            if !(share > before.0 && value > 0.0 && value >= before.1 && value.is_finite()) {
                return Err(DistributionError::Order {
                    index,
                    share,
                    value,
                });
            }
            before = (share, value);
        }
        Ok(Self::fixed(scale, points))
    }

    /// Points of this crate's own, which its tests check.
    pub(super) fn fixed(scale: Scale, points: &[(f64, f64)]) -> Self {
        Self {
            scale,
            points: points.to_vec(),
        }
    }

    /// The value that `share` (0 to 1) of the draws do not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        let above = self.points.partition_point(|point| point.0 <= share);
        let last = self.points.len() - 1;
        let (low, high) = (
            self.points[above.clamp(1, last) - 1],
            self.points[above.clamp(1, last)],
        );
        let part = ((share - low.0) / (high.0 - low.0)).clamp(0.0, 1.0);
        match self.scale {
            Scale::Linear => low.1 + part * (high.1 - low.1),
            Scale::Logarithmic => low.1 * (high.1 / low.1).powf(part),
        }
    }

    /// A draw.
    pub fn draw(&self, rng: &mut StdRng) -> f64 {
        self.quantile(rng.random())
    }

    /// A draw as a number of tokens, at least 1.
    pub fn tokens(&self, rng: &mut StdRng) -> u32 {
        // `as` saturates: a length beyond u32 is no length.
        (self.draw(rng).round() as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::WorkloadSpec;
    use super::*;

    #[test]
    fn quantiles_go_through_the_points() {
        let points = [(0.0, 1.0), (0.5, 100.0), (1.0, 400.0)];
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let distribution = Distribution::new(scale, &points).unwrap();
            for (share, value) in points {
                assert!((distribution.quantile(share) - value).abs() < 1e-9);
            }
        }
        let middle = |scale| Distribution::new(scale, &points).unwrap().quantile(0.75);
        assert_eq!(
            (middle(Scale::Linear), middle(Scale::Logarithmic)),
            (250.0, 200.0)
        );
    }

    #[test]
    fn points_that_make_no_distribution_are_named() {
        let new = |points: &[(f64, f64)]| Distribution::new(Scale::Linear, points).unwrap_err();
        assert!(matches!(new(&[]), DistributionError::Ends { .. }));
        assert!(matches!(
            new(&[(0.0, 1.0), (0.9, 2.0)]),
            DistributionError::Ends { .. }
        ));
        let falling = new(&[(0.0, 5.0), (0.5, 4.0), (1.0, 6.0)]);
        assert!(falling.to_string().contains("point 1 is (0.5, 4)"));
        assert!(matches!(
            new(&[(0.0, 0.0), (1.0, 6.0)]),
            DistributionError::Order { index: 0, .. }
        ));
    }

    #[test]
    fn the_fixed_points_are_distributions() {
        let spec = WorkloadSpec::mooncake_conversation();
        for fixed in [
            &spec.input,
            &spec.output,
            &spec.think_seconds,
            &spec.message,
        ] {
            assert_eq!(
                Distribution::new(fixed.scale, &fixed.points).as_ref(),
                Ok(fixed)
            );
        }
    }
}

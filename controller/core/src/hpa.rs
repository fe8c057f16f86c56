//! What a HorizontalPodAutoscaler makes of a count that it is told, and counts that it does not ignore.
//!
//! An HPA leaves the count as it is while the ratio of the value told to the value expected lies within its tolerance
//! (0.1 by default). Told an absolute count (an `AverageValue` of 1), that is a dead band which grows with the count:
//! from ten replicas on, one more or one less is ignored for ever. [`quantise`] turns a wanted count into the next one
//! that is acted upon; where the HPA's tolerance can be set to 0 (`behavior.scaleUp.tolerance`), nothing of this is
//! needed.

use serde::{Deserialize, Serialize};

/// Relative differences that an HPA ignores, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tolerance {
    /// Upward: ignored while value/expected ≤ 1 + `up`.
    pub up: f64,
    /// Downward: ignored while value/expected ≥ 1 − `down`.
    pub down: f64,
}

impl Tolerance {
    /// Kubernetes' default: 0.1 either way.
    pub const DEFAULT: Self = Self { up: 0.1, down: 0.1 };
    /// Nothing is ignored.
    pub const NONE: Self = Self { up: 0.0, down: 0.0 };

    /// Whether a ratio of the value told to the value expected is ignored.
    pub fn ignores(&self, ratio: f64) -> bool {
        // Written so that NaN, an HPA's 0/0, is not ignored.
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// The count that an HPA asks for when an external or object metric with target `AverageValue: target` sums to `value`
/// while its target reports `replicas`, before its behaviour policies, within `min` and `max`.
///
/// The ratio is value / (target × replicas): infinite at zero replicas, so that any positive value scales up from there.
/// Within the tolerance the count stays; else it is ⌈value / target⌉. An unusable target (not above 0) keeps the count.
pub fn desired(
    value: f64,
    target: f64,
    replicas: u32,
    tolerance: Tolerance,
    min: u32,
    max: u32,
) -> u32 {
    let bound = |count: u32| count.clamp(min, max.max(min));
    if !(target > 0.0 && target.is_finite()) || value.is_nan() {
        return bound(replicas);
    }
    let ratio = value / (target * f64::from(replicas));
    if tolerance.ignores(ratio) {
        return bound(replicas);
    }
    bound((value / target).ceil().clamp(0.0, f64::from(u32::MAX)) as u32)
}

/// The count to tell an HPA of this tolerance that now has `current` replicas, so that it ends at no fewer than `wanted`
/// and never ignores what it is told: `wanted` where that is acted upon; upward, else, the least count above it that is
/// (never above `max`); downward, else, `current`, since fewer than `wanted` would be too few.
///
/// With a tolerance of 0.1 a step is thus more than a tenth from ten replicas on, and below ten every step is taken.
pub fn quantise(wanted: u32, current: u32, tolerance: Tolerance, max: u32) -> u32 {
    if current == 0 || wanted == current {
        return wanted;
    }
    let acted_upon = |count: u32| !tolerance.ignores(f64::from(count) / f64::from(current));
    if acted_upon(wanted) {
        return wanted;
    }
    if wanted < current {
        return current;
    }
    // The first count beyond the tolerance, give or take what floating point makes of it.
    let beyond = (f64::from(current) * (1.0 + tolerance.up))
        .floor()
        .clamp(0.0, f64::from(u32::MAX)) as u32;
    let next = (beyond.saturating_sub(1)..=beyond.saturating_add(2))
        .find(|&count| count > wanted && acted_upon(count));
    next.unwrap_or(wanted).min(max.max(wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oracle_follows_the_published_cases() {
        let up = |value, replicas| desired(value, 1.0, replicas, Tolerance::DEFAULT, 0, 1000);
        assert_eq!([up(5.0, 4), up(3.0, 4), up(4.2, 4)], [5, 3, 4]);
        assert_eq!(
            [up(11.0, 10), up(9.0, 10)],
            [10, 10],
            "the closed dead band at ten"
        );
        assert_eq!(up(8.01, 10), 9, "one less is reachable just above two less");
        assert_eq!(
            [up(0.1, 0), up(0.0, 0)],
            [1, 0],
            "from zero any positive value scales"
        );
        assert_eq!(up(0.0, 3), 0);
        assert_eq!(desired(7.0, 1.0, 2, Tolerance::NONE, 1, 5), 5);
        assert_eq!(desired(10.0, 0.0, 2, Tolerance::NONE, 1, 5), 2);
        assert_eq!(desired(f64::NAN, 1.0, 2, Tolerance::NONE, 1, 5), 2);
        assert_eq!(
            desired(30.0, 10.0, 2, Tolerance::DEFAULT, 1, 5),
            3,
            "a target other than 1"
        );
    }

    #[test]
    fn every_quantised_count_to_a_hundred_is_executed_and_is_enough() {
        let max = 1000;
        for tolerance in [
            Tolerance::NONE,
            Tolerance::DEFAULT,
            Tolerance {
                up: 0.25,
                down: 0.05,
            },
        ] {
            for current in 0..=100 {
                for wanted in 0..=120 {
                    let told = quantise(wanted, current, tolerance, max);
                    let reached = desired(f64::from(told), 1.0, current, tolerance, 0, max);
                    assert_eq!(reached, told, "{current} → {wanted}: told {told}");
                    assert!(told >= wanted, "{current} → {wanted}: told {told}");
                    if wanted > current {
                        let least = (wanted..=max).find(|&count| {
                            desired(f64::from(count), 1.0, current, tolerance, 0, max) == count
                        });
                        assert_eq!(
                            Some(told),
                            least,
                            "{current} → {wanted}: no more than needed"
                        );
                    } else {
                        assert!(told == wanted || told == current);
                    }
                }
            }
        }
    }

    #[test]
    fn from_ten_on_a_step_is_more_than_a_tenth_and_below_every_step_is_taken() {
        for current in 1..=100_u32 {
            for wanted in 0..=120 {
                let told = quantise(wanted, current, Tolerance::DEFAULT, 1000);
                let step = f64::from(told.abs_diff(current)) / f64::from(current);
                assert!(
                    told == current || step > 0.1,
                    "{current} → {wanted}: {told}"
                );
                if current < 10 {
                    assert_eq!(told, wanted);
                }
            }
        }
        assert_eq!(quantise(11, 10, Tolerance::DEFAULT, 1000), 12);
        assert_eq!(quantise(9, 10, Tolerance::DEFAULT, 1000), 10);
        assert_eq!(
            quantise(11, 10, Tolerance::DEFAULT, 11),
            11,
            "the bound holds, even if the HPA then waits"
        );
    }

    proptest! {
        #[test]
        fn repeating_a_quantised_count_changes_nothing(
            wanted in 0..5000_u32, current in 0..5000_u32, up in 0.0..0.5_f64, down in 0.0..0.5_f64,
        ) {
            let tolerance = Tolerance { up, down };
            let told = quantise(wanted, current, tolerance, u32::MAX);
            prop_assert!(told >= wanted);
            prop_assert_eq!(desired(f64::from(told), 1.0, current, tolerance, 0, u32::MAX), told);
            prop_assert!(quantise(wanted, told, tolerance, u32::MAX) <= told);
        }
    }
}

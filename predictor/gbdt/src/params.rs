//! What a fit is given: the size of the forest, the rows, and what can be wrong with either.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::MAX_FEATURES;

/// Size and regularisation of a forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Number of trees, at least 1.
    pub trees: u32,
    /// Share of each leaf's value that is kept, above 0 and at most 1.
    pub learning_rate: f32,
    /// Splits on the longest path, 1 to 7.
    pub max_depth: u32,
    /// Leaves per tree, 2 to 128; the most useful splits are made first.
    pub max_leaves: u32,
    /// Bins per feature, 2 to 254, at quantiles of the training rows.
    pub bins: u32,
    /// Least total weight of a leaf, in rows of mean weight.
    pub min_leaf_weight: f32,
    /// Pseudo-rows at zero that every leaf's value is averaged with.
    pub l2: f32,
    /// Share of the rows that each tree sees, above 0 and at most 1.
    pub subsample: f32,
    /// Seed of the row sampling.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            trees: 100,
            learning_rate: 0.1,
            max_depth: 6,
            max_leaves: 31,
            bins: 64,
            min_leaf_weight: 20.0,
            l2: 2.0,
            subsample: 1.0,
            seed: 1,
        }
    }
}

impl Params {
    /// Checks every field against its documented range.
    ///
    /// # Errors
    /// Names the first field outside its range.
    pub fn validate(&self) -> Result<(), FitError> {
        let checks = [
            ("trees", self.trees as f32, 1.0, 10_000.0),
            ("learning_rate", self.learning_rate, 1e-4, 1.0),
            ("max_depth", self.max_depth as f32, 1.0, 7.0),
            ("max_leaves", self.max_leaves as f32, 2.0, 128.0),
            ("bins", self.bins as f32, 2.0, 254.0),
            ("min_leaf_weight", self.min_leaf_weight, 0.0, 1e9),
            ("l2", self.l2, 0.0, 1e9),
            ("subsample", self.subsample, 1e-3, 1.0),
        ];
        for (field, value, least, most) in checks {
            if !(least..=most).contains(&value) {
                return Err(FitError::Param {
                    field,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

/// How the prediction may move as one feature grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Monotone {
    /// Either way.
    #[default]
    Free,
    /// Never down.
    Increasing,
    /// Never up.
    Decreasing,
}

/// Training rows: features row by row, one target and one weight for each.
#[derive(Clone, Copy, Debug)]
pub struct Dataset<'a> {
    /// Features per row.
    pub features: usize,
    /// `targets.len() * features` values, row by row; NaN is missing, infinities are refused.
    pub rows: &'a [f32],
    /// What to predict, finite.
    pub targets: &'a [f32],
    /// Positive, finite; only their ratios matter.
    pub weights: &'a [f32],
}

impl Dataset<'_> {
    pub(crate) fn validate(&self) -> Result<(), FitError> {
        let rows = self.targets.len();
        if self.features == 0 || self.features > MAX_FEATURES {
            return Err(FitError::Features(self.features));
        }
        if rows == 0 || self.rows.len() != rows * self.features || self.weights.len() != rows {
            return Err(FitError::Shape {
                features: self.features,
                values: self.rows.len(),
                targets: rows,
                weights: self.weights.len(),
            });
        }
        let bad = |field, row: usize, value: f32| Err(FitError::Value { field, row, value });
        for (row, &target) in self.targets.iter().enumerate() {
            if !target.is_finite() {
                return bad("target", row, target);
            }
            let weight = self.weights[row];
            if !(weight.is_finite() && weight > 0.0) {
                return bad("weight", row, weight);
            }
        }
        match self.rows.iter().position(|value| value.is_infinite()) {
            Some(at) => bad("feature", at / self.features, self.rows[at]),
            None => Ok(()),
        }
    }
}

/// Why a forest could not be fitted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FitError {
    /// A parameter is outside its range.
    #[error("{field} is {value}, it must be between {least} and {most}")]
    Param {
        /// Name of the parameter.
        field: &'static str,
        /// What was given.
        value: f32,
        /// Smallest allowed value.
        least: f32,
        /// Largest allowed value.
        most: f32,
    },
    /// Too few or too many features.
    #[error("features is {0}, it must be between 1 and {MAX_FEATURES}")]
    Features(usize),
    /// One direction is needed per feature.
    #[error("monotone has {given} entries, it must have one for each of the {features} features")]
    Monotone {
        /// Entries given.
        given: usize,
        /// Features per row.
        features: usize,
    },
    /// The slices do not describe the same rows.
    #[error(
        "{values} values, {targets} targets and {weights} weights do not fit together: \
         at least one row is needed, with {features} values, one target and one weight each"
    )]
    Shape {
        /// Features per row.
        features: usize,
        /// Feature values given.
        values: usize,
        /// Targets given.
        targets: usize,
        /// Weights given.
        weights: usize,
    },
    /// A value that cannot be learnt from.
    #[error(
        "{field} of row {row} is {value}, it must be finite (a weight positive; a feature may be NaN)"
    )]
    Value {
        /// Which of the three.
        field: &'static str,
        /// Index of the row.
        row: usize,
        /// What was given.
        value: f32,
    },
}

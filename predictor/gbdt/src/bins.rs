//! Columns to bytes: each feature is cut at quantiles of its training values.

use crate::params::Dataset;
use crate::{MAX_FEATURES, quantile};

/// One encoded row; unused features stay 0.
pub(crate) type Code = [u8; MAX_FEATURES];

/// The most cuts that a feature may have: with the missing code and the one above all cuts, 255 codes.
pub(crate) const MOST_CUTS: usize = 253;

/// The code of a missing value; real values start at 1.
pub(crate) const MISSING: u8 = 0;

/// The cuts of every feature, ascending. A value's code is 1 + the number of cuts below it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bins {
    pub(crate) cuts: Box<[Box<[f32]>]>,
}

impl Bins {
    /// Cuts each feature into at most `bins` bins of about equal weight.
    pub(crate) fn of(data: &Dataset<'_>, bins: u32) -> Self {
        let mut column: Vec<(f32, f32)> = Vec::with_capacity(data.targets.len());
        let cuts = (0..data.features).map(|feature| {
            column.clear();
            column.extend(
                data.rows
                    .chunks_exact(data.features)
                    .zip(data.weights)
                    .map(|(row, &weight)| (row[feature], weight))
                    .filter(|(value, _)| !value.is_nan()),
            );
            quantile::cuts(&mut column, bins as usize).into_boxed_slice()
        });
        Self {
            cuts: cuts.collect(),
        }
    }

    pub(crate) fn features(&self) -> usize {
        self.cuts.len()
    }

    /// Number of codes of the feature with the most, the missing code included.
    pub(crate) fn codes(&self) -> usize {
        self.cuts.iter().map(|cuts| cuts.len()).max().unwrap_or(0) + 2
    }

    /// Bytes of memory behind the cuts.
    pub(crate) fn memory(&self) -> usize {
        let behind = |cuts: &[f32]| size_of::<Box<[f32]>>() + size_of_val(cuts);
        self.cuts.iter().map(|cuts| behind(cuts)).sum()
    }

    /// Encodes one row; missing trailing values count as missing.
    pub(crate) fn encode(&self, row: &[f32]) -> Code {
        let mut code = [MISSING; MAX_FEATURES];
        for ((code, cuts), &value) in code.iter_mut().zip(&self.cuts).zip(row) {
            if !value.is_nan() {
                // At most 253 cuts (`Params::bins`), so the code fits its byte.
                *code = 1 + cuts.partition_point(|&cut| cut < value) as u8;
            }
        }
        code
    }
}

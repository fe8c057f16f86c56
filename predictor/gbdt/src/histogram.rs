//! Sums of residuals and weights per feature and code: all that a split search needs to know of a
//! node's rows.

use crate::bins::Code;

/// Sums over the rows of one code.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    /// Σ weight · residual.
    pub(crate) residual: f64,
    /// Σ weight.
    pub(crate) weight: f64,
}

impl Cell {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            residual: self.residual + other.residual,
            weight: self.weight + other.weight,
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            residual: self.residual - other.residual,
            weight: self.weight - other.weight,
        }
    }
}

/// One node's cells, feature by feature.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    cells: Vec<Cell>,
    codes: usize,
}

impl Histogram {
    /// Sums `rows` (indices into `codes` and `gradients`).
    pub(crate) fn of(
        rows: &[u32],
        codes: &[Code],
        gradients: &[(f32, f32)],
        features: usize,
        width: usize,
    ) -> Self {
        let mut cells = vec![Cell::default(); features * width];
        for &row in rows {
            let (residual, weight) = gradients[row as usize];
            let (residual, weight) = (f64::from(residual * weight), f64::from(weight));
            let code = &codes[row as usize];
            for (of_feature, &code) in cells.chunks_exact_mut(width).zip(code) {
                let cell = &mut of_feature[code as usize];
                cell.residual += residual;
                cell.weight += weight;
            }
        }
        Self {
            cells,
            codes: width,
        }
    }

    /// What remains of this node without the rows of `part`: the sibling's histogram for the price
    /// of one subtraction.
    pub(crate) fn without(mut self, part: &Self) -> Self {
        for (cell, taken) in self.cells.iter_mut().zip(&part.cells) {
            *cell = cell.minus(*taken);
        }
        self
    }

    /// The cells of one feature, indexed by code; code 0 is missing.
    pub(crate) fn of_feature(&self, feature: usize) -> &[Cell] {
        &self.cells[feature * self.codes..(feature + 1) * self.codes]
    }
}

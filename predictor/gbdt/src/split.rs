//! The best split of one node, within the bounds that monotone splits above it leave.

use crate::Monotone;
use crate::bins::MISSING;
use crate::histogram::{Cell, Histogram};

/// Where a node's rows part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Split {
    pub(crate) feature: usize,
    /// Codes from 1 to this go left, higher ones right; 0 parts missing from known.
    pub(crate) code: u8,
    pub(crate) missing_right: bool,
    pub(crate) gain: f64,
    pub(crate) left: Cell,
    pub(crate) right: Cell,
}

/// The interval a node's value must stay in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) least: f32,
    pub(crate) most: f32,
}

impl Bounds {
    pub(crate) const NONE: Self = Self {
        least: f32::NEG_INFINITY,
        most: f32::INFINITY,
    };

    pub(crate) fn clamp(&self, value: f32) -> f32 {
        value.max(self.least).min(self.most)
    }
}

/// What the search must respect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) monotone: &'a [Monotone],
    pub(crate) min_leaf_weight: f64,
    pub(crate) l2: f64,
}

impl Rules<'_> {
    /// The value that a node with these sums would take: the regularised weighted mean residual.
    fn value(&self, sums: Cell, bounds: Bounds) -> f64 {
        f64::from(bounds.clamp((sums.residual / (sums.weight + self.l2)) as f32))
    }

    /// How much squared error `value` saves on these sums.
    fn saved(&self, sums: Cell, value: f64) -> f64 {
        value * (2.0 * sums.residual - (sums.weight + self.l2) * value)
    }

    /// The split of `node` that saves most, if any saves something. Ties go to the first feature
    /// and the lowest code.
    pub(crate) fn best(&self, node: Cell, histogram: &Histogram, bounds: Bounds) -> Option<Split> {
        let kept = self.saved(node, self.value(node, bounds));
        let mut best: Option<Split> = None;
        let mut offer = |split: Split| {
            let least = best.map_or(1e-9, |best| best.gain);
            if split.gain > least {
                best = Some(split);
            }
        };
        for feature in 0..self.monotone.len() {
            let cells = histogram.of_feature(feature);
            let missing = cells[usize::from(MISSING)];
            let mut known = Cell::default();
            let last = cells
                .iter()
                .rposition(|cell| cell.weight > 0.0)
                .unwrap_or(0);
            // Code 0 parts missing from known; the last used code would leave the right side empty.
            for (code, &cell) in cells.iter().enumerate().take(last) {
                if code > 0 {
                    known = known.plus(cell);
                }
                for missing_right in [false, true] {
                    // Without missing rows the two differ only for rows not seen: the heavier side
                    // takes those.
                    let unseen = missing.weight <= 0.0;
                    let left = if missing_right {
                        known
                    } else {
                        known.plus(missing)
                    };
                    let right = node.minus(left);
                    if (code == 0 && missing_right)
                        || (unseen && missing_right != (right.weight > left.weight))
                    {
                        continue;
                    }
                    if let Some(gain) = self.gain(feature, code == 0, left, right, bounds) {
                        offer(Split {
                            feature,
                            code: code as u8,
                            missing_right,
                            gain: gain - kept,
                            left,
                            right,
                        });
                    }
                }
            }
        }
        best
    }

    /// What both children would save, or `None` where the split is not allowed.
    fn gain(
        &self,
        feature: usize,
        parts_missing: bool,
        left: Cell,
        right: Cell,
        bounds: Bounds,
    ) -> Option<f64> {
        if left.weight < self.min_leaf_weight || right.weight < self.min_leaf_weight {
            return None;
        }
        let (low, high) = (self.value(left, bounds), self.value(right, bounds));
        let allowed = match self.monotone[feature] {
            // A missing value has no place in the order.
            _ if parts_missing => true,
            Monotone::Free => true,
            Monotone::Increasing => low <= high,
            Monotone::Decreasing => low >= high,
        };
        allowed.then(|| self.saved(left, low) + self.saved(right, high))
    }
}

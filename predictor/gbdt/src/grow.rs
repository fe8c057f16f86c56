//! One tree: leaves are split best first, and each child inherits the bounds of its branch.

use crate::bins::Code;
use crate::forest::{Node, Outputs};
use crate::histogram::{Cell, Histogram};
use crate::quantile::Sketch;
use crate::split::{Bounds, Rules, Split};
use crate::{LEVELS, Monotone, Params};

/// Rows as the tree sees them.
pub(crate) struct Rows<'a> {
    pub(crate) codes: &'a [Code],
    /// What is left to explain of each row's target, per output.
    pub(crate) residuals: &'a [Outputs],
    /// (residual of the median, weight), the sums that decide the splits.
    pub(crate) gradients: &'a [(f32, f32)],
    pub(crate) features: usize,
    pub(crate) width: usize,
}

/// A leaf that may still be split.
struct Leaf {
    /// Position in the complete tree.
    at: usize,
    depth: u32,
    /// Its part of the row order.
    rows: std::ops::Range<usize>,
    sums: Cell,
    histogram: Histogram,
    bounds: [Bounds; LEVELS.len()],
    values: Outputs,
    split: Option<Split>,
}

/// Grows one tree; `order` holds the sampled rows and is permuted.
pub(crate) struct Grower<'a> {
    params: &'a Params,
    rules: Rules<'a>,
    rows: Rows<'a>,
    sketch: Sketch,
    values: Vec<(f32, f32)>,
    moved: Vec<u32>,
}

impl<'a> Grower<'a> {
    pub(crate) fn new(params: &'a Params, monotone: &'a [Monotone], rows: Rows<'a>) -> Self {
        Self {
            params,
            rules: Rules {
                monotone,
                min_leaf_weight: f64::from(params.min_leaf_weight),
                l2: f64::from(params.l2),
            },
            rows,
            sketch: Sketch::new(),
            values: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// The tree's nodes and leaf values, not yet scaled by the learning rate.
    pub(crate) fn grow(mut self, order: &mut [u32]) -> (Vec<Node>, Vec<Outputs>) {
        let depth = self.params.max_depth;
        let mut nodes = vec![Node::THROUGH; (1 << depth) - 1];
        let mut leaves = vec![self.root(order)];
        while leaves.len() < self.params.max_leaves as usize {
            let Some((at, split)) = most_useful(&leaves) else {
                break;
            };
            let parent = leaves.swap_remove(at);
            nodes[parent.at] = node(&split);
            let children = self.part(parent, split, order);
            leaves.extend(children);
        }
        let mut values = vec![Outputs::default(); 1 << depth];
        for leaf in &leaves {
            // An unsplit leaf above the bottom sends everything left, but it owns the whole range.
            let span = depth - leaf.depth;
            let first = ((leaf.at + 1) << span) - (1 << depth);
            values[first..first + (1 << span)].fill(leaf.values);
        }
        (nodes, values)
    }

    fn root(&mut self, order: &[u32]) -> Leaf {
        let rows = &self.rows;
        let histogram = Histogram::of(order, rows.codes, rows.gradients, rows.features, rows.width);
        let sums = histogram
            .of_feature(0)
            .iter()
            .fold(Cell::default(), |sum, &cell| sum.plus(cell));
        let bounds = [Bounds::NONE; LEVELS.len()];
        let split = self.rules.best(sums, &histogram, bounds[0]);
        Leaf {
            at: 0,
            depth: 0,
            rows: 0..order.len(),
            sums,
            histogram,
            bounds,
            values: self.values_of(order, sums, &bounds),
            split,
        }
    }

    /// Parts a leaf's rows and bounds between two children.
    fn part(&mut self, parent: Leaf, split: Split, order: &mut [u32]) -> [Leaf; 2] {
        let middle = parent.rows.start + self.reorder(&mut order[parent.rows.clone()], &split);
        let (left_rows, right_rows) = (parent.rows.start..middle, middle..parent.rows.end);
        let smaller_is_left = left_rows.len() <= right_rows.len();
        let smaller = if smaller_is_left {
            left_rows.clone()
        } else {
            right_rows.clone()
        };
        let rows = &self.rows;
        let counted = Histogram::of(
            &order[smaller],
            rows.codes,
            rows.gradients,
            rows.features,
            rows.width,
        );
        let rest = parent.histogram.without(&counted);
        let (left_histogram, right_histogram) = if smaller_is_left {
            (counted, rest)
        } else {
            (rest, counted)
        };
        let mut left_values = self.values_of(&order[left_rows.clone()], split.left, &parent.bounds);
        let mut right_values =
            self.values_of(&order[right_rows.clone()], split.right, &parent.bounds);
        let (mut left_bounds, mut right_bounds) = (parent.bounds, parent.bounds);
        for output in 0..LEVELS.len() {
            let direction = if split.code == 0 {
                Monotone::Free
            } else {
                self.rules.monotone[split.feature]
            };
            let (low, high) = match direction {
                Monotone::Free => continue,
                Monotone::Increasing => (&mut left_bounds[output], &mut right_bounds[output]),
                Monotone::Decreasing => (&mut right_bounds[output], &mut left_bounds[output]),
            };
            // Whatever either side becomes later, it stays on its side of the midpoint.
            let midpoint =
                parent.bounds[output].clamp((left_values[output] + right_values[output]) / 2.0);
            low.most = midpoint;
            high.least = midpoint;
            left_values[output] = left_bounds[output].clamp(left_values[output]);
            right_values[output] = right_bounds[output].clamp(right_values[output]);
        }
        let child = |right: usize, rows, sums, histogram, bounds, values| Leaf {
            at: 2 * parent.at + 1 + right,
            depth: parent.depth + 1,
            rows,
            sums,
            histogram,
            bounds,
            values,
            split: None,
        };
        let mut children = [
            child(
                0,
                left_rows,
                split.left,
                left_histogram,
                left_bounds,
                left_values,
            ),
            child(
                1,
                right_rows,
                split.right,
                right_histogram,
                right_bounds,
                right_values,
            ),
        ];
        if parent.depth + 1 < self.params.max_depth {
            for child in &mut children {
                child.split = self
                    .rules
                    .best(child.sums, &child.histogram, child.bounds[0]);
            }
        }
        children
    }

    /// Stable partition of `order` by `split`; returns how many go left.
    fn reorder(&mut self, order: &mut [u32], split: &Split) -> usize {
        let node = node(split);
        self.moved.clear();
        let mut kept = 0;
        for at in 0..order.len() {
            let row = order[at];
            if node.goes_right(&self.rows.codes[row as usize]) {
                self.moved.push(row);
            } else {
                order[kept] = row;
                kept += 1;
            }
        }
        order[kept..].copy_from_slice(&self.moved);
        kept
    }

    /// A leaf's values: the in-leaf quantile of each output's residual, drawn towards zero the
    /// more, the fewer rows lie beyond it.
    fn values_of(&mut self, rows: &[u32], sums: Cell, bounds: &[Bounds; LEVELS.len()]) -> Outputs {
        let mut out = Outputs::default();
        for (output, &level) in LEVELS.iter().enumerate() {
            self.values.clear();
            self.values.extend(rows.iter().map(|&row| {
                let row = row as usize;
                (self.rows.residuals[row][output], self.rows.gradients[row].1)
            }));
            let quantile = self.sketch.quantile(&self.values, level);
            let pseudo_rows = self.params.l2 * 0.5 / level.min(1.0 - level);
            let weight = sums.weight as f32;
            out[output] = bounds[output].clamp(quantile * weight / (weight + pseudo_rows));
        }
        out
    }
}

fn node(split: &Split) -> Node {
    let shift = u8::from(split.missing_right);
    Node {
        feature: split.feature as u8,
        code: split.code - shift,
        shift,
    }
}

/// The leaf whose split saves most; ties go to the leftmost position in the list.
fn most_useful(leaves: &[Leaf]) -> Option<(usize, Split)> {
    let mut best: Option<(usize, Split)> = None;
    for (at, leaf) in leaves.iter().enumerate() {
        if let Some(split) = leaf.split
            && best.is_none_or(|(_, best)| split.gain > best.gain)
        {
            best = Some((at, split));
        }
    }
    best
}

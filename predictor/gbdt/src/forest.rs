//! The fitted forest: flat arrays, no pointers, no branches on the way down.

use serde::{Deserialize, Serialize};

use crate::LEVELS;
use crate::bins::{Bins, Code};
use crate::boost;
use crate::params::{Dataset, FitError, Monotone, Params};
use crate::parts::Parts;

/// Outputs of a forest: one value per level of [`LEVELS`].
pub(crate) type Outputs = [f32; LEVELS.len()];

/// One inner node of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) feature: u8,
    /// Codes above this go right, after `shift` is taken off.
    pub(crate) code: u8,
    /// 1 sends missing right: its code 0 wraps to 255, above every threshold.
    pub(crate) shift: u8,
}

impl Node {
    /// A node that is not split: everything goes left.
    pub(crate) const THROUGH: Self = Self {
        feature: 0,
        code: u8::MAX,
        shift: 0,
    };

    pub(crate) fn goes_right(self, code: &Code) -> bool {
        // The mask keeps the index in range without a check; fits never use a higher feature.
        code[usize::from(self.feature) & (code.len() - 1)].wrapping_sub(self.shift) > self.code
    }
}

/// A fitted forest. Every tree is a complete binary tree of the same depth, node `i` before its
/// children `2i + 1` and `2i + 2`, so that a descent is a fixed number of steps.
///
/// Deserialising checks every count, index and value: whatever the source, a forest that was read predicts without
/// a panic, in the usual number of steps, and finite values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Parts", try_from = "Parts")]
pub struct Forest {
    pub(crate) bins: Bins,
    pub(crate) depth: u32,
    pub(crate) start: Outputs,
    /// `2^depth - 1` per tree.
    pub(crate) nodes: Box<[Node]>,
    /// `2^depth` per tree.
    pub(crate) leaves: Box<[Outputs]>,
}

/// Rows that go through the trees together: enough to hide the latency of the descents, few enough
/// for the stack.
const BATCH: usize = 32;

impl Forest {
    /// Fits a forest to `data`; `monotone` has one direction per feature. The same input gives the
    /// same forest, bit by bit.
    ///
    /// # Errors
    /// Names the parameter, shape or value that cannot be learnt from.
    pub fn fit(
        params: &Params,
        monotone: &[Monotone],
        data: &Dataset<'_>,
    ) -> Result<Self, FitError> {
        params.validate()?;
        data.validate()?;
        if monotone.len() != data.features {
            return Err(FitError::Monotone {
                given: monotone.len(),
                features: data.features,
            });
        }
        Ok(boost::fit(params, monotone, data))
    }

    /// Features per row.
    pub fn features(&self) -> usize {
        self.bins.features()
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.leaves.len() >> self.depth
    }

    /// Bytes of memory it takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.bins.memory()
            + size_of_val(&*self.nodes)
            + size_of_val(&*self.leaves)
    }

    /// The quantiles at [`LEVELS`] for one row (NaN = missing), in ascending order.
    pub fn predict_one(&self, row: &[f32]) -> [f32; 3] {
        let mut out = [[0.0; 3]];
        self.descend(&[self.bins.encode(row)], &mut out);
        out[0]
    }

    /// The quantiles for many rows, `features()` values each (NaN = missing), row by row; fills
    /// `out` as far as both reach. Does not allocate.
    pub fn predict(&self, rows: &[f32], out: &mut [[f32; 3]]) {
        let rows = rows.chunks(self.features() * BATCH);
        for (rows, out) in rows.zip(out.chunks_mut(BATCH)) {
            let mut codes = [Code::default(); BATCH];
            let mut used = 0;
            for (code, row) in codes.iter_mut().zip(rows.chunks_exact(self.features())) {
                *code = self.bins.encode(row);
                used += 1;
            }
            let used = used.min(out.len());
            self.descend(&codes[..used], &mut out[..used]);
        }
    }

    /// Trees outer, rows inner: a tree stays in the first-level cache while the rows pass, and their
    /// descents overlap because none waits for another.
    fn descend(&self, codes: &[Code], out: &mut [Outputs]) {
        out.fill(self.start);
        let nodes = self.nodes.chunks_exact((1 << self.depth) - 1);
        let leaves = self.leaves.chunks_exact(1 << self.depth);
        for (nodes, leaves) in nodes.zip(leaves) {
            for (code, out) in codes.iter().zip(out.iter_mut()) {
                let leaf = &leaves[leaf_of(nodes, self.depth, code)];
                for (sum, value) in out.iter_mut().zip(leaf) {
                    *sum += value;
                }
            }
        }
        for out in out {
            sort(out);
        }
    }
}

/// The leaf that a row ends in, counted from the left.
pub(crate) fn leaf_of(nodes: &[Node], depth: u32, code: &Code) -> usize {
    let mut at = 0;
    for _ in 0..depth {
        at = 2 * at + 1 + usize::from(nodes[at].goes_right(code));
    }
    at - nodes.len()
}

/// Puts three quantiles in order.
fn sort(out: &mut Outputs) {
    let [a, b, c] = *out;
    let (low, high) = (a.min(b), a.max(b));
    *out = [low.min(c), low.max(c.min(high)), high.max(c)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_orders_every_permutation() {
        for mut out in [
            [1.0, 2.0, 3.0],
            [1.0, 3.0, 2.0],
            [2.0, 1.0, 3.0],
            [2.0, 3.0, 1.0],
            [3.0, 1.0, 2.0],
            [3.0, 2.0, 1.0],
        ] {
            sort(&mut out);
            assert_eq!(out, [1.0, 2.0, 3.0]);
        }
    }

    #[test]
    fn missing_goes_where_the_shift_says() {
        let to_left = Node {
            feature: 1,
            code: 3,
            shift: 0,
        };
        let to_right = Node {
            feature: 1,
            code: 2,
            shift: 1,
        };
        let mut code = Code::default();
        for (value, right) in [(1, false), (3, false), (4, true), (254, true)] {
            code[1] = value;
            assert_eq!(to_left.goes_right(&code), right, "{value}");
            assert_eq!(to_right.goes_right(&code), right, "{value}");
        }
        code[1] = 0;
        assert!(!to_left.goes_right(&code));
        assert!(to_right.goes_right(&code));
    }
}

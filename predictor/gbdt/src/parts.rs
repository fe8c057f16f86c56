//! A forest as plain parts: how it is written, and what is checked when it is read.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::MAX_FEATURES;
use crate::bins::{Bins, MOST_CUTS};
use crate::forest::{Forest, Node, Outputs};

/// Splits on the longest path, at most, as in [`crate::Params`].
const DEEPEST: u32 = 7;
/// Trees, at most, as in [`crate::Params`].
const MOST_TREES: usize = 10_000;

/// The parts of a [`Forest`], unchecked. Flat, so that what is read takes hardly more memory than its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parts {
    depth: u32,
    start: Outputs,
    /// Cuts of each feature.
    counts: Vec<u8>,
    /// All cuts, feature by feature.
    cuts: Vec<f32>,
    nodes: Vec<Node>,
    leaves: Vec<Outputs>,
}

/// Why parts are no forest.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum BrokenForest {
    /// A count that does not fit the others or the limits.
    #[error("the forest has {value} {field}, it must have {right}")]
    Count {
        /// What is counted.
        field: &'static str,
        /// How many there are.
        value: usize,
        /// How many there must be.
        right: String,
    },
    /// A node that points outside.
    #[error(
        "node {at} of the forest asks for feature {feature} with shift {shift}: features are below {features}, shifts 0 or 1"
    )]
    Node {
        /// Index of the node.
        at: usize,
        /// The feature that it asks for.
        feature: u8,
        /// Its shift.
        shift: u8,
        /// Features there are.
        features: usize,
    },
    /// A number that no fit produces.
    #[error("{field} {at} of the forest is {value}, it must be {right}")]
    Value {
        /// Which number.
        field: &'static str,
        /// Its index.
        at: usize,
        /// What it is.
        value: f32,
        /// What it must be.
        right: &'static str,
    },
}

impl From<Forest> for Parts {
    fn from(forest: Forest) -> Self {
        Self {
            depth: forest.depth,
            start: forest.start,
            // At most 253 cuts per feature.
            counts: forest
                .bins
                .cuts
                .iter()
                .map(|cuts| cuts.len() as u8)
                .collect(),
            cuts: forest.bins.cuts.iter().flatten().copied().collect(),
            nodes: forest.nodes.into_vec(),
            leaves: forest.leaves.into_vec(),
        }
    }
}

impl TryFrom<Parts> for Forest {
    type Error = BrokenForest;

    fn try_from(parts: Parts) -> Result<Self, BrokenForest> {
        parts.check_counts()?;
        parts.check_nodes()?;
        parts.check_values()?;
        let mut rest = &*parts.cuts;
        let cuts = parts.counts.iter().map(|&count| {
            let (own, others) = rest.split_at(usize::from(count));
            rest = others;
            Box::from(own)
        });
        Ok(Self {
            bins: Bins {
                cuts: cuts.collect(),
            },
            depth: parts.depth,
            start: parts.start,
            nodes: parts.nodes.into_boxed_slice(),
            leaves: parts.leaves.into_boxed_slice(),
        })
    }
}

impl Parts {
    fn trees(&self) -> usize {
        self.leaves.len() >> self.depth
    }

    fn check_counts(&self) -> Result<(), BrokenForest> {
        let check = |ok: bool, field, value, right: String| {
            if ok {
                Ok(())
            } else {
                Err(BrokenForest::Count {
                    field,
                    value,
                    right,
                })
            }
        };
        let depth = self.depth;
        let right = format!("1 to {DEEPEST}");
        check(
            (1..=DEEPEST).contains(&depth),
            "levels",
            depth as usize,
            right,
        )?;
        let features = self.counts.len();
        let right = format!("1 to {MAX_FEATURES}");
        check(
            (1..=MAX_FEATURES).contains(&features),
            "features",
            features,
            right,
        )?;
        let most = self
            .counts
            .iter()
            .map(|&count| usize::from(count))
            .max()
            .unwrap_or(0);
        check(
            most <= MOST_CUTS,
            "cuts of one feature",
            most,
            format!("at most {MOST_CUTS}"),
        )?;
        let cuts = self.counts.iter().map(|&count| usize::from(count)).sum();
        check(
            self.cuts.len() == cuts,
            "cuts",
            self.cuts.len(),
            cuts.to_string(),
        )?;
        let trees = self.trees();
        check(
            (1..=MOST_TREES).contains(&trees),
            "trees",
            trees,
            format!("1 to {MOST_TREES}"),
        )?;
        let leaves = trees << depth;
        check(
            self.leaves.len() == leaves,
            "leaves",
            self.leaves.len(),
            leaves.to_string(),
        )?;
        let nodes = leaves - trees;
        check(
            self.nodes.len() == nodes,
            "nodes",
            self.nodes.len(),
            nodes.to_string(),
        )
    }

    fn check_nodes(&self) -> Result<(), BrokenForest> {
        let features = self.counts.len();
        let wrong = |node: &Node| usize::from(node.feature) >= features || node.shift > 1;
        match self.nodes.iter().position(wrong) {
            None => Ok(()),
            Some(at) => Err(BrokenForest::Node {
                at,
                feature: self.nodes[at].feature,
                shift: self.nodes[at].shift,
                features,
            }),
        }
    }

    fn check_values(&self) -> Result<(), BrokenForest> {
        // So small that no sum over the trees leaves the range of numbers.
        let most = f32::MAX / (self.trees() + 1) as f32;
        let summed = |field, values: &[f32]| {
            first(
                field,
                values,
                "finite and small enough to be summed",
                |value| value.abs() <= most,
            )
        };
        summed("start", &self.start)?;
        summed("leaf value", self.leaves.as_flattened())?;
        first("cut", &self.cuts, "finite", f32::is_finite)?;
        let mut from = 0;
        for &count in &self.counts {
            let own = &self.cuts[from..from + usize::from(count)];
            if let Some(at) = own.windows(2).position(|pair| pair[0] > pair[1]) {
                return Err(BrokenForest::Value {
                    field: "cut",
                    at: from + at + 1,
                    value: own[at + 1],
                    right: "no less than the one before it",
                });
            }
            from += own.len();
        }
        Ok(())
    }
}

/// The first of `values` that is not `right`, as an error.
fn first(
    field: &'static str,
    values: &[f32],
    right: &'static str,
    ok: impl Fn(f32) -> bool,
) -> Result<(), BrokenForest> {
    match values.iter().position(|&value| !ok(value)) {
        None => Ok(()),
        Some(at) => Err(BrokenForest::Value {
            field,
            at,
            value: values[at],
            right,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two features, one tree of depth 1.
    fn parts() -> Parts {
        Parts {
            depth: 1,
            start: [0.0; 3],
            counts: vec![2, 1],
            cuts: vec![1.0, 2.0, 5.0],
            nodes: vec![Node {
                feature: 1,
                code: 1,
                shift: 0,
            }],
            leaves: vec![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        }
    }

    fn refused(change: impl FnOnce(&mut Parts)) -> String {
        let mut parts = parts();
        change(&mut parts);
        Forest::try_from(parts).unwrap_err().to_string()
    }

    #[test]
    fn whole_parts_are_a_forest_and_come_out_as_they_went_in() {
        let forest = Forest::try_from(parts()).unwrap();
        assert_eq!(forest.predict_one(&[0.0, 4.0]), [1.0, 2.0, 3.0]);
        assert_eq!(forest.predict_one(&[0.0, 6.0]), [4.0, 5.0, 6.0]);
        assert_eq!(
            Forest::try_from(Parts::from(forest.clone())).unwrap(),
            forest
        );
    }

    #[test]
    fn what_would_panic_loop_or_overflow_is_refused() {
        type Change = fn(&mut Parts);
        let wrong: [(&str, Change); 13] = [
            ("levels", |parts| parts.depth = 0),
            ("levels", |parts| parts.depth = 31),
            ("features", |parts| parts.counts.clear()),
            ("cuts of one feature", |parts| parts.counts[0] = 254),
            ("3 cuts", |parts| parts.counts[0] = 1),
            ("trees", |parts| parts.leaves.clear()),
            ("leaves", |parts| parts.leaves.push([0.0; 3])),
            ("nodes", |parts| parts.nodes.clear()),
            ("feature 2", |parts| parts.nodes[0].feature = 2),
            ("shift 2", |parts| parts.nodes[0].shift = 2),
            ("leaf value 4", |parts| parts.leaves[1][1] = f32::NAN),
            ("leaf value 0", |parts| parts.leaves[0][0] = f32::MAX),
            ("cut 1", |parts| parts.cuts[1] = 0.5),
        ];
        for (named, change) in wrong {
            let error = refused(change);
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}

//! Boosting: each tree explains a share of what the trees before it left.

use crate::bins::{Bins, Code};
use crate::forest::{Forest, Outputs, leaf_of};
use crate::grow::{Grower, Rows};
use crate::quantile::Sketch;
use crate::{Dataset, LEVELS, Monotone, Params};

/// Residuals beyond this many mean absolute residuals decide no more about the splits than those
/// at it.
const CLIP: f32 = 4.0;

/// Fits checked input.
pub(crate) fn fit(params: &Params, monotone: &[Monotone], data: &Dataset<'_>) -> Forest {
    let bins = Bins::of(data, params.bins);
    let codes: Vec<Code> = data
        .rows
        .chunks_exact(data.features)
        .map(|row| bins.encode(row))
        .collect();
    let weights = normalised(data.weights);
    let start = start(data.targets, &weights);
    let mut residuals: Vec<Outputs> = data
        .targets
        .iter()
        .map(|target| start.map(|start| target - start))
        .collect();
    let mut gradients = vec![(0.0, 0.0); codes.len()];
    let mut order: Vec<u32> = Vec::with_capacity(codes.len());
    let trees = params.trees as usize;
    let mut all_nodes = Vec::with_capacity(trees * ((1 << params.max_depth) - 1));
    let mut all_leaves = Vec::with_capacity(trees * (1 << params.max_depth));
    for tree in 0..params.trees {
        set_gradients(&mut gradients, &residuals, &weights);
        sample(&mut order, params, tree, codes.len());
        let rows = Rows {
            codes: &codes,
            residuals: &residuals,
            gradients: &gradients,
            features: data.features,
            width: bins.codes(),
        };
        let (nodes, mut leaves) = Grower::new(params, monotone, rows).grow(&mut order);
        for value in leaves.iter_mut().flatten() {
            *value *= params.learning_rate;
        }
        for (code, residual) in codes.iter().zip(&mut residuals) {
            let leaf = &leaves[leaf_of(&nodes, params.max_depth, code)];
            for (residual, value) in residual.iter_mut().zip(leaf) {
                *residual -= value;
            }
        }
        all_nodes.extend(nodes);
        all_leaves.extend(leaves);
    }
    Forest {
        bins,
        depth: params.max_depth,
        start,
        nodes: all_nodes.into_boxed_slice(),
        leaves: all_leaves.into_boxed_slice(),
    }
}

/// Weights with mean 1, so that `min_leaf_weight` and `l2` count rows.
fn normalised(weights: &[f32]) -> Vec<f32> {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let scale = weights.len() as f64 / total;
    weights
        .iter()
        .map(|&weight| (f64::from(weight) * scale) as f32)
        .collect()
}

fn start(targets: &[f32], weights: &[f32]) -> Outputs {
    let pairs: Vec<(f32, f32)> = targets
        .iter()
        .copied()
        .zip(weights.iter().copied())
        .collect();
    let mut sketch = Sketch::new();
    LEVELS.map(|level| sketch.quantile(&pairs, level))
}

fn set_gradients(gradients: &mut [(f32, f32)], residuals: &[Outputs], weights: &[f32]) {
    let total: f64 = residuals.iter().map(|of| f64::from(of[0].abs())).sum();
    let limit = CLIP * (total / residuals.len() as f64) as f32;
    for ((gradient, residual), &weight) in gradients.iter_mut().zip(residuals).zip(weights) {
        *gradient = (residual[0].clamp(-limit, limit), weight);
    }
}

/// The rows that one tree sees: each is in or out by a hash of seed, tree and row, so the choice
/// depends on nothing else.
fn sample(order: &mut Vec<u32>, params: &Params, tree: u32, rows: usize) {
    let limit = (f64::from(params.subsample) * u64::MAX as f64) as u64;
    order.clear();
    order.extend((0..rows as u32).filter(|&row| {
        let key = (u64::from(tree) << 32 | u64::from(row)) ^ params.seed.rotate_left(17);
        params.subsample >= 1.0 || mix(key) <= limit
    }));
    if order.is_empty() {
        order.extend(0..rows as u32);
    }
}

/// Finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(key: u64) -> u64 {
    let mut bits = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

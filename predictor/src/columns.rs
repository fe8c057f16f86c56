//! What the forest sees of a request, and which way each column may move the prediction.

use gbdt::Monotone::{self, Free, Increasing};

use crate::base::Limits;
use crate::{Features, Target};

/// Columns per row, the same for both targets.
pub(crate) const COLUMNS: usize = 8;

/// What the columns of [`columns`] are called, in their order. Models that were written under other names are not
/// read: their forests ask for other columns.
pub(crate) const NAMES: [[&str; COLUMNS]; 2] = [
    [
        "uncached",
        "input",
        "waiting",
        "waiting-tokens",
        "running",
        "resident",
        "ahead",
        "kv",
    ],
    [
        "batch",
        "batch-context",
        "running",
        "resident",
        "input",
        "waiting",
        "waiting-tokens",
        "kv",
    ],
];

/// Directions of the columns of [`columns`].
///
/// With the prompt length and its uncached part both increasing, a longer cached prefix of the same
/// prompt never slows the prediction, and a longer prompt never speeds it up. KV utilisation is free:
/// a full cache may as well be a well-used prefix cache.
pub(crate) fn directions(target: Target) -> [Monotone; COLUMNS] {
    match target {
        Target::Ttft => [
            Increasing, Increasing, Increasing, Increasing, Increasing, Increasing, Increasing,
            Free,
        ],
        Target::Tpot => [
            Increasing, Increasing, Increasing, Increasing, Free, Free, Free, Free,
        ],
    }
}

/// One row of the forest; NaN stays missing.
pub(crate) fn columns(target: Target, features: &Features, limits: &Limits) -> [f32; COLUMNS] {
    let uncached = features.uncached_tokens();
    match target {
        Target::Ttft => [
            uncached,
            features.input_tokens,
            features.waiting,
            features.waiting_tokens,
            features.running,
            features.resident_tokens,
            uncached + features.waiting_tokens,
            features.kv_utilization,
        ],
        Target::Tpot => [
            limits.batch(features),
            limits.resident(features),
            features.running,
            features.resident_tokens,
            features.input_tokens,
            features.waiting,
            features.waiting_tokens,
            features.kv_utilization,
        ],
    }
}

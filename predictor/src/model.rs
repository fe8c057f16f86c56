//! The immutable model that readers predict with.

use std::sync::Arc;

use crate::{Features, Prediction, Quantiles, State, Target};

/// Immutable snapshot of both targets' models; cheap to clone.
#[derive(Clone, Debug)]
pub struct LatencyModel {
    version: u64,
    _inner: Arc<()>,
}

impl LatencyModel {
    /// The model before any label: a fixed, sane function of the features.
    pub fn prior() -> Self {
        Self { version: 0, _inner: Arc::new(()) }
    }

    /// Predicts every row; `out` is cleared first and then holds one prediction per row, in order.
    pub fn predict(&self, rows: &[Features], out: &mut Vec<Prediction>) {
        out.clear();
        out.extend(rows.iter().map(|row| self.predict_one(row)));
    }

    /// Predicts one row.
    pub fn predict_one(&self, row: &Features) -> Prediction {
        let p50 = 20.0 + 0.08 * (row.uncached_tokens() + row.waiting_tokens);
        let ttft = Quantiles { p50, p90: p50 * 1.5, p99: p50 * 2.0 };
        Prediction { ttft, tpot: ttft }
    }

    /// How far the predictions of `target` are to be trusted.
    pub fn state(&self, _target: Target) -> State {
        State::Prior
    }

    /// Whether both targets are [`State::Trained`].
    pub fn trusted(&self) -> bool {
        Target::ALL.iter().all(|&target| self.state(target) == State::Trained)
    }

    /// Counts refits put in force.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether `row` lies beyond what `target` was trained on, so that the base alone carries the
    /// prediction.
    pub fn extrapolates(&self, _row: &Features, _target: Target) -> bool {
        true
    }
}

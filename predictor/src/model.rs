//! The immutable model that readers predict with.

use std::sync::Arc;

use gbdt::{Forest, LEVELS};

use crate::base::Base;
use crate::columns::{COLUMNS, columns};
use crate::support::Support;
use crate::tracker::Tracker;
use crate::{Features, Prediction, Quantiles, State, Target};

/// What one refit produced for one target.
#[derive(Clone, Debug)]
pub(crate) struct Fitted {
    pub(crate) target: Target,
    pub(crate) base: Base,
    /// Absent before there are rows enough, and where it lost to the base.
    pub(crate) forest: Option<Forest>,
    pub(crate) support: Support,
}

/// ln ms before the tracker's offsets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) base: f32,
    pub(crate) levels: [f32; LEVELS.len()],
}

impl Fitted {
    pub(crate) fn prior(target: Target) -> Self {
        Self {
            target,
            base: Base::prior(target),
            forest: None,
            support: Support::default(),
        }
    }

    /// Base and forest for up to [`BATCH`] rows.
    fn raw(&self, rows: &[Features], out: &mut [Raw; BATCH]) {
        let mut residuals = [[0.0; LEVELS.len()]; BATCH];
        if let Some(forest) = &self.forest {
            let mut table = [0.0; BATCH * COLUMNS];
            for (row, cells) in rows.iter().zip(table.chunks_exact_mut(COLUMNS)) {
                cells.copy_from_slice(&columns(self.target, row, &self.base.limits));
            }
            forest.predict(&table[..rows.len() * COLUMNS], &mut residuals);
        }
        for ((row, residual), out) in rows.iter().zip(residuals).zip(out) {
            let base = self.base.ln_ms(row);
            *out = Raw {
                base,
                levels: residual.map(|residual| base + residual),
            };
        }
    }

    pub(crate) fn raw_one(&self, row: &Features) -> Raw {
        let mut out = [Raw::default(); BATCH];
        self.raw(std::slice::from_ref(row), &mut out);
        out[0]
    }
}

/// Rows predicted together on the stack.
const BATCH: usize = 32;

/// One target's part of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct TargetModel {
    pub(crate) fitted: Arc<Fitted>,
    pub(crate) tracker: Tracker,
    pub(crate) state: State,
}

impl TargetModel {
    fn quantiles(&self, raw: &Raw) -> Quantiles {
        let offsets = self.tracker.offsets(raw.base);
        let [p50, p90, p99]: [f32; 3] =
            std::array::from_fn(|level| (raw.levels[level] + offsets[level]).exp());
        // Offsets move each quantile by itself; the larger of monotone functions is monotone.
        let p90 = p90.max(p50);
        Quantiles {
            p50,
            p90,
            p99: p99.max(p90),
        }
    }

    pub(crate) fn predict_one(&self, row: &Features) -> Quantiles {
        self.quantiles(&self.fitted.raw_one(row))
    }

    fn predict(&self, rows: &[Features], mut put: impl FnMut(usize, Quantiles)) {
        let mut raws = [Raw::default(); BATCH];
        for (batch, rows) in rows.chunks(BATCH).enumerate() {
            self.fitted.raw(rows, &mut raws);
            for (at, raw) in raws.iter().enumerate().take(rows.len()) {
                put(batch * BATCH + at, self.quantiles(raw));
            }
        }
    }
}

/// Immutable snapshot of both targets' models; cheap to clone.
#[derive(Clone, Debug)]
pub struct LatencyModel {
    targets: Arc<[TargetModel; 2]>,
    version: u64,
}

impl LatencyModel {
    pub(crate) fn new(targets: [TargetModel; 2], version: u64) -> Self {
        Self {
            targets: Arc::new(targets),
            version,
        }
    }

    /// The model before any label: a fixed, sane function of the features.
    pub fn prior() -> Self {
        let target = |target| TargetModel {
            fitted: Arc::new(Fitted::prior(target)),
            tracker: Tracker::PRIOR,
            state: State::Prior,
        };
        Self::new(Target::ALL.map(target), 0)
    }

    pub(crate) fn targets(&self) -> &[TargetModel; 2] {
        &self.targets
    }

    #[cfg(test)]
    pub(crate) fn with_version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// Bytes of memory that this snapshot takes, shared with its clones.
    pub fn memory(&self) -> usize {
        let fitted = |target: &TargetModel| {
            let forest = target.fitted.forest.as_ref();
            size_of::<Fitted>() + forest.map_or(0, |forest| forest.memory() - size_of::<Forest>())
        };
        size_of::<Self>()
            + size_of::<[TargetModel; 2]>()
            + self.targets.iter().map(fitted).sum::<usize>()
    }

    /// Predicts every row; `out` is cleared first and then holds one prediction per row, in order.
    /// Allocates only where `out` must grow.
    pub fn predict(&self, rows: &[Features], out: &mut Vec<Prediction>) {
        const NOTHING: Quantiles = Quantiles {
            p50: f32::NAN,
            p90: f32::NAN,
            p99: f32::NAN,
        };
        out.clear();
        out.resize(
            rows.len(),
            Prediction {
                ttft: NOTHING,
                tpot: NOTHING,
            },
        );
        let [ttft, tpot] = &*self.targets;
        ttft.predict(rows, |row, quantiles| out[row].ttft = quantiles);
        tpot.predict(rows, |row, quantiles| out[row].tpot = quantiles);
    }

    /// Predicts one row.
    pub fn predict_one(&self, row: &Features) -> Prediction {
        Prediction {
            ttft: self.predict_target(row, Target::Ttft),
            tpot: self.predict_target(row, Target::Tpot),
        }
    }

    /// Predicts one target of one row.
    pub fn predict_target(&self, row: &Features, target: Target) -> Quantiles {
        self.targets[target.index()].predict_one(row)
    }

    /// How far the predictions of `target` are to be trusted.
    pub fn state(&self, target: Target) -> State {
        self.targets[target.index()].state
    }

    /// Whether both targets are [`State::Trained`].
    pub fn trusted(&self) -> bool {
        Target::ALL
            .iter()
            .all(|&target| self.state(target) == State::Trained)
    }

    /// Counts refits put in force, over all starts whose learner was kept.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether `row` lies beyond what `target` was trained on, so that the base alone carries the
    /// prediction further.
    pub fn extrapolates(&self, row: &Features, target: Target) -> bool {
        self.targets[target.index()].fitted.support.is_left_by(row)
    }
}

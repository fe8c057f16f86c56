//! A refit that is not yet in force.

use gbdt::{Dataset, Forest};

use crate::Target;
use crate::base::Base;
use crate::columns::{COLUMNS, columns, directions};
use crate::model::Fitted;
use crate::store::Row;
use crate::support::Support;

/// What a fit produced; put in force by [`crate::Learner::install`].
#[derive(Clone, Debug)]
pub struct Candidate {
    /// One per target that had new rows enough.
    pub(crate) challengers: [Option<Challenger>; 2],
}

/// One target's refit, with rows it has not seen to judge it by.
#[derive(Clone, Debug)]
pub(crate) struct Challenger {
    pub(crate) fitted: Fitted,
    /// Rows of the newest fifth that were kept from the fit.
    pub(crate) held_out: Vec<Row>,
    /// All rows there were, held out or not.
    pub(crate) rows: usize,
}

/// Fewer rows than this teach a forest nothing that the base does not say better.
const FOREST_ROWS: usize = 40;

/// One in this many rows of the newest fifth is kept from the fit. The others stay in, so that
/// judge and model see the same present and a challenger is not refused for knowing less of it.
const HELD_OUT_EVERY: usize = 2;

impl Challenger {
    /// Fits base and forest to `rows`, which are in order of arrival.
    pub(crate) fn fit(target: Target, rows: Vec<(Row, f32)>, params: &gbdt::Params) -> Self {
        let count = rows.len();
        let newest = count - count / 5;
        let mut kept = Vec::with_capacity(count);
        let mut held_out = Vec::new();
        let mut support = Support::default();
        for (at, (row, weight)) in rows.into_iter().enumerate() {
            support.include(&row.features);
            if at >= newest && (at - newest).is_multiple_of(HELD_OUT_EVERY) {
                held_out.push(row);
            } else {
                kept.push((row, weight));
            }
        }
        let base = Base::fit(target, &kept);
        let forest = (kept.len() >= FOREST_ROWS)
            .then(|| forest(target, &base, &kept, params))
            .flatten();
        Self {
            fitted: Fitted {
                target,
                base,
                forest,
                support,
            },
            held_out,
            rows: count,
        }
    }
}

/// The forest on the log residual of the base.
fn forest(
    target: Target,
    base: &Base,
    rows: &[(Row, f32)],
    params: &gbdt::Params,
) -> Option<Forest> {
    let mut table = Vec::with_capacity(rows.len() * COLUMNS);
    let mut targets = Vec::with_capacity(rows.len());
    let mut weights = Vec::with_capacity(rows.len());
    for (row, weight) in rows {
        table.extend(columns(target, &row.features, &base.limits));
        targets.push(row.actual_ms.ln() - base.ln_ms(&row.features));
        weights.push(*weight);
    }
    let data = Dataset {
        features: COLUMNS,
        rows: &table,
        targets: &targets,
        weights: &weights,
    };
    match Forest::fit(params, &directions(target), &data) {
        Ok(forest) => Some(forest),
        Err(error) => {
            // Parameters and rows are checked on the way in; without a forest the base still serves.
            tracing::warn!(%target, %error, "no forest");
            None
        }
    }
}

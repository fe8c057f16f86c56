//! Every prediction beside what happened, and the metrics of them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::{Quantiles, Target};

/// One scored row; latencies in ms, rounded to what the predictions file shows, so that anyone who
/// reads it finds the same metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Index among the setup's eligible rows in file order.
    pub row: usize,
    /// Load level.
    pub users: u32,
    /// What it took.
    pub actual: f64,
    /// Predicted median.
    pub p50: f64,
    /// Predicted 90th percentile.
    pub p90: f64,
    /// Predicted 99th percentile.
    pub p99: f64,
}

impl Scored {
    /// Puts a prediction beside its label.
    pub fn new(row: usize, users: u32, actual_ms: f64, predicted: &Quantiles) -> Self {
        Self {
            row,
            users,
            actual: rounded(actual_ms),
            p50: rounded(f64::from(predicted.p50)),
            p90: rounded(f64::from(predicted.p90)),
            p99: rounded(f64::from(predicted.p99)),
        }
    }
}

/// To six significant decimals of a millisecond, never to zero.
fn rounded(ms: f64) -> f64 {
    ((ms * 1e6).round() / 1e6).max(1e-6)
}

/// How good predictions were.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Rows scored.
    pub n: usize,
    /// Mean of |p50 - actual| / actual, percent.
    pub mape: f64,
    /// Median of the same, percent.
    pub median_ape: f64,
    /// 100 · (exp(mean ln(p50 / actual)) - 1): below zero is optimistic.
    pub bias: f64,
    /// Share of rows with actual <= p90, 0 to 1.
    pub p90_coverage: f64,
}

impl Metrics {
    /// The metrics of at least one row; `None` of none.
    pub fn of<'a>(rows: impl Iterator<Item = &'a Scored>) -> Option<Self> {
        let (mut apes, mut logs, mut covered) = (Vec::new(), 0.0, 0.0);
        for row in rows {
            apes.push((row.p50 - row.actual).abs() / row.actual);
            logs += (row.p50 / row.actual).ln();
            covered += if row.actual <= row.p90 { 1.0 } else { 0.0 };
        }
        let n = apes.len();
        if n == 0 {
            return None;
        }
        let mape = 100.0 * apes.iter().sum::<f64>() / n as f64;
        apes.sort_unstable_by(f64::total_cmp);
        let median = f64::midpoint(apes[(n - 1) / 2], apes[n / 2]);
        Some(Self {
            n,
            mape,
            median_ape: 100.0 * median,
            bias: 100.0 * ((logs / n as f64).exp() - 1.0),
            p90_coverage: covered / n as f64,
        })
    }
}

/// The result of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// `model|gpu|n`.
    pub setup: String,
    /// What was predicted.
    pub target: Target,
    /// How.
    pub protocol: &'static str,
    /// Over all rows.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Per load level (users), ascending.
    pub by_level: BTreeMap<u32, Metrics>,
    /// Every row, by index.
    #[serde(skip)]
    pub rows: Vec<Scored>,
}

impl Evaluation {
    /// Scores `rows`, in any order; `None` without rows.
    pub fn new(
        setup: &str,
        target: Target,
        protocol: &'static str,
        mut rows: Vec<Scored>,
    ) -> Option<Self> {
        rows.sort_unstable_by_key(|row| row.row);
        let mut levels: Vec<u32> = rows.iter().map(|row| row.users).collect();
        levels.sort_unstable();
        levels.dedup();
        let by_level = levels.into_iter().filter_map(|users| {
            Metrics::of(rows.iter().filter(|row| row.users == users)).map(|of| (users, of))
        });
        Some(Self {
            setup: setup.to_owned(),
            target,
            protocol,
            metrics: Metrics::of(rows.iter())?,
            by_level: by_level.collect(),
            rows,
        })
    }

    /// Writes every prediction as CSV: `row,split,actual,p50,p90,p99`, latencies in ms.
    ///
    /// # Errors
    /// What writing to `to` gives.
    pub fn write_predictions(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "row,split,actual,p50,p90,p99")?;
        for row in &self.rows {
            writeln!(
                to,
                "{},test,{},{},{},{}",
                row.row, row.actual, row.p50, row.p90, row.p99
            )?;
        }
        to.flush()
    }
}

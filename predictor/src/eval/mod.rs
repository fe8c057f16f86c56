//! How good is the model on recorded requests? `headroom predictor eval`.
//!
//! A [`Recording`] is one setup's requests with the server's state at each submission. The
//! prequential protocol ([`prequential`]) replays it on a virtual clock as a router would have lived
//! it: every request is predicted before anything about it is known, and its label arrives when it
//! would have. [`Evaluation`] holds every prediction beside what happened and the metrics of them.

mod metrics;
mod prequential;
mod recording;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use metrics::{Evaluation, Metrics, Scored};
pub use prequential::prequential;
pub use recording::{Recorded, Recording};

/// Why an evaluation could not be made.
#[derive(Debug, Error)]
pub enum EvalError {
    /// The file could not be opened or read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not the CSV that it should be.
    #[error("{path}: {source}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        source: csv::Error,
    },
    /// A needed column is missing.
    #[error("{path} has no column `{column}`; it needs {needed}, and has {found}")]
    Column {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: &'static str,
        /// All needed columns.
        needed: String,
        /// The columns found.
        found: String,
    },
    /// A field is not the number it should be.
    #[error("{path} line {line}: {column} is `{value}`, it must be {right}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Line of the file, from 1.
        line: u64,
        /// Column of the field.
        column: &'static str,
        /// What it holds.
        value: String,
        /// What would be right.
        right: &'static str,
    },
    /// The file has no such setup.
    #[error("setup `{setup}` is not in the data; {hint}")]
    Setup {
        /// What was asked for.
        setup: String,
        /// The nearest setups, or that there are none.
        hint: String,
    },
    /// The setup has no eligible row.
    #[error("setup `{setup}` has no eligible row for {target}: {right}")]
    Empty {
        /// What was asked for.
        setup: String,
        /// The target asked for.
        target: crate::Target,
        /// What an eligible row needs.
        right: &'static str,
    },
}

impl EvalError {
    fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }
}

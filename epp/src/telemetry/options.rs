//! What is told, and where to.

use super::capped::DISTINCT_VALUES;
use std::path::PathBuf;

/// What a picker tells beyond its metrics, and under which names.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    /// Write families under their older names too.
    pub deprecated_names: bool,
    /// Distinct fairness ids, and other names that clients choose for flows, that are kept apart.
    pub label_limit: usize,
    /// Where sampled decisions are recorded; `None` = nowhere.
    pub records: Option<RecordOptions>,
    /// Where spans go; `None` = nowhere.
    pub tracing: Option<crate::spans::SpanOptions>,
}

/// A file of decision records.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordOptions {
    /// The file; the one before it has `.1` after its name.
    pub path: PathBuf,
    /// Share of the requests that are recorded, 0 to 1.
    pub sample: f64,
    /// Bytes of both files together at most.
    pub most_bytes: u64,
}

impl Default for Telling {
    fn default() -> Self {
        Self {
            deprecated_names: false,
            label_limit: DISTINCT_VALUES,
            records: None,
            tracing: None,
        }
    }
}

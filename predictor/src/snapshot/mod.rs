//! Models and learners as bytes.
//!
//! A [`ModelSet`] is what a picker serves to controllers: the models in force, by class. A learner's file
//! ([`crate::Learners::save`]) holds all that a restart needs to go on as if nothing had happened. Both are
//! [postcard](https://postcard.jamesmunns.com) within a frame of magic, format version, schema and SHA-256.
//!
//! Reading trusts nothing: bytes that are cut, changed, of another format or schema, or that hold what no learner
//! writes are refused with the reason, and never make a reader panic, loop, or take much more memory than they have.

mod frame;
mod model_set;
mod saved;

use std::fmt;

use thiserror::Error;

pub(crate) use model_set::TargetBody;
pub use model_set::{ClassModel, ModelSet, decode, encode};
pub(crate) use saved::{Counts, Moment, Saved, SavedClass, read, write};

/// Why bytes are no snapshot, or a snapshot cannot be written.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SnapshotError {
    /// They begin differently.
    #[error("these bytes are no snapshot of this kind: they do not begin with its magic")]
    NotASnapshot,
    /// A format that this build does not know.
    #[error(
        "the snapshot has format {found}, this build reads format {known}: read it with the release that wrote it"
    )]
    Format {
        /// Format of the snapshot.
        found: u16,
        /// Format of this build.
        known: u16,
    },
    /// Cut off, or followed by something else.
    #[error("the snapshot has {bytes} bytes, a whole one has {whole}")]
    Truncated {
        /// Bytes there are.
        bytes: usize,
        /// Bytes there must be.
        whole: usize,
    },
    /// More than any learner writes.
    #[error(
        "the snapshot says that it has {bytes} bytes, the most that is read or written is {most}"
    )]
    TooLarge {
        /// Bytes of the body.
        bytes: usize,
        /// The most there may be.
        most: usize,
    },
    /// Changed on the way.
    #[error("the snapshot's checksum does not fit its bytes: it was damaged")]
    Checksum,
    /// Made for other feature columns.
    #[error(
        "the snapshot was written for other feature columns (schema {found:016x}, this build has {known:016x})"
    )]
    Schema {
        /// Schema of the snapshot.
        found: u64,
        /// Schema of this build.
        known: u64,
    },
    /// Whole, but not what such a snapshot holds.
    #[error("the snapshot cannot be read: {0}")]
    Malformed(String),
    /// A number that no learner writes.
    #[error("class {class:?} of the snapshot: {flaw}")]
    Flawed {
        /// The class.
        class: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// A number in a snapshot that no learner writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Flaw {
    field: &'static str,
    value: f64,
    right: &'static str,
}

impl Flaw {
    pub(crate) fn new(field: &'static str, value: f64, right: &'static str) -> Self {
        Self {
            field,
            value,
            right,
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            value,
            right,
        } = self;
        write!(f, "{field} is {value}, it must be {right}")
    }
}

#[cfg(test)]
mod tests;

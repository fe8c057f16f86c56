//! What a decision remembers, for the next process.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a [`ModelController`](super::ModelController) remembers between ticks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    schema: u32,
}

/// A state that cannot be gone on from.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RestoreError {
    /// Written by another version of this program.
    #[error("saved state: schema: `{0}` is not {SCHEMA}")]
    Schema(u32),
}

/// Version of the layout.
pub(crate) const SCHEMA: u32 = 1;

impl SavedState {
    pub(super) fn new() -> Self {
        Self { schema: SCHEMA }
    }

    pub(super) fn check(&self) -> Result<(), RestoreError> {
        if self.schema == SCHEMA { Ok(()) } else { Err(RestoreError::Schema(self.schema)) }
    }
}

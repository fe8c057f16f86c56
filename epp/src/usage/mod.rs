//! Token counts from what the model server answers.

pub mod dialect;
pub mod document;
pub mod sse;
pub mod tokens;

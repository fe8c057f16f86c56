//! The request side of the model servers' HTTP API: headers, bodies, errors.

pub mod edit;
pub mod error;
pub mod head;
pub mod json;
pub mod openai;
pub mod rewrite;

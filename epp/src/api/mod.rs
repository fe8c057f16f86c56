//! The request side of the model servers' APIs: which one a path belongs to, headers, bodies, errors.
//!
//! [`paths`] tells the API. [`body`] reads what it is asked by `shape`, a table of members, while it arrives: `scan` tells
//! `members` what stands in the pieces, and what is part of the prompt goes to `content`, which hashes it. The pieces
//! themselves are kept in a [`rope`]; what is changed of a body is changed by [`edit`]s of single bytes.

pub mod body;
mod clipped;
mod content;
pub mod edit;
pub mod error;
pub mod frame;
pub mod head;
pub mod include_usage;
pub mod json;
mod media;
mod members;
#[cfg(test)]
mod message_tests;
pub mod paths;
pub mod proto;
pub mod rename;
pub mod rewrite;
pub mod rope;
mod scan;
mod shape;
pub mod vertex;
mod vllm_grpc;
pub mod wanted;

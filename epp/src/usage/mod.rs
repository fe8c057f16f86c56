//! What the model server's answer tells: its first token, its token counts.
//!
//! [`watch`] looks at an answer of any API while it passes: events ([`sse`]), one JSON document ([`document`]), gRPC
//! messages ([`frames`]).

pub mod dialect;
pub mod document;
pub mod frames;
pub mod sse;
pub mod tokens;
pub mod watch;

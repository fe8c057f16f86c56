//! A model server's engine that behaves like one: continuous batching, KV cache, profiles, traces.
//!
//! Nothing here reads a clock or a socket: the caller passes the time, virtual or real, and gets events back.

mod block;
mod chain;
mod engine;
mod event;
mod noise;
mod profile;
mod schedule;
mod sequence;
pub mod trace;
pub mod validate;
pub mod workload;

pub use engine::{Engine, SubmitError};
pub use event::{Event, EventKind, FinishReason, Load, Prefix, Submission};
pub use profile::{Profile, ProfileError, StepCost};

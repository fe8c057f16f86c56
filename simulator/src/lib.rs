//! The simulated model server: vLLM's HTTP API and metrics in front of the engine of `simulator-core`.
//!
//! One request, by file: `routes` takes it, `request` reads it, `prompt` turns its prompt into tokens and prefix
//! ids, `sampling` decides the answer, `driver` runs it through the engine on the real clock, and `answer` writes
//! what comes out as JSON or as server-sent events. `metrics` counts on the way.

mod answer;
mod driver;
mod error;
mod fields;
mod metrics;
mod options;
mod prompt;
mod request;
mod routes;
mod sampling;
mod server;

pub use options::{NullUsage, ServerOptions};
pub use server::{ServeError, Server, serve, spawn};

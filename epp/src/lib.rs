//! The endpoint picker's adapters: ext_proc, request APIs, discovery, scraping, telemetry.
//!
//! Every decision is made by [`epp_core`]; this crate connects it to the world. [`start`] runs a picker
//! inside any process; `headroom epp` is a process with nothing else in it.
//!
//! One request, file by file: `extproc/service` (message in) → `extproc/stream` (the protocol) →
//! `extproc/request` (headers and body read by `api/`) → `extproc/hub` (the director) → `extproc/request`
//! (sent on) → `extproc/response` (relayed, watched by `usage/`).

pub mod admin_port;
pub mod api;
pub mod bootstrap;
mod discovery;
mod drain;
pub mod extproc;
pub mod grpc;
mod health;
pub mod kubernetes;
pub mod model_dir;
pub mod options;
pub mod peers;
pub mod reload;
pub mod scrape;
pub mod service;
pub mod spans;
pub mod telemetry;
pub mod usage;
mod watched_file;

pub use options::Options;
pub use service::{Handle, StartError, start};

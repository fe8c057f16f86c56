//! Process plumbing: clock, logging, metric registry, admin server, shutdown.
//!
//! The only crate that reads the operating system's clock and signals. It decides nothing about
//! inference: every part here is handed to the shells that do.

pub mod admin;
pub mod clock;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod shutdown;

pub use clock::Clock;
pub use metrics::Metrics;
pub use shutdown::{Shutdown, Tasks};

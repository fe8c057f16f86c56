//! Process plumbing: clock, logging, metric registry, admin server, HTTP and TLS servers, shutdown.
//!
//! The only crate that reads the operating system's clock and signals. It decides nothing about
//! inference: every part here is handed to the shells that do.

pub mod admin;
pub mod clock;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod serve;
pub mod shutdown;
pub mod tls;

pub use clock::Clock;
pub use metrics::Metrics;
pub use shutdown::{Shutdown, Tasks};

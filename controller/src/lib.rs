//! The controller's adapters: control loop, local actuator, decisions over HTTP.
//!
//! `controller_core` decides; here its decisions are asked for once a second ([`control_loop`]), kept and served
//! ([`journal`]), measured ([`metrics`]) and, on one machine, carried out: [`local`] starts and stops model servers as
//! child processes and [`publication`] lists those that serve. [`standalone`] joins the four. Nothing here knows how
//! the signals are made: they come from a closure, in one process from the endpoint picker's own records.

pub mod control_loop;
#[cfg(test)]
mod fake_server;
pub mod file;
pub mod journal;
pub mod keda;
pub mod kubernetes;
pub mod local;
pub mod metrics;
pub mod metrics_api;
pub mod publication;
pub mod published;
pub mod standalone;

pub use journal::Journal;
pub use local::{LocalActuator, ServerOptions};
pub use metrics::DecisionMetrics;
pub use publication::{Listed, Publication};
pub use standalone::{Standalone, StandaloneOptions};

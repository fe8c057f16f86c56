//! End-to-end tests on the test cluster.
//!
//! [`cluster::Cluster`] is a real control plane whose pods are real processes; [`install`] puts Headroom there by its
//! own chart, under the chart's own ServiceAccounts; [`servers`] are Deployments of simulated model servers, and
//! [`load`] sends requests to the standalone Envoy and keeps what came back.
//!
//! A part that cannot start ends the test: these modules panic where a product would return an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

pub mod cluster;
pub mod install;
pub mod load;
pub mod objects;
pub mod servers;
pub mod stack;
mod until;

pub use cluster::Cluster;
pub use stack::Stack;
pub use until::{until, within};

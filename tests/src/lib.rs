//! What the system tests are made of: fakes of the parts around Headroom, and the real ones started and stopped.
//!
//! [`stack::Stack`] puts them together the way the demo does: a [`client`] talks to a real [`envoy`], which
//! asks the [`picker`] and sends the request to one of the [`upstream`] model servers. Every part listens on
//! ports of its own, waits for conditions instead of for time ([`until()`]), and is gone when dropped.
//!
//! A part that cannot start ends the test: these modules panic where a product would return an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod answers;
pub mod apis;
mod chart;
pub mod client;
pub mod envoy;
pub mod metrics;
pub mod picker;
pub mod ports;
pub mod script;
pub mod stack;
mod until;
pub mod upstream;

pub use until::until;

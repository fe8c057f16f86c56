//! Envoy's external processing protocol: one gRPC stream per HTTP request.
//!
//! [`stream`] is the protocol as a state machine without I/O: [`Event`](protocol::Event)s in,
//! [`Action`](protocol::Action)s out. [`wire`] is what goes over the connection, [`service`] joins both
//! to the director.

pub mod budget;
mod evictions;
pub mod hub;
pub(crate) mod idle;
mod incoming;
pub mod protocol;
pub mod reply;
pub mod request;
pub mod response;
pub mod service;
pub mod stream;
pub mod wire;

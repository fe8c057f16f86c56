//! Envoy's external processing protocol: one gRPC stream per HTTP request.
//!
//! [`stream`] is the protocol as a state machine without I/O: [`Event`](stream::Event)s in,
//! [`Action`](stream::Action)s out. [`wire`] is what goes over the connection, [`service`] joins both
//! to the director.

pub mod hub;
pub mod reply;
pub mod request;
pub mod response;
pub mod service;
pub mod stream;
pub mod wire;

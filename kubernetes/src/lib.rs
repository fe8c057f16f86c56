//! What every part of Headroom needs of a Kubernetes API: client, watches, leases, delegated authentication, events.
//!
//! Adapters only: whatever decides anything is a pure core inside its module, and every part is driven by
//! [`runtime::Clock`] and ends with [`runtime::Shutdown`].

pub mod client;
pub mod conditions;
pub mod delegated;
pub mod events;
pub mod lease;
#[cfg(any(test, feature = "mock"))]
pub mod mock;
pub mod watch;

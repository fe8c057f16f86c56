//! Our own endpoint pickers: found by their pool, asked for their demand and their models.

pub mod check;
mod connection;
mod pod;
mod poll;
mod share;
mod supervise;
#[cfg(test)]
pub(crate) mod testing;
pub mod trust;

pub use check::{Nonsense, Seen, check};
pub use connection::{Ask, Connection, FetchError, Page};
pub use pod::{ADMIN_PORT_NAME, PickerPod};
pub use poll::{Now, PERIOD, Poller};
pub use share::share;
pub use supervise::{Supervisor, pods};
pub use trust::TrustOptions;

/// Most pickers that are polled.
pub const MAX_PICKERS: usize = 1024;

//! Followers hold what the leader publishes, and answer as it does.
//!
//! The leader's address stands on the Lease. Both ends show certificates of the controllers' own authority: nobody
//! else can follow, and nobody else can lead.

mod follow;
mod identity;
mod lead;
mod wire;

pub use follow::Follow;
pub use identity::{IdentityError, client, server};
pub use lead::Lead;
pub use wire::{Decoder, MAX_MESSAGE, Message, WireError, encode};

#[cfg(test)]
mod tests;

//! Who holds which KV blocks, from what the engines tell.
//!
//! Engines publish an event for each block that their prefix cache takes in and lets go. The way of one event:
//! [`feed::Feed`] puts the messages of one source in order and finds gaps; [`events::decode`] reads a message;
//! [`Ingest::apply`] hashes the tokens of what was stored to keys of our own ([`keys`]) and enters the endpoint as a
//! holder of each block. A request's tokens are hashed to the same keys, and [`Reader::matched`] says, for every
//! endpoint, how many of the leading blocks it holds and in which [`Tier`].
//!
//! There is one [`Ingest`] and any number of [`Reader`]s. Readers take no lock and wait for nobody. Nothing here
//! opens a socket, starts a thread or asks for the time.

mod engine;
pub mod events;
pub mod feed;
mod index;
mod ingest;
pub mod keys;
mod tier;

pub use index::{Match, Matches, Pod, Reader};
pub use ingest::{Counts, Ingest, IngestError, Knowledge, Settings, SettingsError};
pub use keys::Key;
pub use tier::{TIERS, Tier, TierWeights};

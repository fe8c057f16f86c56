//! Pickers of one pool that tell each other what they have in flight, what they have queued and which prefixes they
//! sent where, so that several of them place requests as well as one would.
//!
//! Every 100 ms each picker makes a [`Delta`] of what changed and sends it to all others; [`Exchange`] is both ends
//! of that without any input or output. Numbers in a delta are totals, never differences: one that is lost with its
//! connection is made good by the [`Delta::whole`] that opens the next. A peer that says nothing for [`SILENCE`]
//! counts as gone, and so does everything it had.
//!
//! What peers have in flight is written into each endpoint's [`Load`](crate::Load), where detectors, scorers and
//! predictions read it as if it were our own.

mod exchange;
#[cfg(test)]
mod exchange_tests;
mod heard;
mod sent;
mod share;
mod told;

use std::sync::Arc;
use std::time::Duration;

pub use exchange::{Applied, Exchange, PeerState, Refused};
pub(crate) use sent::Sent;
pub use share::Remote;
pub(crate) use share::RemoteCell;

/// Time between two deltas.
pub const TICK: Duration = Duration::from_millis(100);
/// A peer that was silent for so long is gone.
pub const SILENCE: Duration = Duration::from_secs(1);
/// Ticks after which something is said although nothing changed: well within [`SILENCE`].
const HEARTBEAT_TICKS: u64 = 3;
/// Peers that are listened to at most.
pub const MOST_PEERS: usize = 64;
/// Endpoints that one peer may tell of.
pub const MOST_ENDPOINTS: usize = 16_384;
/// Bands that one peer may tell of.
pub const MOST_BANDS: usize = 256;
/// Prefix blocks that one delta carries at most, 8 bytes each.
pub const MOST_BLOCKS: usize = 1 << 16;
/// How prompts are hashed into blocks. Pickers of two versions that hash differently exchange no prefixes.
pub const HASH_VERSION: u32 = 1;

/// What changed at one picker since its last delta.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Who says it: a name that is unique among the pool's pickers, such as the pod's.
    pub from: Arc<str>,
    /// Which life of that picker; a new one starts from nothing.
    pub incarnation: u64,
    /// Counts the sender's ticks.
    pub sequence: u64,
    /// Everything is said: what is not mentioned is zero. `None` = only what changed is; `loads` and `chains` refer
    /// to the endpoints of the last whole delta.
    pub whole: Option<Vec<EndpointKey>>,
    /// What is in flight, by endpoint.
    pub loads: Vec<(u32, Flight)>,
    /// Prompts sent to endpoints, as chains of block hashes.
    pub chains: Vec<Chain>,
    /// What is queued, by band; all bands with something queued, every time.
    pub bands: Vec<BandUse>,
    /// The newest sequence heard of every peer, by its incarnation.
    pub heard: Vec<(u64, u64)>,
}

/// What endpoints are the same to all pickers by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Its name.
    pub name: Arc<str>,
    /// `ip:port`.
    pub address: Arc<str>,
}

/// What one picker has in flight at one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// Requests dispatched and not ended.
    pub in_flight: u32,
    /// Of those, without a first token yet.
    pub waiting: u32,
    /// Uncached prompt tokens of the waiting ones.
    pub waiting_tokens: u64,
    /// Context tokens of the others.
    pub resident_tokens: u64,
    /// Output tokens expected of all, where they are estimated.
    pub estimated_tokens: u64,
}

impl Flight {
    /// Most requests and most tokens that are believed of one picker at one endpoint.
    const MOST: (u32, u64) = (1 << 20, 1 << 40);

    /// What can be believed of it: a counter that slipped below zero elsewhere must not make an endpoint full for ever.
    fn believable(self) -> Self {
        let (requests, tokens) = Self::MOST;
        Self {
            in_flight: self.in_flight.min(requests),
            waiting: self.waiting.min(requests),
            waiting_tokens: self.waiting_tokens.min(tokens),
            resident_tokens: self.resident_tokens.min(tokens),
            estimated_tokens: self.estimated_tokens.min(tokens),
        }
    }
}

/// A prompt that was sent to an endpoint. Always a whole chain: an index of prefixes is only right if no block is in
/// it without all blocks before.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// Which endpoint.
    pub endpoint: u32,
    /// Tokens per block.
    pub block_tokens: u32,
    /// The hashes.
    pub blocks: Arc<[u64]>,
}

/// What one picker has queued in one band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandUse {
    /// The band.
    pub priority: i32,
    /// Requests queued.
    pub requests: u64,
    /// Their bodies' bytes.
    pub bytes: u64,
}

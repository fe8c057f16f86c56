//! What engines publish about their KV caches, and how it is read and written.
//!
//! A message is msgpack: `[time, [event …], data_parallel_rank?]`. An event is an array with its tag first or a map
//! with its tag under `type`; arrays may end early, and fields behind the ones known here are passed over. vLLM and
//! SGLang share the format; SGLang's arrays are shorter.

mod decode;
mod encode;
mod msgpack;

pub use decode::decode;
pub use encode::{Form, encode};

/// What an engine calls a block: its own number, or the last eight bytes (big-endian) of its own digest.
pub type EngineHash = u64;

/// One message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// When it was published, in seconds since 1970 by the engine's clock.
    pub at: f64,
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// The data-parallel rank that speaks.
    pub data_parallel_rank: Option<u32>,
    /// Events of a kind that is not known here; they were passed over.
    pub unknown: u32,
    /// Events of a known kind that could not be read; they were passed over, so something is missing.
    pub malformed: u32,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Blocks were taken in.
    Stored(Stored),
    /// Blocks were let go.
    Removed(Removed),
    /// Every block was let go.
    Cleared,
}

/// Blocks that follow one another were taken in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// One for each block.
    pub block_hashes: Vec<EngineHash>,
    /// The block before the first one; none when the first one begins a prompt.
    pub parent_block_hash: Option<EngineHash>,
    /// Of all blocks, one after the other. Empty when blocks that the engine told of before come to another tier.
    pub token_ids: Vec<u32>,
    /// Tokens per block.
    pub block_size: u32,
    /// The adapter, by the engine's number.
    pub lora_id: Option<i64>,
    /// Where they lie.
    pub medium: Option<String>,
    /// The adapter, by name.
    pub lora_name: Option<String>,
    /// For each block, what besides its tokens tells it apart.
    pub extra_keys: Option<Vec<Option<Vec<ExtraKey>>>>,
    /// Which of a hybrid model's groups of layers.
    pub group_idx: Option<u32>,
    /// The kind of attention of that group.
    pub kv_cache_spec_kind: Option<String>,
    /// The window of that attention, in tokens.
    pub kv_cache_spec_sliding_window: Option<u32>,
    /// `REMOTE` where the medium is not the engine's own. Only in maps.
    pub locality: Option<String>,
    /// What the request's cache was kept apart by, where it is not among the extra keys. Only in maps.
    pub cache_salt: Option<String>,
}

/// Blocks were let go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Removed {
    /// Which.
    pub block_hashes: Vec<EngineHash>,
    /// Where they lay.
    pub medium: Option<String>,
    /// Which of a hybrid model's groups of layers.
    pub group_idx: Option<u32>,
    /// `REMOTE` where the medium is not the engine's own. Only in maps.
    pub locality: Option<String>,
}

/// A part of what tells a block apart: an adapter's name, an item's identifier, a salt, a digest.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtraKey {
    /// Nothing.
    Nil,
    /// A name.
    Text(String),
    /// A digest.
    Bytes(Vec<u8>),
    /// An offset.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Parts that belong together: an identifier and where it begins.
    List(Vec<ExtraKey>),
}

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends within a value.
    #[error("the message of {bytes} bytes ends before its last value does")]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// A byte that begins no value.
    #[error("byte {at} of the message is 0xc1, which begins no msgpack value")]
    Marker {
        /// Its offset.
        at: usize,
    },
    /// A value of another kind than it has to be.
    #[error("`{field}` at byte {at} of the message is not {expected}")]
    Kind {
        /// What it is called.
        field: &'static str,
        /// Its offset.
        at: usize,
        /// What it has to be.
        expected: &'static str,
    },
    /// A field without which nothing can be made of the message.
    #[error("`{field}` is missing from the message")]
    Missing {
        /// What it is called.
        field: &'static str,
    },
}

//! What an index is made for, what it knows of an endpoint, and what it counts.

use crate::tier::TierWeights;

/// What an index is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Tokens per block of our keys. Engines' blocks may be larger or smaller as long as one size divides the other;
    /// equal is cheapest.
    pub block_tokens: u32,
    /// (Block, endpoint) pairs held at most, over all tiers. Beyond, what was neither stored nor looked up for longest
    /// is forgotten.
    pub entries: usize,
    /// Endpoints at most.
    pub pods: usize,
    /// (Block, endpoint) pairs at most that are expected and not yet told of.
    pub expected: usize,
    /// What a block in each tier is worth.
    pub weights: TierWeights,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            block_tokens: 16,
            entries: 100_000_000,
            pods: 4_096,
            expected: 1_000_000,
            weights: TierWeights::default(),
        }
    }
}

/// Endpoints an index can be made for.
const MOST_PODS: usize = 16_384;

/// Why an index cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Blocks of no tokens.
    #[error("the block size is 0 tokens: it has to be at least 1, best the engines' own")]
    BlockTokens,
    /// No or too many entries.
    #[error("{0} entries: an index holds between 1 and {max}", max = crate::engine::MAX_BLOCKS / 2)]
    Entries(usize),
    /// No or too many endpoints.
    #[error("{0} endpoints: an index holds between 1 and {MOST_PODS}")]
    Pods(usize),
    /// Too many expected entries.
    #[error("{0} expected entries: at most {max} are kept", max = crate::engine::MAX_BLOCKS / 2)]
    Expected(usize),
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let most = crate::engine::MAX_BLOCKS / 2;
        if self.block_tokens == 0 {
            Err(SettingsError::BlockTokens)
        } else if self.entries == 0 || self.entries > most {
            Err(SettingsError::Entries(self.entries))
        } else if self.pods == 0 || self.pods > MOST_PODS {
            Err(SettingsError::Pods(self.pods))
        } else if self.expected > most {
            Err(SettingsError::Expected(self.expected))
        } else {
            Ok(())
        }
    }
}

/// Why an endpoint cannot be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// The index is full of endpoints.
    #[error("the index was made for {0} endpoints and has as many: raise `pods`")]
    Pods(usize),
}

/// How far the index can be believed about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knowledge {
    /// Nothing was heard of it.
    Nothing,
    /// Messages are missing and were asked for: what the index says may be wrong either way.
    Doubtful,
    /// What the index says it holds it holds; it may hold more.
    Some,
    /// It holds what the index says, and nothing else.
    All,
}

impl Knowledge {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Doubtful => 1,
            Self::Some => 2,
            Self::All => 3,
        }
    }

    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Doubtful,
            2 => Self::Some,
            _ => Self::All,
        }
    }
}

/// What became of the events so far. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Engine blocks entered, copies included.
    pub stored: u64,
    /// Engine blocks taken out, copies included.
    pub removed: u64,
    /// Endpoints emptied: by their engine, at a restart, or because messages were lost.
    pub cleared: u64,
    /// Entries forgotten to stay within the bound.
    pub evicted: u64,
    /// Engine blocks not entered because there was no room at all.
    pub refused: u64,
    /// Removed blocks nobody had told of.
    pub unknown_removed: u64,
    /// Engine blocks not entered because the block before them is not known.
    pub orphaned: u64,
    /// Engine blocks of groups that say nothing of a prefix: sliding windows, state spaces, a second full group.
    pub other_groups: u64,
    /// Engine blocks not entered because their adapter has a number and no name.
    pub unnamed_adapters: u64,
    /// Engine blocks not entered because they are told apart by more than tokens and cut differently from ours.
    pub cut_extras: u64,
    /// Events of a kind that is not known here.
    pub unknown_events: u64,
    /// Events that could not be read.
    pub malformed_events: u64,
    /// Stored events whose token count is not blocks × block size, or whose block size does not fit ours.
    pub misfits: u64,
}

//! Who asks: three kinds of client laid over a trace, the same way live and in replay.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use simulator_core::trace::Trace;

/// What a client expects of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person waits: priority 1, with an SLO.
    Interactive,
    /// No SLO, priority 0.
    Plain,
    /// Work that may be refused: priority −1, with the interactive SLO.
    Sheddable,
}

impl Kind {
    /// Every kind, in the order reports list them.
    pub const ALL: [Kind; 3] = [Kind::Interactive, Kind::Plain, Kind::Sheddable];

    /// The flow-control priority of its objective.
    pub fn priority(self) -> i32 {
        match self {
            Kind::Interactive => 1,
            Kind::Plain => 0,
            Kind::Sheddable => -1,
        }
    }

    /// Whether its requests carry SLO headers.
    pub fn has_slo(self) -> bool {
        !matches!(self, Kind::Plain)
    }

    /// The kind's name, which is also the name of its objective.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Interactive => "interactive",
            Kind::Plain => "plain",
            Kind::Sheddable => "sheddable",
        }
    }
}

/// How requests are divided among the kinds, in percent; the rest is sheddable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindMix {
    /// Percent interactive.
    pub interactive: u32,
    /// Percent plain.
    pub plain: u32,
}

impl Default for KindMix {
    fn default() -> Self {
        Self {
            interactive: 50,
            plain: 30,
        }
    }
}

impl KindMix {
    /// The kind of a trace row: a seeded hash, so that a row keeps its kind whatever is cut from the trace.
    pub fn kind(&self, row: u64, seed: u64) -> Kind {
        let draw = mix64(row ^ mix64(seed)) % 100;
        match draw {
            d if d < u64::from(self.interactive) => Kind::Interactive,
            d if d < u64::from(self.interactive + self.plain) => Kind::Plain,
            _ => Kind::Sheddable,
        }
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection that scatters neighbouring inputs.
pub(crate) fn mix64(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One request offered to a fleet.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Row in the trace.
    pub row: u64,
    /// Arrival since the start of the run.
    pub at: Duration,
    /// Who asks.
    pub kind: Kind,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Tokens the answer will have.
    pub output_tokens: u32,
    /// Content ids of the prompt's blocks.
    pub blocks: Arc<[u64]>,
    /// Tokens one content id stands for.
    pub block_tokens: u32,
}

impl Offer {
    /// Blocks of the prompt that are full, the only ones an engine shares.
    pub(super) fn full_blocks(&self) -> &[u64] {
        let full = (self.input_tokens / self.block_tokens.max(1)) as usize;
        self.blocks.get(..full).unwrap_or(&self.blocks)
    }

    /// Block hashes that each stand for everything before them too, as the picker's hasher makes them.
    pub(super) fn chain(&self) -> Arc<[u64]> {
        let mut parent = 0_u64;
        let next = |block: &u64| {
            parent = mix64(block ^ parent.rotate_left(17));
            parent
        };
        self.blocks.iter().map(next).collect()
    }
}

/// The trace's requests, in order of arrival, each with its kind.
pub fn offers(trace: &Trace, mix: KindMix, seed: u64) -> Vec<Offer> {
    let mut offers: Vec<Offer> = trace
        .requests
        .iter()
        .map(|request| Offer {
            row: request.row,
            at: request.arrival,
            kind: mix.kind(request.row, seed),
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens.max(1),
            blocks: request.blocks.as_slice().into(),
            block_tokens: trace.block_tokens,
        })
        .collect();
    offers.sort_by_key(|offer| (offer.at, offer.row));
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_in_the_asked_shares_and_depend_on_row_and_seed_alone() {
        let mix = KindMix::default();
        let count = |kind| (0..10_000).filter(|row| mix.kind(*row, 7) == kind).count();
        assert!(
            (4_800..5_200).contains(&count(Kind::Interactive)),
            "{}",
            count(Kind::Interactive)
        );
        assert!(
            (2_850..3_150).contains(&count(Kind::Plain)),
            "{}",
            count(Kind::Plain)
        );
        let other: Vec<_> = (0..100).map(|row| mix.kind(row, 8)).collect();
        let same: Vec<_> = (0..100).map(|row| mix.kind(row, 7)).collect();
        assert_ne!(same, other);
    }
}

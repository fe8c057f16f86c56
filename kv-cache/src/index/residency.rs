//! Who holds a block, in 32 bits, and what the index keeps per block, in 64.

use crate::tier::Tier;

/// A place for a holder in the index: one endpoint's life between two clearings.
pub(crate) type Slot = u16;

/// Holders of a block.
///
/// Nobody; one, written in place; or the handle of a set in the [`SetStore`](super::sets::SetStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Residency(u32);

const ONE: u32 = 1 << 31;
const ROW_BITS: u32 = 27;

/// A [`Residency`] taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holders {
    Nobody,
    One(Bit),
    Set(Handle),
}

/// A set: which of the stores by size, and the row there, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) class: u32,
    pub(crate) row: u32,
}

/// One holder in one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bit {
    pub(crate) tier: Tier,
    pub(crate) slot: Slot,
}

impl Bit {
    /// The word of a set that this holder's bit is in. Words are sorted by tier, then by slot.
    pub(crate) fn word(self) -> u64 {
        (self.tier.index() as u64) << 10 | u64::from(self.slot >> 6)
    }

    /// The bit in that word.
    pub(crate) fn mask(self) -> u64 {
        1 << (self.slot & 63)
    }
}

impl Residency {
    pub(crate) const NOBODY: Self = Self(0);

    pub(crate) fn one(bit: Bit) -> Self {
        Self(ONE | (bit.tier.index() as u32) << 16 | u32::from(bit.slot))
    }

    pub(crate) fn set(handle: Handle) -> Self {
        Self(handle.class << ROW_BITS | handle.row)
    }

    pub(crate) fn holders(self) -> Holders {
        if self.0 == 0 {
            Holders::Nobody
        } else if self.0 & ONE != 0 {
            let tier = Tier::ALL
                .get((self.0 >> 16 & 7) as usize)
                .copied()
                .unwrap_or(Tier::Device);
            let slot = self.0 as Slot;
            Holders::One(Bit { tier, slot })
        } else {
            Holders::Set(Handle {
                class: self.0 >> ROW_BITS,
                row: self.0 & ((1 << ROW_BITS) - 1),
            })
        }
    }
}

/// What the index keeps per block: its number (28 bits), when it was last stored or looked up (4), its holders (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

/// Values of a stamp; it wraps around.
pub(crate) const STAMPS: u32 = 16;

impl Word {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn new(block: u32, stamp: u32, residency: Residency) -> Self {
        Self(u64::from(block) << 36 | u64::from(stamp % STAMPS) << 32 | u64::from(residency.0))
    }

    pub(crate) fn block(self) -> u32 {
        (self.0 >> 36) as u32
    }

    pub(crate) fn stamp(self) -> u32 {
        (self.0 >> 32) as u32 % STAMPS
    }

    pub(crate) fn residency(self) -> Residency {
        Residency(self.0 as u32)
    }

    #[must_use]
    pub(crate) fn stamped(self, stamp: u32) -> Self {
        Self::new(self.block(), stamp, self.residency())
    }

    #[must_use]
    pub(crate) fn held(self, residency: Residency) -> Self {
        Self::new(self.block(), self.stamp(), residency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_what_was_put_in() {
        for tier in Tier::ALL {
            let bit = Bit { tier, slot: 40_007 };
            let word = Word::new((1 << 28) - 1, 13, Residency::one(bit));
            assert_eq!((word.block(), word.stamp()), ((1 << 28) - 1, 13));
            assert_eq!(word.residency().holders(), Holders::One(bit));
            assert_eq!(word.stamped(29).stamp(), 13);
        }
        let handle = Handle {
            class: 9,
            row: (1 << 20) - 1,
        };
        let word = Word::new(1, 0, Residency::NOBODY).held(Residency::set(handle));
        assert_eq!(word.residency().holders(), Holders::Set(handle));
        assert_eq!(Residency::NOBODY.holders(), Holders::Nobody);
        assert_eq!(Word::EMPTY.residency(), Residency::NOBODY);
    }
}

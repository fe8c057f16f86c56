//! Ranges of prompt lengths that endpoints say they are for, by label, read once per pool.

use crate::pool::Pool;
use crate::schedule::Candidate;

/// What an endpoint's label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    /// There is none.
    Nothing,
    /// Not `min-max`.
    Unreadable,
    /// Prompt tokens, both ends included.
    Range { least: u32, most: u32 },
}

/// The ranges of a pool.
#[derive(Debug)]
pub(crate) struct Ranges {
    label: String,
    /// In pool order.
    of_slot: Vec<Declared>,
}

impl Ranges {
    pub(crate) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            of_slot: Vec::new(),
        }
    }

    pub(crate) fn pool_changed(&mut self, pool: &Pool) {
        self.of_slot.clear();
        let declared = pool.endpoints.iter().map(|endpoint| {
            endpoint
                .labels
                .get(&self.label)
                .map_or(Declared::Nothing, |text| read(text))
        });
        self.of_slot.extend(declared);
    }

    pub(crate) fn of(&self, candidate: &Candidate) -> Declared {
        let slot = candidate.slot as usize;
        self.of_slot.get(slot).copied().unwrap_or(Declared::Nothing)
    }
}

fn read(text: &str) -> Declared {
    let range = || {
        let (least, most) = text.split_once('-')?;
        let (least, most) = (least.trim().parse().ok()?, most.trim().parse().ok()?);
        (least <= most).then_some(Declared::Range { least, most })
    };
    range().unwrap_or(Declared::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ranges() {
        let (least, most) = (0, 2_048);
        assert_eq!(read("0-2048"), Declared::Range { least, most });
        assert_eq!(read(" 0 - 2048 "), Declared::Range { least, most });
        for bad in ["", "2048", "9-3", "a-b", "1-2-3", "-1-5"] {
            assert_eq!(read(bad), Declared::Unreadable, "{bad}");
        }
    }
}

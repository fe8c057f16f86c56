//! Numbers for the blocks that somebody holds, and the key of each.

use crate::engine::{BlockId, MAX_BLOCKS};
use crate::keys::Key;

/// Blocks whose keys are allocated at once.
const CHUNK: usize = 8_192;

/// Block number → key, 8 bytes each. Numbers begin at 1 and are used again.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// The key, or where nobody has the number, the number freed before it.
    keys: Vec<Box<[u64; CHUNK]>>,
    numbers: usize,
    free: BlockId,
    used: usize,
}

impl Blocks {
    /// Blocks that have a number.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    fn place(&mut self, block: BlockId) -> Option<&mut u64> {
        let index = (block as usize).checked_sub(1)?;
        self.keys
            .get_mut(index / CHUNK)
            .map(|chunk| &mut chunk[index % CHUNK])
    }

    /// The key of a block that has a number.
    pub(crate) fn key(&self, block: BlockId) -> Key {
        let index = block as usize - 1;
        Key::of(self.keys[index / CHUNK][index % CHUNK])
    }

    /// A number for `key`; none if all are taken.
    pub(crate) fn number(&mut self, key: Key) -> Option<BlockId> {
        let free = self.free;
        let block = if let Some(place) = self.place(free) {
            self.free = std::mem::replace(place, key.get()) as BlockId;
            free
        } else {
            if self.numbers >= MAX_BLOCKS {
                return None;
            }
            if self.numbers.is_multiple_of(CHUNK) {
                self.keys.push(Box::new([0; CHUNK]));
            }
            self.numbers += 1;
            let block = self.numbers as BlockId;
            *self.place(block)? = key.get();
            block
        };
        self.used += 1;
        Some(block)
    }

    /// Nobody holds the block any more.
    pub(crate) fn free(&mut self, block: BlockId) {
        let free = self.free;
        if let Some(place) = self.place(block) {
            *place = u64::from(free);
            self.free = block;
            self.used -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_keep_their_keys() {
        let mut blocks = Blocks::default();
        let numbers: Vec<_> = (1..=20_000)
            .map(|key| blocks.number(Key::of(key)).unwrap())
            .collect();
        for number in &numbers[..100] {
            blocks.free(*number);
        }
        assert_eq!(blocks.len(), 19_900);
        for key in 30_000..30_100 {
            let number = blocks.number(Key::of(key)).unwrap();
            assert!(number <= 100, "a freed one");
            assert_eq!(blocks.key(number), Key::of(key));
        }
        assert_eq!(blocks.number(Key::of(5)), Some(20_001));
        assert_eq!(blocks.key(20_000), Key::of(20_000));
    }
}

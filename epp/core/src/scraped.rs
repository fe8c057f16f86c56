//! Hot path: what an engine last said, read without a lock and without writing anything.
//!
//! A pick reads it of every endpoint. A counted reference would cost each of those reads a write, which holds up all
//! reads behind it until it is done; this one lets the processor read many endpoints at the same time.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use crate::endpoint::Scraped;

/// `at` of a cell in which nothing was stored.
const NEVER: u64 = u64::MAX;

/// The last [`Scraped`]. Its version is odd while somebody writes; who reads tries again until it stood still.
#[derive(Debug)]
pub(crate) struct ScrapedCell {
    version: AtomicU64,
    /// Nanoseconds of `at`; waiting and running; KV utilisation; tokens per block and blocks, each plus one.
    words: [AtomicU64; 5],
}

impl Default for ScrapedCell {
    fn default() -> Self {
        Self {
            version: AtomicU64::new(0),
            words: [NEVER, 0, 0, 0, 0].map(AtomicU64::new),
        }
    }
}

impl ScrapedCell {
    pub(crate) fn store(&self, scraped: &Scraped) {
        let at = u64::try_from(scraped.at.as_nanos()).unwrap_or(NEVER - 1);
        let pair = |high: f32, low: f32| u64::from(high.to_bits()) << 32 | u64::from(low.to_bits());
        let optional = |value: Option<u32>| value.map_or(0, |value| u64::from(value) + 1);
        let words = [
            at.min(NEVER - 1),
            pair(scraped.waiting, scraped.running),
            u64::from(scraped.kv_utilization.to_bits()),
            optional(scraped.block_tokens),
            optional(scraped.kv_blocks),
        ];
        let mut even = self.version.load(Relaxed) & !1;
        while let Err(now) = self
            .version
            .compare_exchange(even, even + 1, Acquire, Relaxed)
        {
            even = now & !1;
            std::thread::yield_now();
        }
        fence(Release);
        for (cell, word) in self.words.iter().zip(words) {
            cell.store(word, Relaxed);
        }
        self.version.store(even + 2, Release);
    }

    pub(crate) fn load(&self) -> Option<Scraped> {
        loop {
            let before = self.version.load(Acquire);
            let words = self.words.each_ref().map(|word| word.load(Relaxed));
            fence(Acquire);
            if before & 1 == 0 && self.version.load(Relaxed) == before {
                return decoded(words);
            }
            std::thread::yield_now();
        }
    }
}

fn decoded([at, counts, kv, block_tokens, kv_blocks]: [u64; 5]) -> Option<Scraped> {
    let number = |bits: u64| f32::from_bits(bits as u32);
    let optional = |word: u64| word.checked_sub(1).map(|value| value as u32);
    (at != NEVER).then(|| Scraped {
        at: Duration::from_nanos(at),
        waiting: number(counts >> 32),
        running: number(counts),
        kv_utilization: number(kv),
        block_tokens: optional(block_tokens),
        kv_blocks: optional(kv_blocks),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scraped(number: u32) -> Scraped {
        Scraped {
            at: Duration::from_nanos(u64::from(number)),
            waiting: number as f32,
            running: -(number as f32),
            kv_utilization: number as f32 / 7.0,
            block_tokens: (!number.is_multiple_of(3)).then_some(number),
            kv_blocks: (!number.is_multiple_of(2)).then_some(u32::MAX - number),
        }
    }

    #[test]
    fn what_is_stored_is_read() {
        let cell = ScrapedCell::default();
        assert_eq!(cell.load(), None);
        for number in [0, 1, 2, 3, 70_000] {
            cell.store(&scraped(number));
            assert_eq!(cell.load(), Some(scraped(number)));
        }
    }

    #[test]
    fn nobody_reads_half_of_one_and_half_of_another() {
        let cell = ScrapedCell::default();
        std::thread::scope(|scope| {
            for first in [0, 100_000] {
                let cell = &cell;
                scope.spawn(move || {
                    (first..first + 50_000).for_each(|number| cell.store(&scraped(number)));
                });
            }
            for _ in 0..50_000 {
                if let Some(read) = cell.load() {
                    assert_eq!(read, scraped(read.at.as_nanos() as u32));
                }
            }
        });
    }
}

//! Hot path: chained block hashes of a prompt, rolling over its bytes as they arrive.
//!
//! `h₀ = xxh64(model ‖ cache salt)`, `hᵢ = xxh64(LE(xxh64(block i)) ‖ LE(hᵢ₋₁))`, where a block is a run of
//! pseudo-tokens: four bytes of text each, little-endian, the last one padded with zeros. What a block holds is hashed
//! as it comes; the chain, which needs model and salt, is made of the blocks' hashes at the end.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Bytes of text per pseudo-token.
const TOKEN_BYTES: usize = 4;

/// What stands for content that is no text (an image, a recording) among a prompt's bytes: it tells prompts apart,
/// and its length counts for nothing.
pub fn content_digest(content: &[u8]) -> u64 {
    xxh64(content, 0)
}

/// The same of content that comes in pieces.
#[derive(Clone)]
pub struct ContentDigest(Xxh64);

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContentDigest")
            .field(&self.finish())
            .finish()
    }
}

impl Default for ContentDigest {
    fn default() -> Self {
        Self(Xxh64::new(0))
    }
}

impl ContentDigest {
    /// More of the content.
    pub fn update(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    /// What stands for all of it.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// Hashes one prompt. Feed it the text in pieces of any size; equal texts give equal hashes.
#[derive(Clone)]
pub struct PrefixHasher {
    block_bytes: usize,
    max_blocks: usize,
    /// Hashes of the full blocks, each of its own bytes.
    blocks: Vec<u64>,
    /// The block being filled and the bytes in it.
    block: Xxh64,
    filled: usize,
    bytes: u64,
}

/// A place in a prompt that is being hashed.
#[derive(Clone)]
pub struct HashMark {
    blocks: usize,
    block: Xxh64,
    filled: usize,
    bytes: u64,
}

impl fmt::Debug for PrefixHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "PrefixHasher", self.bytes)
    }
}

impl fmt::Debug for HashMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "HashMark", self.bytes)
    }
}

fn debug(f: &mut fmt::Formatter<'_>, name: &str, bytes: u64) -> fmt::Result {
    let mut shown = f.debug_struct(name);
    shown.field("bytes", &bytes).finish_non_exhaustive()
}

impl PrefixHasher {
    /// A hasher for blocks of `block_tokens` (at least 1), with llm-d's limits of 2,048 blocks and 131,072 tokens.
    pub fn new(block_tokens: u32) -> Self {
        Self::with_limits(block_tokens, 2_048, 131_072)
    }

    /// The same with other limits on the blocks and tokens that are hashed; the rest is only counted.
    pub fn with_limits(block_tokens: u32, max_blocks: u32, max_tokens: u32) -> Self {
        let block_tokens = block_tokens.max(1);
        Self {
            block_bytes: block_tokens as usize * TOKEN_BYTES,
            max_blocks: max_blocks.min(max_tokens / block_tokens) as usize,
            blocks: Vec::new(),
            block: Xxh64::new(0),
            filled: 0,
            bytes: 0,
        }
    }

    /// More of the prompt's text.
    pub fn update(&mut self, mut text: &[u8]) {
        self.bytes += text.len() as u64;
        while !text.is_empty() && self.blocks.len() < self.max_blocks {
            let (head, tail) = text.split_at(text.len().min(self.block_bytes - self.filled));
            text = tail;
            if head.len() == self.block_bytes {
                self.blocks.push(xxh64(head, 0));
                continue;
            }
            self.block.update(head);
            self.filled += head.len();
            if self.filled == self.block_bytes {
                self.close();
            }
        }
    }

    /// What `later` was fed follows, in blocks of its own.
    pub fn append(&mut self, mut later: Self) {
        self.pad();
        later.pad();
        if self.blocks.is_empty() {
            self.blocks = later.blocks;
        } else {
            self.blocks.append(&mut later.blocks);
        }
        self.blocks.truncate(self.max_blocks);
        self.bytes += later.bytes;
    }

    /// This place, to come back to.
    pub fn mark(&self) -> HashMark {
        HashMark {
            blocks: self.blocks.len(),
            block: self.block.clone(),
            filled: self.filled,
            bytes: self.bytes,
        }
    }

    /// Forgets what was fed since `mark` was taken.
    pub fn rewind(&mut self, mark: HashMark) {
        self.blocks.truncate(mark.blocks);
        (self.block, self.filled, self.bytes) = (mark.block, mark.filled, mark.bytes);
    }

    /// Length in tokens of the prompt to `model` under `salt`, and the hashes, the last one of a block that may be
    /// partly filled.
    pub fn finish(mut self, model: &str, salt: &str) -> (u32, Arc<[u64]>) {
        self.pad();
        let mut root = Xxh64::new(0);
        root.update(model.as_bytes());
        root.update(salt.as_bytes());
        let mut chain = root.digest();
        for block in &mut self.blocks {
            let mut link = [0; 16];
            link[..8].copy_from_slice(&block.to_le_bytes());
            link[8..].copy_from_slice(&chain.to_le_bytes());
            chain = xxh64(&link, 0);
            *block = chain;
        }
        let tokens = self.bytes.div_ceil(TOKEN_BYTES as u64);
        (
            u32::try_from(tokens).unwrap_or(u32::MAX),
            self.blocks.into(),
        )
    }

    /// Closes a block that is partly filled.
    fn pad(&mut self) {
        if self.filled > 0 && self.blocks.len() < self.max_blocks {
            let padding = self.filled.next_multiple_of(TOKEN_BYTES) - self.filled;
            self.block.update(&[0; TOKEN_BYTES][..padding]);
            self.close();
        }
    }

    fn close(&mut self) {
        self.blocks.push(self.block.digest());
        self.block.reset(0);
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(model: &str, salt: &str, text: &[u8]) -> (u32, Arc<[u64]>) {
        let mut hasher = PrefixHasher::new(64);
        hasher.update(text);
        hasher.finish(model, salt)
    }

    #[test]
    fn matches_the_formula() {
        let text: Vec<u8> = (0..=255).chain([7]).collect();
        let root = xxh64(b"modelsalt", 0);
        let link = |block: &[u8], previous: u64| {
            xxh64(
                &[xxh64(block, 0).to_le_bytes(), previous.to_le_bytes()].concat(),
                0,
            )
        };
        let first = link(&text[..256], root);
        let second = link(&[7, 0, 0, 0], first);
        assert_eq!(
            hash("model", "salt", &text),
            (65, Arc::from([first, second]))
        );
    }

    #[test]
    fn pieces_of_any_size_give_the_same_hashes() {
        let text: Vec<u8> = (0..2_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        let whole = hash("m", "", &text);
        for size in [1, 3, 4, 255, 256, 257, 1_000] {
            let mut hasher = PrefixHasher::new(64);
            text.chunks(size).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish("m", ""), whole, "pieces of {size}");
        }
    }

    #[test]
    fn model_and_salt_and_every_earlier_byte_count() {
        let mut text = vec![b'x'; 600];
        let (_, plain) = hash("m", "", &text);
        assert_ne!(hash("n", "", &text).1[0], plain[0]);
        assert_ne!(hash("m", "s", &text).1[0], plain[0]);
        text[300] = b'y';
        let (_, changed) = hash("m", "", &text);
        assert_eq!(changed[0], plain[0]);
        assert!(changed[1] != plain[1] && changed[2] != plain[2]);
    }

    #[test]
    fn limits_bound_the_hashes_but_not_the_count() {
        let text = vec![b'x'; 4 * 64 * 10];
        let mut hasher = PrefixHasher::with_limits(64, 2_048, 64 * 3);
        hasher.update(&text);
        let (tokens, hashes) = hasher.finish("m", "");
        assert_eq!((tokens, hashes.len()), (640, 3));
        assert_eq!(hash("m", "", &[]), (0, Arc::from([])));
    }

    fn fed(text: &[u8]) -> PrefixHasher {
        let mut hasher = PrefixHasher::with_limits(64, 5, 131_072);
        hasher.update(text);
        hasher
    }

    #[test]
    fn what_is_appended_begins_a_block_and_counts_within_the_limits() {
        let (first, second) = ([b'x'; 300], [b'y'; 700]);
        let mut both = fed(&first);
        both.append(fed(&second));
        let (tokens, hashes) = both.finish("m", "");
        let (_, alone) = fed(&first).finish("m", "");
        assert_eq!((tokens, hashes.len()), (250, 5));
        assert_eq!(hashes[..2], alone[..]);
        let mut other = fed(&first);
        other.append(fed(&[b'z'; 700]));
        assert_ne!(other.finish("m", "").1[2], hashes[2]);
        let mut nothing_first = fed(b"");
        nothing_first.append(fed(&second));
        assert_eq!(nothing_first.finish("m", ""), fed(&second).finish("m", ""));
    }

    #[test]
    fn what_is_rewound_was_never_fed() {
        for (before, between) in [(0, 100), (100, 100), (100, 700), (256, 256), (1_400, 9)] {
            let mut hasher = fed(&vec![b'x'; before]);
            let mark = hasher.mark();
            hasher.update(&vec![b'y'; between]);
            hasher.rewind(mark);
            hasher.update(&[b'z'; 400]);
            let mut plain = fed(&vec![b'x'; before]);
            plain.update(&[b'z'; 400]);
            assert_eq!(
                hasher.finish("m", ""),
                plain.finish("m", ""),
                "{before} {between}"
            );
        }
    }
}

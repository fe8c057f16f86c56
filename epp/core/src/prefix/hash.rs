//! Hot path: chained block hashes of a prompt, rolling over its bytes as they arrive.
//!
//! `h₀ = xxh64(model ‖ cache salt)`, `hᵢ = xxh64(LE(xxh64(block i)) ‖ LE(hᵢ₋₁))`, where a block is a run of
//! pseudo-tokens: four bytes of text each, little-endian, the last one padded with zeros.

use std::sync::Arc;

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Bytes of text per pseudo-token.
const TOKEN_BYTES: usize = 4;

/// What stands for content that is no text (an image, a recording) among a prompt's bytes: it tells prompts apart,
/// and its length counts for nothing.
pub fn content_digest(content: &[u8]) -> u64 {
    xxh64(content, 0)
}

/// Hashes one prompt. Feed it the text in pieces of any size; equal texts give equal hashes.
#[derive(Clone)]
pub struct PrefixHasher {
    block_bytes: usize,
    max_blocks: usize,
    chain: u64,
    hashes: Vec<u64>,
    /// The block being filled and the bytes in it.
    block: Xxh64,
    filled: usize,
    bytes: u64,
}

impl PrefixHasher {
    /// A hasher for prompts to `model` under `salt`, in blocks of `block_tokens` (at least 1), with llm-d's
    /// limits of 2,048 blocks and 131,072 tokens.
    pub fn new(model: &str, salt: &str, block_tokens: u32) -> Self {
        Self::with_limits(model, salt, block_tokens, 2_048, 131_072)
    }

    /// The same with other limits on the blocks and tokens that are hashed; the rest is only counted.
    pub fn with_limits(
        model: &str,
        salt: &str,
        block_tokens: u32,
        max_blocks: u32,
        max_tokens: u32,
    ) -> Self {
        let block_tokens = block_tokens.max(1);
        let mut root = Xxh64::new(0);
        root.update(model.as_bytes());
        root.update(salt.as_bytes());
        Self {
            block_bytes: block_tokens as usize * TOKEN_BYTES,
            max_blocks: max_blocks.min(max_tokens / block_tokens) as usize,
            chain: root.digest(),
            hashes: Vec::new(),
            block: Xxh64::new(0),
            filled: 0,
            bytes: 0,
        }
    }

    /// More of the prompt's text.
    pub fn update(&mut self, mut text: &[u8]) {
        self.bytes += text.len() as u64;
        while !text.is_empty() && self.hashes.len() < self.max_blocks {
            let (head, tail) = text.split_at(text.len().min(self.block_bytes - self.filled));
            text = tail;
            if head.len() == self.block_bytes {
                self.close(xxh64(head, 0));
                continue;
            }
            self.block.update(head);
            self.filled += head.len();
            if self.filled == self.block_bytes {
                self.close_partial();
            }
        }
    }

    /// Prompt length in tokens and the hashes, the last one of a block that may be partly filled.
    pub fn finish(mut self) -> (u32, Arc<[u64]>) {
        if self.filled > 0 && self.hashes.len() < self.max_blocks {
            let padding = self.filled.next_multiple_of(TOKEN_BYTES) - self.filled;
            self.block.update(&[0; TOKEN_BYTES][..padding]);
            self.close_partial();
        }
        let tokens = self.bytes.div_ceil(TOKEN_BYTES as u64);
        (
            u32::try_from(tokens).unwrap_or(u32::MAX),
            self.hashes.into(),
        )
    }

    fn close_partial(&mut self) {
        let digest = self.block.digest();
        self.block.reset(0);
        self.filled = 0;
        self.close(digest);
    }

    fn close(&mut self, digest: u64) {
        let mut link = [0; 16];
        link[..8].copy_from_slice(&digest.to_le_bytes());
        link[8..].copy_from_slice(&self.chain.to_le_bytes());
        self.chain = xxh64(&link, 0);
        self.hashes.push(self.chain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(model: &str, salt: &str, text: &[u8]) -> (u32, Arc<[u64]>) {
        let mut hasher = PrefixHasher::new(model, salt, 64);
        hasher.update(text);
        hasher.finish()
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
            let mut hasher = PrefixHasher::new("m", "", 64);
            text.chunks(size).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), whole, "pieces of {size}");
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
        let mut hasher = PrefixHasher::with_limits("m", "", 64, 2_048, 64 * 3);
        hasher.update(&text);
        let (tokens, hashes) = hasher.finish();
        assert_eq!((tokens, hashes.len()), (640, 3));
        assert_eq!(hash("m", "", &[]), (0, Arc::from([])));
    }
}

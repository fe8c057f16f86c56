//! Token ids to block keys, rolling.
//!
//! `key(root) = xxh64(model)`, `keyᵢ = mix(keyᵢ₋₁ · M + xxh64(LE tokens of block i))`, where `mix` is MurmurHash3's
//! 64-bit finaliser: for one parent two digests never meet, and for one digest two parents never do. What besides
//! tokens makes a block another one (a salt, an image) is hashed into its digest. The digests depend on nothing before
//! them, so they are computed side by side; only the short step from key to key is a chain.

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// MurmurHash3's finaliser: a bijection in which every bit moves half of the others.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

const CHAIN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One block of tokens and everything before it. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Key(u64);

impl Key {
    /// What the first block of a prompt to `model` follows; for an adapter, the adapter's name.
    pub fn root(model: &str) -> Self {
        Self::of(xxh64(model.as_bytes(), CHAIN))
    }

    /// The block with `digest` that follows this one.
    pub fn then(self, digest: Digest) -> Self {
        Self::of(mix(self.0.wrapping_mul(CHAIN).wrapping_add(digest.0)))
    }

    /// As a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The key that is this number; 0 is no key and becomes 1.
    pub fn of(number: u64) -> Self {
        Self(number.max(1))
    }
}

/// What is in one block, whatever came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of a block's tokens.
    pub fn of_tokens(tokens: &[u32]) -> Self {
        const RUN: usize = 64;
        let mut bytes = [0; RUN * 4];
        if let Some(bytes) = bytes.get_mut(..tokens.len() * 4) {
            write_le(bytes, tokens);
            return Self(xxh64(bytes, 0));
        }
        let mut long = Xxh64::new(0);
        for run in tokens.chunks(RUN) {
            let bytes = &mut bytes[..run.len() * 4];
            write_le(bytes, run);
            long.update(bytes);
        }
        Self(long.digest())
    }

    /// The same block with what else tells it apart; without any it stays as it is.
    #[must_use]
    pub fn with(self, extras: &Extras) -> Self {
        match &extras.0 {
            None => self,
            Some(extras) => Self(mix(self.0 ^ extras.digest())),
        }
    }
}

fn write_le(bytes: &mut [u8], tokens: &[u32]) {
    for (bytes, token) in bytes.chunks_exact_mut(4).zip(tokens) {
        bytes.copy_from_slice(&token.to_le_bytes());
    }
}

/// What besides its tokens tells a block apart, in the order in which engines list it: the identifiers of the
/// multimodal items that reach into it (with their offsets, where the engine tells them), then, on the first block,
/// the cache salt.
#[derive(Clone, Default)]
pub struct Extras(Option<Xxh64>);

impl std::fmt::Debug for Extras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Extras")
            .field(&self.0.as_ref().map(Xxh64::digest))
            .finish()
    }
}

impl Extras {
    /// A name: an item's identifier, the salt.
    pub fn text(&mut self, text: &str) {
        self.put(b't', text.as_bytes());
    }

    /// Bytes: the hash of prompt embeddings.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.put(b'b', bytes);
    }

    /// A number: where an item begins, counted from the block's first token.
    pub fn integer(&mut self, integer: i64) {
        self.put(b'i', &integer.to_le_bytes());
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn put(&mut self, kind: u8, bytes: &[u8]) {
        let digest = self.0.get_or_insert_with(|| Xxh64::new(CHAIN));
        digest.update(&[kind]);
        digest.update(&(bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
}

/// Hashes one prompt's tokens to keys. Feed it tokens in pieces of any size; equal prompts give equal keys.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    block_tokens: usize,
    max_blocks: usize,
    keys: Vec<Key>,
    last: Key,
    /// Of the block that is not full.
    partial: Vec<u32>,
}

impl KeyHasher {
    /// A hasher of blocks of `block_tokens` (at least 1) for prompts to `model`; keys of more than `max_blocks` blocks
    /// are not made.
    pub fn new(model: &str, block_tokens: u32, max_blocks: usize) -> Self {
        let block_tokens = block_tokens.max(1) as usize;
        Self {
            block_tokens,
            max_blocks,
            keys: Vec::new(),
            last: Key::root(model),
            partial: Vec::with_capacity(block_tokens),
        }
    }

    /// More of the prompt, without extras.
    pub fn update(&mut self, tokens: &[u32]) {
        self.update_with(tokens, |_| Extras::default());
    }

    /// More of the prompt; `extras` says what tells the block with that number apart besides its tokens.
    pub fn update_with(&mut self, mut tokens: &[u32], extras: impl Fn(usize) -> Extras) {
        if !self.partial.is_empty() {
            let missing = self.block_tokens - self.partial.len();
            let (head, tail) = tokens.split_at(missing.min(tokens.len()));
            self.partial.extend_from_slice(head);
            tokens = tail;
            if self.partial.len() < self.block_tokens {
                return;
            }
            let digest = Digest::of_tokens(&self.partial);
            self.push(digest, &extras);
            self.partial.clear();
        }
        let room = self.max_blocks.saturating_sub(self.keys.len());
        self.keys
            .reserve((tokens.len() / self.block_tokens).min(room));
        let mut blocks = tokens.chunks_exact(self.block_tokens);
        for block in blocks.by_ref().take(room) {
            self.push(Digest::of_tokens(block), &extras);
        }
        if self.keys.len() < self.max_blocks {
            self.partial.extend_from_slice(blocks.remainder());
        }
    }

    /// The keys of the full blocks so far.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The keys of the full blocks.
    pub fn finish(self) -> Vec<Key> {
        self.keys
    }

    fn push(&mut self, digest: Digest, extras: &impl Fn(usize) -> Extras) {
        if self.keys.len() < self.max_blocks {
            self.last = self.last.then(digest.with(&extras(self.keys.len())));
            self.keys.push(self.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(model: &str, tokens: &[u32], block_tokens: u32) -> Vec<Key> {
        let mut hasher = KeyHasher::new(model, block_tokens, usize::MAX);
        hasher.update(tokens);
        hasher.finish()
    }

    #[test]
    fn matches_the_formula() {
        let tokens: Vec<u32> = (0..40).map(|i| i * 70_001).collect();
        let digest = |block: &[u32]| {
            let bytes: Vec<u8> = block.iter().flat_map(|token| token.to_le_bytes()).collect();
            xxh64(&bytes, 0)
        };
        let root = xxh64(b"m", CHAIN);
        let first = mix(root.wrapping_mul(CHAIN).wrapping_add(digest(&tokens[..16])));
        let second = mix(first
            .wrapping_mul(CHAIN)
            .wrapping_add(digest(&tokens[16..32])));
        assert_eq!(keys("m", &tokens, 16), [Key(first), Key(second)]);
        let long: Vec<u32> = (0..200).collect();
        assert_eq!(Digest::of_tokens(&long).0, digest(&long));
    }

    #[test]
    fn extras_tell_blocks_apart_and_what_follows_them() {
        let tokens = [7; 64];
        let salted = |salt: &str| {
            let mut hasher = KeyHasher::new("m", 16, usize::MAX);
            hasher.update_with(&tokens, |block| {
                let mut extras = Extras::default();
                if block == 1 {
                    extras.text(salt);
                    extras.integer(-3);
                }
                extras
            });
            hasher.finish()
        };
        let plain = keys("m", &tokens, 16);
        let (one, two) = (salted("a"), salted("b"));
        assert_eq!(one[0], plain[0]);
        for block in 1..4 {
            assert!(one[block] != plain[block] && one[block] != two[block]);
        }
        let (mut split, mut joined) = (Extras::default(), Extras::default());
        split.text("a");
        split.text("b");
        joined.text("ab");
        let digest = Digest::of_tokens(&tokens);
        assert_ne!(digest.with(&split), digest.with(&joined));
        assert!(Extras::default().is_empty() && !joined.is_empty());
    }

    #[test]
    fn more_blocks_than_allowed_are_not_hashed() {
        let mut hasher = KeyHasher::new("m", 4, 3);
        hasher.update(&[1; 10]);
        hasher.update(&[1; 90]);
        assert_eq!(hasher.keys(), &keys("m", &[1; 100], 4)[..3]);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_keys(
            tokens in prop::collection::vec(0_u32..200_000, 0..400),
            cuts in prop::collection::vec(1_usize..90, 1..8),
            block_tokens in 1_u32..70,
        ) {
            let mut hasher = KeyHasher::new("m", block_tokens, usize::MAX);
            let mut rest = &tokens[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                hasher.update(head);
                rest = tail;
            }
            prop_assert_eq!(hasher.finish(), keys("m", &tokens, block_tokens));
        }

        #[test]
        fn every_earlier_token_and_the_model_count(
            mut tokens in prop::collection::vec(0_u32..9, 32..64),
            at in 0_usize..32,
        ) {
            let before = keys("m", &tokens, 8);
            prop_assert_ne!(&keys("n", &tokens, 8)[0], &before[0]);
            tokens[at] += 1;
            let after = keys("m", &tokens, 8);
            for block in 0..before.len() {
                prop_assert_eq!(before[block] == after[block], block < at / 8, "block {}", block);
            }
        }
    }
}

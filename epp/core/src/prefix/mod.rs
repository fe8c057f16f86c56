//! Which endpoint has probably cached how much of a prompt.

mod blocks;
mod hash;

pub use hash::{ContentDigest, HashMark, PrefixHasher, content_digest};

use std::sync::Arc;

use blocks::BlockCache;
use rustc_hash::FxHashMap;

use crate::config::PrefixProducer;
use crate::endpoint::{Endpoint, Load};
use crate::pool::Pool;

/// Smallest auto-tuned block in tokens. Smaller blocks cost memory in proportion and match hardly more.
pub const MIN_BLOCK_TOKENS: u32 = 64;

/// How prompts are to be hashed for the prefix index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixHashing {
    /// Tokens per block.
    pub block_tokens: u32,
    /// Blocks hashed at most; 0 = nothing reads the hashes, tokens are only counted.
    pub max_blocks: u32,
    /// Tokens hashed at most.
    pub max_tokens: u32,
}

impl PrefixHashing {
    /// A hasher for one prompt.
    pub fn hasher(&self) -> PrefixHasher {
        PrefixHasher::with_limits(self.block_tokens, self.max_blocks, self.max_tokens)
    }
}

/// Per endpoint, the blocks of the prompts that were dispatched to it, bounded like its KV cache.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    parameters: PrefixProducer,
    /// In pool order.
    caches: Vec<BlockCache>,
    /// Blocks in all of them.
    blocks: usize,
}

/// Part of the largest cache that is forgotten at once when all together are over their limit: finding the largest
/// looks at all of them.
const SHED_PART: usize = 16;

impl PrefixIndex {
    pub(crate) fn new(parameters: PrefixProducer) -> Self {
        Self {
            parameters,
            caches: Vec::new(),
            blocks: 0,
        }
    }

    /// Puts other limits in force. What is remembered stays as far as there is room for it.
    pub(crate) fn set_parameters(&mut self, parameters: PrefixProducer) {
        self.parameters = parameters;
    }

    /// Follows the pool: what left is forgotten, what stayed keeps its blocks, what is new starts empty.
    pub(crate) fn set_pool(&mut self, old: &Pool, new: &Pool) {
        let identity = |endpoint: &Arc<Endpoint>| Arc::as_ptr(&endpoint.load).cast::<Load>();
        let mut kept: FxHashMap<*const Load, BlockCache> = old
            .endpoints
            .iter()
            .map(identity)
            .zip(self.caches.drain(..))
            .collect();
        self.caches = new
            .endpoints
            .iter()
            .map(|endpoint| kept.remove(&identity(endpoint)).unwrap_or_default())
            .collect();
        self.blocks = self.caches.iter().map(BlockCache::len).sum();
    }

    /// How many of the leading `blocks` the endpoint at `slot` has seen without a gap.
    pub(crate) fn matched(&self, slot: usize, blocks: &[u64]) -> u32 {
        self.caches
            .get(slot)
            .map_or(0, |cache| cache.matched(blocks))
    }

    /// The endpoint at `slot` is about to process `blocks` of `block_tokens` each.
    pub(crate) fn learn(
        &mut self,
        slot: usize,
        endpoint: &Endpoint,
        blocks: &[u64],
        block_tokens: u32,
    ) {
        let kv_blocks = endpoint
            .scraped()
            .and_then(|scraped| scraped.kv_tokens())
            .and_then(|tokens| usize::try_from(tokens / u64::from(block_tokens.max(1))).ok())
            .filter(|&blocks| blocks > 0);
        let capacity = kv_blocks.unwrap_or(self.parameters.lru_capacity_per_server as usize);
        let most = self.parameters.max_blocks_in_all as usize;
        if let Some(cache) = self.caches.get_mut(slot) {
            let before = cache.len();
            cache.learn(blocks, capacity.min(most));
            self.blocks = self.blocks + cache.len() - before;
        }
        while self.blocks > most {
            self.shed(self.blocks - most);
        }
    }

    /// Forgets at least one block, at most a part of the largest cache.
    fn shed(&mut self, surplus: usize) {
        let Some(largest) = self.caches.iter_mut().max_by_key(|cache| cache.len()) else {
            return;
        };
        let before = largest.len();
        largest.shed(surplus.max(before / SHED_PART).min(before));
        self.blocks = self.blocks + largest.len() - before;
    }

    /// Blocks remembered, over all endpoints.
    pub(crate) fn len(&self) -> usize {
        self.blocks
    }
}

/// Tokens per block that prompts should be hashed with: as configured, or the engines' own, at least 64.
pub(crate) fn block_tokens(parameters: &PrefixProducer, pool: &Pool) -> u32 {
    if !parameters.auto_tune {
        return parameters.block_size_tokens;
    }
    let told = pool
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.scraped()?.block_tokens);
    told.max()
        .unwrap_or(parameters.block_size_tokens)
        .max(MIN_BLOCK_TOKENS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::endpoint::Scraped;
    use crate::pool::EndpointSpec;

    fn pool(previous: &Pool, names: &[&str]) -> Pool {
        let spec = |name: &&str| EndpointSpec {
            name: (*name).into(),
            address: format!("10.0.0.{}:80", name.as_bytes()[0]),
            labels: BTreeMap::new(),
        };
        previous.updated(names.iter().map(spec).collect())
    }

    #[test]
    fn follows_the_pool_by_identity() {
        let empty = Pool::default();
        let first = pool(&empty, &["a", "b"]);
        let mut index = PrefixIndex::new(PrefixProducer::default());
        index.set_pool(&empty, &first);
        index.learn(1, &first.endpoints[1], &[1, 2, 3], 64);
        let moved = pool(&first, &["c", "b"]);
        index.set_pool(&first, &moved);
        assert_eq!(
            (index.matched(0, &[1, 2]), index.matched(1, &[1, 2, 9])),
            (0, 2)
        );
        let gone = pool(&moved, &["a"]);
        index.set_pool(&moved, &gone);
        assert_eq!((index.len(), index.matched(0, &[1])), (0, 0));
    }

    #[test]
    fn all_endpoints_together_are_bounded() {
        let empty = Pool::default();
        let pool = pool(&empty, &["a", "b", "c"]);
        let mut index = PrefixIndex::new(PrefixProducer {
            max_blocks_in_all: 100,
            ..PrefixProducer::default()
        });
        index.set_pool(&empty, &pool);
        for round in 0..40_u64 {
            let slot = (round % 3) as usize;
            let blocks: Vec<u64> = (0..7).map(|block| round * 100 + block).collect();
            index.learn(slot, &pool.endpoints[slot], &blocks, 64);
            assert_eq!(index.matched(slot, &blocks), 7, "the newest stays");
            let counted: usize = index.caches.iter().map(BlockCache::len).sum();
            assert_eq!(index.len(), counted);
            assert!(counted <= 100, "{counted}");
        }
        assert!(index.len() > 80);
        let long: Vec<u64> = (10_000..10_500).collect();
        index.learn(0, &pool.endpoints[0], &long, 64);
        assert!(index.len() <= 100 && index.matched(0, &long) > 0);
    }

    #[test]
    fn capacity_is_the_engines_kv_size_once_told() {
        let empty = Pool::default();
        let pool = pool(&empty, &["a"]);
        let mut index = PrefixIndex::new(PrefixProducer {
            lru_capacity_per_server: 3,
            ..PrefixProducer::default()
        });
        index.set_pool(&empty, &pool);
        let blocks: Vec<u64> = (1..=10).collect();
        index.learn(0, &pool.endpoints[0], &blocks, 64);
        assert_eq!((index.len(), index.matched(0, &blocks)), (3, 3));
        let at = Duration::ZERO;
        let (block_tokens, kv_blocks) = (Some(16), Some(20));
        let scraped = Scraped {
            at,
            waiting: 0.0,
            running: 0.0,
            kv_utilization: 0.0,
            block_tokens,
            kv_blocks,
        };
        pool.endpoints[0].set_scraped(scraped);
        index.learn(0, &pool.endpoints[0], &blocks, 64);
        assert_eq!(
            index.matched(0, &blocks),
            5,
            "320 KV tokens are five blocks of 64"
        );
        assert_eq!(super::block_tokens(&PrefixProducer::default(), &pool), 64);
        pool.endpoints[0].set_scraped(Scraped {
            block_tokens: Some(128),
            ..scraped
        });
        assert_eq!(super::block_tokens(&PrefixProducer::default(), &pool), 128);
        let fixed = PrefixProducer {
            auto_tune: false,
            ..PrefixProducer::default()
        };
        assert_eq!(super::block_tokens(&fixed, &pool), 16);
    }
}

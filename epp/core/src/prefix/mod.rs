//! Which endpoint has probably cached how much of a prompt.

mod blocks;
mod hash;

pub use hash::{PrefixHasher, content_digest};

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
    /// A hasher for one prompt to `model` under `salt`.
    pub fn hasher(&self, model: &str, salt: &str) -> PrefixHasher {
        PrefixHasher::with_limits(
            model,
            salt,
            self.block_tokens,
            self.max_blocks,
            self.max_tokens,
        )
    }
}

/// Per endpoint, the blocks of the prompts that were dispatched to it, bounded like its KV cache.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    parameters: PrefixProducer,
    /// In pool order.
    caches: Vec<BlockCache>,
}

impl PrefixIndex {
    pub(crate) fn new(parameters: PrefixProducer) -> Self {
        Self {
            parameters,
            caches: Vec::new(),
        }
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
        if let Some(cache) = self.caches.get_mut(slot) {
            cache.learn(blocks, capacity);
        }
    }

    /// Blocks remembered, over all endpoints.
    pub(crate) fn len(&self) -> usize {
        self.caches.iter().map(BlockCache::len).sum()
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

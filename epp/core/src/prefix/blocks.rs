//! Hot path: the block hashes one endpoint has seen, least recently used ones dropped first.

use rustc_hash::FxHashMap;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// A bounded set of block hashes in order of use.
///
/// A prompt's blocks are touched from the last to the first, so that a block is never older than any block
/// that follows it in a chain. Eviction from the old end therefore always takes the tail of a chain before
/// its head: if a block is present, so is everything before it. That makes the leading match of a prompt
/// contiguous by construction, and found by bisection instead of a walk.
#[derive(Debug, Default)]
pub(crate) struct BlockCache {
    places: FxHashMap<u64, u32>,
    nodes: Vec<Node>,
    /// Most and least recently used; meaningless while `nodes` is empty.
    newest: u32,
    oldest: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    hash: u64,
    newer: u32,
    older: u32,
}

impl BlockCache {
    /// Hashes remembered.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many leading hashes of `chain` are present.
    pub(crate) fn matched(&self, chain: &[u64]) -> u32 {
        let present = |hash: &u64| self.places.contains_key(hash);
        // Most endpoints know nothing of most prompts: one look-up settles those.
        if !chain.first().is_some_and(present) {
            return 0;
        }
        chain.partition_point(present) as u32
    }

    /// Notes that `chain` is being processed; keeps the `capacity` most recently used hashes, of a chain
    /// that is longer the leading ones.
    pub(crate) fn learn(&mut self, chain: &[u64], capacity: usize) {
        let capacity = capacity.min(NONE as usize - 1);
        while self.nodes.len() > capacity {
            self.evict();
        }
        let kept = chain.get(..capacity).unwrap_or(chain);
        for &hash in kept.iter().rev() {
            self.touch(hash, capacity);
        }
    }

    /// Forgets the `surplus` least recently used hashes, and the memory they took.
    pub(crate) fn shed(&mut self, surplus: usize) {
        for _ in 0..surplus.min(self.nodes.len()) {
            self.evict();
        }
        self.nodes.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    fn touch(&mut self, hash: u64, capacity: usize) {
        if let Some(&place) = self.places.get(&hash) {
            if place != self.newest {
                self.unlink(place);
                self.link_newest(place);
            }
            return;
        }
        let place = if self.nodes.len() < capacity {
            self.nodes.push(Node {
                hash,
                newer: NONE,
                older: NONE,
            });
            (self.nodes.len() - 1) as u32
        } else {
            let place = self.oldest;
            self.unlink(place);
            if let Some(node) = self.nodes.get_mut(place as usize) {
                self.places.remove(&node.hash);
                node.hash = hash;
            }
            place
        };
        self.places.insert(hash, place);
        self.link_newest(place);
    }

    /// Forgets the least recently used hash and moves the last node into its place.
    fn evict(&mut self) {
        let place = self.oldest;
        self.unlink(place);
        let removed = self.nodes.swap_remove(place as usize);
        self.places.remove(&removed.hash);
        if let Some(&moved) = self.nodes.get(place as usize) {
            self.places.entry(moved.hash).and_modify(|at| *at = place);
            self.set_older(moved.newer, place);
            self.set_newer(moved.older, place);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Some(&Node { newer, older, .. }) = self.nodes.get(place as usize) else {
            return;
        };
        self.set_older(newer, older);
        self.set_newer(older, newer);
    }

    fn link_newest(&mut self, place: u32) {
        let older = if self.places.len() == 1 {
            NONE
        } else {
            self.newest
        };
        if let Some(node) = self.nodes.get_mut(place as usize) {
            (node.newer, node.older) = (NONE, older);
        }
        self.set_newer(older, place);
        self.newest = place;
    }

    /// The node at `of` (none = the whole list) gets `place` as its older neighbour (= newest end).
    fn set_older(&mut self, of: u32, place: u32) {
        match self.nodes.get_mut(of as usize) {
            Some(node) => node.older = place,
            None => self.newest = place,
        }
    }

    /// The node at `of` (none = the whole list) gets `place` as its newer neighbour (= oldest end).
    fn set_newer(&mut self, of: u32, place: u32) {
        match self.nodes.get_mut(of as usize) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same set kept naively: newest last.
    fn model_learn(model: &mut Vec<u64>, chain: &[u64], capacity: usize) {
        for hash in chain.iter().take(capacity).rev() {
            model.retain(|known| known != hash);
            model.push(*hash);
        }
        let surplus = model.len().saturating_sub(capacity);
        model.drain(..surplus);
    }

    fn order(cache: &BlockCache) -> Vec<u64> {
        let mut hashes = Vec::new();
        let mut place = if cache.nodes.is_empty() {
            NONE
        } else {
            cache.oldest
        };
        while let Some(node) = cache.nodes.get(place as usize) {
            hashes.push(node.hash);
            place = node.newer;
        }
        hashes
    }

    /// A chain through a tree of prompts: each step's hash depends on all steps before it, as real ones do.
    fn chain(steps: &[u8]) -> Vec<u64> {
        let mut hash = 1;
        let extend = |step: &u8| {
            hash = hash * 5 + u64::from(*step) + 1;
            hash
        };
        steps.iter().map(extend).collect()
    }

    #[test]
    fn sheds_the_oldest() {
        let mut cache = BlockCache::default();
        cache.learn(&[1, 2, 3], 10);
        cache.learn(&[4, 5], 10);
        cache.shed(2);
        assert_eq!(order(&cache), [1, 5, 4]);
        cache.shed(9);
        assert_eq!((cache.len(), cache.matched(&[4])), (0, 0));
        cache.learn(&[6], 10);
        assert_eq!(cache.matched(&[6]), 1);
    }

    proptest! {
        #[test]
        fn is_an_lru_whose_matches_are_contiguous(
            operations in prop::collection::vec((prop::collection::vec(0_u8..3, 0..8), 1_usize..20), 1..60),
            probe in prop::collection::vec(0_u8..3, 0..10),
        ) {
            let mut cache = BlockCache::default();
            let mut model = Vec::new();
            for (steps, capacity) in &operations {
                let blocks = chain(steps);
                cache.learn(&blocks, *capacity);
                model_learn(&mut model, &blocks, *capacity);
                prop_assert_eq!(order(&cache), model.clone());
                prop_assert_eq!(cache.places.len(), cache.nodes.len());
                let probed = chain(&probe);
                let walked = probed.iter().take_while(|hash| model.contains(hash)).count();
                prop_assert_eq!(cache.matched(&probed) as usize, walked);
                prop_assert!(probed[walked..].iter().all(|hash| !model.contains(hash)), "a block without its parent");
            }
        }
    }
}

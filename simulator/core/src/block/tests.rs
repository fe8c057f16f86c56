use super::{BlockPool, NONE};
use rustc_hash::FxHashMap;

impl BlockPool {
    /// Checks the pool against `holders`, the number of requests that hold each block: every block is either held or
    /// on the list of free ones, once, and the cache points at blocks that bear the hash.
    pub(crate) fn audit(&self, holders: &FxHashMap<u32, u32>) {
        for (block, entry) in self.blocks.iter().enumerate() {
            let expected = holders.get(&(block as u32)).copied().unwrap_or(0);
            assert_eq!(entry.holders, expected, "holders of block {block}");
        }
        assert_eq!(self.held as usize, holders.len());
        let mut listed = 0;
        let (mut block, mut previous) = (self.oldest, NONE);
        while block != NONE {
            assert!(
                self.is_free(block),
                "block {block} is listed as free and held"
            );
            assert_eq!(self.blocks[block as usize].older, previous);
            (previous, block) = (block, self.blocks[block as usize].newer);
            listed += 1;
        }
        assert_eq!(self.newest, previous);
        assert_eq!(
            listed + holders.len(),
            self.blocks.len(),
            "free and held blocks make all"
        );
        if let Some(total) = self.total {
            assert!(self.blocks.len() <= total as usize);
            assert_eq!(self.free() + self.held, total);
        }
        for (hash, block) in &self.cached {
            assert_eq!(self.blocks[*block as usize].hash, *hash);
        }
        let hashed = self.blocks.iter().filter(|block| block.hash != 0).count();
        assert_eq!(hashed, self.cached.len());
    }
}

fn take(pool: &mut BlockPool, count: usize) -> Vec<u32> {
    (0..count).map(|_| pool.take().unwrap()).collect()
}

#[test]
fn takes_new_blocks_first_and_then_the_one_freed_longest_ago() {
    let mut pool = BlockPool::new(Some(4));
    let blocks = take(&mut pool, 3);
    pool.release(blocks[1]);
    pool.release(blocks[0]);
    let new = pool.take().unwrap();
    assert!(!blocks.contains(&new));
    assert_eq!(take(&mut pool, 2), [blocks[1], blocks[0]]);
    assert_eq!(pool.take(), None);
}

#[test]
fn a_free_block_is_found_until_it_is_taken() {
    let mut pool = BlockPool::new(Some(2));
    let block = pool.take().unwrap();
    pool.remember(block, 11);
    pool.release(block);
    assert_eq!(pool.find(11), Some(block));
    take(&mut pool, 2);
    assert_eq!(pool.find(11), None);
}

#[test]
fn sharing_takes_a_block_off_the_free_list() {
    let mut pool = BlockPool::new(Some(3));
    let blocks = take(&mut pool, 3);
    blocks.iter().for_each(|&block| pool.release(block));
    pool.share(blocks[1]);
    pool.share(blocks[1]);
    assert_eq!(pool.free(), 2);
    assert_eq!(take(&mut pool, 2), [blocks[0], blocks[2]]);
    pool.release(blocks[1]);
    assert_eq!(pool.free(), 0);
    pool.release(blocks[1]);
    assert_eq!(pool.free(), 1);
}

#[test]
fn of_equal_blocks_the_first_is_found() {
    let mut pool = BlockPool::new(None);
    let blocks = take(&mut pool, 2);
    pool.remember(blocks[0], 5);
    pool.remember(blocks[1], 5);
    assert_eq!(pool.find(5), Some(blocks[0]));
    let holders = blocks.iter().map(|&block| (block, 1)).collect();
    pool.audit(&holders);
}

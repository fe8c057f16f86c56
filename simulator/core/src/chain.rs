//! Hashes of KV blocks, each chained to the one before it: equal hashes mean equal prefixes.

use crate::event::Prefix;

/// Hash of the empty prefix.
const ROOT: u64 = 0x9e37_79b9_7f4a_7c15;

/// The chain of one request's blocks: those its prefix covers are the same for everybody with that prefix, the others
/// belong to the request alone.
pub(crate) struct Chain {
    prefix: Prefix,
    blocks_per_id: u32,
    owner: u64,
}

impl Chain {
    /// `owner` must differ between requests; `prefix.tokens_per_id` must be a multiple of `block_tokens`, or the
    /// prefix empty.
    pub(crate) fn new(prefix: Prefix, block_tokens: u32, owner: u64) -> Self {
        let blocks_per_id = (prefix.tokens_per_id / block_tokens).max(1);
        Self {
            prefix,
            blocks_per_id,
            owner,
        }
    }

    /// Hash of nothing, from which block 0 is chained.
    pub(crate) fn root(&self) -> u64 {
        ROOT
    }

    /// Hash of block `index`, given that of the block before it. Never 0.
    pub(crate) fn next(&self, previous: u64, index: u32) -> u64 {
        let group = (index / self.blocks_per_id) as usize;
        let content = match self.prefix.ids.get(group) {
            Some(&id) => mix(id, u64::from(index % self.blocks_per_id)),
            None => mix(
                self.owner ^ ROOT.rotate_left(17),
                u64::from(index) | 1 << 63,
            ),
        };
        mix(previous, content) | 1
    }
}

/// Mixes two words into one; the finaliser of SplitMix64 (Steele, Lea and Flood 2014) over their combination.
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(23).wrapping_mul(0xff51_afd7_ed55_8ccd)
        ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Chain, Prefix};

    fn hashes(ids: &[u64], owner: u64) -> Vec<u64> {
        let chain = Chain::new(
            Prefix {
                ids: ids.into(),
                tokens_per_id: 32,
            },
            16,
            owner,
        );
        let next = |hash: &mut u64, index| {
            *hash = chain.next(*hash, index);
            Some(*hash)
        };
        (0..6).scan(chain.root(), next).collect()
    }

    #[test]
    fn equal_leading_ids_give_equal_blocks_and_nothing_else_does() {
        let (a, b) = (hashes(&[7, 8], 1), hashes(&[7, 9], 2));
        assert_eq!(a[..2], b[..2], "id 7 covers two blocks");
        assert!(a[2..].iter().all(|hash| !b.contains(hash)));
    }

    #[test]
    fn an_id_means_something_else_after_another_prefix() {
        assert_ne!(hashes(&[7, 8], 1)[2], hashes(&[9, 8], 1)[2]);
    }

    #[test]
    fn private_blocks_belong_to_one_request() {
        assert_eq!(hashes(&[], 1), hashes(&[], 1));
        assert!(
            hashes(&[], 1)
                .iter()
                .zip(hashes(&[], 2))
                .all(|(a, b)| *a != b)
        );
    }
}

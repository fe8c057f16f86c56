//! Engine blocks smaller than ours: which of them are there, and which of our blocks they make up.
//!
//! Several pages in a row fill one of our blocks; it is held while all of them are. Pages that begin alike share the
//! pages they have in common, so those within one of our blocks form a small tree.

use rustc_hash::FxHashMap;

use crate::events::EngineHash;
use crate::keys::{Digest, Key};

type PageId = u32;

#[derive(Debug)]
struct Page {
    hash: EngineHash,
    /// The page before it in the same block of ours.
    parent: Option<PageId>,
    /// Pages behind it in the same block of ours.
    children: Vec<PageId>,
    /// Our block before the one that this page is in.
    before: Key,
    tokens: Box<[u32]>,
    /// Tokens of our block up to the end of this page.
    filled: usize,
    /// Copies the engine holds; 0 = it is only remembered for the pages behind it.
    copies: u32,
}

/// The pages of one endpoint in one tier.
#[derive(Debug, Default)]
pub(super) struct Pages {
    by_hash: FxHashMap<EngineHash, PageId>,
    pages: Vec<Option<Page>>,
    free: Vec<PageId>,
}

/// The block before a page is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orphan;

/// What a page follows.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// One of our blocks, or a prompt's beginning.
    Block(Key),
    /// Another page.
    Page(EngineHash),
}

impl Pages {
    /// Pages that are remembered.
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    fn page(&self, id: PageId) -> Option<&Page> {
        self.pages.get(id as usize)?.as_ref()
    }

    fn page_mut(&mut self, id: PageId) -> Option<&mut Page> {
        self.pages.get_mut(id as usize)?.as_mut()
    }

    /// A page was taken in. `full` is told of each block of ours, by the hash of its last page, that is whole now.
    pub(super) fn store(
        &mut self,
        hash: EngineHash,
        after: After,
        tokens: &[u32],
        block_tokens: usize,
        mut full: impl FnMut(EngineHash, Key),
    ) -> Result<(), Orphan> {
        let id = match self.by_hash.get(&hash) {
            Some(id) => *id,
            None => self.remember(hash, after, tokens, block_tokens)?,
        };
        let Some(page) = self.page_mut(id) else {
            return Err(Orphan);
        };
        page.copies += 1;
        if page.copies == 1 && self.whole_up_to(id) {
            self.each_full(id, block_tokens, &mut |pages, id| {
                if let Some(page) = pages.page(id) {
                    full(page.hash, pages.key(id));
                }
            });
        }
        Ok(())
    }

    /// A page was let go. `broken` is told of each block of ours, by the hash of its last page, that is whole no
    /// longer. False if nobody told of the page before.
    pub(super) fn remove(
        &mut self,
        hash: EngineHash,
        block_tokens: usize,
        mut broken: impl FnMut(EngineHash),
    ) -> bool {
        let Some(id) = self.by_hash.get(&hash).copied() else {
            return false;
        };
        let whole = self.whole_up_to(id);
        let Some(page) = self.page_mut(id) else {
            return false;
        };
        let Some(left) = page.copies.checked_sub(1) else {
            return false;
        };
        if left == 0 && whole {
            self.each_full(id, block_tokens, &mut |pages, id| {
                if let Some(page) = pages.page(id) {
                    broken(page.hash);
                }
            });
        }
        if let Some(page) = self.page_mut(id) {
            page.copies = left;
        }
        self.forget_from(id);
        true
    }

    fn remember(
        &mut self,
        hash: EngineHash,
        after: After,
        tokens: &[u32],
        block_tokens: usize,
    ) -> Result<PageId, Orphan> {
        let (before, parent, filled) = match after {
            After::Block(key) => (key, None, 0),
            After::Page(hash) => {
                let id = *self.by_hash.get(&hash).ok_or(Orphan)?;
                let page = self.page(id).ok_or(Orphan)?;
                if page.filled == block_tokens {
                    (self.key(id), None, 0)
                } else {
                    (page.before, Some(id), page.filled)
                }
            }
        };
        let page = Page {
            hash,
            parent,
            children: Vec::new(),
            before,
            tokens: tokens.into(),
            filled: filled + tokens.len(),
            copies: 0,
        };
        let id = if let Some(id) = self.free.pop() {
            self.pages[id as usize] = Some(page);
            id
        } else {
            self.pages.push(Some(page));
            self.pages.len() as PageId - 1
        };
        self.by_hash.insert(hash, id);
        if let Some(parent) = parent.and_then(|parent| self.page_mut(parent)) {
            parent.children.push(id);
        }
        Ok(id)
    }

    /// Whether this page and all before it in our block are held.
    fn whole_up_to(&self, id: PageId) -> bool {
        let mut at = Some(id);
        while let Some(page) = at.and_then(|id| self.page(id)) {
            if page.copies == 0 {
                return false;
            }
            at = page.parent;
        }
        true
    }

    /// Every page from `id` on that ends our block and is reached over held pages only.
    fn each_full(&self, id: PageId, block_tokens: usize, found: &mut impl FnMut(&Self, PageId)) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let Some(page) = self.page(id).filter(|page| page.copies > 0) else {
                continue;
            };
            if page.filled == block_tokens {
                found(self, id);
            }
            open.extend_from_slice(&page.children);
        }
    }

    /// The key of our block that ends with this page.
    fn key(&self, id: PageId) -> Key {
        let mut runs = Vec::new();
        let mut before = None;
        let mut at = Some(id);
        while let Some(page) = at.and_then(|id| self.page(id)) {
            runs.push(&page.tokens);
            before = Some(page.before);
            at = page.parent;
        }
        let tokens: Vec<u32> = runs
            .into_iter()
            .rev()
            .flat_map(|run| run.iter().copied())
            .collect();
        before
            .unwrap_or(Key::of(0))
            .then(Digest::of_tokens(&tokens))
    }

    /// Forgets the page, and those before it, as far as they are neither held nor needed by pages behind them.
    fn forget_from(&mut self, id: PageId) {
        let mut at = Some(id);
        while let Some(id) = at {
            let gone = |page: &Page| page.copies == 0 && page.children.is_empty();
            let Some(place) = self.pages.get_mut(id as usize) else {
                return;
            };
            let Some(page) = place.take_if(|page| gone(page)) else {
                return;
            };
            self.by_hash.remove(&page.hash);
            self.free.push(id);
            at = page.parent;
            if let Some(parent) = at.and_then(|parent| self.page_mut(parent)) {
                parent.children.retain(|child| *child != id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = 6;
    const PAGE: usize = 2;

    /// The page at `depth` of the prompt whose pages hold the bits of `prompt`, lowest first.
    fn tokens(prompt: u32, depth: usize) -> [u32; PAGE] {
        [depth as u32, prompt >> depth & 1]
    }

    fn hash(prompt: u32, depth: usize) -> EngineHash {
        u64::from(prompt & ((2 << depth) - 1)) << 8 | depth as u64
    }

    fn keys(prompt: u32, depth: usize) -> Vec<Key> {
        let tokens: Vec<u32> = (0..depth).flat_map(|depth| tokens(prompt, depth)).collect();
        let mut last = Key::root("m");
        tokens
            .chunks_exact(BLOCK)
            .map(|block| {
                last = last.then(Digest::of_tokens(block));
                last
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_block_is_whole_while_all_its_pages_are_held(
            steps in prop::collection::vec((0_u32..16, 0_usize..7, any::<bool>()), 0..300),
        ) {
            let mut pages = Pages::default();
            let mut held: BTreeSet<EngineHash> = BTreeSet::new();
            let mut whole: BTreeSet<(EngineHash, Key)> = BTreeSet::new();
            for (prompt, depth, adds) in steps {
                let page = hash(prompt, depth);
                if adds && !held.contains(&page) {
                    let after = match depth {
                        0 => After::Block(Key::root("m")),
                        _ => After::Page(hash(prompt, depth - 1)),
                    };
                    if depth > 0 && !held.contains(&hash(prompt, depth - 1)) {
                        continue;
                    }
                    pages.store(page, after, &tokens(prompt, depth), BLOCK, |hash, key| {
                        assert!(whole.insert((hash, key)));
                    }).unwrap();
                    held.insert(page);
                } else if !adds {
                    let known = pages.remove(page, BLOCK, |hash| {
                        let before = whole.len();
                        whole.retain(|(other, _)| *other != hash);
                        assert_eq!(whole.len() + 1, before);
                    });
                    prop_assert_eq!(known, held.remove(&page));
                }
                let mut expected = BTreeSet::new();
                for prompt in 0..128 {
                    for last in [2, 5] {
                        let all = (last - 2..=last).all(|depth| held.contains(&hash(prompt, depth)));
                        if all {
                            let key = keys(prompt, last + 1)[last / 3];
                            expected.insert((hash(prompt, last), key));
                        }
                    }
                }
                prop_assert_eq!(&whole, &expected);
            }
            for page in held {
                pages.remove(page, BLOCK, |_| {});
            }
            prop_assert_eq!(pages.len(), 0);
        }
    }

    #[test]
    fn a_page_behind_nothing_known_is_an_orphan() {
        let mut pages = Pages::default();
        let stored = pages.store(9, After::Page(8), &[1, 2], BLOCK, |_, _| {});
        assert_eq!((stored, pages.len()), (Err(Orphan), 0));
        assert!(!pages.remove(9, BLOCK, |_| {}));
    }
}

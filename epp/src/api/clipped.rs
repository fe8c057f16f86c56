//! Hot path: text of which no more is kept than can matter.

use epp_core::ContentDigest;
use std::borrow::Cow;

/// Bytes kept.
const MOST: usize = 1_024;

/// Text that comes in runs; what is beyond the first 1,024 bytes stands as its digest. Equal texts stay equal and
/// different ones different, however they are cut, and nobody makes the picker keep a long one.
#[derive(Clone, Debug, Default)]
pub(super) struct Clipped {
    kept: Vec<u8>,
    beyond: Option<Box<ContentDigest>>,
}

impl Clipped {
    /// The next run.
    pub(super) fn push(&mut self, run: &[u8]) {
        let room = MOST - self.kept.len();
        let (kept, beyond) = run.split_at(room.min(run.len()));
        self.kept.extend_from_slice(kept);
        if !beyond.is_empty() {
            self.beyond.get_or_insert_default().update(beyond);
        }
    }

    /// There is no text.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.beyond = None;
    }

    /// What stands for the text; the text itself if it is short.
    pub(super) fn text(&self) -> Cow<'_, [u8]> {
        match &self.beyond {
            None => Cow::Borrowed(&self.kept),
            Some(beyond) => {
                let digest = format!("{:016x}", beyond.finish());
                Cow::Owned([&self.kept, digest.as_bytes()].concat())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'r>(runs: impl IntoIterator<Item = &'r [u8]>) -> Vec<u8> {
        let mut clipped = Clipped::default();
        runs.into_iter().for_each(|run| clipped.push(run));
        clipped.text().into_owned()
    }

    #[test]
    fn a_long_text_is_told_apart_by_its_end_and_not_by_its_cuts() {
        let long: Vec<u8> = (0..5_000_u32).map(|at| (at % 251) as u8).collect();
        let whole = of([&long[..]]);
        assert_eq!(whole.len(), MOST + 16);
        for size in [1, 7, 1_023, 1_024, 1_025] {
            assert_eq!(of(long.chunks(size)), whole, "pieces of {size}");
        }
        let mut other = long.clone();
        other[4_999] ^= 1;
        assert_ne!(of([&other[..]]), whole);
        assert_eq!(of([&long[..MOST]]), long[..MOST]);
        assert_eq!(of([]), b"");
    }

    #[test]
    fn what_is_cleared_is_gone() {
        let mut clipped = Clipped::default();
        clipped.push(&[b'a'; 3_000]);
        clipped.clear();
        clipped.push(b"b");
        assert_eq!(&*clipped.text(), b"b");
    }
}

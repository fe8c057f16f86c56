//! Hot path: a body in the pieces in which it came.

use super::edit::Edit;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::ops::Range;

/// Pieces below so many bytes are joined: each that is kept as it came costs some hundred bytes beside its own.
const SMALL: usize = 4 << 10;

/// A body in pieces. Large ones are kept as they came, and so is a small one that is alone; other small ones are joined.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    pieces: Vec<Bytes>,
    /// Small pieces behind them.
    joined: BytesMut,
    len: usize,
}

impl Rope {
    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        let first = self.len == 0;
        self.len += piece.len();
        if piece.is_empty() {
            return;
        }
        if piece.len() >= SMALL || first {
            self.settle();
            self.pieces.push(piece);
            return;
        }
        if let [alone] = &self.pieces[..]
            && alone.len() < SMALL
        {
            self.joined.extend_from_slice(alone);
            self.pieces.clear();
        }
        self.joined.extend_from_slice(&piece);
    }

    /// What was joined becomes a piece.
    fn settle(&mut self) {
        if !self.joined.is_empty() {
            self.pieces.push(self.joined.split().freeze());
        }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, copied if it came in several pieces.
    pub fn whole(&self) -> Bytes {
        match (&self.pieces[..], self.joined.is_empty()) {
            ([], true) => Bytes::new(),
            ([only], true) => only.clone(),
            _ => self.slice(0..self.len).into_owned().into(),
        }
    }

    /// The bytes at `span`, copied if they came in several pieces.
    pub fn slice(&self, span: Range<usize>) -> Cow<'_, [u8]> {
        let mut found = Cow::Borrowed(&[][..]);
        let mut begin = 0;
        for piece in self.parts() {
            let end = begin + piece.len();
            let within = clamp(&span, begin, end);
            if !within.is_empty() {
                let bytes = &piece[within];
                if found.is_empty() {
                    found = Cow::Borrowed(bytes);
                } else {
                    found.to_mut().extend_from_slice(bytes);
                }
            }
            begin = end;
        }
        found
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let joined = Some(&self.joined[..]).filter(|joined| !joined.is_empty());
        self.pieces.iter().map(|piece| &piece[..]).chain(joined)
    }

    /// Its pieces with `edits` made, which must not overlap. Pieces that no edit touches come as they are.
    pub fn edited(mut self, mut edits: Vec<Edit>) -> Vec<Bytes> {
        self.settle();
        if edits.is_empty() {
            return self.pieces;
        }
        if self.pieces.is_empty() {
            self.pieces.push(Bytes::new());
        }
        edits.sort_by_key(|edit| edit.span.start);
        let last = self.pieces.len() - 1;
        let mut begin = 0;
        for (index, piece) in self.pieces.iter_mut().enumerate() {
            let end = begin + piece.len();
            if let Some(changed) = changed(piece, begin, index == last, &edits) {
                *piece = changed;
            }
            begin = end;
        }
        self.pieces
    }
}

/// The part of `span` that lies between `begin` and `end`, counted from `begin`.
fn clamp(span: &Range<usize>, begin: usize, end: usize) -> Range<usize> {
    let within = |at: usize| at.clamp(begin, end) - begin;
    within(span.start)..within(span.end)
}

/// `piece`, which begins at `begin` of the body, with `edits` made, if any touches it. An edit's text goes where it
/// begins; `last` = nothing follows the piece, so that what is to be added at its end goes there.
fn changed(piece: &Bytes, begin: usize, last: bool, edits: &[Edit]) -> Option<Bytes> {
    let end = begin + piece.len();
    let begins = |edit: &Edit| begin <= edit.span.start && (edit.span.start < end || last);
    let touches = |edit: &&Edit| begins(edit) || !clamp(&edit.span, begin, end).is_empty();
    let touching: Vec<&Edit> = edits.iter().filter(touches).collect();
    if touching.is_empty() {
        return None;
    }
    let added: usize = touching.iter().map(|edit| edit.text.len()).sum();
    let mut edited = BytesMut::with_capacity(piece.len() + added);
    let mut kept = 0;
    for edit in touching {
        let gone = clamp(&edit.span, begin, end);
        edited.extend_from_slice(&piece[kept..gone.start]);
        if begins(edit) {
            edited.extend_from_slice(&edit.text);
        }
        kept = gone.end;
    }
    edited.extend_from_slice(&piece[kept..]);
    Some(edited.freeze())
}

impl From<Bytes> for Rope {
    fn from(piece: Bytes) -> Self {
        let mut rope = Self::default();
        rope.push(piece);
        rope
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit;
    use super::*;
    use proptest::prelude::*;

    fn rope(body: &[u8], cuts: &[usize]) -> Rope {
        let mut rope = Rope::default();
        let mut rest = Bytes::copy_from_slice(body);
        for cut in cuts {
            rope.push(rest.split_to(cut % (rest.len() + 1)));
        }
        rope.push(rest);
        rope
    }

    #[test]
    fn large_pieces_stay_where_they_are_and_small_ones_are_few() {
        let (small, large) = (Bytes::from(vec![1; 10]), Bytes::from(vec![2; SMALL]));
        let mut rope = Rope::default();
        rope.push(small.clone());
        rope.push(large.clone());
        for _ in 0..100 {
            rope.push(small.clone());
        }
        rope.push(large.clone());
        assert_eq!(rope.pieces.len(), 4);
        let mut dripped = Rope::default();
        (0..100).for_each(|_| dripped.push(small.clone()));
        assert_eq!(dripped.edited(vec![]).len(), 1);
        let edit = Edit::fixed(11..12, "changed");
        let pieces = rope.edited(vec![edit]);
        assert_eq!(pieces[0].as_ptr(), small.as_ptr());
        assert_ne!(pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(pieces[3].as_ptr(), large.as_ptr());
        assert_eq!(Rope::from(small.clone()).whole().as_ptr(), small.as_ptr());
        assert!(Rope::default().edited(vec![]).is_empty());
        assert_eq!(Rope::default().edited(vec![Edit::fixed(0..0, "x")]), ["x"]);
    }

    proptest! {
        #[test]
        fn however_it_came_it_is_one_body(
            body in proptest::collection::vec(any::<u8>(), 0..12_000),
            cuts in proptest::collection::vec(any::<usize>(), 0..6),
            places in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let rope = rope(&body, &cuts);
            prop_assert_eq!(rope.len(), body.len());
            prop_assert_eq!(&rope.whole()[..], &body[..]);
            let mut places: Vec<usize> = places.iter().map(|place| place.index(body.len() + 1)).collect();
            places.sort_unstable();
            places.dedup();
            let spans: Vec<Range<usize>> = places.chunks(2).map(|pair| pair[0]..pair[pair.len() - 1]).collect();
            for span in &spans {
                prop_assert_eq!(&rope.slice(span.clone())[..], &body[span.clone()]);
            }
            let edits: Vec<Edit> = spans.into_iter().map(|span| Edit::fixed(span, "new")).collect();
            let expected = edit::apply(Bytes::from(body), edits.clone());
            prop_assert_eq!(rope.edited(edits).concat(), &expected[..]);
        }
    }
}

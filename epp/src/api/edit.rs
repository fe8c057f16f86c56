//! Byte edits of a request body: what changes is replaced, every other byte is kept.

use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::ops::Range;

/// Puts `text` where `span` stood; an empty span inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Bytes of the original that go.
    pub span: Range<usize>,
    /// What comes in their place.
    pub text: Cow<'static, [u8]>,
}

impl Edit {
    /// `text` in place of `span`.
    pub fn new(span: Range<usize>, text: impl Into<Vec<u8>>) -> Self {
        Self {
            span,
            text: Cow::Owned(text.into()),
        }
    }

    /// The same, with text that is always there.
    pub fn fixed(span: Range<usize>, text: &'static str) -> Self {
        Self {
            span,
            text: Cow::Borrowed(text.as_bytes()),
        }
    }

    /// The edit of a text that begins at `offset` of a longer one.
    #[must_use]
    pub fn shifted(self, offset: usize) -> Self {
        Self {
            span: self.span.start + offset..self.span.end + offset,
            ..self
        }
    }

    /// Bytes that the text gains by it; negative = loses.
    pub fn growth(&self) -> isize {
        self.text.len() as isize - self.span.len() as isize
    }
}

/// `body` with `edits` made. Edits must not overlap; without any the same bytes come back uncopied.
pub fn apply(body: Bytes, mut edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return body;
    }
    edits.sort_by_key(|edit| edit.span.start);
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut edited = BytesMut::with_capacity(body.len() + added);
    let mut kept = 0;
    for edit in &edits {
        edited.extend_from_slice(&body[kept..edit.span.start]);
        edited.extend_from_slice(&edit.text);
        kept = edit.span.end;
    }
    edited.extend_from_slice(&body[kept..]);
    edited.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_made_in_order_of_place_and_the_rest_is_kept() {
        let body = Bytes::from_static(b"0123456789");
        let edits = vec![Edit::fixed(10..10, "!"), Edit::new(2..4, "ab")];
        assert_eq!(apply(body.clone(), edits), "01ab456789!");
        assert_eq!(apply(body.clone(), vec![]).as_ptr(), body.as_ptr());
        let moved = Edit::new(0..2, "x").shifted(5);
        assert_eq!((moved.span.clone(), moved.growth()), (5..7, -1));
    }
}

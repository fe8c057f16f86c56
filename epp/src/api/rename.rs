//! Hot path: the model's name on its way back. Where a request was sent on under another model than its client named,
//! the answer speaks of that other model; the client gets the name it knows.
//!
//! `"model":"<target>"`, with or without a space behind the colon, becomes `"model":"<client's>"` wherever it stands
//! in a stream of pieces. Inside a JSON string the quotes would be escaped, so text that looks alike is not taken for
//! it. What is held back is at most the beginning of such a member at the end of a piece.

use bytes::{Bytes, BytesMut};
use memchr::{memchr_iter, memmem};

const KEY: &[u8] = br#""model":"#;

/// Puts the client's name back into one answer.
#[derive(Debug)]
pub struct Rename {
    /// The target as JSON text, quotes included.
    target: Vec<u8>,
    /// The client's name as JSON text.
    client: Bytes,
    /// The end of the last piece, when it may be the beginning of the member.
    held: Bytes,
}

impl Rename {
    /// From the model that a request was sent on under to the one its client named.
    pub fn new(target: &str, client: &str) -> Self {
        let json = |name: &str| serde_json::Value::from(name).to_string().into_bytes();
        Self {
            target: json(target),
            client: json(client).into(),
            held: Bytes::new(),
        }
    }

    /// Takes the next piece; what may go on now goes to `out`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) {
        if piece.is_empty() {
            return;
        }
        let piece = if self.held.is_empty() {
            piece
        } else {
            let mut joined = BytesMut::with_capacity(self.held.len() + piece.len());
            joined.extend_from_slice(&self.held);
            joined.extend_from_slice(&piece);
            self.held.clear();
            joined.freeze()
        };
        let mut given = 0;
        let mut from = 0;
        while let Some(offset) = memmem::find(&piece[from..], KEY) {
            from += offset + KEY.len();
            let value = from + usize::from(piece.get(from) == Some(&b' '));
            if piece[value..].starts_with(&self.target) {
                out.push(piece.slice(given..value));
                out.push(self.client.clone());
                given = value + self.target.len();
                from = given;
            }
        }
        let begin = self.beginning(&piece[given..]).map(|at| given + at);
        let end = begin.unwrap_or(piece.len());
        if given < end {
            out.push(piece.slice(given..end));
        }
        if begin.is_some() {
            self.held = Bytes::copy_from_slice(&piece[end..]);
        }
    }

    /// Nothing follows: what was held back is not what it looked like.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        if !self.held.is_empty() {
            out.push(std::mem::take(&mut self.held));
        }
    }

    /// Where the first beginning of a member stands that ends with `text`.
    fn beginning(&self, text: &[u8]) -> Option<usize> {
        let longest = KEY.len() + 1 + self.target.len() - 1;
        let from = text.len().saturating_sub(longest);
        let mut quotes = memchr_iter(b'"', &text[from..]).map(|offset| from + offset);
        quotes.find(|&at| self.begins(&text[at..]))
    }

    /// Whether `text` is the beginning of the member, and not the whole of it.
    fn begins(&self, text: &[u8]) -> bool {
        let Some(after) = text.strip_prefix(KEY) else {
            return KEY.starts_with(text);
        };
        let value = after.strip_prefix(b" ").unwrap_or(after);
        value.len() < self.target.len() && self.target.starts_with(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn renamed<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> String {
        let mut rename = Rename::new("m-v2", "m");
        let mut out = Vec::new();
        for piece in pieces {
            rename.push(Bytes::copy_from_slice(piece), &mut out);
            assert!(rename.held.len() < KEY.len() + 1 + rename.target.len());
        }
        rename.finish(&mut out);
        String::from_utf8(out.concat()).unwrap()
    }

    const ANSWER: &str = concat!(
        r#"{"model":"m-v2","choices":[{"text":"\"model\":\"m-v2\" \"mod"}],"x":"model","model": "m-v2","#,
        r#""y":{"model":"m-v22"},"z":{"model":"m-v2"},"model":"#,
    );
    const RENAMED: &str = concat!(
        r#"{"model":"m","choices":[{"text":"\"model\":\"m-v2\" \"mod"}],"x":"model","model": "m","#,
        r#""y":{"model":"m-v22"},"z":{"model":"m"},"model":"#,
    );

    #[test]
    fn every_member_is_renamed_at_every_cut() {
        assert_eq!(renamed([ANSWER.as_bytes()]), RENAMED);
        for cut in 0..=ANSWER.len() {
            let (before, after) = ANSWER.as_bytes().split_at(cut);
            assert_eq!(renamed([before, after]), RENAMED, "cut at {cut}");
        }
        assert_eq!(renamed(ANSWER.as_bytes().chunks(1)), RENAMED);
    }

    #[test]
    fn a_piece_without_the_member_passes_uncopied_and_at_once() {
        let mut rename = Rename::new("m-v2", "m");
        let mut out = Vec::new();
        let piece = Bytes::from_static(b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n");
        rename.push(piece.clone(), &mut out);
        assert_eq!(out.concat(), piece);
        assert_eq!(out[0].as_ptr(), piece.as_ptr());
    }

    #[test]
    fn names_are_written_as_json_writes_them() {
        let mut rename = Rename::new("a\"b", "c\\d");
        let mut out = Vec::new();
        rename.push(Bytes::from_static(br#"{"model":"a\"b"}"#), &mut out);
        assert_eq!(out.concat(), br#"{"model":"c\\d"}"#);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in r#"("model": ?"(m-v2|m)?"?|"|m|x|\\){0,8}"#, cuts in proptest::collection::vec(0usize..80, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut from, mut pieces) = (0, Vec::new());
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(renamed(pieces), plain(&text));
        }
    }

    /// The same on the whole text, from left to right.
    fn plain(mut text: &str) -> String {
        let needles = [
            (r#""model":"m-v2""#, r#""model":"m""#),
            (r#""model": "m-v2""#, r#""model": "m""#),
        ];
        let mut out = String::new();
        let first = |text: &str| {
            let places = needles.map(|(from, to)| text.find(from).map(|at| (at, from, to)));
            places.into_iter().flatten().min()
        };
        while let Some((at, from, to)) = first(text) {
            out.push_str(&text[..at]);
            out.push_str(to);
            text = &text[at + from.len()..];
        }
        out + text
    }
}

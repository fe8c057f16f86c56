//! Hot path: the model's name on its way back. Where a request was sent on under another model than its client named,
//! the answer speaks of that other model; the client gets the name it knows.
//!
//! The member `model` of a document, or of a stream's event, is looked at, and that of its members `message` and
//! `response`: what a model or a client wrote stands deeper. What is held back is at most the beginning of a name
//! that may be the target's, at the end of a piece.

use bytes::Bytes;
use memchr::memchr3;
use std::ops::Range;

/// Puts the client's name back into one answer.
#[derive(Debug)]
pub struct Rename {
    /// The target as JSON text, quotes included.
    target: Vec<u8>,
    /// The client's name as JSON text.
    client: Bytes,
    /// So much of the target ended earlier pieces, and was not given out.
    held: usize,
    at: At,
    /// Objects and arrays that are open.
    depth: u32,
    /// The one at depth 2 is a `message` or a `response`.
    inside: bool,
    /// The string read last, where it may be a key of interest.
    name: Name,
    /// The key whose value comes.
    key: Option<Key>,
    /// The line under way has no bytes yet but perhaps a carriage return.
    blank_line: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum At {
    Between,
    Text,
    /// What follows a backslash in a text.
    Escape,
    /// A model's name that is the target's as far as it has come.
    Model(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Model,
    /// Of an object that names the model in its place.
    Answer,
    Other,
}

/// The beginning of a string, and how long it is.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl Name {
    const LONGEST: usize = "response".len();

    fn push(&mut self, run: &[u8]) {
        let from = self.length.min(Self::LONGEST);
        let taken = run.len().min(Self::LONGEST - from);
        self.bytes[from..from + taken].copy_from_slice(&run[..taken]);
        self.length = self.length.saturating_add(run.len());
    }

    fn key(&self) -> Key {
        match self.bytes.get(..self.length) {
            Some(b"model") => Key::Model,
            Some(b"message" | b"response") => Key::Answer,
            _ => Key::Other,
        }
    }
}

impl Rename {
    /// From the model that a request was sent on under to the one its client named.
    pub fn new(target: &str, client: &str) -> Self {
        let json = |name: &str| serde_json::Value::from(name).to_string().into_bytes();
        Self {
            target: json(target),
            client: json(client).into(),
            held: 0,
            at: At::Between,
            depth: 0,
            inside: false,
            name: Name::default(),
            key: None,
            blank_line: false,
        }
    }

    /// Takes the next piece; what may go on now goes to `out`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) {
        // Bytes before `given` have been given out or replaced.
        let (mut given, mut next) = (0, 0);
        while let Some(&byte) = piece.get(next) {
            match self.at {
                At::Model(matched) if self.target.get(matched) == Some(&byte) => {
                    next += 1;
                    self.at = At::Model(matched + 1);
                    if matched + 1 == self.target.len() {
                        let begin = next - (self.target.len() - self.held);
                        give(&piece, given..begin, out);
                        out.push(self.client.clone());
                        (given, self.held, self.at) = (next, 0, At::Between);
                    }
                }
                At::Model(matched) => {
                    self.finish(out);
                    self.at = self.text_after(matched);
                }
                At::Escape => {
                    next += 1;
                    self.at = At::Text;
                }
                At::Text => next = self.text(&piece, next),
                At::Between => {
                    self.between(byte);
                    next += 1;
                }
            }
        }
        let (held, begun) = match self.at {
            At::Model(matched) => (matched, matched - self.held),
            _ => (0, 0),
        };
        give(&piece, given..piece.len() - begun, out);
        self.held = held;
    }

    /// Nothing follows: what was held back is not what it looked like.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        if self.held > 0 {
            out.push(Bytes::copy_from_slice(&self.target[..self.held]));
            self.held = 0;
        }
    }

    /// A string that begins as the target does, so far, goes on in another way.
    fn text_after(&self, matched: usize) -> At {
        let begun = &self.target[..matched];
        let backslashes = begun.iter().rev().take_while(|&&byte| byte == b'\\');
        match backslashes.count() % 2 {
            0 => At::Text,
            _ => At::Escape,
        }
    }

    /// Goes on in a text at `from`; returns where to go on from there.
    fn text(&mut self, piece: &[u8], from: usize) -> usize {
        let rest = &piece[from..];
        // A line that ends in a text is none of JSON.
        let end = memchr3(b'"', b'\\', b'\n', rest);
        self.name.push(&rest[..end.unwrap_or(rest.len())]);
        let Some(end) = end else {
            return piece.len();
        };
        match rest[end] {
            b'"' => self.at = At::Between,
            b'\\' => {
                self.name.push(b"\\");
                self.at = At::Escape;
            }
            _ => {
                self.at = At::Between;
                self.blank_line = true;
            }
        }
        from + end + 1
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'"' => {
                let model = self.key.take() == Some(Key::Model) && self.in_question();
                self.name = Name::default();
                self.at = if model { At::Model(1) } else { At::Text };
            }
            b':' => self.key = self.in_question().then(|| self.name.key()),
            b'{' | b'[' => {
                let answer = self.key.take() == Some(Key::Answer);
                if self.depth == 1 {
                    self.inside = answer && byte == b'{';
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                self.key = None;
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.key = None,
            // The next event of a stream begins, whatever this one was.
            b'\n' if self.blank_line => (self.depth, self.key) = (0, None),
            _ => {}
        }
        self.blank_line = byte == b'\n' || self.blank_line && byte == b'\r';
    }

    /// Whether a member that stands here may name the model, or hold what does.
    fn in_question(&self) -> bool {
        self.depth == 1 || self.depth == 2 && self.inside
    }
}

/// Gives out a part of `piece` without copying it.
fn give(piece: &Bytes, part: Range<usize>, out: &mut Vec<Bytes>) {
    if !part.is_empty() {
        out.push(piece.slice(part));
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
            assert!(rename.held < rename.target.len());
        }
        rename.finish(&mut out);
        String::from_utf8(out.concat()).unwrap()
    }

    const ANSWER: &str = concat!(
        r#"{"model":"m-v2","choices":[{"text":"\"model\":\"m-v2\" \"mod","model":"m-v2"}],"x":"model","model" : "m-v2","#,
        r#""y":{"model":"m-v2"},"model":"m-v22","model":"m-v2\"","model":["m-v2"],"response":{"model":"m-v2","#,
        r#""metadata":{"model":"m-v2","message":{"model":"m-v2"}}},"message":[{"model":"m-v2"}],"model":"m-v2"}"#,
    );
    const RENAMED: &str = concat!(
        r#"{"model":"m","choices":[{"text":"\"model\":\"m-v2\" \"mod","model":"m-v2"}],"x":"model","model" : "m","#,
        r#""y":{"model":"m-v2"},"model":"m-v22","model":"m-v2\"","model":["m-v2"],"response":{"model":"m","#,
        r#""metadata":{"model":"m-v2","message":{"model":"m-v2"}}},"message":[{"model":"m-v2"}],"model":"m"}"#,
    );

    #[test]
    fn the_answers_own_member_is_renamed_at_every_cut() {
        assert_eq!(renamed([ANSWER.as_bytes()]), RENAMED);
        for cut in 0..=ANSWER.len() {
            let (before, after) = ANSWER.as_bytes().split_at(cut);
            assert_eq!(renamed([before, after]), RENAMED, "cut at {cut}");
        }
        assert_eq!(renamed(ANSWER.as_bytes().chunks(1)), RENAMED);
    }

    #[test]
    fn a_tools_argument_stays_as_the_model_wrote_it() {
        let answer = r#"{"model":"m-v2","content":[{"type":"tool_use","input":{"model":"m-v2"}}]}"#;
        let expected = answer.replacen("m-v2", "m", 1);
        assert_eq!(renamed([answer.as_bytes()]), expected);
    }

    #[test]
    fn indented_documents_are_renamed_too() {
        let answer = "{\n  \"id\": 1,\n  \"model\" :\n \"m-v2\"\n}";
        assert_eq!(renamed([answer.as_bytes()]), answer.replace("m-v2", "m"));
    }

    #[test]
    fn each_event_of_a_stream_is_a_document_of_its_own() {
        let events = concat!(
            ": a comment with {[ and \" in it\r\n\r\n",
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"model\":\"m-v2\"}}\n\n",
            "data: {\"broken\": [{\n\n",
            "data: {\"model\": \"m-v2\",\"choices\":[]}\n\ndata: [DONE]\n\n",
        );
        for cut in 0..=events.len() {
            let (before, after) = events.as_bytes().split_at(cut);
            assert_eq!(renamed([before, after]), events.replace("m-v2", "m"));
        }
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
        let other = br#"{"model":"a\\","model":"a\"b"}"#;
        let mut out = Vec::new();
        rename.push(Bytes::from_static(other), &mut out);
        assert_eq!(out.concat(), br#"{"model":"a\\","model":"c\\d"}"#);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in r#"([{}\[\],:\n"\\]|"model": ?"(m-v2|m)?"?|"message":\{|m|x){0,16}"#, cuts in proptest::collection::vec(0usize..120, 0..8)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut from, mut pieces) = (0, Vec::new());
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(renamed(pieces), renamed([text.as_bytes()]));
        }

        #[test]
        fn documents_say_what_they_said_but_for_the_model(model in "m-v2|m|m-v", nested in "m-v2|m", text in ".{0,12}") {
            let document = serde_json::json!({"a": text, "model": model, "b": {"model": nested}, "c": [nested, {"model": nested}]});
            let mut expected = document.clone();
            if model == "m-v2" {
                expected["model"] = "m".into();
            }
            let read: serde_json::Value = serde_json::from_str(&renamed([document.to_string().as_bytes()])).unwrap();
            prop_assert_eq!(read, expected);
        }
    }
}

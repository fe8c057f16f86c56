//! Usage of an answer that is one JSON document: only its end is kept, since usage stands there.

use super::tokens::Tokens;
use crate::api::json::Reader;
use memchr::memmem;

/// Bytes of the end that are kept: usage, and whatever engines put after it.
const TAIL: usize = 16 * 1024;

/// Remembers the end of a document that passes by.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    end: Vec<u8>,
}

impl Tail {
    /// The next piece of the document.
    pub fn push(&mut self, piece: &[u8]) {
        if piece.len() >= TAIL {
            self.end.clear();
            self.end.extend_from_slice(&piece[piece.len() - TAIL..]);
            return;
        }
        // Twice the tail is held so that pieces are moved once in a while, not at every push.
        if self.end.len() + piece.len() > 2 * TAIL {
            self.end.drain(..self.end.len() - TAIL);
        }
        self.end.extend_from_slice(piece);
    }

    /// The last `usage` object in what was kept, else the last of SGLang's `meta_info`. Inside a string the quotes of such a key would be
    /// escaped, so text that talks about usage is not taken for it.
    pub fn tokens(&self) -> Tokens {
        let keys = [&br#""usage""#[..], br#""meta_info""#];
        let found = keys.into_iter().find_map(|key| self.last(key));
        found.unwrap_or_default()
    }

    fn last(&self, key: &[u8]) -> Option<Tokens> {
        let mut before = &self.end[..];
        while let Some(at) = memmem::rfind(before, key) {
            if let Some(tokens) = usage_value(&self.end[at + key.len()..]) {
                return Some(tokens);
            }
            before = &before[..at];
        }
        None
    }
}

fn usage_value(after_key: &[u8]) -> Option<Tokens> {
    let colon = after_key
        .iter()
        .position(|byte| !byte.is_ascii_whitespace())?;
    let value = after_key[colon..].strip_prefix(b":")?;
    Tokens::read(&mut Reader::new(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_found_however_the_document_is_cut() {
        let document = br#"{"choices":[{"text":"\"usage\":{\"prompt_tokens\":99}"}],"usage" : {"prompt_tokens":7,"completion_tokens":3},"kv_transfer_params":null}"#;
        for cut in 0..document.len() {
            let mut tail = Tail::default();
            tail.push(&document[..cut]);
            tail.push(&document[cut..]);
            assert_eq!(
                tail.tokens(),
                Tokens {
                    prompt: Some(7),
                    output: Some(3),
                    ..Tokens::default()
                },
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_long_document_keeps_only_its_end() {
        let mut tail = Tail::default();
        for _ in 0..200 {
            tail.push(&[b'x'; 1000]);
        }
        tail.push(br#"","usage":{"completion_tokens":5}}"#);
        assert!(tail.end.len() <= 2 * TAIL);
        assert_eq!(tail.tokens().output, Some(5));
    }

    #[test]
    fn sglangs_counts_are_found_too() {
        let mut tail = Tail::default();
        tail.push(br#"{"text":"\"meta_info\":{\"prompt_tokens\":1}","meta_info":{"prompt_tokens":7,"completion_tokens":3}}"#);
        assert_eq!(
            (tail.tokens().prompt, tail.tokens().output),
            (Some(7), Some(3))
        );
    }

    #[test]
    fn no_usage_is_unknown() {
        let mut tail = Tail::default();
        tail.push(br#"{"error":"usage","usage":null}"#);
        assert_eq!(tail.tokens(), Tokens::default());
    }
}

//! Hot path: a stream of gRPC messages, cut anywhere, message by message.

use super::sse::Seen;
use super::tokens::Tokens;
use crate::api::frame::{HEADER, parse_header};
use crate::api::proto::{Fields, ProtoError};

/// Longest message that is put together, bytes; a longer one passes unread.
pub const MESSAGE_LIMIT: usize = 1 << 20;

/// A part of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A whole message, without its header.
    Message {
        /// Whether it is compressed.
        compressed: bool,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// Bytes of a message that is too long, its header included.
    Passing(&'a [u8]),
}

/// Puts messages together.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that came.
    have: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// The message so far, when it is cut.
    partial: Vec<u8>,
    passing: bool,
}

impl Frames {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, mut piece: &[u8], mut part: impl FnMut(Part<'_>)) {
        while !piece.is_empty() {
            if self.have < HEADER {
                piece = self.head(piece, &mut part);
            } else {
                let (own, rest) = piece.split_at(self.left.min(piece.len()));
                piece = rest;
                self.body(own, &mut part);
            }
        }
    }

    fn head<'p>(&mut self, piece: &'p [u8], part: &mut impl FnMut(Part<'_>)) -> &'p [u8] {
        let (own, rest) = piece.split_at((HEADER - self.have).min(piece.len()));
        self.header[self.have..self.have + own.len()].copy_from_slice(own);
        self.have += own.len();
        if self.have == HEADER {
            self.left = parse_header(self.header).1;
            self.passing = self.left > MESSAGE_LIMIT;
            if self.passing {
                part(Part::Passing(&self.header));
            }
            if self.left == 0 {
                self.body(&[], part);
            }
        }
        rest
    }

    fn body(&mut self, own: &[u8], part: &mut impl FnMut(Part<'_>)) {
        self.left -= own.len();
        let compressed = self.header[0] != 0;
        if self.passing {
            part(Part::Passing(own));
        } else if self.left > 0 {
            self.partial.extend_from_slice(own);
        } else if self.partial.is_empty() {
            part(Part::Message {
                compressed,
                bytes: own,
            });
        } else {
            self.partial.extend_from_slice(own);
            part(Part::Message {
                compressed,
                bytes: &self.partial,
            });
            self.partial.clear();
        }
        if self.left == 0 {
            self.have = 0;
        }
    }

    /// What came of a message that never became whole.
    pub fn rest(&mut self) -> Vec<u8> {
        let header = if self.passing { 0 } else { self.have };
        self.have = 0;
        [&self.header[..header], &std::mem::take(&mut self.partial)].concat()
    }
}

/// Which messages a vLLM server answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VllmAnswer {
    /// `GenerateResponse`
    Generate,
    /// `EmbedResponse`
    Embed,
}

impl VllmAnswer {
    /// What `message` carries; nothing when it is none of this kind.
    pub fn judge(self, message: &[u8]) -> Seen {
        let read = match self {
            Self::Generate => generated(message),
            Self::Embed => embedded(message),
        };
        read.unwrap_or_default()
    }
}

/// A chunk is field 1, and the last message field 2.
fn generated(message: &[u8]) -> Result<Seen, ProtoError> {
    let mut seen = Seen::default();
    for field in Fields::of(message) {
        let field = field?;
        match (field.number, field.value.bytes()) {
            (1, Some(chunk)) => seen = chunk_seen(chunk)?,
            (2, Some(complete)) => {
                seen = Seen {
                    usage: Some(completed(complete)?),
                    ..Seen::default()
                }
            }
            _ => {}
        }
    }
    Ok(seen)
}

/// `GenerateStreamChunk`: ids 1, prompt tokens 2, completion tokens 3, cached tokens 4. Servers tell the completion
/// tokens of this chunk there, or of all so far: the ids are counted instead.
fn chunk_seen(chunk: &[u8]) -> Result<Seen, ProtoError> {
    let mut seen = Seen {
        choice: true,
        ..Seen::default()
    };
    let mut tokens = Tokens::default();
    for field in Fields::of(chunk) {
        let field = field?;
        match field.number {
            1 => {
                for id in field.value.integers() {
                    id?;
                    seen.ids = seen.ids.saturating_add(1);
                }
            }
            2 => tokens.prompt = field.value.count(),
            4 => tokens.cached = field.value.count(),
            _ => {}
        }
    }
    seen.usage = Some(tokens);
    Ok(seen)
}

/// `GenerateComplete`: prompt tokens 3, completion tokens 4, cached tokens 5.
fn completed(complete: &[u8]) -> Result<Tokens, ProtoError> {
    let mut tokens = Tokens::default();
    for field in Fields::of(complete) {
        let field = field?;
        match field.number {
            3 => tokens.prompt = field.value.count(),
            4 => tokens.output = field.value.count(),
            5 => tokens.cached = field.value.count(),
            _ => {}
        }
    }
    Ok(tokens)
}

/// `EmbedResponse`: prompt tokens 2.
fn embedded(message: &[u8]) -> Result<Seen, ProtoError> {
    let mut tokens = Tokens::default();
    for field in Fields::of(message) {
        let field = field?;
        if field.number == 2 {
            tokens.prompt = field.value.count();
        }
    }
    Ok(Seen {
        usage: Some(tokens),
        ..Seen::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::frame::framed;
    use proptest::prelude::*;

    /// The messages of a stream, and the bytes of it that passed unread.
    fn run<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Vec<u8>>, Vec<u8>, Vec<u8>) {
        let (mut frames, mut messages, mut passed) = (Frames::default(), Vec::new(), Vec::new());
        for piece in pieces {
            frames.push(piece, |part| match part {
                Part::Message { bytes, .. } => messages.push(bytes.to_vec()),
                Part::Passing(bytes) => passed.extend_from_slice(bytes),
            });
            assert!(frames.partial.len() <= MESSAGE_LIMIT);
        }
        (messages, passed, frames.rest())
    }

    proptest! {
        #[test]
        fn messages_are_put_together_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            size in 1usize..60,
            cut in any::<prop::sample::Index>(),
        ) {
            let whole: Vec<u8> = messages.iter().flat_map(|message| framed(message, false)).collect();
            prop_assert_eq!(run(whole.chunks(size)), (messages.clone(), vec![], vec![]));
            let part = &whole[..cut.index(whole.len() + 1)];
            let (seen, passed, rest) = run(part.chunks(size));
            let again: Vec<u8> = seen.iter().flat_map(|message| framed(message, false)).chain(rest).collect();
            prop_assert_eq!((&again[..], passed), (part, vec![]));
        }

        #[test]
        fn never_panics_on_any_bytes(stream in proptest::collection::vec(any::<u8>(), 0..200), size in 1usize..50) {
            let (messages, ..) = run(stream.chunks(size));
            for message in messages {
                VllmAnswer::Generate.judge(&message);
                VllmAnswer::Embed.judge(&message);
            }
        }
    }

    #[test]
    fn a_giant_message_passes_and_the_next_is_read() {
        let giant = framed(&vec![7; MESSAGE_LIMIT + 1], false);
        let stream = [&giant[..], &framed(b"next", false)].concat();
        for size in [1000, stream.len()] {
            let (messages, passed, rest) = run(stream.chunks(size));
            assert_eq!(
                (messages, passed == giant, rest),
                (vec![b"next".to_vec()], true, vec![])
            );
        }
    }
}

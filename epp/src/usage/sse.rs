//! Hot path: a tap on a stream of server-sent events that copies no byte that passes.
//!
//! Every event is looked at once it is whole: does it carry a choice, does it carry usage? When the
//! picker has asked for usage in the client's place, the one event that is there only because of
//! that (no choice, but usage) is taken out again, and nothing else: members such as `"usage":null`
//! are the server's own way of writing and stay, so that the client reads the very bytes it would
//! have read without the picker.
//!
//! An event that is cut across pieces is put together in a buffer of at most [`EVENT_LIMIT`] bytes.
//! A longer one cannot be the usage event; it passes, judged by its beginning.

use super::tokens::Tokens;
use crate::api::json::{JsonError, Kind, Reader};
use bytes::Bytes;
use memchr::memchr;

/// Longest event that is held back or put together, bytes.
pub const EVENT_LIMIT: usize = 16 * 1024;

/// What one event carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A choice: at least part of an answer.
    pub choice: bool,
    /// Token counts.
    pub usage: Option<Tokens>,
}

impl Seen {
    /// The event that `include_usage` adds: usage, and no choice.
    fn is_usage_alone(&self) -> bool {
        !self.choice && self.usage.is_some()
    }
}

/// Splits a byte stream into events, reports what they carry, and may take the usage event out.
#[derive(Debug)]
pub struct Tap {
    strip: bool,
    /// The beginning of an event that is not yet whole, for judging.
    partial: Vec<u8>,
    /// The same bytes as they came, while they are held back.
    held: Vec<Bytes>,
    /// The event under way was too long: it has been judged and passes.
    passing: bool,
    /// The line under way has no bytes yet but perhaps a carriage return.
    blank_line: bool,
}

impl Tap {
    /// `strip` takes out the event that carries usage alone.
    pub fn new(strip: bool) -> Self {
        Self { strip, partial: Vec::new(), held: Vec::new(), passing: false, blank_line: false }
    }

    /// Takes the next piece of the stream; what the client is to get goes to `out`, what whole events
    /// carried to `seen`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>, mut seen: impl FnMut(Seen)) {
        // Bytes before `kept` have been given out, held or taken out; an event begins at `begin`.
        let (mut kept, mut begin, mut line) = (0, 0, 0);
        while let Some(offset) = memchr(b'\n', &piece[line..]) {
            let newline = line + offset;
            let ends_event = self.blank_line && is_blank(&piece[line..newline]);
            line = newline + 1;
            self.blank_line = true;
            if !ends_event {
                continue;
            }
            if self.whole(&piece[begin..line], &mut seen) {
                out.append(&mut self.held);
            } else {
                self.held.clear();
                give(&piece, kept..begin, out);
                kept = line;
            }
            begin = line;
        }
        self.blank_line &= is_blank(&piece[line..]);
        self.begun(&piece, begin, kept, out, &mut seen);
    }

    /// An event is whole with `last` as its last piece. Returns whether it is kept.
    fn whole(&mut self, last: &[u8], seen: &mut impl FnMut(Seen)) -> bool {
        if std::mem::take(&mut self.passing) {
            return true;
        }
        let found = if self.partial.is_empty() {
            judge(last)
        } else if self.partial.len() + last.len() <= EVENT_LIMIT {
            self.partial.extend_from_slice(last);
            judge(&self.partial)
        } else {
            judge(&self.partial)
        };
        self.partial.clear();
        seen(found);
        !(self.strip && found.is_usage_alone())
    }

    /// The piece ends inside an event that began at `begin`: its bytes are held, or pass.
    fn begun(&mut self, piece: &Bytes, begin: usize, kept: usize, out: &mut Vec<Bytes>, seen: &mut impl FnMut(Seen)) {
        let rest = &piece[begin..];
        if !self.passing && !rest.is_empty() {
            if self.partial.len() + rest.len() > EVENT_LIMIT {
                let room = EVENT_LIMIT - self.partial.len();
                self.partial.extend_from_slice(&rest[..room]);
                seen(judge(&self.partial));
                self.partial.clear();
                out.append(&mut self.held);
                self.passing = true;
            } else {
                self.partial.extend_from_slice(rest);
            }
        }
        if self.strip && !self.passing {
            give(piece, kept..begin, out);
            if !rest.is_empty() {
                self.held.push(piece.slice(begin..));
            }
        } else {
            give(piece, kept..piece.len(), out);
        }
    }

    /// The stream ended: an event without its closing blank line is judged and given out too.
    pub fn finish(&mut self, out: &mut Vec<Bytes>, mut seen: impl FnMut(Seen)) {
        if self.whole(&[], &mut seen) {
            out.append(&mut self.held);
        }
        self.held.clear();
    }
}

/// Gives out a part of `piece` without copying it.
fn give(piece: &Bytes, part: std::ops::Range<usize>, out: &mut Vec<Bytes>) {
    if !part.is_empty() {
        out.push(piece.slice(part));
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|&byte| byte == b'\r')
}

/// What an event, or the beginning of one, carries.
fn judge(event: &[u8]) -> Seen {
    let mut seen = Seen::default();
    for line in event.split(|&byte| byte == b'\n') {
        if let Some(data) = line.strip_prefix(b"data:") {
            // What is no JSON object (`[DONE]`, a truncated beginning) carries what was read so far.
            let _ = judge_data(&mut Reader::new(data), &mut seen);
        }
    }
    seen
}

fn judge_data(reader: &mut Reader<'_>, seen: &mut Seen) -> Result<(), JsonError> {
    if reader.kind()? != Kind::Object {
        return Ok(());
    }
    reader.object(|reader, key| {
        match key.raw {
            b"choices" if reader.kind()? == Kind::Array => reader.array(|reader| {
                seen.choice = true;
                reader.skip().map(|_| ())
            })?,
            b"usage" if reader.kind()? == Kind::Object => seen.usage = Some(Tokens::read(reader)?),
            _ => drop(reader.skip()?),
        }
        Ok(())
    })
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;

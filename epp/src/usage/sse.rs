//! Hot path: a tap on a stream of server-sent events that copies no byte that passes.
//!
//! Every event is looked at once it is whole: does it carry a choice, does it carry usage? When the
//! picker has asked for usage in the client's place, what is there only because of that is taken out
//! again, and nothing else: the one event with usage and no choice, and the `"usage":null` of the other
//! events if the server does not write it unasked.
//!
//! An event that is cut across pieces is put together in a buffer of at most [`EVENT_LIMIT`] bytes.
//! A longer one passes as it is, judged by its beginning, and by its end for the usage that stands there: the last
//! event of OpenAI's responses repeats the whole answer.

use super::document::Tail;
use super::tokens::Tokens;
use crate::api::json::{JsonError, Kind, Reader};
use bytes::Bytes;
use memchr::memchr;
use std::ops::Range;

/// Longest event that is held back or put together, bytes.
pub const EVENT_LIMIT: usize = 16 * 1024;

/// What is taken out of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strip {
    /// Nothing.
    Nothing,
    /// The event that carries usage alone.
    UsageEvent,
    /// That, and `"usage":null` from every other event.
    UsageEventAndNulls,
}

/// What one event carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A choice: at least part of an answer.
    pub choice: bool,
    /// Token counts.
    pub usage: Option<Tokens>,
    /// Output tokens that are there as ids.
    pub ids: u32,
    /// It is the last event of an answer.
    pub last: bool,
    /// The server says that it failed in the middle of the answer.
    pub failed: bool,
    /// Where in the event a `"usage":null` stands, with the comma that goes with it.
    pub null_usage: Option<Range<usize>>,
}

impl Seen {
    fn told(&mut self, tokens: Tokens) {
        self.usage = Some(self.usage.unwrap_or_default().merge(tokens));
    }

    /// The event that `include_usage` adds: usage, and no choice.
    fn is_usage_alone(&self) -> bool {
        !self.choice && self.usage.is_some()
    }
}

/// What becomes of an event.
enum Fate {
    Kept,
    Dropped,
    /// Kept without these bytes.
    Cut(Range<usize>),
}

/// Splits a byte stream into events, reports what they carry, and may take some of it out.
#[derive(Debug)]
pub struct Tap {
    strip: Strip,
    /// The beginning of an event that is not yet whole, for judging.
    partial: Vec<u8>,
    /// The same bytes as they came, while they are held back.
    held: Vec<Bytes>,
    /// The event under way was too long: it has been judged and passes.
    passing: bool,
    /// The end of such an event.
    tail: Tail,
    /// The line under way has no bytes yet but perhaps a carriage return.
    blank_line: bool,
}

impl Tap {
    /// A tap at the beginning of a stream.
    pub fn new(strip: Strip) -> Self {
        Self {
            strip,
            partial: Vec::new(),
            held: Vec::new(),
            passing: false,
            tail: Tail::default(),
            blank_line: false,
        }
    }

    /// Takes the next piece of the stream; what the client is to get goes to `out`, what whole events
    /// carried to `seen`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>, mut seen: impl FnMut(Seen)) {
        // Bytes before `given` have been given out, held or taken out; an event begins at `begin`.
        let (mut given, mut begin, mut line) = (0, 0, 0);
        while let Some(offset) = memchr(b'\n', &piece[line..]) {
            let newline = line + offset;
            let ends_event = self.blank_line && is_blank(&piece[line..newline]);
            line = newline + 1;
            self.blank_line = true;
            if !ends_event {
                continue;
            }
            let joined = !self.partial.is_empty();
            match self.whole(&piece[begin..line], &mut seen) {
                Fate::Kept => out.append(&mut self.held),
                Fate::Dropped => {
                    self.held.clear();
                    give(&piece, given..begin, out);
                    given = line;
                }
                Fate::Cut(span) if joined => {
                    self.held.clear();
                    self.partial.drain(span);
                    out.push(Bytes::copy_from_slice(&self.partial));
                    given = line;
                }
                Fate::Cut(span) => {
                    give(&piece, given..begin + span.start, out);
                    given = begin + span.end;
                }
            }
            self.partial.clear();
            begin = line;
        }
        self.blank_line &= is_blank(&piece[line..]);
        self.begun(&piece, begin, given, out, &mut seen);
    }

    /// An event is whole with `last` as its last piece. If it was cut, `partial` has all of it then.
    fn whole(&mut self, last: &[u8], seen: &mut impl FnMut(Seen)) -> Fate {
        if std::mem::take(&mut self.passing) {
            self.tail.push(last);
            self.passed(seen);
            return Fate::Kept;
        }
        let found = if self.partial.is_empty() {
            judge(last)
        } else {
            // One more piece of a cut event may take it beyond the limit, by no more than that piece.
            self.partial.extend_from_slice(last);
            judge(&self.partial)
        };
        let fate = match self.strip {
            Strip::Nothing => Fate::Kept,
            _ if found.is_usage_alone() => Fate::Dropped,
            Strip::UsageEvent => Fate::Kept,
            Strip::UsageEventAndNulls => found.null_usage.clone().map_or(Fate::Kept, Fate::Cut),
        };
        seen(found);
        fate
    }

    /// The piece ends inside an event that began at `begin`: its bytes are held, or pass.
    fn begun(
        &mut self,
        piece: &Bytes,
        begin: usize,
        given: usize,
        out: &mut Vec<Bytes>,
        seen: &mut impl FnMut(Seen),
    ) {
        let rest = &piece[begin..];
        if self.passing {
            self.tail.push(rest);
        } else if !rest.is_empty() {
            if self.partial.len() + rest.len() > EVENT_LIMIT {
                self.tail.push(&self.partial);
                self.tail.push(rest);
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
        if self.strip == Strip::Nothing || self.passing {
            give(piece, given..piece.len(), out);
        } else {
            give(piece, given..begin, out);
            if !rest.is_empty() {
                self.held.push(piece.slice(begin..));
            }
        }
    }

    /// An event that was too long is over: what its end told.
    fn passed(&mut self, seen: &mut impl FnMut(Seen)) {
        let tokens = std::mem::take(&mut self.tail).tokens();
        if tokens != Tokens::default() {
            seen(Seen {
                usage: Some(tokens),
                ..Seen::default()
            });
        }
    }

    /// The stream ended: an event without its closing blank line is judged and given out too.
    pub fn finish(&mut self, out: &mut Vec<Bytes>, mut seen: impl FnMut(Seen)) {
        if self.passing {
            self.passing = false;
            self.passed(&mut seen);
        }
        if self.partial.is_empty() {
            return;
        }
        match self.whole(&[], &mut seen) {
            Fate::Kept => out.append(&mut self.held),
            Fate::Dropped => {}
            Fate::Cut(span) => {
                self.partial.drain(span);
                out.push(Bytes::copy_from_slice(&self.partial));
            }
        }
        self.held.clear();
        self.partial.clear();
    }
}

/// Gives out a part of `piece` without copying it.
fn give(piece: &Bytes, part: Range<usize>, out: &mut Vec<Bytes>) {
    if !part.is_empty() {
        out.push(piece.slice(part));
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|&byte| byte == b'\r')
}

/// What an event, or the beginning of one, carries.
fn judge(event: &[u8]) -> Seen {
    const FIELD: &[u8] = b"data:";
    let mut seen = Seen::default();
    let mut at = 0;
    for line in event.split(|&byte| byte == b'\n') {
        if let Some(data) = line.strip_prefix(FIELD) {
            seen.last |= data.trim_ascii() == b"[DONE]";
            // What is no JSON object (`[DONE]`, a truncated beginning) carries what was read so far.
            let _ = judge_data(data, at + FIELD.len(), &mut seen);
        }
        at += line.len() + 1;
    }
    seen
}

/// Reads one event's JSON, which stands at `at` in the event.
fn judge_data(data: &[u8], at: usize, seen: &mut Seen) -> Result<(), JsonError> {
    let mut reader = Reader::new(data);
    if reader.kind()? != Kind::Object {
        return Ok(());
    }
    // A member goes with the comma before it, the first one with the comma after it.
    let mut previous_end = None;
    let mut first_null = None;
    reader.object(|reader, key| {
        if let Some(start) = first_null.take() {
            seen.null_usage = Some(start..at + key.start());
        }
        match (key.raw, reader.kind()?) {
            (b"choices", Kind::Array) => reader.array(|reader| {
                seen.choice = true;
                judge_choice(reader, seen)
            })?,
            (b"usage" | b"meta_info", Kind::Object) => seen.told(Tokens::read(reader)?),
            (b"usage", Kind::Null) => {
                let end = reader.span()?.end;
                seen.null_usage = previous_end.map(|start| at + start..at + end);
                first_null = previous_end.is_none().then_some(at + key.start());
            }
            // Anthropic's first event and the last of OpenAI's responses.
            (b"message" | b"response", Kind::Object) => judge_nested(reader, seen)?,
            (b"type", Kind::String) => {
                let kind = reader.string()?.raw;
                seen.choice |= is_delta(kind);
                seen.last |= is_last(kind);
                seen.failed |= kind == b"response.failed";
            }
            (b"error", Kind::Object) => seen.failed |= is_servers(reader)?,
            // SGLang's.
            (b"text", Kind::String) | (b"output_ids", Kind::Array) => {
                seen.choice = true;
                reader.skip()?;
            }
            _ => {
                reader.skip()?;
            }
        }
        previous_end = Some(reader.position());
        Ok::<_, JsonError>(())
    })?;
    if let (Some(start), Some(end)) = (first_null, previous_end) {
        seen.null_usage = Some(start..at + end);
    }
    Ok(())
}

/// An event of Anthropic's messages, or of OpenAI's responses, that carries a part of the answer.
fn is_delta(kind: &[u8]) -> bool {
    kind == b"content_block_delta" || kind.starts_with(b"response.") && kind.ends_with(b".delta")
}

/// The event that closes an answer of Anthropic's messages, or of OpenAI's responses.
fn is_last(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"message_stop" | b"response.completed" | b"response.incomplete" | b"response.failed"
    )
}

/// Whether an error in the middle of an answer is the server's: all are, but those with a status of 4xx.
fn is_servers(reader: &mut Reader<'_>) -> Result<bool, JsonError> {
    let mut clients = false;
    reader.object(|reader, key| {
        if key.raw != b"code" || reader.kind()? != Kind::Number {
            return reader.skip();
        }
        clients = matches!(reader.unsigned()?, Some(400..500));
        Ok(())
    })?;
    Ok(!clients)
}

/// Counts the token ids of one choice, where the server gives ids.
fn judge_choice(reader: &mut Reader<'_>, seen: &mut Seen) -> Result<(), JsonError> {
    if reader.kind()? != Kind::Object {
        return reader.skip();
    }
    reader.object(|reader, key| {
        if key.raw != b"token_ids" || reader.kind()? != Kind::Array {
            return reader.skip();
        }
        reader.array(|reader| {
            seen.ids = seen.ids.saturating_add(1);
            reader.skip()
        })
    })
}

fn judge_nested(reader: &mut Reader<'_>, seen: &mut Seen) -> Result<(), JsonError> {
    reader.object(|reader, key| {
        if key.raw != b"usage" || reader.kind()? != Kind::Object {
            return reader.skip();
        }
        seen.told(Tokens::read(reader)?);
        Ok(())
    })
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;

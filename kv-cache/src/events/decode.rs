//! A message's bytes to events.

use super::msgpack::{Input, Token};
use super::{Batch, DecodeError, EngineHash, Event, ExtraKey, Removed, Stored};

/// How deep extra keys may nest; what is deeper cannot be told apart from nothing.
const EXTRA_DEPTH: usize = 4;

/// Events are not made room for beyond this before they are read.
const EVENTS_AHEAD: usize = 64;

/// Reads one message.
///
/// # Errors
/// When it is no list of events. Single events that cannot be read are counted in the batch, not errors.
pub fn decode(message: &[u8]) -> Result<Batch, DecodeError> {
    let mut input = Input::new(message);
    let mut batch = Batch::default();
    let mut events = false;
    let (length, named) = match input.token()? {
        Token::Array(length) => (length, false),
        Token::Map(length) => (length, true),
        _ => return Err(kind("message", 0, "an array or a map")),
    };
    for place in 0..length {
        let name = field_name(
            &mut input,
            named,
            place,
            &[b"ts", b"events", b"data_parallel_rank"],
        )?;
        match name {
            Some(0) => batch.at = time(&mut input)?,
            Some(1) => {
                events = true;
                read_events(&mut input, &mut batch)?;
            }
            Some(2) => batch.data_parallel_rank = optional_u32(&mut input, "data_parallel_rank")?,
            _ => input.skip()?,
        }
    }
    if events {
        Ok(batch)
    } else {
        Err(DecodeError::Missing { field: "events" })
    }
}

/// The number of the field that comes next: by its place in an array, by its name in a map.
fn field_name(
    input: &mut Input<'_>,
    named: bool,
    place: usize,
    names: &[&[u8]],
) -> Result<Option<usize>, DecodeError> {
    if !named {
        return Ok(Some(place));
    }
    let mut key = *input;
    if let Token::Text(text) = key.token()? {
        *input = key;
        return Ok(names.iter().position(|name| *name == text));
    }
    input.skip()?;
    Ok(None)
}

fn time(input: &mut Input<'_>) -> Result<f64, DecodeError> {
    let at = input.offset();
    match input.token()? {
        Token::Float(time) => Ok(time),
        Token::Integer(time) => Ok(time as i64 as f64),
        _ => Err(kind("ts", at, "a number")),
    }
}

fn read_events(input: &mut Input<'_>, batch: &mut Batch) -> Result<(), DecodeError> {
    let length = array(input, "events")?;
    batch.events.reserve(length.min(EVENTS_AHEAD));
    for _ in 0..length {
        let mut past = *input;
        past.skip()?;
        match event(input) {
            Ok(Some(event)) => batch.events.push(event),
            Ok(None) => batch.unknown += 1,
            Err(_) => batch.malformed += 1,
        }
        *input = past;
    }
    Ok(())
}

const STORED: &[u8] = b"BlockStored";
const REMOVED: &[u8] = b"BlockRemoved";
const CLEARED: &[u8] = b"AllBlocksCleared";

/// One event; none if its kind is not known.
fn event(input: &mut Input<'_>) -> Result<Option<Event>, DecodeError> {
    let at = input.offset();
    let (length, named, tag) = match input.token()? {
        Token::Array(length) if length > 0 => {
            let at = input.offset();
            let Token::Text(tag) = input.token()? else {
                return Err(kind("tag", at, "a string"));
            };
            (length - 1, false, tag)
        }
        Token::Map(length) => (length, true, map_tag(*input, length)?),
        _ => return Err(kind("event", at, "an array with a tag or a map")),
    };
    match tag {
        STORED => stored(input, length, named).map(|stored| Some(Event::Stored(stored))),
        REMOVED => removed(input, length, named).map(|removed| Some(Event::Removed(removed))),
        CLEARED => Ok(Some(Event::Cleared)),
        _ => Ok(None),
    }
}

/// What a map says under `type`.
fn map_tag<'a>(mut input: Input<'a>, length: usize) -> Result<&'a [u8], DecodeError> {
    for _ in 0..length {
        if field_name(&mut input, true, 0, &[b"type"])?.is_some() {
            let at = input.offset();
            let Token::Text(tag) = input.token()? else {
                return Err(kind("type", at, "a string"));
            };
            return Ok(tag);
        }
        input.skip()?;
    }
    Err(DecodeError::Missing { field: "type" })
}

/// In the order of arrays, whose fields the last two never are.
const STORED_FIELDS: [&[u8]; 13] = [
    b"block_hashes",
    b"parent_block_hash",
    b"token_ids",
    b"block_size",
    b"lora_id",
    b"medium",
    b"lora_name",
    b"extra_keys",
    b"group_idx",
    b"kv_cache_spec_kind",
    b"kv_cache_spec_sliding_window",
    b"locality",
    b"cache_salt",
];

fn stored(input: &mut Input<'_>, length: usize, named: bool) -> Result<Stored, DecodeError> {
    let mut stored = Stored::default();
    let mut seen = 0_u32;
    for place in 0..length {
        let field = field_name(input, named, place, &STORED_FIELDS)?;
        match field {
            Some(0) => stored.block_hashes = hashes(input)?,
            Some(1) => stored.parent_block_hash = optional_hash(input)?,
            Some(2) => stored.token_ids = tokens(input)?,
            Some(3) => stored.block_size = optional_u32(input, "block_size")?.unwrap_or(0),
            Some(4) => stored.lora_id = optional_i64(input, "lora_id")?,
            Some(5) => stored.medium = optional_text(input, "medium")?,
            Some(6) => stored.lora_name = optional_text(input, "lora_name")?,
            Some(7) => stored.extra_keys = extra_keys(input)?,
            Some(8) => stored.group_idx = optional_u32(input, "group_idx")?,
            Some(9) => stored.kv_cache_spec_kind = optional_text(input, "kv_cache_spec_kind")?,
            Some(10) => {
                stored.kv_cache_spec_sliding_window =
                    optional_u32(input, "kv_cache_spec_sliding_window")?;
            }
            Some(11) if named => stored.locality = optional_text(input, "locality")?,
            Some(12) if named => stored.cache_salt = optional_text(input, "cache_salt")?,
            _ => input.skip()?,
        }
        seen |= field.map_or(0, |field| 1_u32.checked_shl(field as u32).unwrap_or(0));
    }
    for (bit, field) in [(0, "block_hashes"), (2, "token_ids"), (3, "block_size")] {
        if seen & (1 << bit) == 0 {
            return Err(DecodeError::Missing { field });
        }
    }
    Ok(stored)
}

fn removed(input: &mut Input<'_>, length: usize, named: bool) -> Result<Removed, DecodeError> {
    const FIELDS: [&[u8]; 4] = [b"block_hashes", b"medium", b"group_idx", b"locality"];
    let mut removed = Removed::default();
    let mut seen = false;
    for place in 0..length {
        match field_name(input, named, place, &FIELDS)? {
            Some(0) => {
                removed.block_hashes = hashes(input)?;
                seen = true;
            }
            Some(1) => removed.medium = optional_text(input, "medium")?,
            Some(2) => removed.group_idx = optional_u32(input, "group_idx")?,
            Some(3) if named => removed.locality = optional_text(input, "locality")?,
            _ => input.skip()?,
        }
    }
    if seen {
        Ok(removed)
    } else {
        Err(DecodeError::Missing {
            field: "block_hashes",
        })
    }
}

fn hashes(input: &mut Input<'_>) -> Result<Vec<EngineHash>, DecodeError> {
    let length = array(input, "block_hashes")?;
    let mut hashes = Vec::with_capacity(length.min(input.left()));
    for _ in 0..length {
        let at = input.offset();
        hashes.push(hash(input.token()?, at)?);
    }
    Ok(hashes)
}

fn hash(token: Token<'_>, at: usize) -> Result<EngineHash, DecodeError> {
    match token {
        Token::Integer(hash) => Ok(hash),
        Token::Bytes(digest) => digest
            .last_chunk()
            .map(|last| u64::from_be_bytes(*last))
            .ok_or(kind("block hash", at, "at least eight bytes")),
        _ => Err(kind("block hash", at, "an integer or bytes")),
    }
}

fn optional_hash(input: &mut Input<'_>) -> Result<Option<EngineHash>, DecodeError> {
    let at = input.offset();
    match input.token()? {
        Token::Nil => Ok(None),
        token => hash(token, at).map(Some),
    }
}

fn tokens(input: &mut Input<'_>) -> Result<Vec<u32>, DecodeError> {
    let length = array(input, "token_ids")?;
    let mut tokens = Vec::with_capacity(length.min(input.left()));
    for _ in 0..length {
        let at = input.offset();
        let Token::Integer(token) = input.token()? else {
            return Err(kind("token_ids", at, "a list of integers"));
        };
        let token = u32::try_from(token)
            .map_err(|_| kind("token_ids", at, "a list of integers below 2³²"))?;
        tokens.push(token);
    }
    Ok(tokens)
}

fn extra_keys(input: &mut Input<'_>) -> Result<Option<Vec<Option<Vec<ExtraKey>>>>, DecodeError> {
    let at = input.offset();
    match input.token()? {
        Token::Nil => Ok(None),
        Token::Array(length) => {
            let mut blocks = Vec::with_capacity(length.min(input.left()));
            for _ in 0..length {
                let at = input.offset();
                blocks.push(match input.token()? {
                    Token::Nil => None,
                    Token::Array(length) => Some(extra_list(input, length, EXTRA_DEPTH)?),
                    _ => return Err(kind("extra_keys", at, "lists or nil")),
                });
            }
            Ok(Some(blocks))
        }
        _ => Err(kind("extra_keys", at, "a list or nil")),
    }
}

fn extra_list(
    input: &mut Input<'_>,
    length: usize,
    depth: usize,
) -> Result<Vec<ExtraKey>, DecodeError> {
    let mut list = Vec::new();
    for _ in 0..length {
        let at = input.offset();
        list.push(match input.token()? {
            Token::Nil => ExtraKey::Nil,
            Token::Text(text) => ExtraKey::Text(utf8(text, "extra_keys", at)?),
            Token::Bytes(bytes) => ExtraKey::Bytes(bytes.to_vec()),
            Token::Integer(integer) => ExtraKey::Integer(integer as i64),
            Token::Float(float) => ExtraKey::Float(float),
            Token::Array(length) if depth > 1 => {
                ExtraKey::List(extra_list(input, length, depth - 1)?)
            }
            _ => return Err(kind("extra_keys", at, "strings, bytes, numbers or lists")),
        });
    }
    Ok(list)
}

fn array(input: &mut Input<'_>, field: &'static str) -> Result<usize, DecodeError> {
    let at = input.offset();
    match input.token()? {
        Token::Array(length) => Ok(length),
        _ => Err(kind(field, at, "an array")),
    }
}

fn optional_u32(input: &mut Input<'_>, field: &'static str) -> Result<Option<u32>, DecodeError> {
    let at = input.offset();
    match input.token()? {
        Token::Nil => Ok(None),
        Token::Integer(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| kind(field, at, "an integer below 2³²")),
        _ => Err(kind(field, at, "an integer or nil")),
    }
}

fn optional_i64(input: &mut Input<'_>, field: &'static str) -> Result<Option<i64>, DecodeError> {
    let at = input.offset();
    match input.token()? {
        Token::Nil => Ok(None),
        Token::Integer(number) => Ok(Some(number as i64)),
        _ => Err(kind(field, at, "an integer or nil")),
    }
}

fn optional_text(
    input: &mut Input<'_>,
    field: &'static str,
) -> Result<Option<String>, DecodeError> {
    let at = input.offset();
    match input.token()? {
        Token::Nil => Ok(None),
        Token::Text(text) => utf8(text, field, at).map(Some),
        _ => Err(kind(field, at, "a string or nil")),
    }
}

fn utf8(text: &[u8], field: &'static str, at: usize) -> Result<String, DecodeError> {
    std::str::from_utf8(text)
        .map(str::to_owned)
        .map_err(|_| kind(field, at, "UTF-8"))
}

fn kind(field: &'static str, at: usize, expected: &'static str) -> DecodeError {
    DecodeError::Kind {
        field,
        at,
        expected,
    }
}

//! Vertex's prediction service: OpenAI's bodies inside a `google.api.HttpBody` inside a gRPC message.

use super::body::{self, Body, Intake};
use super::edit::{self, Edit};
use super::error::{RequestError, missing};
use super::frame::{FrameError, HEADER, Message, framed};
use super::paths::Api;
use super::proto::{Fields, ProtoError, Value, put_varint};
use bytes::Bytes;
use std::ops::Range;

/// Field of the `HttpBody` in each of the service's requests.
const HTTP_BODY: u64 = 2;
/// Fields of an `HttpBody`.
const CONTENT_TYPE: u64 = 1;
const DATA: u64 = HttpBody::DATA;

/// Where bytes stand in a message, and where their length is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    content: Range<usize>,
    length: Range<usize>,
}

impl Place {
    /// The last field `number` of `message`.
    fn of(message: &[u8], number: u64) -> Result<Option<Self>, ProtoError> {
        let mut found = None;
        for field in Fields::of(message) {
            let field = field?;
            if let (true, Value::Bytes { bytes, at, length }) =
                (field.number == number, field.value)
            {
                found = Some(Self {
                    content: at..at + bytes.len(),
                    length,
                });
            }
        }
        Ok(found)
    }

    fn shifted(self, offset: usize) -> Self {
        let shift = |span: Range<usize>| span.start + offset..span.end + offset;
        Self {
            content: shift(self.content),
            length: shift(self.length),
        }
    }

    /// Writes the length anew for content that grows by `growth`.
    fn relength(&self, growth: isize) -> Edit {
        let mut text = Vec::new();
        let length = self.content.len().saturating_add_signed(growth);
        put_varint(length as u64, &mut text);
        Edit::new(self.length.clone(), text)
    }
}

/// Reads the JSON inside.
pub(super) fn read(api: Api, body: &Bytes, intake: &Intake<'_>) -> Result<Body, RequestError> {
    let message = Message::only(body, intake.encoding, intake.most_bytes)?;
    let find = |message: &[u8], number| Place::of(message, number).map_err(FrameError::from);
    let Some(outer) = find(&message.bytes, HTTP_BODY)? else {
        return Err(missing("http_body", "give the request's JSON in it"));
    };
    let Some(data) = find(&message.bytes[outer.content.clone()], DATA)? else {
        return Err(missing("http_body.data", "give the request's JSON in it"));
    };
    let data = data.shifted(outer.content.start);
    let mut read = body::inner(api, message.bytes.slice(data.content.clone()), intake)?;
    if !read.rename.is_empty() {
        let inner = std::mem::take(&mut read.rename);
        read.rename = wrapped(&message, &outer, &data, inner, body.len());
    }
    Ok(read)
}

/// The edits of the whole body that make `inner` to the JSON inside.
fn wrapped(
    message: &Message,
    outer: &Place,
    data: &Place,
    inner: Vec<Edit>,
    whole: usize,
) -> Vec<Edit> {
    let grown: isize = inner.iter().map(Edit::growth).sum();
    let data_length = data.relength(grown);
    let outer_length = outer.relength(grown + data_length.growth());
    let mut edits: Vec<Edit> = inner
        .into_iter()
        .map(|edit| edit.shifted(data.content.start))
        .collect();
    edits.extend([data_length, outer_length]);
    if message.compressed {
        let edited = edit::apply(message.bytes.clone(), edits);
        return vec![Edit::new(0..whole, framed(&edited, true))];
    }
    let growth: isize = edits.iter().map(Edit::growth).sum();
    let length = message.bytes.len().saturating_add_signed(growth);
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut edits: Vec<Edit> = edits.into_iter().map(|edit| edit.shifted(HEADER)).collect();
    edits.push(Edit::new(1..HEADER, length));
    edits
}

/// An answer: an `HttpBody`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpBody<'m> {
    /// What `data` is.
    pub content_type: &'m [u8],
    /// The answer's next bytes.
    pub data: &'m [u8],
}

impl<'m> HttpBody<'m> {
    /// The field of `data`.
    pub const DATA: u64 = 2;

    /// Reads a message; `None` = it is no `HttpBody`.
    pub fn read(message: &'m [u8]) -> Option<Self> {
        let mut body = Self {
            content_type: &[],
            data: &[],
        };
        for field in Fields::of(message) {
            let field = field.ok()?;
            match (field.number, field.value.bytes()) {
                (CONTENT_TYPE, Some(bytes)) => body.content_type = bytes,
                (DATA, Some(bytes)) => body.data = bytes,
                _ => {}
            }
        }
        Some(body)
    }

    /// `message` with `data` in place of its own.
    pub fn with_data(message: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + data.len());
        match Place::of(message, DATA) {
            Ok(Some(place)) => {
                out.extend_from_slice(&message[..place.length.start]);
                put_varint(data.len() as u64, &mut out);
                out.extend_from_slice(data);
                out.extend_from_slice(&message[place.content.end..]);
            }
            _ => {
                out.extend_from_slice(message);
                super::proto::put_bytes(DATA, data, &mut out);
            }
        }
        out
    }
}

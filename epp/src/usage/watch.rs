//! Hot path: an answer of any API, looked at while it passes.

use super::document::Tail;
use super::frames::{Frames, Part, VllmAnswer};
use super::sse::{Seen, Strip, Tap};
use crate::api::frame::{decompressed, framed};
use crate::api::paths::Api;
use crate::api::proto::put_bytes;
use crate::api::rename::Rename;
use crate::api::vertex::HttpBody;
use bytes::Bytes;

/// How an answer is looked at.
#[derive(Debug)]
pub enum Watch {
    /// A stream of events.
    Events(Tap),
    /// One JSON document.
    Document(Tail),
    /// vLLM's gRPC messages.
    Messages(Messages),
    /// Events or a document inside gRPC messages.
    Wrapped(Box<Wrapped>),
    /// Not at all: nothing is to be read, or nothing can be.
    Opaque,
}

impl Watch {
    /// How an answer of `api` is looked at: `events` when it is a stream of events, `gzip` when its gRPC messages may
    /// be compressed. `rename` puts the client's name for the model into what is wrapped.
    pub fn of(
        api: Api,
        events: bool,
        gzip: bool,
        strip: Strip,
        rename: &mut Option<Rename>,
    ) -> Self {
        match api {
            _ if !api.watched() => Self::Opaque,
            Api::VllmGrpcGenerate => Self::Messages(Messages::new(VllmAnswer::Generate, gzip)),
            Api::VllmGrpcEmbed => Self::Messages(Messages::new(VllmAnswer::Embed, gzip)),
            Api::VertexChat | Api::VertexRaw => {
                Self::Wrapped(Box::new(Wrapped::new(gzip, rename.take())))
            }
            _ if events => Self::Events(Tap::new(strip)),
            _ => Self::Document(Tail::default()),
        }
    }

    /// Takes the next piece: what the client is to get goes to `out`, what it carried to `seen`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>, mut seen: impl FnMut(Seen)) {
        match self {
            Self::Events(tap) => tap.push(piece, out, seen),
            Self::Document(tail) => {
                tail.push(&piece);
                out.push(piece);
            }
            Self::Messages(messages) => {
                messages.push(&piece, &mut seen);
                out.push(piece);
            }
            Self::Wrapped(wrapped) => wrapped.push(piece, out, &mut seen),
            Self::Opaque => out.push(piece),
        }
    }

    /// The answer ended.
    pub fn finish(&mut self, out: &mut Vec<Bytes>, mut seen: impl FnMut(Seen)) {
        match self {
            Self::Events(tap) => tap.finish(out, seen),
            Self::Document(tail) => seen(Seen {
                usage: Some(tail.tokens()),
                ..Seen::default()
            }),
            Self::Wrapped(wrapped) => wrapped.finish(out, &mut seen),
            Self::Messages(_) | Self::Opaque => {}
        }
    }
}

/// Most bytes that one compressed message is decompressed to.
const PLAIN_LIMIT: usize = 4 << 20;

fn plain(bytes: &[u8], compressed: bool, gzip: bool) -> Option<Bytes> {
    if compressed {
        let encoding = gzip.then_some(&b"gzip"[..]);
        return decompressed(bytes, encoding, PLAIN_LIMIT).ok();
    }
    Some(Bytes::copy_from_slice(bytes))
}

/// vLLM's answers over gRPC; they pass as they are.
#[derive(Debug)]
pub struct Messages {
    frames: Frames,
    answer: VllmAnswer,
    gzip: bool,
}

impl Messages {
    fn new(answer: VllmAnswer, gzip: bool) -> Self {
        Self {
            frames: Frames::default(),
            answer,
            gzip,
        }
    }

    fn push(&mut self, piece: &[u8], seen: &mut impl FnMut(Seen)) {
        let (answer, gzip) = (self.answer, self.gzip);
        self.frames.push(piece, |part| match part {
            Part::Message {
                compressed: false,
                bytes,
            } => seen(answer.judge(bytes)),
            Part::Message { bytes, .. } => {
                if let Some(plain) = plain(bytes, true, gzip) {
                    seen(answer.judge(&plain));
                }
            }
            Part::Passing(_) => {}
        });
    }
}

/// Vertex's answers: each message an `HttpBody` with the next bytes of OpenAI's answer.
#[derive(Debug)]
pub struct Wrapped {
    frames: Frames,
    gzip: bool,
    inner: Option<Inner>,
    /// With it messages are held until they are whole, and written anew.
    rename: Option<Rename>,
}

#[derive(Debug)]
enum Inner {
    Events(Tap),
    Document(Tail),
}

impl Inner {
    fn of(body: HttpBody<'_>) -> Self {
        let events = memchr::memmem::find(body.content_type, b"event-stream").is_some()
            || [&b"data:"[..], b"event:"]
                .iter()
                .any(|field| body.data.starts_with(field));
        if events {
            Self::Events(Tap::new(Strip::Nothing))
        } else {
            Self::Document(Tail::default())
        }
    }

    fn push(&mut self, data: &[u8], seen: &mut impl FnMut(Seen)) {
        match self {
            Self::Events(tap) => tap.push(Bytes::copy_from_slice(data), &mut Vec::new(), seen),
            Self::Document(tail) => tail.push(data),
        }
    }
}

impl Wrapped {
    fn new(gzip: bool, rename: Option<Rename>) -> Self {
        Self {
            frames: Frames::default(),
            gzip,
            inner: None,
            rename,
        }
    }

    fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>, seen: &mut impl FnMut(Seen)) {
        let Self {
            frames,
            gzip,
            inner,
            rename,
        } = self;
        let mut written = Vec::new();
        frames.push(&piece, |part| match part {
            Part::Passing(bytes) => written.extend_from_slice(bytes),
            Part::Message { compressed, bytes } => {
                let message = plain(bytes, compressed, *gzip);
                let body = message.as_deref().and_then(HttpBody::read);
                if let Some(body) = body {
                    let inner = inner.get_or_insert_with(|| Inner::of(body));
                    inner.push(body.data, seen);
                }
                if let (Some(rename), Some(message), Some(body)) = (&mut *rename, &message, body) {
                    let mut renamed = Vec::new();
                    rename.push(Bytes::copy_from_slice(body.data), &mut renamed);
                    let message = HttpBody::with_data(message, &renamed.concat());
                    written.extend_from_slice(&framed(&message, compressed));
                } else if rename.is_some() {
                    let mut frame = framed(bytes, false);
                    if let Some(flag) = frame.first_mut() {
                        *flag = u8::from(compressed);
                    }
                    written.extend_from_slice(&frame);
                }
            }
        });
        match rename {
            None => out.push(piece),
            Some(_) if written.is_empty() => {}
            Some(_) => out.push(written.into()),
        }
    }

    fn finish(&mut self, out: &mut Vec<Bytes>, seen: &mut impl FnMut(Seen)) {
        if let Some(rename) = &mut self.rename {
            let mut held = Vec::new();
            rename.finish(&mut held);
            if !held.is_empty() {
                let mut message = Vec::new();
                put_bytes(HttpBody::DATA, &held.concat(), &mut message);
                out.push(framed(&message, false).into());
            }
            let rest = self.frames.rest();
            if !rest.is_empty() {
                out.push(rest.into());
            }
        }
        match &mut self.inner {
            Some(Inner::Events(tap)) => tap.finish(&mut Vec::new(), seen),
            Some(Inner::Document(tail)) => seen(Seen {
                usage: Some(tail.tokens()),
                ..Seen::default()
            }),
            None => {}
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

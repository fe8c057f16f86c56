//! gRPC's length-prefixed messages: streams of them cut anywhere, single ones perhaps compressed, and what is inside.

use bytes::Bytes;
use epp::api::body::Intake;
use epp::api::frame::Message;
use epp::api::paths::Api;
use epp::api::vertex::HttpBody;
use epp::usage::frames::{Frames, Part, VllmAnswer};
use epp_core::PrefixHashing;

use super::body::{edited, read};
use super::{Shape, Target, cut};

pub(super) static TARGET: Target = Target {
    name: "grpc",
    words: &[
        b"\0\0\0\0\0",
        b"\0\0\0\0\x05",
        b"\x01\0\0\0\x10",
        b"\0\xff\xff\xff\xff",
        b"\x0a\x05",
        b"\x12\x03",
        b"\x1a\x00",
        b"\x08\x96\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
        b"{\"model\":\"m\",\"messages\":[]}",
        b"application/json",
    ],
    run,
};

/// Bytes of a piece.
const WIDTH: usize = 7;
/// Bytes that a compressed message may grow to.
const LIMIT: usize = 1 << 16;

fn run(input: &[u8]) -> Shape {
    let (stream, width) = cut(input);
    let whole = parts(stream, stream.len().max(1));
    assert_eq!(whole, parts(stream, width), "cut elsewhere, other messages");
    // Whatever is passed on unread belongs to messages that are too long to be put together.
    let shape = Shape::default().with_length(whole.len());
    let shape = whole.iter().take(4).fold(shape, |shape, (kind, message)| {
        let shape = shape.with(kind).with_length(message.len());
        let seen = [VllmAnswer::Generate, VllmAnswer::Embed].map(|answer| {
            let seen = answer.judge(message);
            (seen.choice, seen.usage.is_some(), seen.ids.min(3))
        });
        shape.with(seen).with(HttpBody::read(message).is_some())
    });
    [None, Some(&b"gzip"[..])]
        .into_iter()
        .fold(shape, |shape, encoding| shape.with(only(stream, encoding)))
}

/// Kind and bytes of each message; the bytes that pass are joined, since where they are cut depends on the pieces.
fn parts(stream: &[u8], width: usize) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Frames::default();
    let mut parts: Vec<(u8, Vec<u8>)> = Vec::new();
    for piece in stream.chunks(width) {
        frames.push(piece, |part| match part {
            Part::Message { compressed, bytes } => {
                parts.push((u8::from(compressed), bytes.to_vec()));
            }
            Part::Passing(bytes) => match parts.last_mut() {
                Some((2, passed)) => passed.extend_from_slice(bytes),
                _ => parts.push((2, bytes.to_vec())),
            },
        });
    }
    parts
}

fn only(body: &[u8], encoding: Option<&[u8]>) -> Shape {
    let body = Bytes::copy_from_slice(body);
    let shape = match Message::only(&body, encoding, LIMIT) {
        Ok(message) => {
            assert!(!message.compressed || message.bytes.len() <= LIMIT);
            Shape::default().with_length(message.bytes.len())
        }
        Err(error) => Shape::default().with_error(&error),
    };
    let apis = [
        Api::VllmGrpcGenerate,
        Api::VllmGrpcEmbed,
        Api::VertexChat,
        Api::VertexRaw,
    ];
    apis.iter().fold(shape, |shape, api| {
        shape.with(request(*api, &body, encoding))
    })
}

/// A request that is sent on under another name can still be read, with the same prompt.
fn request(api: Api, body: &Bytes, encoding: Option<&[u8]>) -> Shape {
    let hashing = PrefixHashing {
        block_tokens: 16,
        max_blocks: 64,
        max_tokens: 1_024,
    };
    let rename = |_: Option<&str>| Some("other".to_owned());
    let keep = |_: Option<&str>| None;
    let intake = |rewrite| Intake {
        rewrite,
        hashing,
        encoding,
        most_bytes: LIMIT,
    };
    let first = match read(api, body, WIDTH, &intake(&rename)) {
        Ok(first) => first,
        Err(error) => return Shape::default().with_error(&format!("{error:?}")),
    };
    let sent = edited(body, WIDTH, first.rename.clone());
    let second = read(api, &sent, WIDTH, &intake(&keep)).expect("what is sent on can be read");
    assert_eq!(first.prompt_tokens, second.prompt_tokens);
    assert_eq!(first.prefix, second.prefix, "the prompt was changed");
    Shape::default()
        .with(first.target.is_some())
        .with(first.stream)
        .with_length(first.prompt_tokens as usize)
}

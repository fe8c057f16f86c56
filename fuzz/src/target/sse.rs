//! Streams of events: however they are cut, the client gets the same bytes and the picker counts the same tokens.

use bytes::Bytes;
use epp::usage::sse::{Strip, Tap};
use epp::usage::tokens::Tokens;

use super::{Shape, Target, cut};

pub(super) static TARGET: Target = Target {
    name: "sse",
    words: &[
        b"data: ",
        b"\n\n",
        b"\r\n\r\n",
        b"data: [DONE]\n\n",
        b"event: message_delta\n",
        b": comment\n",
        b"\"usage\":null",
        b",\"usage\":null",
        b"\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}",
        b"\"choices\":[]",
        b"\"choices\":[{\"text\":\"a\"}]",
        b"\"type\":\"message_start\"",
        b"\"output_tokens\":4294967296",
        b"\"prompt_tokens_details\":{\"cached_tokens\":5}",
        b"\"meta_info\":{\"prompt_tokens\":1}",
    ],
    run,
};

const STRIPS: [Strip; 3] = [Strip::Nothing, Strip::UsageEvent, Strip::UsageEventAndNulls];

fn run(input: &[u8]) -> Shape {
    let (stream, width) = cut(input);
    STRIPS.iter().fold(Shape::default(), |shape, strip| {
        let whole = tapped(*strip, stream, stream.len().max(1));
        let pieces = tapped(*strip, stream, width);
        assert!(whole.given == pieces.given, "cut elsewhere, other bytes");
        assert_eq!(whole.tokens, pieces.tokens);
        assert_eq!(whole.choices, pieces.choices);
        if *strip == Strip::Nothing {
            assert!(whole.given == stream, "bytes lost or made up");
        }
        shape
            .with_length(stream.len() - whole.given.len().min(stream.len()))
            .with_length(whole.choices)
            .with(whole.tokens.map(|tokens| {
                let told = [tokens.prompt, tokens.cached, tokens.output, tokens.apart];
                told.map(|count| count.is_some())
            }))
    })
}

/// What came out of a tap.
struct Tapped {
    given: Vec<u8>,
    tokens: Option<Tokens>,
    choices: usize,
}

fn tapped(strip: Strip, stream: &[u8], width: usize) -> Tapped {
    let mut tap = Tap::new(strip);
    let (mut out, mut tokens, mut choices) = (Vec::<Bytes>::new(), None, 0);
    let mut see = |seen: epp::usage::sse::Seen| {
        choices += usize::from(seen.choice);
        if let Some(later) = seen.usage {
            tokens = Some(tokens.map_or(later, |earlier: Tokens| earlier.merge(later)));
        }
    };
    for piece in stream.chunks(width) {
        tap.push(Bytes::copy_from_slice(piece), &mut out, &mut see);
    }
    tap.finish(&mut out, &mut see);
    Tapped {
        given: out.concat(),
        tokens,
        choices,
    }
}

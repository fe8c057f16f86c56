use super::*;
use proptest::prelude::*;

/// On which streams the engine writes `"usage":null`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Nulls {
    Never,
    WhenAsked,
    Always,
}

/// A stream as an engine sends it: with `asked`, the usage event is there.
fn stream(nulls: Nulls, asked: bool, newline: &str) -> Vec<u8> {
    let null = if nulls == Nulls::Always || nulls == Nulls::WhenAsked && asked {
        r#", "usage" : null"#
    } else {
        ""
    };
    let mut text = String::new();
    for (index, token) in ["Hel", "lo \\\"usage\\\":null", ""].iter().enumerate() {
        let finish = if index == 2 { r#""stop""# } else { "null" };
        text += &format!(
            r#"data: {{"id":"c1","created":7{null},"choices":[{{"index":0,"delta":{{"content":"{token}"}},"finish_reason":{finish}}}]}}{newline}{newline}"#
        );
    }
    if asked {
        text += &format!(
            r#"data: {{"id":"c1","created":7,"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{{"cached_tokens":4}}}}}}{newline}{newline}"#
        );
    }
    text += &format!("data: [DONE]{newline}{newline}");
    text.into_bytes()
}

/// Runs pieces through a tap: the bytes given out, and what was seen.
fn run<'p>(strip: Strip, pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<u8>, Vec<Seen>) {
    let (mut tap, mut out, mut seen) = (Tap::new(strip), Vec::new(), Vec::new());
    for piece in pieces {
        tap.push(Bytes::copy_from_slice(piece), &mut out, |found| {
            seen.push(found)
        });
    }
    tap.finish(&mut out, |found| seen.push(found));
    (out.concat(), seen)
}

const USAGE: Tokens = Tokens {
    prompt: Some(9),
    cached: Some(4),
    output: Some(3),
    apart: None,
};

#[test]
fn stripping_restores_the_plain_stream_at_every_cut() {
    for (nulls, strip) in [
        (Nulls::Never, Strip::UsageEvent),
        (Nulls::Never, Strip::UsageEventAndNulls),
        (Nulls::WhenAsked, Strip::UsageEventAndNulls),
        (Nulls::Always, Strip::UsageEvent),
    ] {
        for newline in ["\n", "\r\n"] {
            let (plain, injected) = (stream(nulls, false, newline), stream(nulls, true, newline));
            for cut in 0..=injected.len() {
                let (out, seen) = run(strip, [&injected[..cut], &injected[cut..]]);
                assert_eq!(out, plain, "{nulls:?}, cut at {cut}");
                assert_eq!(
                    seen.iter().filter(|found| found.choice).count(),
                    3,
                    "cut at {cut}"
                );
                assert_eq!(
                    seen.iter().find_map(|found| found.usage),
                    Some(USAGE),
                    "cut at {cut}"
                );
            }
            assert_eq!(run(strip, injected.chunks(1)).0, plain, "byte by byte");
        }
    }
}

#[test]
fn a_null_is_cut_with_one_comma_wherever_it_stands() {
    for (event, expected) in [
        (r#"{"usage":null}"#, "{}"),
        (r#"{"usage":null, "choices":[]}"#, r#"{"choices":[]}"#),
        (r#"{"a":1,"usage":null,"b":2}"#, r#"{"a":1,"b":2}"#),
        (
            r#"{"a":{"usage":null},"usage":1}"#,
            r#"{"a":{"usage":null},"usage":1}"#,
        ),
    ] {
        let (out, _) = run(
            Strip::UsageEventAndNulls,
            [format!("data: {event}\n\n").as_bytes()],
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("data: {expected}\n\n")
        );
    }
}

#[test]
fn usage_and_done_in_one_frame_are_told_apart() {
    let usage = br#"data: {"choices":[],"usage":{"completion_tokens":3}}"#;
    let frame = [&usage[..], b"\n\ndata: [DONE]\n\n"].concat();
    let (out, seen) = run(Strip::UsageEvent, [&frame[..]]);
    assert_eq!(out, b"data: [DONE]\n\n");
    assert_eq!(seen[0].usage.unwrap().output, Some(3));
}

#[test]
fn a_last_event_without_its_blank_line_is_judged_at_the_end() {
    let (out, seen) = run(Strip::UsageEvent, [&b"data: {\"choices\":[{}]}\n\ndata: {\"choices\":[],\"usage\":{\"completion_tokens\":1}}"[..]]);
    assert_eq!(out, b"data: {\"choices\":[{}]}\n\n");
    assert_eq!(seen[1].usage.unwrap().output, Some(1));
    assert_eq!(
        run(Strip::UsageEvent, [&b"data: [DONE]"[..]]).0,
        b"data: [DONE]"
    );
}

#[test]
fn usage_beside_a_choice_and_events_of_other_kinds_stay() {
    let text = b": comment\n\nevent: x\ndata: {\"choices\":[{\"text\":\"\"}],\"usage\":{\"completion_tokens\":2}}\n\n\n\ndata: {\"choices\":[]}\n\n";
    let (out, seen) = run(Strip::UsageEvent, [&text[..]]);
    assert_eq!(out, text);
    assert_eq!(seen.iter().filter_map(|found| found.usage).count(), 1);
}

#[test]
fn an_observer_passes_the_very_pieces() {
    let piece = Bytes::from(stream(Nulls::Never, true, "\n"));
    let (mut tap, mut out) = (Tap::new(Strip::Nothing), Vec::new());
    let cut = 40;
    tap.push(piece.slice(..cut), &mut out, |_| {});
    assert_eq!(out.len(), 1, "nothing is held back");
    tap.push(piece.slice(cut..), &mut out, |_| {});
    assert_eq!(
        out.iter().map(|given| given.as_ptr()).collect::<Vec<_>>(),
        [piece.as_ptr(), piece[cut..].as_ptr()]
    );
}

#[test]
fn a_giant_event_passes_and_is_counted_once() {
    let giant = format!(
        "data: {{\"choices\":[{{\"text\":\"{}\"}}]}}\n\n",
        "x".repeat(3 * EVENT_LIMIT)
    );
    let after = "data: {\"choices\":[],\"usage\":{}}\n\n";
    let text = format!("{giant}{after}");
    for size in [
        1000,
        EVENT_LIMIT - 1,
        EVENT_LIMIT,
        EVENT_LIMIT + 1,
        text.len(),
    ] {
        let (mut tap, mut out, mut choices, mut most) =
            (Tap::new(Strip::UsageEventAndNulls), Vec::new(), 0, 0);
        for piece in text.as_bytes().chunks(size) {
            tap.push(Bytes::copy_from_slice(piece), &mut out, |found| {
                choices += usize::from(found.choice)
            });
            most = most.max(tap.partial.len());
        }
        tap.finish(&mut out, |_| {});
        assert_eq!(out.concat(), giant.as_bytes(), "pieces of {size}");
        assert_eq!(choices, 1, "pieces of {size}");
        assert!(most <= EVENT_LIMIT);
    }
}

/// The events of one stream: their kinds and data.
fn named(events: &[(&str, &str)]) -> Vec<u8> {
    let event = |(kind, data): &(&str, &str)| format!("event: {kind}\ndata: {data}\n\n");
    events.iter().map(event).collect::<String>().into_bytes()
}

/// Token counts and events with a part of the answer, whatever the cut.
fn at_every_cut(stream: &[u8]) -> (Tokens, usize, u32) {
    let sum = |seen: &[Seen]| {
        let tokens = seen
            .iter()
            .filter_map(|seen| seen.usage)
            .fold(Tokens::default(), Tokens::merge);
        let choices = seen.iter().filter(|seen| seen.choice).count();
        (tokens, choices, seen.iter().map(|seen| seen.ids).sum())
    };
    let (passed, seen) = run(Strip::Nothing, [stream]);
    assert_eq!(passed, stream);
    let whole = sum(&seen);
    for cut in 0..=stream.len() {
        let (passed, seen) = run(Strip::Nothing, [&stream[..cut], &stream[cut..]]);
        assert_eq!(passed, stream, "cut at {cut}");
        assert_eq!(sum(&seen), whole, "cut at {cut}");
    }
    whole
}

#[test]
fn pitfall_15_anthropics_usage_is_put_together_at_every_cut() {
    let stream = named(&[
        (
            "message_start",
            r#"{"type":"message_start","message":{"id":"m","model":"x","content":[],"usage":{"input_tokens":10,"cache_read_input_tokens":90,"output_tokens":1}}}"#,
        ),
        (
            "content_block_start",
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ),
        ("ping", r#"{"type":"ping"}"#),
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\"usage\":{\"output_tokens\":9}"}}"#,
        ),
        (
            "content_block_delta",
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}"#,
        ),
        (
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":42}}"#,
        ),
        ("message_stop", r#"{"type":"message_stop"}"#),
    ]);
    let (tokens, choices, _) = at_every_cut(&stream);
    assert_eq!(
        (tokens.whole_prompt(), tokens.cached, tokens.output),
        (Some(100), Some(90), Some(42))
    );
    assert_eq!(choices, 2);
}

#[test]
fn usage_of_responses_is_found_in_their_last_event_at_every_cut() {
    let stream = named(&[
        (
            "response.created",
            r#"{"type":"response.created","response":{"id":"r","usage":null}}"#,
        ),
        (
            "response.output_text.delta",
            r#"{"type":"response.output_text.delta","delta":"He"}"#,
        ),
        (
            "response.output_text.done",
            r#"{"type":"response.output_text.done","text":"He"}"#,
        ),
        (
            "response.completed",
            r#"{"type":"response.completed","response":{"id":"r","output":[{"text":"He"}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3},"user":null}}"#,
        ),
    ]);
    let (tokens, choices, _) = at_every_cut(&stream);
    assert_eq!(
        (tokens.whole_prompt(), tokens.cached, tokens.output),
        (Some(9), Some(4), Some(3))
    );
    assert!(choices >= 1);
}

#[test]
fn usage_at_the_end_of_a_giant_event_is_found() {
    let giant = format!(
        r#"{{"type":"response.completed","response":{{"output":[{{"text":"{}"}}],"usage":{{"input_tokens":9,"output_tokens":3}}}}}}"#,
        "x".repeat(5 * EVENT_LIMIT)
    );
    let stream = named(&[("response.completed", &giant)]);
    for size in [700, EVENT_LIMIT, stream.len()] {
        for stream in [&stream[..], &stream[..stream.len() - 2]] {
            let (passed, seen) = run(Strip::Nothing, stream.chunks(size));
            assert_eq!(passed, stream);
            let usage = seen.iter().find_map(|seen| seen.usage).unwrap();
            assert_eq!(
                (usage.prompt, usage.output),
                (Some(9), Some(3)),
                "pieces of {size}"
            );
        }
    }
}

#[test]
fn sglangs_counts_grow_and_the_last_ones_count() {
    let mut stream = Vec::new();
    for tokens in 1..=3 {
        stream.extend_from_slice(
            format!("data: {{\"text\":\"a\",\"meta_info\":{{\"prompt_tokens\":9,\"completion_tokens\":{tokens},\"cached_tokens\":4}}}}\n\n")
                .as_bytes(),
        );
    }
    stream.extend_from_slice(b"data: [DONE]\n\n");
    assert_eq!(at_every_cut(&stream), (USAGE, 3, 0));
}

#[test]
fn token_ids_are_counted_where_there_are_any() {
    let stream = b"data: {\"request_id\":\"r\",\"choices\":[{\"index\":0,\"token_ids\":[1,2,3]}]}\n\ndata: {\"choices\":[{\"token_ids\":[4],\"index\":0},{\"token_ids\":null}]}\n\n";
    let (tokens, choices, ids) = at_every_cut(stream);
    assert_eq!((tokens, choices, ids), (Tokens::default(), 2, 4));
}

proptest! {
    #[test]
    fn an_observer_changes_nothing_and_a_stripper_only_removes(text in r#"(data: (\{"choices":\[\{?\}?\],"usage":(null|\{\})\}|\[DONE\]|x)(\r?\n){0,3}){0,6}"#, cuts in proptest::collection::vec(0usize..200, 0..4)) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&text.as_bytes()[from..cut]);
            from = cut;
        }
        let (observed, _) = run(Strip::Nothing, pieces.iter().copied());
        prop_assert_eq!(observed, text.as_bytes());
        let (stripped, _) = run(Strip::UsageEvent, pieces);
        let (whole, _) = run(Strip::UsageEvent, [text.as_bytes()]);
        prop_assert_eq!(stripped, whole);
    }
}

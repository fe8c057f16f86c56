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

use super::super::json::Reader;
use super::*;
use proptest::prelude::*;

/// Writes down what it is told; passes over the values of members called `past`.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    text: Vec<u8>,
    past: bool,
}

impl Sink for Told {
    type Error = JsonError;

    fn key(&mut self, key: &[u8], depth: usize) {
        self.lines
            .push(format!("key {} of depth {depth}", key.escape_ascii()));
        self.past = key == b"past";
    }

    fn begin(&mut self, kind: Kind, at: usize, depth: usize) -> Result<Look, JsonError> {
        self.lines.push(format!("{kind:?} at {at}, depth {depth}"));
        self.text.clear();
        Ok(if std::mem::take(&mut self.past) {
            Look::Past
        } else {
            Look::Into
        })
    }

    fn text(&mut self, run: &[u8]) -> Result<(), JsonError> {
        self.text.extend_from_slice(run);
        Ok(())
    }

    fn end(&mut self, kind: Kind, at: usize, depth: usize) -> Result<(), JsonError> {
        let text = std::mem::take(&mut self.text);
        self.lines.push(format!(
            "{kind:?} to {at}, depth {depth}: {}",
            text.escape_ascii()
        ));
        Ok(())
    }
}

fn told<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<Vec<String>, JsonError> {
    let (mut scanner, mut told) = (Scanner::default(), Told::default());
    for piece in pieces {
        scanner.push(piece, &mut told)?;
    }
    scanner.finish(&mut told)?;
    Ok(told.lines)
}

/// What the pull reader makes of it, everything decoded.
fn pulled(text: &[u8]) -> Result<(), JsonError> {
    fn value(reader: &mut Reader<'_>) -> Result<(), JsonError> {
        match reader.kind()? {
            Kind::Object => reader.object(|reader, key| {
                key.bytes()?;
                value(reader)
            }),
            Kind::Array => reader.array(value),
            Kind::String => reader.string()?.bytes().map(|_| ()),
            _ => reader.skip(),
        }
    }
    let mut reader = Reader::new(text);
    value(&mut reader)?;
    reader.end()
}

const TEXTS: &[&str] = &[
    r#"{}"#,
    r#" [ ] "#,
    r#"{"a":[1,-2.5e3,{"b":null}],"c":"\"\\","d":true}"#,
    r#"{"past":{"a":[1,"\q\""],"b":{}},"next":["x\/\b\f\n\r\t"],"past":"\u12\"","l":[[],{}]}"#,
    r#"["a\u00e9\ud83d\ude00z","\ud83dx","\ud83d\ud83d\ude00","\ude00","\ud83d\n","\ud83d"]"#,
    "{\"k\u{e9}\\u00e9\":\"é😀\", \"n\" : 12345678901234567890 , \"f\":false}",
    "0",
    r#""""#,
    "12 ",
];

#[test]
fn every_cut_tells_the_same() {
    for text in TEXTS {
        let text = text.as_bytes();
        let whole = told([text]).unwrap();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(told(pieces).as_ref(), Ok(&whole), "{}", text.escape_ascii());
            }
        }
        assert_eq!(told(text.chunks(1)), Ok(whole));
    }
}

#[test]
fn text_comes_decoded_and_what_is_passed_over_does_not_come() {
    let lines = told([TEXTS[4].as_bytes()]).unwrap().join("\n");
    for said in [
        "a\u{e9}\u{1f600}z",
        "\u{fffd}x",
        "\u{fffd}\u{1f600}",
        "\u{fffd}",
        "\u{fffd}\n",
    ] {
        let said = format!(": {}", said.as_bytes().escape_ascii());
        assert!(
            lines.lines().any(|line| line.ends_with(&said)),
            "{said}: {lines}"
        );
    }
    let lines = told([TEXTS[3].as_bytes()]).unwrap();
    assert_eq!(
        lines[1..5].join("; "),
        "key past of depth 1; Object at 8, depth 1; Object to 31, depth 1: ; key next of depth 1"
    );
}

#[test]
fn what_breaks_off_or_is_no_json_is_refused_where_the_reader_refuses_it() {
    for text in [
        "",
        "{",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        "[1 2]",
        "[1,]",
        "tru",
        "nulx",
        "fals]",
        "1.2.3",
        "-",
        r#""abc"#,
        "{} x",
        r#""abc\"#,
        "[1}",
        "{]",
        "]",
        r#"{1:2}"#,
        r#""ok\q""#,
        r#""\u12""#,
        r#"{"a" 1}"#,
    ] {
        let expected = pulled(text.as_bytes()).unwrap_err();
        assert_eq!(told([text.as_bytes()]).unwrap_err(), expected, "{text}");
        assert_eq!(
            told(text.as_bytes().chunks(1)).unwrap_err(),
            expected,
            "{text}"
        );
    }
    assert!(told(["[".repeat(1000).as_bytes()]).is_err());
    assert!(told([format!("{}{}", "[".repeat(128), "]".repeat(128)).as_bytes()]).is_ok());
}

proptest! {
    #[test]
    fn agrees_with_the_reader(text in r#"[\[\]{}",:0-9a-e \\trufnls/-]{0,24}"#, cut in any::<prop::sample::Index>()) {
        let text = text.as_bytes();
        let (first, second) = text.split_at(cut.index(text.len() + 1));
        let (pulled, told) = (pulled(text), told([first, second]));
        prop_assert_eq!(pulled.is_ok(), told.is_ok(), "{:?} {:?}", pulled, told);
    }

    #[test]
    fn never_panics_on_any_bytes(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
        let _ = told(pieces.iter().map(|piece| &piece[..]));
    }
}

use super::*;
use proptest::prelude::*;

fn whole(text: &[u8]) -> Result<Range<usize>, JsonError> {
    let mut reader = Reader::new(text);
    let span = reader.span()?;
    reader.end()?;
    Ok(span)
}

#[test]
fn well_formed_text_is_read_and_spans_are_exact() {
    for text in [
        r#"{}"#,
        r#"[]"#,
        r#"{"a":[1,-2.5e3,{"b":null}],"c":"\"\\","d":true}"#,
        "0",
        r#""""#,
    ] {
        assert_eq!(whole(text.as_bytes()), Ok(0..text.len()), "{text}");
    }
    assert_eq!(whole(b" \n{ }\t"), Ok(2..5));
}

#[test]
fn what_is_not_json_is_refused_where_it_stops() {
    for (text, at) in [
        ("", 0),
        ("{", 1),
        (r#"{"a"}"#, 4),
        (r#"{"a":}"#, 5),
        (r#"{"a":1,}"#, 7),
        ("[1 2]", 3),
        ("tru", 0),
        ("1.2.3", 0),
        ("-", 0),
        (r#""abc"#, 4),
        ("{} x", 3),
        (r#""abc\"#, 5),
    ] {
        assert_eq!(
            whole(text.as_bytes()).map_err(|error| error.at),
            Err(at),
            "{text}"
        );
    }
    assert!(whole("[".repeat(1000).as_bytes()).is_err());
}

#[test]
fn escapes_decode_and_bad_ones_say_where() {
    let decode = |text: &str| {
        Reader::new(text.as_bytes())
            .string()
            .unwrap()
            .decode()
            .map(Cow::into_owned)
    };
    assert_eq!(
        decode(r#""a\n\t\"\\\/\u00e9\ud83d\ude00z""#).unwrap(),
        "a\n\t\"\\/é😀z"
    );
    assert_eq!(decode(r#""\ud83dx""#).unwrap(), "\u{fffd}x");
    assert_eq!(
        decode(r#""ok\q""#),
        Err(JsonError {
            at: 3,
            expected: "an escape sequence of JSON"
        })
    );
}

#[test]
fn integers_are_told_from_other_numbers() {
    let read = |text: &str| Reader::new(text.as_bytes()).unsigned();
    assert_eq!(read("128"), Ok(Some(128)));
    assert_eq!(read("-1"), Ok(None));
    assert_eq!(read("1.5"), Ok(None));
    assert_eq!(read("99999999999999999999999"), Ok(Some(u64::MAX)));
    assert!(read("x").is_err());
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = whole(&text);
    }

    #[test]
    fn strings_decode_as_serde_json_decodes_them(text in any::<String>()) {
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(Reader::new(json.as_bytes()).string().unwrap().decode().unwrap(), text);
    }

    #[test]
    fn whatever_serde_json_accepts_is_accepted(text in r#"[\[\]{}",:0-9a-e \\tru-]{0,24}"#) {
        if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
            prop_assert!(whole(text.as_bytes()).is_ok());
        }
    }
}

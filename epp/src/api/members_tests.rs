use super::super::body::tests::{intake, plainly, read, rewriting, sent};
use super::super::paths::Api;
use super::*;

/// What pydantic writes for a model that nobody named; servers heed the last of two members.
#[test]
fn a_null_in_the_models_place_gives_way_to_the_rule() {
    let rewrite = |model: Option<&str>| model.is_none().then(|| "m-v2".to_owned());
    let intake = rewriting(&rewrite);
    for (body, expected) in [
        (
            r#"{"token_ids":[1],"model":null}"#,
            r#"{"token_ids":[1],"model":"m-v2"}"#,
        ),
        (
            r#"{"model":"x","token_ids":[1],"model": null}"#,
            r#"{"model":"x","token_ids":[1],"model": "m-v2"}"#,
        ),
        (
            r#"{"model":null,"token_ids":[1],"model":"x"}"#,
            r#"{"model":null,"token_ids":[1],"model":"x"}"#,
        ),
    ] {
        let read = read(Api::VllmGenerate, body, &intake).unwrap();
        assert_eq!(sent(body.as_bytes(), &read), expected.as_bytes());
    }
}

#[test]
fn a_models_name_has_a_longest_length() {
    let body =
        |length: usize| format!(r#"{{"model":"{}","prompt":"x"}}"#, "\\u0041".repeat(length));
    assert_eq!(
        plainly(Api::Completions, &body(LONGEST_NAME)).model.len(),
        LONGEST_NAME
    );
    let error = read(Api::Completions, body(LONGEST_NAME + 1), &intake()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field `model` is too long: give a name of at most 256 bytes"
    );
    assert_eq!(error.status(), 400);
}

#[test]
fn of_a_member_that_is_there_twice_the_last_counts_also_if_it_is_null() {
    let read = |more: &str| {
        let body = format!(r#"{{"model":"m","prompt":"x"{more}}}"#);
        plainly(Api::Completions, &body)
    };
    let (plain, salted) = (read(""), read(r#","cache_salt":"a""#));
    assert_ne!(plain.prefix, salted.prefix);
    for null in ["null", "7", "[1]"] {
        let both = read(&format!(r#","cache_salt":"a","cache_salt":{null}"#));
        assert_eq!(both.prefix, plain.prefix, "{null}");
    }
    assert!(read(r#","stream":true"#).stream);
    assert!(!read(r#","stream":true,"stream":null"#).stream);
}

#[test]
fn what_is_long_and_means_little_is_not_kept() {
    let long = "s".repeat(1 << 20);
    let body = |end: &str| {
        format!(
            r#"{{"model":"m","cache_salt":"{long}{end}","messages":[{{"role":"user","content":"x","{long}{end}":1}}]}}"#
        )
    };
    let mut members = Members::new(
        super::super::shape::of(Api::ChatCompletions).unwrap(),
        intake().hashing,
    );
    let mut scanner = super::super::scan::Scanner::default();
    for piece in body("a").as_bytes().chunks(9_000) {
        scanner.push(piece, &mut members).unwrap();
        assert!(members.text.capacity() < 2_000);
    }
    let prefix = |end: &str| plainly(Api::ChatCompletions, &body(end)).prefix;
    assert_eq!(prefix("a"), prefix("a"));
    assert_ne!(prefix("a"), prefix("b"));
    let digits = format!(
        r#"{{"model":"m","prompt":"x","max_tokens":{}}}"#,
        "1".repeat(5_000)
    );
    let error = read(Api::Completions, digits, &intake())
        .unwrap_err()
        .to_string();
    assert!(error.contains("4,096 characters"), "{error}");
}

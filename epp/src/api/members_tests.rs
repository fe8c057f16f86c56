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

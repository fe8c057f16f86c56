//! Whether a client asked for usage in its stream, and else the smallest edit that asks.

use super::edit::Edit;
use super::json::{JsonError, Kind, Reader};
use super::rope::Rope;
use std::ops::Range;

/// What the client's `stream_options` say about usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// There is nothing to ask: the answer is one document and carries its usage anyway, or the API has no such option.
    NoQuestion,
    /// The client asked for it, and gets it.
    Asked,
    /// The client did not ask; the edit asks for it.
    NotAsked(Edit),
    /// The client did not ask, and its options leave no room to ask in its place.
    Untouchable,
}

/// Reads the `stream_options` at `options` of a streamed request, whose closing brace is at `end`.
pub(super) fn usage(
    body: &Rope,
    options: Option<Range<usize>>,
    end: usize,
) -> Result<Usage, JsonError> {
    let Some(options) = options else {
        return Ok(Usage::NotAsked(Edit::fixed(
            end..end,
            r#","stream_options":{"include_usage":true}"#,
        )));
    };
    let text = body.slice(options.clone());
    let mut reader = Reader::new(&text);
    match reader.kind()? {
        Kind::Null => {
            return Ok(Usage::NotAsked(Edit::fixed(
                options,
                r#"{"include_usage":true}"#,
            )));
        }
        Kind::Object => {}
        _ => return Ok(Usage::Untouchable),
    }
    let mut include = None;
    let mut empty = true;
    let mut continuous = false;
    reader.object(|reader, key| {
        empty = false;
        let kind = reader.kind()?;
        let value = reader.span()?;
        match &*key.bytes()? {
            b"include_usage" => include = Some((kind, value)),
            // Usage on every event could not be told from what the client would have got.
            b"continuous_usage_stats" => continuous |= reader.slice(value) == b"true",
            _ => {}
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(match include {
        Some((Kind::Bool, value)) if reader.slice(value.clone()) == b"true" => Usage::Asked,
        _ if continuous => Usage::Untouchable,
        Some((Kind::Bool | Kind::Null, value)) => {
            Usage::NotAsked(Edit::fixed(value, "true").shifted(options.start))
        }
        Some(_) => Usage::Untouchable,
        None => {
            let text = if empty {
                r#""include_usage":true"#
            } else {
                r#","include_usage":true"#
            };
            let at = options.end - 1;
            Usage::NotAsked(Edit::fixed(at..at, text))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::body::tests::{intake, read};
    use super::super::edit;
    use super::super::paths::Api;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn asked(api: Api, body: &str) -> Usage {
        read(api, body, &intake()).unwrap().usage
    }

    /// Each line of the golden file: a body, a tab, what goes to the server (`=` for the same bytes).
    #[test]
    fn usage_is_asked_for_by_the_smallest_edit() {
        let golden = include_str!("../../tests/golden/include_usage.tsv");
        let mut cases = 0;
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let (before, after) = line.split_once('\t').unwrap();
            let after = if after == "=" { before } else { after };
            let edits = match asked(Api::Completions, before) {
                Usage::NotAsked(edit) => vec![edit],
                _ => vec![],
            };
            assert_eq!(
                edit::apply(Bytes::copy_from_slice(before.as_bytes()), edits),
                after,
                "{before}"
            );
            cases += 1;
        }
        assert!(cases >= 10, "only {cases} cases");
    }

    #[test]
    fn only_completions_and_chats_have_the_option() {
        let body = r#"{"model":"m","messages":[],"prompt":"","input":"","token_ids":[],"input_ids":[],"items":[],"stream":true}"#;
        for api in [Api::Completions, Api::ChatCompletions] {
            assert!(matches!(asked(api, body), Usage::NotAsked(_)), "{api:?}");
        }
        for api in [
            Api::Responses,
            Api::Embeddings,
            Api::Conversations,
            Api::Images,
            Api::Messages,
            Api::VllmGenerate,
            Api::SglangGenerate,
            Api::CompletionsRender,
        ] {
            assert_eq!(asked(api, body), Usage::NoQuestion, "{api:?}");
        }
    }

    fn with_usage_asked(mut body: Value) -> Value {
        match &mut body["stream_options"] {
            Value::Object(options) => drop(options.insert("include_usage".into(), json!(true))),
            options => *options = json!({"include_usage": true}),
        }
        body
    }

    proptest! {
        #[test]
        fn the_edited_body_differs_only_in_include_usage(
            prompt in any::<String>(),
            options in prop_oneof![Just(None), Just(Some(json!(null))), Just(Some(json!({}))), Just(Some(json!({"include_usage":false}))), Just(Some(json!({"x":{"include_usage":1}})))],
            pretty in any::<bool>(),
        ) {
            let mut value = json!({"model":"m","prompt":prompt,"stream":true,"n":1});
            if let Some(options) = options {
                value["stream_options"] = options;
            }
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let Usage::NotAsked(edit) = asked(Api::Completions, &text) else { return Err(TestCaseError::fail("must be asked for")) };
            let edited = edit::apply(Bytes::from(text), vec![edit]);
            prop_assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), with_usage_asked(value));
        }
    }
}

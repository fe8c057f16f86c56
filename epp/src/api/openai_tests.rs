use super::super::edit;
use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

const HASHING: PrefixHashing = PrefixHashing {
    block_tokens: 64,
    max_blocks: 2048,
    max_tokens: 131_072,
};

fn read(api: Api, body: &str) -> Result<Body, RequestError> {
    parse(api, body.as_bytes(), |_| None, HASHING)
}

fn completion(body: &str) -> Body {
    read(Api::Completions, body).unwrap()
}

#[test]
fn paths_select_by_their_longest_suffix() {
    assert_eq!(
        Api::of_path("/v1/chat/completions?x=1"),
        Some(Api::ChatCompletions)
    );
    assert_eq!(Api::of_path("/v1/completions"), Some(Api::Completions));
    assert_eq!(Api::of_path("/v1/embeddings"), None);
}

#[test]
fn a_completion_is_read_wherever_its_members_stand() {
    let body = completion(
        r#"{"stream":true,"prompt":"hello w\u00f6rld","max_tokens":16,"unknown":{"model":"x"},"model":"m"}"#,
    );
    assert_eq!(
        (body.model.as_str(), body.stream, body.max_output_tokens),
        ("m", true, Some(16))
    );
    assert_eq!(body.prompt_tokens, 3);
    assert_eq!(body.prefix.len(), 1);
}

#[test]
fn prompts_come_as_text_texts_ids_or_lists_of_ids() {
    assert_eq!(
        completion(r#"{"model":"m","prompt":["12345678","1234"]}"#).prompt_tokens,
        3
    );
    assert_eq!(
        completion(r#"{"model":"m","prompt":[1,2,70000]}"#).prompt_tokens,
        3
    );
    assert_eq!(
        completion(r#"{"model":"m","prompt":[[1,2],[3]]}"#).prompt_tokens,
        3
    );
}

#[test]
fn model_salt_and_rewrite_separate_prefixes_and_spelling_does_not() {
    let prefix = |body: &str| completion(body).prefix;
    let plain = prefix(r#"{"model":"m","prompt":"abc/d"}"#);
    assert_eq!(
        plain,
        prefix(r#"{ "prompt" : "abc\/\u0064", "model" : "m" }"#)
    );
    assert_ne!(plain, prefix(r#"{"model":"n","prompt":"abc/d"}"#));
    assert_ne!(
        plain,
        prefix(r#"{"model":"m","prompt":"abc/d","cache_salt":"s"}"#)
    );
    let rewritten = parse(
        Api::Completions,
        br#"{"model":"alias","prompt":"abc/d"}"#,
        |model| {
            assert_eq!(model, "alias");
            Some("m".into())
        },
        HASHING,
    )
    .unwrap();
    assert_eq!(plain, rewritten.prefix);
    assert_eq!(rewritten.target.as_deref(), Some("m"));
    let body = br#"{"model":"m","prompt":"abc/d"}"#;
    let same = parse(Api::Completions, body, |_| Some("m".into()), HASHING).unwrap();
    assert_eq!(same.target, None, "nothing changes");
}

#[test]
fn chats_share_the_prefix_of_their_messages_and_tools_come_first() {
    let chat = |messages: &str, rest: &str| {
        read(
            Api::ChatCompletions,
            &format!(r#"{{"messages":[{messages}],"model":"m"{rest}}}"#),
        )
        .unwrap()
    };
    let system = format!(r#"{{"role":"system","content":"{}"}}"#, "s".repeat(600));
    let one = chat(&format!(r#"{system},{{"role":"user","content":"a"}}"#), "");
    let two = chat(
        &format!(r#"{system},{{"role":"user","content":[{{"type":"text","text":"b"}}]}}"#),
        "",
    );
    assert_eq!(one.prefix[..2], two.prefix[..2]);
    assert_ne!(one.prefix[2], two.prefix[2]);
    let with_tools = chat(&system, r#","tools":[{"type":"function"}]"#);
    assert_ne!(with_tools.prefix[0], one.prefix[0]);
}

#[test]
fn the_chat_limit_prefers_max_completion_tokens() {
    let body = r#"{"model":"m","messages":[],"max_tokens":5,"max_completion_tokens":7}"#;
    assert_eq!(
        read(Api::ChatCompletions, body).unwrap().max_output_tokens,
        Some(7)
    );
    assert_eq!(
        completion(r#"{"model":"m","prompt":"","max_tokens":99999999999}"#).max_output_tokens,
        Some(u32::MAX)
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (body, said) in [
        (r#"{"prompt":"x"}"#, "field `model` is missing"),
        (r#"{"model":"m"}"#, "field `prompt` is missing"),
        (r#"{"model":7,"prompt":"x"}"#, "field `model` is a number"),
        (
            r#"{"model":"m","prompt":{}}"#,
            "field `prompt` is an object",
        ),
        (r#"{"model":"m","prompt":[1,-2]}"#, "no token id"),
        (
            r#"{"model":"m","prompt":"x","stream":1}"#,
            "field `stream` is a number",
        ),
        (
            r#"{"model":"m","prompt":"x","max_tokens":1.5}"#,
            "field `max_tokens` is no whole number",
        ),
        (r#"{"model":"m","prompt":"x""#, "not valid JSON at byte 25"),
        (r#"[]"#, "not valid JSON at byte 0: expected an object"),
        (
            r#"{"model":"m","prompt":"x"} trailing"#,
            "the end of the text",
        ),
    ] {
        let error = read(Api::Completions, body).unwrap_err();
        assert!(error.to_string().contains(said), "{body}: {error}");
        assert_eq!(error.status(), 400);
    }
    let error = read(Api::ChatCompletions, r#"{"model":"m","messages":"hi"}"#).unwrap_err();
    assert_eq!(error.param(), Some("messages"));
}

/// Each line of the golden file: a body, a tab, what goes to the server (`=` for the same bytes).
#[test]
fn usage_is_asked_for_by_the_smallest_edit() {
    let golden = include_str!("../../tests/golden/include_usage.tsv");
    let mut cases = 0;
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let (before, after) = line.split_once('\t').unwrap();
        let after = if after == "=" { before } else { after };
        let edits = match completion(before).usage {
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
        let Usage::NotAsked(edit) = completion(&text).usage else { return Err(TestCaseError::fail("must be asked for")) };
        let edited = edit::apply(Bytes::from(text), vec![edit]);
        prop_assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), with_usage_asked(value));
    }

    #[test]
    fn never_panics_on_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(Api::Completions, &body, |_| None, HASHING);
        let _ = parse(Api::ChatCompletions, &body, |_| None, HASHING);
    }
}

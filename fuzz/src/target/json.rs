//! Bodies of requests: read as every API reads them, renamed, asked for usage, and read again.

use bytes::Bytes;
use epp::api::body::{Body, Intake};
use epp::api::include_usage::Usage;
use epp::api::json::Reader;
use epp::api::paths::Api;
use epp_core::PrefixHashing;
use serde_json::Value;

use super::body::{edited, read};
use super::{Shape, Target};

pub(super) static TARGET: Target = Target {
    name: "json",
    words: &[
        b"\"model\":",
        b"\"prompt\":",
        b"\"messages\":",
        b"\"content\":",
        b"\"role\":\"user\"",
        b"\"input\":",
        b"\"system\":",
        b"\"tools\":",
        b"\"stream\":true",
        b"\"stream_options\":{\"include_usage\":false}",
        b"\"continuous_usage_stats\":true",
        b"\"max_tokens\":",
        b"\"cache_salt\":",
        b"\"token_ids\":[1,2]",
        b"\"input_ids\":",
        b"\"sampling_params\":{}",
        b"\"type\":\"image_url\"",
        b"null",
        b"18446744073709551616",
        b"-1e999",
        b"\\ud800",
        b"\\u0000",
        b"\"\\\\\"",
        b"\xff\xfe",
    ],
    run,
};

/// APIs whose bodies are JSON.
const APIS: [Api; 12] = [
    Api::Completions,
    Api::ChatCompletions,
    Api::CompletionsRender,
    Api::ChatCompletionsRender,
    Api::Embeddings,
    Api::Responses,
    Api::Conversations,
    Api::Images,
    Api::Messages,
    Api::CountTokens,
    Api::VllmGenerate,
    Api::SglangGenerate,
];

/// A name that needs escaping.
const TARGET_MODEL: &str = "the \"other\" model\n";

fn run(input: &[u8]) -> Shape {
    let body = Bytes::copy_from_slice(input);
    // Short pieces, so that everything is cut somewhere; which length, the input says.
    let width = 1 + input.len() % 13;
    APIS.iter().fold(scan(input), |shape, api| {
        shape.with(one(*api, &body, width))
    })
}

/// The reader alone, against one that builds a tree: what that one accepts, ours does.
fn scan(input: &[u8]) -> Shape {
    let mut reader = Reader::new(input);
    let read = reader.skip().and_then(|()| reader.end());
    if let (Err(error), Ok(tree)) = (&read, serde_json::from_slice::<Value>(input)) {
        assert!(depth(&tree) > 100, "{error}, yet it is JSON");
    }
    match read {
        Ok(()) => Shape::default().with_length(input.len()),
        Err(error) => Shape::default().with_error(&error),
    }
}

fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(values) => values.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

fn intake(rewrite: &dyn Fn(Option<&str>) -> Option<String>) -> Intake<'_> {
    Intake {
        rewrite,
        hashing: PrefixHashing {
            block_tokens: 16,
            max_blocks: 64,
            max_tokens: 1_024,
        },
        encoding: None,
        most_bytes: 1 << 20,
    }
}

/// What is sent on must be what was meant: the model renamed, the prompt untouched, usage asked for.
fn one(api: Api, body: &Bytes, width: usize) -> Shape {
    let rename = |_: Option<&str>| Some(TARGET_MODEL.to_owned());
    let first = match read(api, body, width, &intake(&rename)) {
        Ok(first) => first,
        Err(error) => return Shape::default().with_error(&format!("{error:?}")),
    };
    let mut edits = first.rename.clone();
    let asked = match &first.usage {
        Usage::NotAsked(edit) => {
            edits.push(edit.clone());
            true
        }
        _ => false,
    };
    let changed = !edits.is_empty();
    let sent = edited(body, width, edits);
    assert!(changed || sent == *body, "changed without an edit");
    let keep = |_: Option<&str>| None;
    let second = read(api, &sent, width, &intake(&keep)).expect("what is sent on can be read");
    if first.target.is_some() {
        assert_eq!(second.model, TARGET_MODEL);
    }
    if asked {
        assert_eq!(second.usage, Usage::Asked);
    }
    same_request(&first, &second);
    Shape::default()
        .with(changed)
        .with(first.stream)
        .with(first.max_output_tokens.is_some())
        .with_length(first.prompt_tokens as usize)
        .with_length(first.prefix.len())
}

fn same_request(first: &Body, second: &Body) {
    assert_eq!(first.stream, second.stream);
    assert_eq!(first.max_output_tokens, second.max_output_tokens);
    assert_eq!(first.prompt_tokens, second.prompt_tokens);
    assert_eq!(first.prefix, second.prefix, "the prompt was changed");
}

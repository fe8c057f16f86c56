//! What the fake model server says in APIs other than OpenAI's two: each answer has [`TOKENS`], counts them in
//! its API's own way, and names the model it was asked for.

use bytes::Bytes;
use epp::api::frame::{Message, framed};
use epp::api::proto::{Fields, Value as Field, put_bytes, put_varint};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::answers::{PROMPT_TOKENS, TOKENS};

/// Prompt tokens of every answer that came from the cache.
pub const CACHED_TOKENS: u32 = 4;

fn output() -> usize {
    TOKENS.len()
}

fn openai_usage() -> Value {
    json!({
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": output(),
    })
}

/// Anthropic counts what comes from the cache apart.
fn anthropic_usage(output: usize) -> Value {
    json!({
        "input_tokens": PROMPT_TOKENS - CACHED_TOKENS,
        "cache_read_input_tokens": CACHED_TOKENS,
        "output_tokens": output,
    })
}

fn sglang_meta(tokens: usize) -> Value {
    json!({
        "id": "answer-1",
        "finish_reason": {"type": "stop"},
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "cached_tokens": CACHED_TOKENS,
    })
}

/// The answer to `request` at `path` in one document; `None` = the path is OpenAI's completions' or chats'.
pub fn document(path: &str, request: &Value) -> Option<String> {
    let (model, text) = (&request["model"], TOKENS.concat());
    Some(
        match last(path) {
            "render" => json!([{"token_ids": [1, 2, 3], "model": model}]),
            "embeddings" => json!({
                "object": "list", "data": [{"index": 0, "embedding": [0.5, -0.5]}], "model": model,
                "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS},
            }),
            "responses" => json!({
                "id": "answer-1", "object": "response", "model": model,
                "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}],
                "usage": openai_usage(), "user": null,
            }),
            "conversations" => json!({"id": "conv_1", "object": "conversation", "metadata": {}}),
            "generations" => json!({
                "created": 1, "data": [{"b64_json": "AAAA"}], "model": model, "usage": openai_usage(),
            }),
            "messages" => json!({
                "id": "answer-1", "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
                "usage": anthropic_usage(output()),
            }),
            "count_tokens" => json!({"input_tokens": PROMPT_TOKENS}),
            "generate" if path == "/generate" => {
                json!({"text": text, "output_ids": [1, 2, 3, 4], "meta_info": sglang_meta(output())})
            }
            "generate" => json!({
                "request_id": "answer-1", "model": model, "choices": [{"index": 0, "token_ids": [1, 2, 3, 4]}],
                "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": output()},
            }),
            "completions" => return None,
            _ => json!({"path": path, "usage": openai_usage()}),
        }
        .to_string(),
    )
}

/// The same as a stream of events, each with its closing blank line.
pub fn events(path: &str, request: &Value) -> Option<Vec<String>> {
    Some(match last(path) {
        "responses" => responses(&request["model"]),
        "messages" => messages(&request["model"]),
        "generate" => {
            let event = |index: usize| match path {
                "/generate" => {
                    json!({"text": TOKENS[..=index].concat(), "meta_info": sglang_meta(index + 1)})
                }
                _ => json!({
                    "request_id": "answer-1", "model": request["model"],
                    "choices": [{"index": 0, "token_ids": [index]}],
                }),
            };
            let events = (0..output())
                .map(event)
                .map(|event| format!("data: {event}\n\n"));
            events.chain(["data: [DONE]\n\n".to_owned()]).collect()
        }
        _ => return None,
    })
}

fn responses(model: &Value) -> Vec<String> {
    let begun = json!({"id": "answer-1", "model": model, "usage": null});
    let mut all = vec![json!({"type": "response.created", "response": begun})];
    all.extend(TOKENS.map(|token| json!({"type": "response.output_text.delta", "delta": token})));
    let ended = json!({"id": "answer-1", "model": model, "output": [], "usage": openai_usage()});
    all.push(json!({"type": "response.completed", "response": ended}));
    named(all)
}

fn messages(model: &Value) -> Vec<String> {
    let begun =
        json!({"id": "answer-1", "model": model, "content": [], "usage": anthropic_usage(1)});
    let mut all = vec![
        json!({"type": "message_start", "message": begun}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    all.extend(TOKENS.map(|token| {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}})
    }));
    all.push(json!({"type": "content_block_stop", "index": 0}));
    all.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output()}}));
    all.push(json!({"type": "message_stop"}));
    named(all)
}

fn named(events: Vec<Value>) -> Vec<String> {
    let event = |event: Value| {
        let kind = event["type"].as_str().expect("every event has a type");
        format!("event: {kind}\ndata: {event}\n\n")
    };
    events.into_iter().map(event).collect()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The answer to a gRPC call: its messages, each a frame, and its trailers.
pub fn call(path: &str, body: &[u8]) -> (Vec<Bytes>, HeaderMap) {
    let body = Bytes::copy_from_slice(body);
    let message = Message::only(&body, Some(b"gzip"), 1 << 20)
        .expect("a frame")
        .bytes;
    let messages = match last(path) {
        "Generate" => generated(&message),
        "Embed" => vec![embedded()],
        _ => predicted(&message),
    };
    let frames = messages
        .iter()
        .map(|message| framed(message, false).into())
        .collect();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    (frames, trailers)
}

fn count(number: u64, value: u64, out: &mut Vec<u8>) {
    put_varint(number << 3, out);
    put_varint(value, out);
}

fn field(message: &[u8], number: u64) -> Option<Field<'_>> {
    let mut fields = Fields::of(message).map(|field| field.expect("a message"));
    fields.find_map(|field| (field.number == number).then_some(field.value))
}

/// vLLM's chunks and last message; what is not streamed has the last one alone.
fn generated(request: &[u8]) -> Vec<Vec<u8>> {
    let streamed = matches!(field(request, 5), Some(Field::Varint(1)));
    let chunk = |id: u8| {
        let mut chunk = Vec::new();
        put_bytes(1, &[id], &mut chunk);
        count(2, PROMPT_TOKENS.into(), &mut chunk);
        count(3, 1, &mut chunk);
        count(4, CACHED_TOKENS.into(), &mut chunk);
        chunk
    };
    let wrapped = |number, inner: &[u8]| {
        let mut message = Vec::new();
        put_bytes(number, inner, &mut message);
        message
    };
    let mut messages: Vec<_> = (0..if streamed { output() as u8 } else { 0 })
        .map(|id| wrapped(1, &chunk(id)))
        .collect();
    let mut complete = Vec::new();
    put_bytes(2, b"stop", &mut complete);
    count(3, PROMPT_TOKENS.into(), &mut complete);
    count(4, output() as u64, &mut complete);
    count(5, CACHED_TOKENS.into(), &mut complete);
    messages.push(wrapped(2, &complete));
    messages
}

fn embedded() -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(1, &[0; 8], &mut message);
    count(2, PROMPT_TOKENS.into(), &mut message);
    message
}

/// The JSON inside a request to Vertex.
pub fn inside(message: &[u8]) -> Value {
    let body = field(message, 2).and_then(|body| body.bytes());
    let data = body.and_then(|body| field(body, 2)?.bytes());
    serde_json::from_slice(data.expect("an HttpBody")).expect("JSON")
}

/// OpenAI's chat inside messages of Vertex: one per event, or one with all.
fn predicted(request: &[u8]) -> Vec<Vec<u8>> {
    let request = inside(request);
    let model = &request["model"];
    let usage = crate::answers::usage();
    let (kind, parts) = if request["stream"] == true {
        let event =
            |token| json!({"model": model, "choices": [{"index": 0, "delta": {"content": token}}]});
        let mut events: Vec<_> = TOKENS.map(event).into();
        events.push(json!({"model": model, "choices": [], "usage": usage}));
        let events = events.into_iter().map(|event| format!("data: {event}\n\n"));
        ("text/event-stream", events.collect())
    } else {
        let document = json!({"model": model, "choices": [], "usage": usage});
        ("application/json", vec![document.to_string()])
    };
    let message = |part: String| {
        let mut message = Vec::new();
        put_bytes(1, kind.as_bytes(), &mut message);
        put_bytes(2, part.as_bytes(), &mut message);
        message
    };
    parts.into_iter().map(message).collect()
}

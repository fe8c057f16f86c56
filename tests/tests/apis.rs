//! Every request API through Envoy and the picker, streaming and not: bytes, usage, names of models, errors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use epp::api::frame::{HEADER, framed};
use epp::api::proto::{put_bytes, put_varint};
use epp::bootstrap::ServerProtocol;
use http::Version;
use serde_json::{Value, json};
use system_tests::answers::{PROMPT_TOKENS, TOKENS, events as openai_events};
use system_tests::apis;
use system_tests::client::{Answer, Call};
use system_tests::script::{Framing, Script};
use system_tests::stack::{Setup, Stack};

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const REWRITE: &str = "x-llm-d-model-name-rewrite";
const INPUT_TOKENS: &str = "llm_d_epp_request_input_tokens_sum";
const OUTPUT_TOKENS: &str = "llm_d_epp_request_output_tokens_sum";

/// Everything that speaks JSON.
const JSON_PARSERS: &[&str] = &[
    "openai-parser",
    "anthropic-parser",
    "vllmhttp-parser",
    "sglanghttp-parser",
    "passthrough-parser",
];

/// What is in a test body in place of the model's name.
const NAMED: &str = "MODEL";

/// One API: its path, a body, whether it streams, and whether its answers tell usage.
struct Api {
    path: &'static str,
    body: &'static str,
    streams: bool,
    /// Prompt and output tokens that the picker is to learn of; `None` = it does not look.
    usage: Option<(u32, usize)>,
}

const fn api(
    path: &'static str,
    body: &'static str,
    streams: bool,
    usage: Option<(u32, usize)>,
) -> Api {
    Api {
        path,
        body,
        streams,
        usage,
    }
}

const ANSWERED: Option<(u32, usize)> = Some((PROMPT_TOKENS, TOKENS.len()));

const APIS: &[Api] = &[
    api(
        "/v1/responses",
        "{ \"model\" : \"MODEL\",\"input\":\"h\\u00e9\" }",
        true,
        ANSWERED,
    ),
    api(
        "/v1/messages",
        r#"{"model":"MODEL","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#,
        true,
        ANSWERED,
    ),
    api(
        "/inference/v1/generate",
        r#"{"token_ids":[1,2,3],"model":"MODEL","sampling_params":{"max_tokens":4}}"#,
        true,
        // A stream tells no prompt tokens: those of the request are the real ones.
        Some((3, TOKENS.len())),
    ),
    api("/generate", r#"{"text":"hi"}"#, true, ANSWERED),
    api(
        "/v1/embeddings",
        r#"{"model":"MODEL","input":["a",  "b"]}"#,
        false,
        Some((PROMPT_TOKENS, 0)),
    ),
    api(
        "/v1/images/generations",
        r#"{"model":"MODEL","prompt":"a cat","n":1}"#,
        false,
        ANSWERED,
    ),
    api(
        "/v1/chat/completions/render",
        r#"{"model":"MODEL","messages":[]}"#,
        false,
        None,
    ),
    api(
        "/v1/completions/render",
        r#"{"model":"MODEL","prompt":"hi"}"#,
        false,
        None,
    ),
    api(
        "/v1/conversations",
        r#"{"items":[{"content":"hi"}]}"#,
        false,
        None,
    ),
    api(
        "/v1/messages/count_tokens",
        r#"{"model":"MODEL","messages":[]}"#,
        false,
        None,
    ),
    api("/v1/rerank", r#"not even JSON"#, false, None),
];

impl Api {
    fn body(&self, model: &str, stream: bool) -> String {
        let body = self.body.replace(NAMED, model);
        if stream {
            body.replacen('{', "{\"stream\":true,", 1)
        } else {
            body
        }
    }

    /// What the server answers to `body`.
    fn answer(&self, body: &str, stream: bool) -> String {
        let request: Value = serde_json::from_str(body).unwrap_or_default();
        if stream {
            apis::events(self.path, &request).unwrap().concat()
        } else {
            apis::document(self.path, &request).unwrap()
        }
    }

    fn forms(&self) -> impl Iterator<Item = bool> {
        [false, true]
            .into_iter()
            .filter(|stream| !stream || self.streams)
    }
}

#[tokio::test]
async fn every_json_api_passes_unchanged_and_tells_its_usage() {
    let stack = Stack::start(Setup {
        parsers: JSON_PARSERS,
        ..Setup::new(PICKER)
    })
    .await;
    let mut served = 0;
    for (index, api) in APIS.iter().enumerate() {
        for stream in api.forms() {
            let before = stack.picker.metrics().await;
            let model = format!("fake-{index}-{stream}");
            let body = api.body(&model, stream);
            let answer = Call::post(api.path, body.clone()).send(stack.proxy).await;
            assert_eq!(answer.status, 200, "{} {}", api.path, answer.text());
            assert_eq!(answer.text(), api.answer(&body, stream), "{}", api.path);
            let received = stack.server().received().pop().unwrap();
            assert_eq!(
                (received.path.as_str(), &received.body[..]),
                (api.path, body.as_bytes())
            );
            served += 1;
            stack.idle().await;
            let after = stack.picker.metrics().await;
            let grown = |name| after.count(name, &[]) - before.count(name, &[]);
            let (prompt, output) = match api.usage {
                Some((prompt, _)) if api.path == "/inference/v1/generate" && !stream => {
                    assert_eq!(prompt, 3);
                    (PROMPT_TOKENS, TOKENS.len())
                }
                Some(usage) => usage,
                None => (u32::MAX, 0),
            };
            assert_eq!(grown(OUTPUT_TOKENS), output as u64, "{} {stream}", api.path);
            if api.usage.is_some() {
                assert_eq!(
                    grown(INPUT_TOKENS),
                    u64::from(prompt),
                    "{} {stream}",
                    api.path
                );
            }
        }
    }
    assert_eq!(
        stack.outcomes().await,
        [("Served".to_owned(), served)].into()
    );
}

/// The name that clients know a model by is what they see, wherever the stream is cut.
#[tokio::test]
async fn a_model_sent_on_under_another_name_comes_back_under_its_own() {
    let stack = Stack::start(Setup {
        parsers: JSON_PARSERS,
        ..Setup::new(PICKER)
    })
    .await;
    for api in APIS.iter().filter(|api| api.body.contains(NAMED)) {
        for stream in api.forms() {
            let (sent, wanted) = (api.body("client", stream), api.body("target/v2", stream));
            let whole = api.answer(&wanted, stream);
            let place = whole.find("\"model\"").unwrap_or(0);
            for cuts in [vec![], (place..place + 24).step_by(3).collect()] {
                stack.server().follow(Script {
                    framing: Framing::CutAt(cuts),
                    ..Script::default()
                });
                let answer = Call::post(api.path, sent.clone())
                    .header(REWRITE, "target/v2")
                    .header("accept-encoding", "gzip")
                    .send(stack.proxy)
                    .await;
                let received = stack.server().received().pop().unwrap();
                assert_eq!(received.body, wanted.as_bytes(), "{}", api.path);
                let length = received.body.len().to_string();
                assert_eq!(received.header("content-length"), Some(&*length));
                if api.usage.is_some() {
                    assert_eq!(received.header("accept-encoding"), None, "{}", api.path);
                    assert_eq!(answer.text(), whole.replace("target/v2", "client"));
                } else {
                    assert_eq!(answer.text(), whole, "{} passes unread", api.path);
                }
                assert!(!answer.cut);
            }
        }
    }
    stack.idle().await;
}

/// Usage that was asked for in the client's place is taken out, and the model's name put back, in one stream.
#[tokio::test]
async fn a_chat_gets_back_its_name_and_no_more_than_it_asked_for() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let path = "/v1/chat/completions";
    // The fake's own chats always name the model that it serves.
    let body = r#"{"model":"client","messages":[],"stream":true}"#;
    for cuts in [vec![], (0..400).step_by(7).collect()] {
        stack.server().follow(Script {
            framing: Framing::CutAt(cuts),
            ..Script::default()
        });
        let answer = Call::post(path, body)
            .header(REWRITE, "fake-model")
            .send(stack.proxy)
            .await;
        let plain = openai_events(path, false, Default::default()).concat();
        assert_eq!(answer.text(), plain.replace("fake-model", "client"));
        let received = stack.server().received().pop().unwrap().json();
        assert_eq!(received["model"], "fake-model");
        assert_eq!(received["stream_options"]["include_usage"], true);
    }
    stack.idle().await;
}

#[tokio::test]
async fn errors_have_the_shape_of_their_api_and_paths_are_those_of_the_parsers() {
    let stack = Stack::start(Setup {
        parsers: &["anthropic-parser", "openai-parser"],
        ..Setup::new(PICKER)
    })
    .await;
    let wrong = Call::post("/v1/messages", "{").send(stack.proxy).await;
    assert_eq!(wrong.status, 400);
    let error = wrong.json();
    assert_eq!(
        (&error["type"], &error["error"]["type"]),
        (&json!("error"), &json!("invalid_request_error"))
    );
    assert_eq!(
        wrong.header("x-llm-d-request-dropped-reason"),
        Some("rejected-bad-request")
    );
    let unknown = Call::post("/inference/v1/generate", "{}")
        .send(stack.proxy)
        .await;
    assert_eq!(unknown.status, 400);
    let message = unknown.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("messages/count_tokens") && message.contains("chat/completions"),
        "{message}"
    );
    assert!(stack.server().received().is_empty());
}

const GENERATE: &str = "/vllm.grpc.engine.VllmEngine/Generate";
const EMBED: &str = "/vllm.grpc.engine.VllmEngine/Embed";
const CHAT: &str = "/google.cloud.aiplatform.v1beta1.PredictionService/ChatCompletions";
const RAW: &str = "/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict";

async fn grpc_stack() -> Stack {
    Stack::start(Setup {
        parsers: &["vllmgrpc-parser", "vertexai-parser", "openai-parser"],
        server_protocol: ServerProtocol::AsClient,
        ..Setup::new(PICKER)
    })
    .await
}

/// A `GenerateRequest` of three token ids, or an `EmbedRequest`.
fn tokenized(stream: bool) -> Vec<u8> {
    let (mut ids, mut message) = (Vec::new(), Vec::new());
    put_bytes(2, &[1, 2, 3], &mut ids);
    put_bytes(1, b"request-1", &mut message);
    put_bytes(2, &ids, &mut message);
    if stream {
        put_varint(5 << 3, &mut message);
        put_varint(1, &mut message);
    }
    message
}

fn ended(answer: &Answer) -> Option<&str> {
    let trailer = answer.trailers.get("grpc-status");
    trailer.map(|status| status.to_str().unwrap())
}

#[tokio::test]
async fn vllms_grpc_calls_pass_unchanged_and_tell_their_usage() {
    let stack = grpc_stack().await;
    let mut outputs = 0;
    for (path, stream, output) in [
        (GENERATE, true, TOKENS.len()),
        (GENERATE, false, TOKENS.len()),
        (EMBED, false, 0),
    ] {
        for compressed in [false, true] {
            let frame = Bytes::from(framed(&tokenized(stream), compressed));
            let answer = Call::grpc(path, frame.clone())
                .header(
                    "grpc-encoding",
                    if compressed { "gzip" } else { "identity" },
                )
                .send(stack.proxy)
                .await;
            assert_eq!((answer.status.as_u16(), ended(&answer)), (200, Some("0")));
            let plain = framed(&tokenized(stream), false);
            assert_eq!(answer.body, apis::call(path, &plain).0.concat());
            let received = stack.server().received().pop().unwrap();
            assert_eq!((received.path.as_str(), &received.body), (path, &frame));
            outputs += output as u64;
        }
    }
    stack.idle().await;
    let page = stack.picker.metrics().await;
    assert_eq!(page.count(OUTPUT_TOKENS, &[]), outputs);
    assert_eq!(page.count(INPUT_TOKENS, &[]), 6 * u64::from(PROMPT_TOKENS));
    assert_eq!(stack.outcomes().await, [("Served".to_owned(), 6)].into());
}

#[tokio::test]
async fn a_grpc_call_that_is_wrong_ends_with_a_status_of_its_own() {
    let stack = grpc_stack().await;
    let mut bomb = framed(&vec![0; 80 << 20], true);
    assert!(bomb.len() < 1 << 20);
    for (frame, status, said) in [
        (framed(b"\x0f", false), "3", "no protobuf message"),
        (framed(&[], false), "3", "input"),
        (b"\0\0\0\0\x09short".to_vec(), "3", "breaks off"),
        (std::mem::take(&mut bomb), "8", "larger than"),
    ] {
        let answer = Call::grpc(GENERATE, frame)
            .header("grpc-encoding", "gzip")
            .send(stack.proxy)
            .await;
        assert_eq!(answer.status, 200, "a gRPC call has a status of its own");
        assert_eq!(answer.header("grpc-status"), Some(status), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert_eq!(
            answer.header("x-llm-d-request-dropped-reason"),
            Some("rejected-bad-request")
        );
        let message = answer.header("grpc-message").unwrap();
        assert!(message.contains(said), "{message}");
    }
    assert!(stack.server().received().is_empty());
    stack.idle().await;
}

/// Vertex's messages wrap OpenAI's: models are renamed inside them, there and back.
#[tokio::test]
async fn vertexs_calls_are_read_and_renamed_inside_their_messages() {
    let stack = grpc_stack().await;
    let predict = |model: &str, stream: bool| {
        let chat = json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream});
        let (mut body, mut message) = (Vec::new(), Vec::new());
        put_bytes(1, b"application/json", &mut body);
        put_bytes(2, chat.to_string().as_bytes(), &mut body);
        put_bytes(1, b"projects/p/locations/l/endpoints/e", &mut message);
        put_bytes(2, &body, &mut message);
        framed(&message, false)
    };
    for path in [CHAT, RAW] {
        for stream in [false, true] {
            let call = Call::grpc(path, predict("client", stream));
            let answer = call.send(stack.proxy).await;
            assert_eq!(ended(&answer), Some("0"));
            let plain = apis::call(path, &predict("client", stream)).0.concat();
            assert_eq!(answer.body, plain);
            let renamed = call
                .header(REWRITE, "another-target")
                .send(stack.proxy)
                .await;
            assert_eq!(renamed.body, plain, "the client's own name comes back");
            let received = stack.server().received().pop().unwrap();
            assert_eq!(received.body, predict("another-target", stream));
            assert_eq!(
                apis::inside(&received.body[HEADER..])["model"],
                "another-target"
            );
        }
    }
    stack.idle().await;
    let page = stack.picker.metrics().await;
    assert_eq!(page.count(OUTPUT_TOKENS, &[]), 8 * TOKENS.len() as u64);
    assert_eq!(stack.outcomes().await, [("Served".to_owned(), 8)].into());
}

/// The servers of one pool may be asked over both versions of HTTP, or over the one that they speak.
#[tokio::test]
async fn servers_are_asked_as_the_client_asks_or_in_their_own_protocol() {
    let json = || Call::post("/v1/completions", r#"{"model":"m","prompt":"hi"}"#);
    for (server_protocol, spoken) in [
        (ServerProtocol::Http1, [Version::HTTP_11, Version::HTTP_11]),
        (ServerProtocol::Http2, [Version::HTTP_2, Version::HTTP_2]),
        (
            ServerProtocol::AsClient,
            [Version::HTTP_11, Version::HTTP_2],
        ),
    ] {
        let stack = Stack::start(Setup {
            server_protocol,
            ..Setup::new(PICKER)
        })
        .await;
        for call in [json(), json().http2()] {
            let answer = call.send(stack.proxy).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let received = stack.server().received();
        let versions: Vec<_> = received.iter().map(|request| request.version).collect();
        assert_eq!(versions, spoken, "{server_protocol:?}");
    }
}

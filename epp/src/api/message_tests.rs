//! Requests that are gRPC messages: vLLM's and Vertex's.

use super::body::Intake;
use super::body::tests::{intake, plainly, read, rewriting, sent};
use super::error::ErrorShape;
use super::frame::{Message, framed};
use super::include_usage::Usage;
use super::paths::Api;
use proptest::prelude::*;
use prost::Message as _;

#[derive(Clone, PartialEq, prost::Message)]
struct Tokenized {
    #[prost(string, tag = "1")]
    original_text: String,
    #[prost(uint32, repeated, tag = "2")]
    input_ids: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sampling {
    #[prost(float, optional, tag = "1")]
    temperature: Option<f32>,
    #[prost(uint32, optional, tag = "8")]
    max_tokens: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Range_ {
    #[prost(uint32, tag = "1")]
    offset: u32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Multimodal {
    #[prost(message, repeated, tag = "5")]
    mm_placeholders: Vec<Range_>,
    #[prost(string, repeated, tag = "6")]
    mm_hashes: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Generate {
    #[prost(string, tag = "1")]
    request_id: String,
    #[prost(message, optional, tag = "2")]
    tokenized: Option<Tokenized>,
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
    #[prost(message, optional, tag = "4")]
    sampling_params: Option<Sampling>,
    #[prost(bool, tag = "5")]
    stream: bool,
    #[prost(message, optional, tag = "7")]
    mm_inputs: Option<Multimodal>,
}

fn generate(hash: Option<&str>) -> Generate {
    Generate {
        request_id: "r".into(),
        tokenized: Some(Tokenized {
            original_text: "for reference".into(),
            input_ids: (0..300).collect(),
        }),
        sampling_params: Some(Sampling {
            temperature: Some(0.5),
            max_tokens: Some(77),
        }),
        stream: true,
        mm_inputs: hash.map(|hash| Multimodal {
            mm_placeholders: vec![Range_ {
                offset: 100,
                length: 5,
            }],
            mm_hashes: vec![hash.into()],
        }),
        text: None,
    }
}

#[test]
fn vllms_messages_are_read_plain_and_compressed() {
    let message = generate(None).encode_to_vec();
    let plain = read(Api::VllmGrpcGenerate, framed(&message, false), &intake()).unwrap();
    assert_eq!(
        (plain.stream, plain.max_output_tokens, plain.prompt_tokens),
        (true, Some(77), 300)
    );
    assert_eq!((plain.prefix.len(), &*plain.model), (5, ""));
    let gzip = Intake {
        encoding: Some(b"gzip"),
        ..intake()
    };
    let compressed = read(Api::VllmGrpcGenerate, framed(&message, true), &gzip).unwrap();
    assert_eq!(compressed, plain);
    let unsaid = read(Api::VllmGrpcGenerate, framed(&message, true), &intake()).unwrap_err();
    assert!(unsaid.to_string().contains("grpc-encoding"), "{unsaid}");
    let small = Intake {
        most_bytes: 100,
        ..gzip
    };
    let bomb = read(Api::VllmGrpcGenerate, framed(&message, true), &small).unwrap_err();
    assert_eq!(bomb.status(), 413);

    // The same ids hash alike in vLLM's own HTTP API.
    let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
    let json = format!(r#"{{"token_ids":[{}]}}"#, ids.join(","));
    assert_eq!(plainly(Api::VllmGenerate, &json).prefix, plain.prefix);

    let text = Generate {
        text: Some("12345678".into()),
        tokenized: None,
        ..generate(None)
    };
    let text = framed(&text.encode_to_vec(), false);
    assert_eq!(
        read(Api::VllmGrpcGenerate, text, &intake())
            .unwrap()
            .prompt_tokens,
        2
    );
}

#[test]
fn images_in_vllms_messages_tell_prompts_apart_from_their_place_on() {
    let prefix = |hash: Option<&str>| {
        let body = framed(&generate(hash).encode_to_vec(), false);
        read(Api::VllmGrpcGenerate, body, &intake()).unwrap().prefix
    };
    let (none, one, two) = (prefix(None), prefix(Some("1")), prefix(Some("2")));
    assert_eq!((none[0], one[0]), (one[0], two[0]));
    assert!(none[1] != one[1] && one[1] != two[1]);
    let features = |hash: &str| {
        let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
        let features = format!(
            r#"{{"mm_placeholders":{{"image":[{{"offset":100,"length":5}}]}},"mm_hashes":{{"image":["{hash}"]}}}}"#
        );
        let body = format!(
            r#"{{"features":{features},"token_ids":[{}]}}"#,
            ids.join(",")
        );
        plainly(Api::VllmGenerate, &body).prefix
    };
    assert_eq!(features("1"), one);
    assert_eq!(features("2"), two);
}

#[test]
fn embeddings_over_grpc_have_a_prompt_and_no_answer() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Embed {
        #[prost(string, tag = "1")]
        request_id: String,
        #[prost(message, optional, tag = "2")]
        tokenized: Option<Tokenized>,
    }
    let message = Embed {
        request_id: "r".into(),
        tokenized: generate(None).tokenized,
    };
    let body = framed(&message.encode_to_vec(), false);
    let read = read(Api::VllmGrpcEmbed, body, &intake()).unwrap();
    assert_eq!((read.prompt_tokens, read.stream), (300, false));
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpBody {
    #[prost(string, tag = "1")]
    content_type: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawPredict {
    #[prost(string, tag = "1")]
    endpoint: String,
    #[prost(message, optional, tag = "2")]
    http_body: Option<HttpBody>,
    #[prost(string, tag = "3")]
    later: String,
}

fn predict(json: &str) -> RawPredict {
    RawPredict {
        endpoint: "projects/p/locations/l/endpoints/e".into(),
        http_body: Some(HttpBody {
            content_type: "application/json".into(),
            data: json.into(),
        }),
        later: "kept".into(),
    }
}

#[test]
fn vertexs_messages_are_read_like_the_json_inside() {
    let chat =
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":9}"#;
    for api in [Api::VertexChat, Api::VertexRaw] {
        let body = framed(&predict(chat).encode_to_vec(), false);
        let read = read(api, body, &intake()).unwrap();
        let inside = plainly(Api::ChatCompletions, chat);
        assert_eq!(
            (&read.model, read.stream, read.max_output_tokens),
            (&inside.model, true, Some(9))
        );
        assert_eq!(read.prefix, inside.prefix);
        assert_eq!(read.usage, Usage::NoQuestion);
    }
    for json in [r#"{"prompt":"12345678"}"#, r#"{"input":["12345678"]}"#] {
        let body = framed(&predict(json).encode_to_vec(), false);
        let read = read(Api::VertexRaw, body, &intake()).unwrap();
        assert!(read.prompt_tokens >= 2, "{json}");
    }
    let body = framed(&predict("{").encode_to_vec(), false);
    let error = read(Api::VertexRaw, body, &intake()).unwrap_err();
    assert_eq!(Api::VertexRaw.errors().grpc_status(error.status()), Some(3));
    assert_eq!(Api::VertexRaw.errors(), ErrorShape::Grpc);
}

proptest! {
    #[test]
    fn a_model_inside_a_message_is_renamed_and_every_length_with_it(
        padding in 0usize..20_000,
        target in "[a-z]{1,300}",
        compressed in any::<bool>(),
    ) {
        let json = |model: &str| format!(r#"{{"messages":[{{"content":"{}"}}],"model":"{model}"}}"#, "x".repeat(padding));
        let body = framed(&predict(&json("client")).encode_to_vec(), compressed);
        let rewrite = |_: Option<&str>| Some(target.clone());
        let intake = Intake { encoding: Some(b"gzip"), ..rewriting(&rewrite) };
        let read = read(Api::VertexRaw, &body, &intake).unwrap();
        let sent = sent(&body, &read);
        let message = Message::only(&sent, Some(b"gzip"), 100_000).unwrap();
        prop_assert_eq!(message.compressed, compressed);
        prop_assert_eq!(RawPredict::decode(message.bytes).unwrap(), predict(&json(&target)));
    }
}

use super::super::edit;
use super::super::frame::framed;
use super::super::paths::Parsers;
use super::*;
use epp_core::config::Parser;
use proptest::prelude::*;

const HASHING: PrefixHashing = PrefixHashing {
    block_tokens: 64,
    max_blocks: 2048,
    max_tokens: 131_072,
};

/// Nothing is rewritten.
pub(in super::super) fn intake() -> Intake<'static> {
    rewriting(&|_| None)
}

pub(in super::super) fn rewriting<'r>(
    rewrite: &'r dyn Fn(Option<&str>) -> Option<String>,
) -> Intake<'r> {
    Intake {
        rewrite,
        hashing: HASHING,
        encoding: None,
        most_bytes: 100_000,
    }
}

pub(in super::super) fn read(
    api: Api,
    body: impl AsRef<[u8]>,
    intake: &Intake<'_>,
) -> Result<Body, RequestError> {
    in_pieces(api, [body.as_ref()], intake)
}

/// The same of a body that comes in `pieces`.
fn in_pieces<'p>(
    api: Api,
    pieces: impl IntoIterator<Item = &'p [u8]>,
    intake: &Intake<'_>,
) -> Result<Body, RequestError> {
    let (mut reading, mut rope) = (Reading::new(api, intake.hashing), Rope::default());
    for piece in pieces {
        reading.push(piece)?;
        rope.push(Bytes::copy_from_slice(piece));
    }
    reading.finish(&rope, intake)
}

/// What is read of the JSON inside another body.
pub(in super::super) fn inner(api: Api, body: &str) -> Body {
    super::inner(api, Bytes::copy_from_slice(body.as_bytes()), &intake()).unwrap()
}

pub(in super::super) fn plainly(api: Api, body: &str) -> Body {
    read(api, body, &intake()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// What goes to the server.
pub(in super::super) fn sent(body: &[u8], read: &Body) -> Bytes {
    edit::apply(Bytes::copy_from_slice(body), read.rename.clone())
}

fn parsers() -> Parsers {
    let listed = [Parser::SglangHttp, Parser::VllmGrpc, Parser::VertexAi];
    let all: Vec<_> = Parser::AUTOMATIC.into_iter().chain(listed).collect();
    Parsers::new(&all)
}

/// Each line of the golden file: a path, a body, and what is read of it.
#[test]
fn bodies_of_every_api_are_read() {
    let golden = include_str!("../../tests/golden/requests.tsv");
    let parsers = parsers();
    let mut seen = std::collections::BTreeSet::new();
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let [path, body, model, stream, limit, tokens] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let api = parsers.of(path).unwrap();
        let read = plainly(api, body);
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
        assert_eq!(
            [
                if read.model.is_empty() {
                    "-"
                } else {
                    &read.model
                },
                if read.stream { "yes" } else { "no" },
                &number(read.max_output_tokens),
                &read.prompt_tokens.to_string(),
            ],
            [model, stream, limit, tokens],
            "{path} {body}"
        );
        assert_eq!(sent(body.as_bytes(), &read), body.as_bytes());
        assert_eq!(read.prefix.is_empty(), read.prompt_tokens == 0, "{body}");
        seen.insert(format!("{api:?}"));
    }
    assert_eq!(seen.len(), 13, "every JSON API and passthrough: {seen:?}");
}

#[test]
fn model_salt_and_rewrite_separate_prefixes_and_spelling_does_not() {
    let prefix = |body: &str| plainly(Api::Completions, body).prefix;
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
    let body = r#"{"model":"alias","prompt":"abc/d"}"#;
    let rewritten = read(Api::Completions, body, &rewriting(&|_| Some("m".into()))).unwrap();
    assert_eq!(plain, rewritten.prefix);
    assert_eq!(rewritten.target.as_deref(), Some("m"));
    let body = r#"{"model":"m","prompt":"abc/d"}"#;
    let same = read(Api::Completions, body, &rewriting(&|_| Some("m".into()))).unwrap();
    assert_eq!(
        (same.target, same.rename),
        (None, vec![]),
        "nothing changes"
    );
}

#[test]
fn each_apis_own_salt_counts() {
    for (api, body, salt) in [
        (
            Api::Embeddings,
            r#"{"model":"m","input":"x"SALT}"#,
            "cache_salt",
        ),
        (Api::VllmGenerate, r#"{"token_ids":[1]SALT}"#, "cache_salt"),
        (Api::SglangGenerate, r#"{"input_ids":[1]SALT}"#, "extra_key"),
        (
            Api::ChatCompletions,
            r#"{"model":"m","messages":[{}]SALT}"#,
            "chat_template",
        ),
        (
            Api::ChatCompletions,
            r#"{"model":"m","messages":[{}]SALT}"#,
            "chat_template_kwargs",
        ),
    ] {
        let salted = |text: &str| plainly(api, &body.replace("SALT", text));
        let (plain, one) = (salted(""), salted(&format!(r#","{salt}":"1""#)));
        assert_ne!(plain.prefix, one.prefix, "{salt}");
        assert_eq!(plain.prompt_tokens, one.prompt_tokens, "{salt} is no text");
        assert_ne!(one.prefix, salted(&format!(r#","{salt}":"2""#)).prefix);
    }
}

#[test]
fn conversations_share_the_prefix_of_what_comes_first() {
    let long = "s".repeat(600);
    for (api, before, one, two) in [
        (
            Api::ChatCompletions,
            r#"{"model":"m","messages":[{"role":"system","content":"LONG"},"#,
            r#"{"role":"user","content":"a"}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"b"}]}]}"#,
        ),
        (
            Api::ChatCompletions,
            r#"{"tools":[{"type":"function","function":{"name":"LONG"}}],"model":"m","messages":["#,
            r#"{"role":"user","content":"a"}]}"#,
            r#"{"role":"user","content":"b"}]}"#,
        ),
        (
            Api::ChatCompletions,
            r#"{"model":"m","documents":[{"text":"LONG"}],"messages":["#,
            r#"{"role":"user","content":"a"}]}"#,
            r#"{"role":"user","content":"b"}]}"#,
        ),
        (
            Api::Responses,
            r#"{"model":"m","instructions":"LONG","input":"#,
            r#""a"}"#,
            r#"[{"role":"user","content":"b"}]}"#,
        ),
        (
            Api::Messages,
            r#"{"model":"m","system":[{"type":"text","text":"LONG"}],"messages":["#,
            r#"{"role":"user","content":"a"}]}"#,
            r#"{"role":"user","content":"b"}]}"#,
        ),
        (
            Api::Conversations,
            r#"{"items":[{"content":"LONG"},"#,
            r#"{"content":"a"}]}"#,
            r#"{"content":"b"}]}"#,
        ),
    ] {
        let before = before.replace("LONG", &long);
        let prefix = |after: &str| plainly(api, &format!("{before}{after}")).prefix;
        let (one, two) = (prefix(one), prefix(two));
        assert_eq!(one[..2], two[..2], "{before}");
        assert_ne!(one.last(), two.last(), "{before}");
    }
}

#[test]
fn what_is_wrong_is_named_in_each_api() {
    for (path, body, said) in [
        (
            "/v1/completions",
            r#"{"prompt":"x"}"#,
            "field `model` is missing",
        ),
        (
            "/v1/completions",
            r#"{"model":"m"}"#,
            "field `prompt` is missing",
        ),
        (
            "/v1/completions",
            r#"{"model":7,"prompt":"x"}"#,
            "field `model` is a number",
        ),
        (
            "/v1/completions",
            r#"{"model":null,"prompt":"x"}"#,
            "field `model` is null",
        ),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":{}}"#,
            "field `prompt` is an object",
        ),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":[1,-2]}"#,
            "no token id",
        ),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":"x","stream":1}"#,
            "field `stream` is a number",
        ),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":"x","max_tokens":1.5}"#,
            "field `max_tokens` is no whole number",
        ),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":"x""#,
            "not valid JSON at byte 25",
        ),
        (
            "/v1/completions",
            "[]",
            "not valid JSON at byte 0: expected an object",
        ),
        ("/v1/completions", "", "not valid JSON at byte 0"),
        (
            "/v1/completions",
            r#"{"model":"m","prompt":"x"} trailing"#,
            "the end of the text",
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"m","messages":"hi"}"#,
            "field `messages` is a string",
        ),
        (
            "/v1/embeddings",
            r#"{"model":"m"}"#,
            "field `input` is missing",
        ),
        (
            "/v1/responses",
            r#"{"model":"m","input":7}"#,
            "field `input` is a number",
        ),
        (
            "/v1/responses",
            r#"{"model":"m","instructions":[]}"#,
            "field `input` is missing",
        ),
        (
            "/v1/images/generations",
            r#"{"model":"m","prompt":null}"#,
            "field `prompt` is null",
        ),
        (
            "/v1/messages",
            r#"{"messages":[]}"#,
            "field `model` is missing",
        ),
        (
            "/v1/messages/count_tokens",
            r#"{"messages":"#,
            "not valid JSON at byte 12",
        ),
        (
            "/inference/v1/generate",
            r#"{"token_ids":"x"}"#,
            "field `token_ids` is a string",
        ),
        ("/generate", r#"{"rid":"1"}"#, "field `text` is missing"),
        (
            "/generate",
            r#"{"text":"x","sampling_params":{"max_new_tokens":"x"}}"#,
            "field `max_new_tokens` is a string",
        ),
        (
            "/vllm.grpc.engine.VllmEngine/Generate",
            "\0\0\0\0\x02",
            "breaks off after 5 of 7 bytes",
        ),
        (
            "/vllm.grpc.engine.VllmEngine/Generate",
            "\0\0\0\0\x01\x0f",
            "is no protobuf message",
        ),
        (
            "/vllm.grpc.engine.VllmEngine/Embed",
            "\0\0\0\0\0",
            "field `tokenized` is missing",
        ),
        (
            "/google.cloud.aiplatform.v1.PredictionService/RawPredict",
            "\0\0\0\0\0",
            "field `http_body` is missing",
        ),
    ] {
        let api = parsers().of(path).unwrap();
        let error = read(api, body, &intake()).unwrap_err();
        assert!(error.to_string().contains(said), "{path} {body}: {error}");
        assert_eq!(error.status(), 400);
    }
}

/// A model to send on under for those that name `m`, and for those that name none.
fn canary(model: Option<&str>) -> Option<String> {
    matches!(model, None | Some("m")).then(|| "m-\"v2\"".to_owned())
}

#[test]
fn a_rewritten_model_changes_nothing_else_in_any_api() {
    for (path, body) in [
        ("/v1/completions", r#"{ "prompt":"x","model" : "m" }"#),
        ("/v1/chat/completions", r#"{"model":"m","messages":[]}"#),
        (
            "/v1/chat/completions/render",
            r#"{"model":"m","messages":[]}"#,
        ),
        ("/v1/embeddings", r#"{"model":"m","input":"x"}"#),
        ("/v1/responses", r#"{"model":"m","input":"x"}"#),
        ("/v1/conversations", r#"{"model":"m","items":[]}"#),
        ("/v1/images/generations", r#"{"model":"m","prompt":"x"}"#),
        (
            "/v1/messages",
            r#"{"model":"m","messages":[{"model":"m"}]}"#,
        ),
        (
            "/v1/messages/count_tokens",
            r#"{"model":"m","messages":[]}"#,
        ),
        ("/inference/v1/generate", r#"{"model":"m","token_ids":[]}"#),
    ] {
        let read = read(parsers().of(path).unwrap(), body, &rewriting(&canary)).unwrap();
        let expected = body.replacen("\"m\"", r#""m-\"v2\"""#, 1);
        assert_eq!(sent(body.as_bytes(), &read), expected, "{path}");
        assert_eq!(
            (&*read.model, read.target.as_deref()),
            ("m", Some("m-\"v2\""))
        );
    }
    for (path, body) in [
        ("/generate", r#"{"model":"m","text":"x"}"#),
        ("/anything", r#"{"model":"m"}"#),
    ] {
        let read = read(parsers().of(path).unwrap(), body, &rewriting(&canary)).unwrap();
        assert_eq!((read.rename, read.target), (vec![], None), "{path}");
    }
}

#[test]
fn a_missing_model_is_right_where_a_rule_for_all_names_one() {
    for (path, body, expected) in [
        (
            "/v1/completions",
            r#" { "prompt":"x"}"#,
            r#" {"model":"m-\"v2\"", "prompt":"x"}"#,
        ),
        (
            "/v1/messages",
            r#"{"messages":[]}"#,
            r#"{"model":"m-\"v2\"","messages":[]}"#,
        ),
        (
            "/inference/v1/generate",
            r#"{"token_ids":[1]}"#,
            r#"{"model":"m-\"v2\"","token_ids":[1]}"#,
        ),
        (
            "/v1/messages/count_tokens",
            r#"{"messages":[]}"#,
            r#"{"messages":[]}"#,
        ),
        ("/v1/conversations", "{}", "{}"),
    ] {
        let read = read(parsers().of(path).unwrap(), body, &rewriting(&canary)).unwrap();
        assert_eq!(sent(body.as_bytes(), &read), expected, "{path}");
        assert_eq!(
            read.target, None,
            "there is no name of the client's to go back to"
        );
        assert_eq!(read.model.is_empty(), expected == body);
    }
    let read = read(Api::VllmGenerate, " { }", &rewriting(&canary));
    assert!(read.is_err(), "nothing is to be answered");
}

#[test]
fn every_cut_of_every_body_reads_the_same() {
    let golden = include_str!("../../tests/golden/requests.tsv");
    let parsers = parsers();
    let more = [
        (
            "/v1/chat/completions",
            r#"{"messages":[{"role":"us\u0065r","content":"h\ud83d\ude00 é"}],"mod\u0065l":"m","tools":[{"x":1.50}],"stream":true,"stream_options":{"include_usage":null},"chat_template":"t"}"#,
        ),
        (
            "/v1/messages",
            r#"{"model":"m","messages":[{"content":[{"type":"image","source":{"data":"AAAA","type":"base64"}},{"type":"document","source":{"type":"text","data":"t"}}]}]}"#,
        ),
        (
            "/inference/v1/generate",
            r#"{"token_ids":[1,2,300],"features":{"mm_hashes":{"i":["h"]},"mm_placeholders":{"i":[{"offset":1,"length":1}]}},"sampling_params":{"max_tokens":12},"cache_salt":"\n"}"#,
        ),
        ("/v1/completions", r#"{"model":"m","prompt":[1,-2]}"#),
        ("/v1/completions", r#"{"model":"m","prompt":"x","n":1.2.3}"#),
        ("/v1/completions", r#"{"model":"m","prompt":"x"}}"#),
    ];
    let lines = golden.lines().filter(|line| !line.starts_with('#'));
    let given = lines.filter_map(|line| {
        let mut fields = line.split('\t');
        Some((fields.next()?, fields.next()?))
    });
    for (path, body) in given.chain(more) {
        let api = parsers.of(path).unwrap();
        let whole = in_pieces(api, [body.as_bytes()], &rewriting(&canary));
        for cut in 0..=body.len() {
            let (first, second) = body.as_bytes().split_at(cut);
            let cut = in_pieces(api, [first, second], &rewriting(&canary));
            assert_eq!(cut, whole, "{path} {body}");
        }
        let single = in_pieces(api, body.as_bytes().chunks(1), &rewriting(&canary));
        assert_eq!(single, whole, "{path} {body}");
    }
}

#[test]
fn members_in_any_order_are_the_same_prompt() {
    let (tools, documents) = (
        r#""tools":[{"name":"LONG"}]"#,
        r#""documents":[{"text":"d"}]"#,
    );
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    let prefix = |members: [&str; 4]| {
        let body = format!("{{{}}}", members.join(",")).replace("LONG", &"l".repeat(700));
        plainly(Api::ChatCompletions, &body).prefix
    };
    let model = r#""model":"m""#;
    let first = prefix([model, tools, documents, messages]);
    assert_eq!(first, prefix([messages, documents, tools, model]));
    assert_eq!(first.len(), 5, "each begins a block");
}

proptest! {
    #[test]
    fn prompts_read_the_same_however_they_come(
        prompt in any::<String>(),
        ascii in any::<bool>(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut body = serde_json::json!({"prompt": prompt.repeat(20), "model": "m", "stream": true}).to_string();
        if ascii {
            let mut units = [0; 2];
            body = body.chars().map(|each| match each {
                ' '..='~' => each.to_string(),
                other => other.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            }).collect();
        }
        let body = body.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]);
        let read = in_pieces(Api::Completions, pieces, &intake()).unwrap();
        let mut hasher = HASHING.hasher();
        hasher.update(prompt.repeat(20).as_bytes());
        prop_assert_eq!((read.prompt_tokens, read.prefix), hasher.finish("m", ""));
        prop_assert!(matches!(read.usage, Usage::NotAsked(_)));
    }

    #[test]
    fn never_panics_on_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for api in [Api::Completions, Api::ChatCompletions, Api::Embeddings, Api::VllmGenerate, Api::SglangGenerate, Api::VertexRaw, Api::VllmGrpcGenerate, Api::VllmGrpcEmbed, Api::Messages] {
            let _ = read(api, &body, &intake());
            if api.grpc() {
                let _ = read(api, framed(&body, false), &intake());
            }
        }
    }
}

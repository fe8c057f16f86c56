use super::*;
use crate::usage::tokens::Tokens;
use prost::Message as _;

#[derive(Clone, PartialEq, prost::Message)]
struct Chunk {
    #[prost(uint32, repeated, tag = "1")]
    token_ids: Vec<u32>,
    #[prost(uint32, tag = "2")]
    prompt_tokens: u32,
    #[prost(uint32, tag = "3")]
    completion_tokens: u32,
    #[prost(uint32, tag = "4")]
    cached_tokens: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Complete {
    #[prost(uint32, repeated, tag = "1")]
    output_ids: Vec<u32>,
    #[prost(string, tag = "2")]
    finish_reason: String,
    #[prost(uint32, tag = "3")]
    prompt_tokens: u32,
    #[prost(uint32, tag = "4")]
    completion_tokens: u32,
    #[prost(uint32, tag = "5")]
    cached_tokens: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Generated {
    #[prost(message, optional, tag = "1")]
    chunk: Option<Chunk>,
    #[prost(message, optional, tag = "2")]
    complete: Option<Complete>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Embedded {
    #[prost(float, repeated, tag = "1")]
    embedding: Vec<f32>,
    #[prost(uint32, tag = "2")]
    prompt_tokens: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wrapping {
    #[prost(string, tag = "1")]
    content_type: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    extensions: Vec<Vec<u8>>,
}

/// An answer watched piece by piece: what passed, and what it told in all.
#[derive(Debug, Default, PartialEq)]
struct Told {
    passed: Vec<u8>,
    tokens: Tokens,
    choices: usize,
    ids: u32,
}

fn told<'p>(
    api: Api,
    events: bool,
    back: Option<(&str, &str)>,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Told {
    let mut rename = back.map(|(target, client)| Rename::new(target, client));
    let mut watch = Watch::of(api, events, true, Strip::Nothing, &mut rename);
    let mut told = Told::default();
    let mut out = Vec::new();
    let mut add = |seen: Seen| {
        told.tokens = told.tokens.merge(seen.usage.unwrap_or_default());
        told.choices += usize::from(seen.choice);
        told.ids += seen.ids;
    };
    for piece in pieces {
        watch.push(Bytes::copy_from_slice(piece), &mut out, &mut add);
    }
    watch.finish(&mut out, &mut add);
    told.passed = out.concat();
    told
}

/// The same at every cut.
fn at_every_cut(api: Api, back: Option<(&str, &str)>, answer: &[u8]) -> Told {
    let whole = told(api, false, back, [answer]);
    for cut in 0..=answer.len() {
        let cut_told = told(api, false, back, [&answer[..cut], &answer[cut..]]);
        assert_eq!(cut_told, whole, "cut at {cut}");
    }
    assert_eq!(
        told(api, false, back, answer.chunks(1)),
        whole,
        "byte by byte"
    );
    whole
}

const USAGE: Tokens = Tokens {
    prompt: Some(9),
    cached: Some(4),
    output: Some(3),
    apart: None,
};

/// Each line of the golden file: a path, whether it streams, an answer, and what it tells.
#[test]
fn answers_of_every_api_tell_their_usage() {
    use crate::api::paths::Parsers;
    use epp_core::config::Parser;
    let mut all = Parser::AUTOMATIC.to_vec();
    all.push(Parser::SglangHttp);
    let parsers = Parsers::new(&all);
    let golden = include_str!("../../tests/golden/answers.tsv");
    let mut cases = 0;
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let [path, form, answer, expected] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let answer = answer.replace("\\n", "\n");
        let api = parsers.of(path).unwrap();
        for size in [answer.len(), 1, 7] {
            let told = told(api, form == "stream", None, answer.as_bytes().chunks(size));
            assert_eq!(told.passed, answer.as_bytes());
            let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
            let found = [
                number(told.tokens.whole_prompt()),
                number(told.tokens.cached),
                number(told.tokens.output),
                told.choices.to_string(),
                told.ids.to_string(),
            ];
            assert_eq!(found.join(" "), expected, "{path}, pieces of {size}");
        }
        cases += 1;
    }
    assert!(cases >= 15, "only {cases} cases");
}

fn stream(compressed: bool) -> Vec<u8> {
    let chunk = |ids: &[u32]| Generated {
        chunk: Some(Chunk {
            token_ids: ids.to_vec(),
            prompt_tokens: 9,
            completion_tokens: ids.len() as u32,
            cached_tokens: 4,
        }),
        complete: None,
    };
    let complete = Generated {
        chunk: None,
        complete: Some(Complete {
            output_ids: vec![],
            finish_reason: "stop".into(),
            prompt_tokens: 9,
            completion_tokens: 0,
            cached_tokens: 4,
        }),
    };
    [chunk(&[1]), chunk(&[200_000]), chunk(&[3]), complete]
        .iter()
        .flat_map(|message| framed(&message.encode_to_vec(), compressed))
        .collect()
}

#[test]
fn vllms_chunks_are_counted_at_every_cut() {
    for compressed in [false, true] {
        let answer = stream(compressed);
        let told = at_every_cut(Api::VllmGrpcGenerate, None, &answer);
        assert_eq!(told.passed, answer, "nothing changes");
        assert_eq!((told.choices, told.ids), (3, 3));
        assert_eq!((told.tokens.prompt, told.tokens.cached), (Some(9), Some(4)));
    }
}

#[test]
fn vllms_whole_answers_tell_their_usage() {
    let complete = Generated {
        chunk: None,
        complete: Some(Complete {
            output_ids: vec![1, 2, 3],
            finish_reason: "stop".into(),
            prompt_tokens: 9,
            completion_tokens: 3,
            cached_tokens: 4,
        }),
    };
    let answer = framed(&complete.encode_to_vec(), false);
    let told = at_every_cut(Api::VllmGrpcGenerate, None, &answer);
    assert_eq!((told.tokens, told.choices), (USAGE, 0));
    let embedded = Embedded {
        embedding: vec![0.5; 100],
        prompt_tokens: 9,
    };
    let told = at_every_cut(
        Api::VllmGrpcEmbed,
        None,
        &framed(&embedded.encode_to_vec(), false),
    );
    assert_eq!((told.tokens.prompt, told.tokens.output), (Some(9), None));
}

fn wrapped(content_type: &str, parts: &[&str], compressed: bool) -> Vec<u8> {
    let message = |part: &&str| Wrapping {
        content_type: content_type.into(),
        data: part.as_bytes().to_vec(),
        extensions: vec![b"kept".to_vec()],
    };
    parts
        .iter()
        .flat_map(|part| framed(&message(part).encode_to_vec(), compressed))
        .collect()
}

/// What the messages of a stream wrap, and their content types.
fn unwrapped(stream: &[u8]) -> (String, Vec<String>) {
    let (mut frames, mut data, mut kinds) = (Frames::default(), Vec::new(), Vec::new());
    frames.push(stream, |part| {
        let Part::Message { compressed, bytes } = part else {
            panic!("too long")
        };
        let plain = plain(bytes, compressed, true).unwrap();
        let message = Wrapping::decode(plain).unwrap();
        data.extend_from_slice(&message.data);
        kinds.push(message.content_type);
    });
    assert_eq!(frames.rest(), b"");
    (String::from_utf8(data).unwrap(), kinds)
}

const EVENTS: [&str; 4] = [
    "data: {\"model\":\"m-v2\",\"choices\":[{\"text\":\"a\"}]}\n\n",
    "data: {\"mod",
    "el\": \"m-v2\",\"choices\":[{\"text\":\"b\"}]}\n\n",
    "data: {\"model\":\"m-v2\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n",
];

#[test]
fn what_is_wrapped_is_watched_at_every_cut() {
    for compressed in [false, true] {
        for kind in ["text/event-stream", ""] {
            let answer = wrapped(kind, &EVENTS, compressed);
            let told = at_every_cut(Api::VertexRaw, None, &answer);
            assert_eq!(told.passed, answer, "nothing changes");
            assert_eq!((told.tokens, told.choices), (USAGE, 2), "{kind}");
        }
    }
    let document = r#"{"model":"m-v2","usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    let (one, two) = document.split_at(40);
    let told = at_every_cut(
        Api::VertexChat,
        None,
        &wrapped("application/json", &[one, two], false),
    );
    assert_eq!(told.tokens, USAGE);
}

#[test]
fn the_model_is_renamed_inside_messages_at_every_cut() {
    for compressed in [false, true] {
        let answer = wrapped("text/event-stream", &EVENTS, compressed);
        let told = at_every_cut(Api::VertexRaw, Some(("m-v2", "m")), &answer);
        let (data, kinds) = unwrapped(&told.passed);
        assert_eq!(data, EVENTS.concat().replace("m-v2", "m"));
        assert!(
            kinds.iter().all(|kind| kind == "text/event-stream"),
            "{kinds:?}"
        );
        assert_eq!((told.tokens, told.choices), (USAGE, 2));
    }
}

#[test]
fn what_was_held_back_is_given_out_at_the_end() {
    let answer = wrapped("text/event-stream", &["data: {\"model\":\"v"], false);
    let (data, _) =
        unwrapped(&told(Api::VertexRaw, false, Some(("v2", "m")), [&answer[..]]).passed);
    assert_eq!(data, "data: {\"model\":\"v");
    let cut = &answer[..answer.len() - 3];
    let passed = |bytes| told(Api::VertexRaw, false, Some(("v2", "m")), [bytes]).passed;
    assert_eq!(passed(cut), cut, "a message that never became whole");
    let garbage = framed(b"\xff\xff", false);
    assert_eq!(passed(&garbage), garbage, "a message of another kind");
}

#[test]
fn answers_that_are_not_watched_pass_unread() {
    let answer = br#"{"usage":{"prompt_tokens":9}}"#;
    for api in [Api::CountTokens, Api::Passthrough, Api::CompletionsRender] {
        let told = told(api, true, None, [&answer[..]]);
        assert_eq!(
            (told.tokens, &told.passed[..]),
            (Tokens::default(), &answer[..])
        );
    }
}

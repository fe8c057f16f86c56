//! What the protocol does with requests of each API.

use super::bench::*;
use super::*;
use crate::api::frame::framed;
use crate::api::paths::Parsers;
use crate::api::proto::put_bytes;
use crate::api::wanted::Wanted;
use epp_core::Outcome;
use epp_core::config::Parser;

/// The first events of a request to `path`.
fn asked(bench: &mut Bench, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) {
    let mut all = vec![
        Header::new(":path", path),
        Header::new("x-request-id", "r1"),
    ];
    all.extend(headers.iter().map(|(name, value)| Header::new(name, value)));
    bench.on(Event::RequestHeaders {
        headers: all,
        end_of_stream: false,
        subset: None,
    });
    bench.on(Event::RequestBody {
        body: body.into(),
        end_of_stream: true,
    });
}

fn parsed_by(parsers: &[Parser]) -> Rules {
    Rules {
        parsers: Arc::new(Parsers::new(parsers)),
        ..rules()
    }
}

fn bench_of(rules: Rules) -> Bench {
    let config = epp_core::Config::llmd_default().with_max_concurrency(1);
    Bench::with(config, 1, rules)
}

#[test]
fn an_unknown_path_is_routed_unread_unless_the_parsers_are_listed_without_one_for_it() {
    let mut bench = Bench::new(1);
    asked(&mut bench, "/v1/rerank", &[], "{ not JSON");
    assert_eq!(bench.request_bytes(), b"{ not JSON");
    bench.on(response_headers("200", SSE, false));
    bench.on(response_body(USAGE, true));
    assert_eq!(bench.response_bytes(), USAGE.as_bytes());
    let completion = &bench.ended[0].completion;
    assert_eq!(
        (completion.outcome, completion.output_tokens),
        (Outcome::Served, None),
        "the answer passes unread"
    );
    assert_eq!(bench.in_flight(), 0);

    let mut listed = bench_of(parsed_by(&[Parser::OpenAi]));
    asked(&mut listed, "/v1/rerank", &[], BODY);
    assert_eq!(listed.immediate().status, 400);
    let told = String::from_utf8_lossy(&listed.immediate().body);
    assert!(
        told.contains("no parser for path") && told.contains("chat/completions"),
        "{told}"
    );
}

#[test]
fn errors_are_told_in_the_shape_of_the_requests_api() {
    let rules = parsed_by(&[Parser::Anthropic, Parser::VllmGrpc]);
    let mut bench = bench_of(rules.clone());
    asked(&mut bench, "/v1/messages", &[], "{");
    let body: serde_json::Value = serde_json::from_slice(&bench.immediate().body).unwrap();
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&"error".into(), &"invalid_request_error".into())
    );
    assert_eq!(bench.immediate().grpc_status, None);

    let mut bench = bench_of(rules.clone());
    asked(
        &mut bench,
        "/vllm.grpc.engine.VllmEngine/Generate",
        &[],
        "x",
    );
    let immediate = bench.immediate();
    assert_eq!((immediate.status, immediate.grpc_status), (400, Some(3)));
    assert!(String::from_utf8_lossy(&immediate.body).contains("breaks off"));
    let typed = |(name, _): &(&str, String)| *name == "content-type";
    assert!(!immediate.headers.iter().any(typed), "{immediate:?}");

    // Refusals too.
    let mut empty = Bench::with(epp_core::Config::llmd_default(), 0, rules);
    asked(
        &mut empty,
        "/v1/messages",
        &[],
        r#"{"model":"m","messages":[]}"#,
    );
    empty.advance(Duration::from_secs(61));
    let body: serde_json::Value = serde_json::from_slice(&empty.immediate().body).unwrap();
    assert_eq!(body["error"]["type"], "overloaded_error");
}

#[test]
fn pitfall_20_every_answer_of_our_own_says_why() {
    let mut bench = Bench::new(1);
    asked(&mut bench, "/v1/completions", &[], "{");
    let mut large = Bench::new(1);
    asked(&mut large, "/v1/messages", &[], vec![b'x'; 200_000]);
    let mut crowded = Bench::new(1);
    assert!(crowded.stream.rules.bodies.held() == 0);
    let mut slow = Stream::new(Arc::clone(&crowded.stream.rules), 8);
    let mut actions = Actions::new();
    slow.on(Duration::ZERO, request_headers(&[], false), &mut actions);
    slow.on(
        Duration::ZERO,
        request_body(&"x".repeat(90_000), false),
        &mut actions,
    );
    asked(&mut crowded, "/v1/completions", &[], vec![b'x'; 90_000]);
    let mut empty = Bench::new(0);
    empty.on(request_headers(&[], true));
    let mut expired = Bench::new(0);
    expired.request(BODY);
    expired.advance(Duration::from_secs(61));
    let mut unknown = bench_of(parsed_by(&[Parser::VllmGrpc]));
    asked(&mut unknown, "/v1/completions", &[], BODY);
    for bench in [bench, large, crowded, empty, expired, unknown] {
        let immediate = bench.immediate();
        let reason = |(name, value): &(&str, String)| {
            *name == header::DROPPED_REASON && value.starts_with("rejected-")
        };
        assert!(immediate.headers.iter().any(reason), "{immediate:?}");
    }
}

#[test]
fn pitfall_19_the_length_told_is_that_of_the_body_sent() {
    let rewrite = ("x-llm-d-model-name-rewrite", "another-model");
    let mut all = Parser::AUTOMATIC.to_vec();
    all.push(Parser::VertexAi);
    let json = r#"{"model":"m","messages":[],"prompt":"x","stream":true}"#;
    let mut wrapped = Vec::new();
    put_bytes(2, json.as_bytes(), &mut wrapped);
    let mut message = Vec::new();
    put_bytes(2, &wrapped, &mut message);
    let message = framed(&message, false);
    let vertex = "/google.cloud.aiplatform.v1.PredictionService/RawPredict";
    for (path, body) in [
        ("/v1/completions", json.as_bytes()),
        ("/v1/chat/completions", json.as_bytes()),
        ("/v1/messages", json.as_bytes()),
        (vertex, &message[..]),
    ] {
        let mut bench = bench_of(parsed_by(&all));
        let length = body.len().to_string();
        let headers = [rewrite, ("content-length", length.as_str())];
        asked(&mut bench, path, &headers, body.to_vec());
        let Reply::RequestHeaders(change) = &bench.replies[0] else {
            panic!("headers first: {:?}", bench.replies)
        };
        let sent = bench.request_bytes();
        assert_ne!(sent, body, "{path}");
        let told = ("content-length", Bytes::from(sent.len().to_string()));
        assert!(change.set.contains(&told), "{path}: {change:?}");
        // The answer's length changes with the name put back: none is told then.
        bench.on(Event::ResponseHeaders {
            headers: vec![
                Header::new(":status", "200"),
                Header::new("content-type", JSON),
                Header::new("content-length", "33"),
            ],
            end_of_stream: false,
            served: None,
        });
        let Some(Reply::ResponseHeaders(change)) = bench.replies.last() else {
            panic!("{:?}", bench.replies)
        };
        assert!(
            path == vertex || change.remove == ["content-length"],
            "{path}"
        );
    }
}

#[test]
fn a_model_is_known_to_the_client_by_its_own_name_whatever_the_cut() {
    let answer = concat!(
        "data: {\"model\":\"m-v2\",\"choices\":[{\"text\":\"a\"}]}\n\n",
        "data: {\"model\": \"m-v2\",\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\n",
    );
    let body =
        r#"{"model":"m","prompt":"x","stream":true,"stream_options":{"include_usage":true}}"#;
    for (kind, shift) in [(SSE, 0), (JSON, 1)] {
        for cut in 0..=answer.len() {
            let mut bench = Bench::new(1);
            let rewrite = [
                ("x-llm-d-model-name-rewrite", "m-v2"),
                ("accept-encoding", "gzip"),
            ];
            bench.on(request_headers(&rewrite, false));
            bench.on(request_body(body, true));
            let Reply::RequestHeaders(change) = &bench.replies[0] else {
                panic!("headers first")
            };
            assert_eq!(change.remove, ["accept-encoding"]);
            bench.on(response_headers("200", kind, false));
            bench.on(response_body(&answer[..cut], false));
            bench.on(response_body(&answer[cut..], shift == 0));
            if shift == 1 {
                bench.on(Event::ResponseTrailers { grpc_status: None });
            }
            let passed = String::from_utf8(bench.response_bytes()).unwrap();
            assert_eq!(passed, answer.replace("m-v2", "m"), "cut at {cut}");
            assert_eq!(bench.ended[0].completion.output_tokens, Some(3));
        }
    }
}

#[test]
fn an_answer_that_was_not_rewritten_passes_uncopied() {
    let mut bench = Bench::new(1);
    bench.request(BODY);
    bench.on(response_headers("200", JSON, false));
    let body = Bytes::from_static(b"{\"model\":\"m\"}");
    bench.on(Event::ResponseBody {
        body: body.clone(),
        end_of_stream: true,
    });
    let piece = bench.replies.iter().find_map(response_piece).unwrap();
    assert_eq!(piece.body.as_ptr(), body.as_ptr());
}

#[test]
fn a_grpc_calls_own_status_tells_how_it_ended() {
    let mut message = Vec::new();
    put_bytes(3, b"prompt", &mut message);
    let call = framed(&message, false);
    for (trailers, headers, outcome, status) in [
        (Some(Some(0)), None, Outcome::Served, 200),
        (Some(Some(8)), None, Outcome::Failed, 429),
        (Some(None), None, Outcome::Served, 200),
        (None, Some("14"), Outcome::Failed, 503),
    ] {
        let mut bench = bench_of(parsed_by(&[Parser::VllmGrpc]));
        let path = "/vllm.grpc.engine.VllmEngine/Generate";
        asked(&mut bench, path, &[], call.clone());
        assert_eq!(bench.request_bytes(), call);
        let mut response = vec![Header::new(":status", "200")];
        response.extend(headers.map(|status| Header::new("grpc-status", status)));
        bench.on(Event::ResponseHeaders {
            headers: response,
            end_of_stream: trailers.is_none(),
            served: None,
        });
        if let Some(grpc_status) = trailers {
            bench.on(Event::ResponseTrailers { grpc_status });
        }
        let ended = &bench.ended[0];
        assert_eq!(
            (ended.completion.outcome, ended.status),
            (outcome, Some(status))
        );
        assert!(bench.finished && bench.in_flight() == 0);
    }
}

#[test]
fn load_is_held_while_an_answer_passes_unread() {
    let mut bench = Bench::new(1);
    asked(
        &mut bench,
        "/v1/messages/count_tokens",
        &[],
        r#"{"model":"m","messages":[]}"#,
    );
    bench.on(response_headers("200", JSON, false));
    bench.on(response_body(r#"{"input_"#, false));
    assert_eq!(bench.in_flight(), 1);
    bench.on(response_body(r#"tokens":9}"#, true));
    assert_eq!(bench.in_flight(), 0);
    assert_eq!(bench.response_bytes(), br#"{"input_tokens":9}"#);
}

fn wanting(plugins: &str, profile: &str) -> Rules {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {{type: queue-scorer}}\n{plugins}schedulingProfiles:\n- name: default\n  plugins:\n  - {{pluginRef: queue-scorer}}\n{profile}"
    );
    let config = epp_core::Config::from_yaml(&text).unwrap();
    Rules {
        wanted: Arc::new(Wanted::of(&config)),
        ..rules()
    }
}

fn answered_by(bench: &Bench, index: usize) -> Event {
    Event::ResponseHeaders {
        headers: vec![Header::new(":status", "200")],
        end_of_stream: false,
        served: Some(Arc::clone(&bench.pool.endpoints[index])),
    }
}

#[test]
fn answers_name_their_endpoint_so_that_sessions_come_back() {
    let rules = wanting(
        "- {type: session-affinity-scorer}\n- {type: destination-endpoint-served-verifier}\n",
        "  - {pluginRef: session-affinity-scorer}\n",
    );
    let mut bench = Bench::with(epp_core::Config::llmd_default(), 2, rules);
    bench.request(BODY);
    // The proxy could not reach the first and took the second.
    let picked = bench
        .pool
        .endpoints
        .iter()
        .position(|endpoint| endpoint.load.snapshot().in_flight == 1);
    let other = 1 - picked.unwrap();
    bench.on(answered_by(&bench, other));
    let load = |bench: &Bench, index: usize| bench.pool.endpoints[index].load.snapshot().in_flight;
    assert_eq!(
        (load(&bench, other), load(&bench, 1 - other)),
        (1, 0),
        "the load is where the request is"
    );
    let Some(Reply::ResponseHeaders(change)) = bench.replies.last() else {
        panic!("{:?}", bench.replies)
    };
    let endpoint = &bench.pool.endpoints[other];
    let expected = [
        (
            header::SESSION_TOKEN.into(),
            epp_core::session::token(&endpoint.name),
        ),
        (
            header::TEST_ENDPOINT_SERVED.into(),
            endpoint.address.to_string(),
        ),
    ];
    assert_eq!(change.named, expected);
    bench.on(response_body("{}", true));
    assert_eq!((load(&bench, 0), load(&bench, 1)), (0, 0));
}

#[test]
fn what_is_computed_of_usage_rides_on_the_last_message() {
    let reporter = "- type: request-attribute-reporter\n  parameters: {attributes: [{key: {name: cost}, expression: usage.total_tokens}]}\n";
    let rules = wanting(reporter, "");
    for trailers in [false, true] {
        let mut bench = bench_of(rules.clone());
        bench.request(BODY);
        bench.on(response_headers("200", JSON, false));
        bench.on(response_body(
            r#"{"usage":{"prompt_tokens":2,"completion_tokens":3}}"#,
            !trailers,
        ));
        if trailers {
            bench.on(Event::ResponseTrailers { grpc_status: None });
        }
        let Some(Reply::Telling(reply, attributes)) = bench.replies.last() else {
            panic!("{:?}", bench.replies)
        };
        assert_eq!(**reply == Reply::ResponseTrailers, trailers);
        let told: Vec<_> = attributes
            .iter()
            .map(|it| (&*it.namespace, &*it.name, it.value))
            .collect();
        assert_eq!(told, [("envoy.lb", "cost", 5.0)]);
        let wire: crate::extproc::wire::ProcessingResponse = bench.replies.pop().unwrap().into();
        let metadata = wire.dynamic_metadata.unwrap();
        assert!(wire.response.is_some() && metadata.fields.contains_key("envoy.lb"));
    }
    let mut silent = bench_of(rules);
    silent.request(BODY);
    silent.on(response_headers("200", JSON, false));
    silent.on(response_body("{}", true));
    assert!(
        matches!(silent.replies.last(), Some(Reply::ResponseBody(_))),
        "nothing is known"
    );
}

#[test]
fn an_answer_that_passes_unread_counts_by_its_pieces() {
    let wanted = Wanted::of(&epp_core::Config {
        read_answers: 0.0,
        ..epp_core::Config::default()
    });
    let mut bench = bench_of(Rules {
        wanted: Arc::new(wanted),
        ..rules()
    });
    bench.request(STREAMED);
    assert_eq!(
        bench.request_bytes(),
        STREAMED.as_bytes(),
        "nothing is asked in its place"
    );
    bench.on(response_headers("200", SSE, false));
    let load = |bench: &Bench| bench.pool.endpoints[0].load.snapshot();
    assert_eq!(load(&bench).waiting, 1);
    bench.on(response_body("data: {\"cho", false));
    assert_eq!((load(&bench).waiting, load(&bench).in_flight), (0, 1));
    bench.on(response_body("ices\":[]}\n\n", false));
    bench.on(response_body(USAGE, true));
    let expected = format!("data: {{\"choices\":[]}}\n\n{USAGE}");
    assert_eq!(bench.response_bytes(), expected.as_bytes());
    let completion = &bench.ended[0].completion;
    assert!(completion.ttft_ms.is_some(), "{completion:?}");
    assert_eq!(completion.output_tokens, None);
    assert!(completion.observations.is_empty());
}

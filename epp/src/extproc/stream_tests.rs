//! The protocol, phase by phase, against a real director.

use super::bench::*;
use super::*;
use crate::extproc::reply::{BODY_LIMIT, Piece};
use epp_core::Outcome;

/// A header, a body, and what the answer must name.
type Wrong<'s> = (Option<(&'s str, &'s str)>, &'s str, &'s str);

/// Events of one stream.
type Script<'s> = &'s [fn() -> Event];

#[test]
fn pitfall_02_nothing_is_said_before_the_body_is_complete_and_then_all_in_order() {
    let mut bench = Bench::new(1);
    bench.on(request_headers(&[], false));
    bench.on(request_body(&BODY[..10], false));
    assert!(bench.replies.is_empty());
    bench.on(request_body(&BODY[10..], true));
    let [Reply::RequestHeaders(change), Reply::RequestBody(piece)] = &bench.replies[..] else {
        panic!("headers, then the body: {:?}", bench.replies)
    };
    assert_eq!(
        change.destination.as_ref().map(|to| &*to.endpoints),
        Some("10.0.0.1:8000")
    );
    assert_eq!(
        change.set,
        [("content-length", Bytes::from(BODY.len().to_string()))]
    );
    assert_eq!(
        (&piece.body[..], piece.end_of_stream),
        (BODY.as_bytes(), true)
    );
    assert_eq!(bench.in_flight(), 1, "load is held while the stream lives");
}

#[test]
fn pitfall_03_a_whole_body_passes_uncopied_and_a_long_one_in_pieces() {
    let mut bench = Bench::new(1);
    let body = Bytes::from(format!(
        r#"{{"model":"m","prompt":"{}"}}"#,
        "x".repeat(90_000)
    ));
    bench.on(request_headers(&[], false));
    bench.on(Event::RequestBody {
        body: body.clone(),
        end_of_stream: true,
    });
    let pieces: Vec<&Piece> = bench.replies.iter().filter_map(request_piece).collect();
    assert_eq!(
        pieces
            .iter()
            .map(|piece| piece.end_of_stream)
            .collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(pieces[0].body.as_ptr(), body.as_ptr());
    assert_eq!(pieces[0].body.len(), BODY_LIMIT);
    assert_eq!(bench.request_bytes(), body);
}

#[test]
fn pitfall_01_a_second_end_of_the_body_is_ignored() {
    let mut bench = Bench::new(1);
    bench.request(BODY);
    let said = bench.replies.len();
    bench.on(request_body("", true));
    bench.on(request_body(BODY, true));
    assert_eq!((bench.replies.len(), bench.failed.is_none()), (said, true));
    bench.on(response_headers("200", JSON, false));
    bench.on(response_body("{}", true));
    bench.on(response_body("{}", true));
    assert_eq!(bench.response_bytes(), b"{}");
    assert!(bench.failed.is_none());
}

#[test]
fn trailers_end_a_body_that_has_no_end_of_its_own() {
    let mut bench = Bench::new(1);
    bench.on(request_headers(&[], false));
    bench.on(request_body(BODY, false));
    bench.on(Event::RequestTrailers);
    let [
        Reply::RequestHeaders(change),
        Reply::RequestBody(piece),
        Reply::RequestTrailers,
    ] = &bench.replies[..]
    else {
        panic!("headers, body, trailers: {:?}", bench.replies)
    };
    assert!(
        change.set.is_empty(),
        "a body with trailers has no announced length"
    );
    assert!(!piece.end_of_stream);
    bench.on(Event::RequestTrailers);
    assert_eq!(
        bench.replies.len(),
        3,
        "trailers nobody expects are tolerated"
    );
    bench.on(response_headers("200", SSE, false));
    bench.on(response_body(TOKEN, false));
    bench.on(Event::ResponseTrailers { grpc_status: None });
    assert_eq!(bench.replies.last(), Some(&Reply::ResponseTrailers));
    assert_eq!(bench.response_bytes(), TOKEN.as_bytes());
    assert!(bench.finished && bench.in_flight() == 0);
}

#[test]
fn a_request_without_a_body_goes_to_any_endpoint_at_once() {
    let mut bench = Bench::new(1);
    bench.on(request_headers(&[], true));
    assert!(
        matches!(&bench.replies[..], [Reply::RequestHeaders(change)] if change.destination.is_some())
    );
    bench.on(response_headers("200", JSON, false));
    bench.on(response_body("{}", true));
    assert!(bench.finished);
    assert_eq!(bench.outcomes(), [], "it is no inference demand");
    let mut empty = Bench::new(0);
    empty.on(request_headers(&[], true));
    assert_eq!(empty.immediate().status, 503);
}

#[test]
fn refusals_carry_status_reason_and_openais_error() {
    let mut bench = Bench::new(0);
    bench.request(BODY);
    assert!(bench.replies.is_empty(), "queued until its time is over");
    bench.advance(Duration::from_secs(61));
    let immediate = bench.immediate();
    assert_eq!(immediate.status, 503);
    assert!(
        immediate
            .headers
            .contains(&(header::DROPPED_REASON, "rejected-no-endpoints".into()))
    );
    let body: serde_json::Value = serde_json::from_slice(&immediate.body).unwrap();
    assert_eq!(body["error"]["code"], "rejected-no-endpoints");
    assert!(bench.finished);

    let mut busy = Bench::new(1);
    busy.request(BODY);
    let mut second = Stream::new(Arc::clone(&busy.stream.rules), 9);
    std::mem::swap(&mut busy.stream, &mut second);
    busy.replies.clear();
    busy.request(BODY);
    busy.advance(Duration::from_secs(61));
    let immediate = busy.immediate();
    assert_eq!(immediate.status, 429);
    assert!(
        immediate
            .headers
            .iter()
            .any(|(name, value)| *name == "retry-after" && value.parse::<u32>().is_ok())
    );
    assert!(
        immediate
            .headers
            .contains(&(header::DROPPED_REASON, "rejected-ttl-expired".into()))
    );
}

#[test]
fn what_a_client_did_wrong_is_a_400_that_names_it() {
    let cases: [Wrong; 4] = [
        (None, r#"{"model":"m"}"#, "prompt"),
        (None, "not json", "not valid JSON at byte 0"),
        (Some(("x-slo-ttft-ms", "soon")), BODY, "x-slo-ttft-ms"),
        (
            Some(("x-llm-d-inference-ttl", "later")),
            BODY,
            "x-llm-d-inference-ttl",
        ),
    ];
    for (header, body, said) in cases {
        let mut bench = Bench::new(1);
        bench.on(request_headers(header.as_slice(), false));
        bench.on(request_body(body, true));
        assert_eq!(bench.immediate().status, 400);
        assert!(
            String::from_utf8_lossy(&bench.immediate().body).contains(said),
            "{body}"
        );
        assert_eq!(bench.outcomes(), []);
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused_as_it_arrives() {
    let mut bench = Bench::new(1);
    bench.on(request_headers(&[], false));
    bench.on(request_body(&" ".repeat(60_000), false));
    bench.on(request_body(&" ".repeat(60_000), false));
    assert_eq!(bench.immediate().status, 413);
    bench.on(request_body("x", true));
    assert_eq!(bench.replies.len(), 1);
}

#[test]
fn a_body_that_cannot_be_right_any_more_is_not_gathered() {
    for (path, piece) in [("/v1/completions", "x"), ("/v1/chat/completions", "{,")] {
        let mut bench = Bench::new(1);
        bench.on(request_headers(&[(":path", path)], false));
        bench.on(request_body(piece, false));
        assert_eq!(bench.immediate().status, 400, "{path}");
        bench.on(request_body(&" ".repeat(60_000), false));
        assert_eq!(bench.stream.rules.bodies.held(), 0, "{path}");
        assert_eq!(bench.replies.len(), 1, "{path}");
    }
}

#[test]
fn bodies_that_arrive_at_once_share_one_budget() {
    let mut bench = Bench::new(1);
    let mut slow = Stream::new(Arc::clone(&bench.stream.rules), 8);
    let mut actions = Actions::new();
    slow.on(Duration::ZERO, request_headers(&[], false), &mut actions);
    slow.on(
        Duration::ZERO,
        request_body(&" ".repeat(90_000), false),
        &mut actions,
    );
    bench.on(request_headers(&[], false));
    bench.on(request_body(&" ".repeat(90_000), false));
    assert_eq!(bench.immediate().status, 429);
    assert!(
        bench
            .immediate()
            .headers
            .contains(&(header::DROPPED_REASON, "rejected-saturated".into()))
    );
    slow.on(Duration::ZERO, Event::Closed, &mut actions);
    let bodies = &bench.stream.rules.bodies;
    assert_eq!((bodies.held(), bodies.refused()), (0, 1));
}

#[test]
fn usage_is_asked_for_and_kept_from_the_client() {
    let mut bench = Bench::new(1);
    bench.on(request_headers(&[("accept-encoding", "gzip")], false));
    bench.on(request_body(STREAMED, true));
    let sent: serde_json::Value = serde_json::from_slice(&bench.request_bytes()).unwrap();
    assert_eq!(sent["stream_options"]["include_usage"], true);
    let Reply::RequestHeaders(change) = &bench.replies[0] else {
        panic!("headers first")
    };
    assert_eq!(
        change.set,
        [(
            "content-length",
            Bytes::from(bench.request_bytes().len().to_string())
        )]
    );
    assert_eq!(
        change.remove,
        ["accept-encoding"],
        "a compressed answer could not be restored"
    );
    bench.on(response_headers("200", SSE, false));
    bench.on(response_body(TOKEN, false));
    bench.on(response_body(
        &format!("{TOKEN}{USAGE}data: [DONE]\n\n"),
        true,
    ));
    assert_eq!(
        bench.response_bytes(),
        format!("{TOKEN}{TOKEN}data: [DONE]\n\n").as_bytes()
    );
    let completion = &bench.ended[0].completion;
    assert_eq!(
        (completion.outcome, completion.output_tokens),
        (Outcome::Served, Some(3))
    );
    assert_eq!(completion.ttft_ms, Some(20.0));
    assert_eq!(completion.tpot_ms, Some(5.0));
}

#[test]
fn a_client_that_asked_gets_everything() {
    let mut bench = Bench::new(1);
    let asked =
        r#"{"model":"m","prompt":"x","stream":true,"stream_options":{"include_usage":true}}"#;
    bench.request(asked);
    assert_eq!(bench.request_bytes(), asked.as_bytes());
    bench.on(response_headers("200", SSE, false));
    let answer = format!("{TOKEN}{USAGE}data: [DONE]\n\n");
    bench.on(response_body(&answer, true));
    assert_eq!(bench.response_bytes(), answer.as_bytes());
    assert_eq!(bench.ended[0].completion.output_tokens, Some(3));
}

/// One streamed request to an engine that writes nulls when asked, and `always` or not when unasked.
fn exchange_with_nulls(bench: &mut Bench, always: bool) -> (bool, bool) {
    bench.again();
    bench.request(STREAMED);
    let asked = bench.request_bytes() != STREAMED.as_bytes();
    let event = |null: bool| {
        let null = if null { r#","usage":null"# } else { "" };
        format!("data: {{\"choices\":[{{\"text\":\"a\"}}]{null}}}\n\n")
    };
    bench.on(response_headers("200", SSE, false));
    let usage = if asked { USAGE } else { "" };
    bench.on(response_body(
        &format!("{}{usage}", event(asked || always)),
        true,
    ));
    (asked, bench.response_bytes() == event(always).as_bytes())
}

#[test]
fn how_a_server_writes_unasked_is_found_out_with_one_request() {
    let mut when_asked = Bench::new(1);
    let seen: Vec<_> = (0..4)
        .map(|_| exchange_with_nulls(&mut when_asked, false))
        .collect();
    assert_eq!(
        seen,
        [(true, true), (false, true), (true, true), (true, true)]
    );
    let mut always = Bench::new(1);
    let seen: Vec<_> = (0..4)
        .map(|_| exchange_with_nulls(&mut always, true))
        .collect();
    assert_eq!(
        seen,
        [(true, false), (false, true), (true, true), (true, true)]
    );
}

#[test]
fn a_rewritten_model_changes_nothing_else() {
    let mut bench = Bench::new(1);
    bench.on(request_headers(
        &[("x-llm-d-model-name-rewrite", "m-\"v2\"")],
        false,
    ));
    bench.on(request_body(BODY, true));
    assert_eq!(
        bench.request_bytes(),
        br#"{"model":"m-\"v2\"","prompt":"hello"}"#
    );
}

#[test]
fn the_operators_rules_hold_where_the_request_says_nothing() {
    let mut rewrites = crate::api::rewrite::Rewrites::default();
    let to = crate::api::rewrite::Targets::new([("m-v2", None)]).unwrap();
    rewrites.exact("m", &to);
    let slo = epp_core::Slo {
        ttft_ms: Some(500.0),
        tpot_ms: None,
    };
    let rules = || Rules {
        default_slo: slo,
        rewrites: Arc::new(rewrites.clone()),
        ..rules()
    };
    let asked = |headers: &[(&'static str, &'static str)]| {
        let config = epp_core::Config::llmd_default().with_max_concurrency(1);
        let mut bench = Bench::with(config, 1, rules());
        bench.on(request_headers(headers, false));
        bench.on(request_body(BODY, true));
        let slo = bench.director.demand().totals().bands[0].slo_offered;
        (String::from_utf8(bench.request_bytes()).unwrap(), slo)
    };
    assert_eq!(
        asked(&[]),
        (r#"{"model":"m-v2","prompt":"hello"}"#.to_owned(), 1)
    );
    let header = [("x-llm-d-model-name-rewrite", "mine")];
    assert_eq!(asked(&header).0, r#"{"model":"mine","prompt":"hello"}"#);
}

#[test]
fn a_clients_routing_headers_are_removed_and_a_missing_id_is_made() {
    let mut bench = Bench::new(1);
    let headers = vec![
        Header::new(":path", "/v1/completions"),
        Header::new("x-prefiller-host-port", "6.6.6.6:6"),
    ];
    bench.on(Event::RequestHeaders {
        headers,
        end_of_stream: false,
        subset: None,
    });
    bench.on(request_body(BODY, true));
    let Reply::RequestHeaders(change) = &bench.replies[0] else {
        panic!("headers first")
    };
    assert_eq!(change.remove, ["x-prefiller-host-port"]);
    let made = |(name, id): &(&str, Bytes)| *name == header::REQUEST_ID && endings::is_uuid(id);
    assert!(change.set.iter().any(made), "{:?}", change.set);
}

#[test]
fn a_cut_in_every_phase_gives_everything_back() {
    let events: [fn() -> Event; 6] = [
        || request_headers(&[], false),
        || request_body(&STREAMED[..5], false),
        || request_body(&STREAMED[5..], true),
        || response_headers("200", SSE, false),
        || response_body(TOKEN, false),
        || response_body(&TOKEN[..9], false),
    ];
    for cut in 0..=events.len() {
        let mut bench = Bench::new(1);
        events.iter().take(cut).for_each(|event| bench.on(event()));
        assert_eq!(bench.in_flight(), u32::from(cut >= 3), "cut after {cut}");
        bench.on(Event::Closed);
        assert_eq!(
            (bench.in_flight(), bench.stream.phase()),
            (0, Phase::Over),
            "cut after {cut}"
        );
        let counted: Vec<_> = if cut >= 3 {
            vec![(Outcome::ClientGone, 1)]
        } else {
            vec![]
        };
        assert_eq!(bench.outcomes(), counted, "cut after {cut}");
    }
}

#[test]
fn a_client_that_leaves_the_queue_is_withdrawn() {
    let mut bench = Bench::new(0);
    bench.request(BODY);
    assert_eq!(bench.director.queued().total().requests, 1);
    bench.on(Event::Closed);
    assert_eq!(bench.director.queued().total().requests, 0);
    assert_eq!(bench.outcomes(), [(Outcome::EvictedContextCancelled, 1)]);
}

#[test]
fn an_answer_of_the_proxys_own_ends_the_waiting() {
    let mut bench = Bench::new(0);
    bench.request(BODY);
    bench.on(response_headers("408", "text/plain", false));
    bench.on(response_body("too slow", true));
    assert!(bench.finished && bench.failed.is_none());
    assert_eq!(bench.response_bytes(), b"too slow");
    assert_eq!(bench.director.queued().total().requests, 0);
}

#[test]
fn the_wrong_order_closes_the_stream_with_an_error() {
    let cases: [(Script, &str); 5] = [
        (
            &[|| request_body(BODY, true)],
            "request body while waiting for request headers",
        ),
        (
            &[
                || request_headers(&[], false),
                || request_headers(&[], false),
            ],
            "request headers while reading",
        ),
        (
            &[|| response_headers("200", JSON, true)],
            "response headers while waiting for request headers",
        ),
        (
            &[
                || request_headers(&[], false),
                || request_body(BODY, true),
                || response_body("x", true),
            ],
            "response body while waiting for response headers",
        ),
        (
            &[|| Event::ResponseTrailers { grpc_status: None }],
            "response trailers while waiting for request headers",
        ),
    ];
    for (events, said) in cases {
        let mut bench = Bench::new(1);
        events.iter().for_each(|event| bench.on(event()));
        assert!(
            bench.failed.as_ref().unwrap().to_string().contains(said),
            "{:?}",
            bench.failed
        );
        assert_eq!(bench.in_flight(), 0);
    }
}

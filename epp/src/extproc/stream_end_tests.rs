//! How streams end, and what of what clients name is kept.

use super::bench::*;
use super::*;
use crate::api::head::LONGEST_NAME;
use epp_core::{Config, Outcome};

const DONE: &str = "data: [DONE]\n\n";

/// An answer in these pieces, upon which the proxy closes the stream without its end.
fn broken_after(bench: &mut Bench, pieces: &[&str]) -> Outcome {
    bench.request(STREAMED);
    bench.on(response_headers("200", SSE, false));
    for piece in pieces {
        bench.on(response_body(piece, false));
    }
    bench.on(Event::Closed);
    assert_eq!(bench.in_flight(), 0);
    bench.ended[0].completion.outcome
}

#[test]
fn an_answer_whose_last_event_has_passed_is_whole_whoever_closes() {
    let mut bench = Bench::new(1);
    assert_eq!(
        broken_after(&mut bench, &[TOKEN, USAGE, DONE]),
        Outcome::Served
    );
    assert_eq!(bench.ended[0].completion.output_tokens, Some(3));
    assert_eq!(bench.ended[0].status, Some(200));
    bench.again();
    assert_eq!(
        broken_after(&mut bench, &[TOKEN, USAGE, "data: [DO"]),
        Outcome::ClientGone
    );
}

/// Where one server's answers break off and another's do not, that server is at fault.
#[test]
fn answers_that_break_off_on_one_server_are_cut_by_it() {
    let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: passive-health}, {type: round-robin-picker}]";
    let mut bench = Bench::with(Config::from_yaml(text).unwrap(), 2, rules());
    let (mut served, mut cut) = ([0; 2], [0; 2]);
    let mut left = 0;
    for _ in 0..400 {
        bench.request(STREAMED);
        let on = |endpoint: &Arc<epp_core::Endpoint>| endpoint.load.snapshot().in_flight > 0;
        let index = bench.pool.endpoints.iter().position(on).unwrap();
        bench.on(response_headers("200", SSE, false));
        bench.on(response_body(TOKEN, false));
        match index {
            0 => bench.on(Event::Closed),
            _ => bench.on(response_body(DONE, true)),
        }
        match bench.ended[0].completion.outcome {
            Outcome::Served => served[index] += 1,
            Outcome::UpstreamCut => cut[index] += 1,
            Outcome::ClientGone => left += 1,
            other => panic!("{other:?}"),
        }
        bench.again();
    }
    assert!(cut[0] > 0 && served[1] > 300, "{served:?} {cut:?}");
    assert_eq!((served[0], cut[1]), (0, 0));
    assert!(left < 20, "{left} before it was found out");
}

#[test]
fn clients_that_leave_are_nobodys_fault() {
    for endpoints in [1, 2] {
        let mut bench = Bench::with(Config::headroom_default(), endpoints, rules());
        for _ in 0..100 {
            assert_eq!(broken_after(&mut bench, &[TOKEN]), Outcome::ClientGone);
            bench.again();
        }
    }
}

#[test]
fn a_server_that_fails_in_the_middle_says_so() {
    let error = "data: {\"error\":{\"message\":\"dead\",\"type\":\"InternalServerError\",\"code\":500}}\n\n";
    let clients = "data: {\"error\":{\"message\":\"too long\",\"code\":400}}\n\n";
    let failed = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{}}}\n\n";
    for (event, outcome) in [
        (error, Outcome::UpstreamCut),
        (failed, Outcome::UpstreamCut),
        (clients, Outcome::Served),
        ("data: {\"error\":null}\n\n", Outcome::Served),
    ] {
        let mut bench = Bench::new(1);
        bench.request(STREAMED);
        bench.on(response_headers("200", SSE, false));
        bench.on(response_body(TOKEN, false));
        bench.on(response_body(event, false));
        bench.on(response_body(DONE, true));
        assert_eq!(bench.ended[0].completion.outcome, outcome, "{event}");
        assert!(bench.finished);
    }
}

#[test]
fn names_beyond_any_measure_are_refused_or_counted_together() {
    let long = "n".repeat(LONGEST_NAME + 1);
    let body = |model: &str| format!(r#"{{"model":"{model}","prompt":"x"}}"#);
    let mut bench = Bench::new(1);
    bench.request(&body(&long));
    let immediate = bench.immediate();
    let text = String::from_utf8_lossy(&immediate.body);
    assert_eq!(immediate.status, 400);
    assert!(
        text.contains("`model`") && text.contains("256 bytes"),
        "{text}"
    );
    bench.again();
    bench.request(&body(&long[1..]));
    assert_eq!(bench.in_flight(), 1);
    let mut bench = Bench::new(0);
    let fairness = "x-llm-d-inference-fairness-id";
    bench.on(request_headers(&[(fairness, &long)], false));
    let mut actions = Actions::new();
    let event = request_body(BODY, true);
    bench.stream.on(Duration::ZERO, event, &mut actions);
    let Some(Action::Submit(submission)) = actions.pop_front() else {
        panic!("{actions:?}")
    };
    assert_eq!(&*submission.request.flow, "other");
}

#[test]
fn a_request_without_a_body_keeps_no_routing_header_and_gets_an_id() {
    let mut bench = Bench::new(1);
    let headers = [
        (":path", "/v1/models"),
        ("X-Prefiller-Host-Port", "6.6.6.6:6"),
    ];
    bench.on(Event::RequestHeaders {
        headers: headers.map(|(name, value)| Header::new(name, value)).into(),
        end_of_stream: true,
        subset: None,
    });
    let Reply::RequestHeaders(change) = &bench.replies[0] else {
        panic!("headers first")
    };
    assert_eq!(change.remove, ["x-prefiller-host-port"]);
    let [(header::REQUEST_ID, id)] = &change.set[..] else {
        panic!("{:?}", change.set)
    };
    assert!(is_uuid(id), "{id:?}");
    let mut empty = Bench::new(0);
    empty.on(request_headers(&[(":path", "/v1/messages")], true));
    assert_eq!(empty.immediate().status, 503);
}

/// Whether `id` has the form of a random UUID.
pub(super) fn is_uuid(id: &[u8]) -> bool {
    let form = b"xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
    id.len() == form.len()
        && id.iter().zip(form).all(|(byte, form)| match form {
            b'x' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            b'y' => matches!(byte, b'8' | b'9' | b'a' | b'b'),
            other => byte == other,
        })
}

#[test]
fn ids_that_are_made_differ() {
    let made = |serial| {
        let mut stream = Stream::new(Arc::new(rules()), serial);
        let mut actions = Actions::new();
        let headers = vec![Header::new(":path", "/v1/completions")];
        let event = Event::RequestHeaders {
            headers,
            end_of_stream: false,
            subset: None,
        };
        stream.on(Duration::ZERO, event, &mut actions);
        stream.on(Duration::ZERO, request_body(BODY, true), &mut actions);
        match actions.pop_front() {
            Some(Action::Submit(submission)) => submission.request.id,
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(made(1), made(2));
    assert!(is_uuid(made(3).as_bytes()));
}

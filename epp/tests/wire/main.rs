//! A picker over a real gRPC connection, spoken to through Envoy's own generated bindings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod proxy;
mod reload;
mod restart;

use envoy_types::pb::envoy::service::ext_proc::v3::HttpTrailers;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Incoming;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Outgoing;
use envoy_types::pb::google::protobuf::value::Kind;
use epp::Options;
use epp_core::{Config, Objectives, Outcome};
use names::{header, health, metadata};
use proxy::*;
use runtime::{Clock, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

#[tokio::test]
async fn one_request_message_by_message() {
    let picker = picker_with_one_endpoint().await;
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    let reply = tokio::time::timeout(PATIENCE, stream.replies.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let namespace = &reply.dynamic_metadata.as_ref().unwrap().fields[metadata::LB];
    let Some(Kind::StructValue(namespace)) = &namespace.kind else {
        panic!("a structure")
    };
    assert_eq!(
        namespace.fields[header::DESTINATION].kind,
        Some(Kind::StringValue("127.0.0.1:8000".into()))
    );
    let Some(Outgoing::RequestHeaders(answer)) = reply.response else {
        panic!("headers first")
    };
    let change = answer.response.unwrap();
    assert!(change.clear_route_cache);
    let set = change.header_mutation.unwrap().set_headers;
    let destination = set
        .iter()
        .filter_map(|set| set.header.as_ref())
        .find(|set| set.key == header::DESTINATION)
        .unwrap();
    assert_eq!(
        (destination.raw_value.as_slice(), destination.value.as_str()),
        (&b"127.0.0.1:8000"[..], "")
    );
    let Outgoing::RequestBody(body) = stream.next().await else {
        panic!("then the body")
    };
    assert_eq!(streamed(body.response), (BODY.to_vec(), true));

    stream.say(response_headers("application/json")).await;
    assert!(matches!(stream.next().await, Outgoing::ResponseHeaders(_)));
    let document =
        r#"{"choices":[{"text":"hi"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    stream.say(response_body(document, true)).await;
    let Outgoing::ResponseBody(body) = stream.next().await else {
        panic!("the answer's body")
    };
    assert_eq!(
        streamed(body.response),
        (document.as_bytes().to_vec(), true)
    );
    stream.half_close();
    assert_eq!(stream.rest().await.unwrap(), []);
    let totals = picker.demand().totals().outcome(Outcome::Served);
    assert_eq!(
        (totals.requests, totals.prompt_tokens, totals.output_tokens),
        (1, 5, 2)
    );
    idle(&picker).await;
}

#[tokio::test]
async fn a_second_end_of_stream_and_unknown_trailers_change_nothing() {
    let picker = picker_with_one_endpoint().await;
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    stream.say(request_body(BODY, true)).await;
    stream
        .say(Incoming::RequestTrailers(HttpTrailers::default()))
        .await;
    stream.say(response_headers("text/event-stream")).await;
    stream.say(response_body("data: [DONE]\n\n", true)).await;
    stream.say(response_body("data: [DONE]\n\n", true)).await;
    stream
        .say(Incoming::ResponseTrailers(HttpTrailers::default()))
        .await;
    let kinds: Vec<_> = stream.rest().await.unwrap().into_iter().map(kind).collect();
    assert_eq!(
        kinds,
        [
            "request headers",
            "request body",
            "response headers",
            "response body"
        ]
    );
    idle(&picker).await;
}

#[tokio::test]
async fn the_wrong_order_is_an_error_and_is_counted() {
    let picker = picker_with_one_endpoint().await;
    for wrong in [
        request_body(BODY, true),
        response_headers("text/plain"),
        response_body("x", false),
    ] {
        let mut stream = Stream::open(&picker).await;
        stream.say(wrong).await;
        assert_eq!(
            stream.rest().await.unwrap_err().code(),
            Code::FailedPrecondition
        );
    }
    let mut late = Stream::open(&picker).await;
    late.say(request_headers(&[])).await;
    late.say(request_body(BODY, true)).await;
    late.say(request_headers(&[])).await;
    assert_eq!(
        late.rest().await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    idle(&picker).await;
    let page = picker.metrics().encode();
    assert!(
        page.contains(r#"llm_d_epp_extproc_streams_total{code="FailedPrecondition"} 4"#),
        "{page}"
    );
}

#[tokio::test]
async fn a_cut_after_each_phase_gives_all_load_back() {
    let picker = picker_with_one_endpoint().await;
    let phases = [
        request_headers(&[]),
        request_body(&STREAMED[..9], false),
        request_body(&STREAMED[9..], true),
        response_headers("text/event-stream"),
        response_body(
            "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"cho",
            false,
        ),
    ];
    let replies = [0, 0, 2, 1, 1];
    for half_close in [false, true] {
        for cut in 0..=phases.len() {
            let mut stream = Stream::open(&picker).await;
            for (phase, replies) in phases.iter().zip(replies).take(cut) {
                stream.say(phase.clone()).await;
                for _ in 0..replies {
                    stream.next().await;
                }
            }
            if half_close {
                stream.half_close();
                assert_eq!(stream.rest().await.unwrap(), [], "cut after {cut}");
            }
            drop(stream);
            idle(&picker).await;
        }
    }
    let totals = picker.demand().totals();
    assert_eq!(totals.offered().requests, totals.ended().requests);
    assert_eq!(
        totals.outcome(Outcome::ClientGone).requests,
        6,
        "three phases after dispatch, cut in two ways"
    );
}

#[tokio::test]
async fn the_next_in_the_queue_goes_when_a_stream_ends() {
    let picker = picker_with_one_endpoint().await;
    let mut first = Stream::open(&picker).await;
    first.say(request_headers(&[])).await;
    first.say(request_body(BODY, true)).await;
    first.next().await;
    let mut second = Stream::open(&picker).await;
    second.say(request_headers(&[])).await;
    second.say(request_body(BODY, true)).await;
    until("the second to be queued", async || {
        picker.queued().total().requests == 1
    })
    .await;
    drop(first);
    assert!(matches!(second.next().await, Outgoing::RequestHeaders(_)));
}

#[tokio::test]
async fn a_refusal_is_an_immediate_answer() {
    let picker = picker(Config {
        metrics: None,
        ..Config::default()
    })
    .await;
    picker.set_endpoints(vec![], Objectives::default());
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    let [Outgoing::ImmediateResponse(answer)] = &stream.rest().await.unwrap()[..] else {
        panic!("one answer")
    };
    assert_eq!(answer.status.as_ref().map(|status| status.code), Some(503));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"]["type"], "service_unavailable_error");
    let set = &answer.headers.as_ref().unwrap().set_headers;
    let reason = set
        .iter()
        .filter_map(|set| set.header.as_ref())
        .find(|set| set.key == header::DROPPED_REASON);
    assert_eq!(reason.unwrap().raw_value, b"rejected-no-endpoints");
}

#[tokio::test]
async fn health_follows_readiness_and_a_drain_goes_on_serving() {
    let picker = picker(Config {
        metrics: None,
        ..Config::default()
    })
    .await;
    let all = ["", health::READINESS, health::EXT_PROC];
    for service in all {
        until("not serving yet", async || {
            serving(&picker, service).await == Some(ServingStatus::NotServing)
        })
        .await;
    }
    until("alive", async || {
        serving(&picker, health::LIVENESS).await == Some(ServingStatus::Serving)
    })
    .await;
    picker.set_endpoints(vec![endpoint(1)], Objectives::default());
    for service in all {
        until("serving", async || {
            serving(&picker, service).await == Some(ServingStatus::Serving)
        })
        .await;
    }
    picker.shutdown().begin_drain();
    for service in all {
        until("draining", async || {
            serving(&picker, service).await == Some(ServingStatus::NotServing)
        })
        .await;
    }
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    assert!(
        matches!(stream.next().await, Outgoing::RequestHeaders(_)),
        "still served"
    );
    picker.stop();
    drop(stream);
    picker.join().await;
}

#[tokio::test]
async fn endpoints_come_from_a_file_and_their_metrics_are_read() {
    let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = engine.local_addr().unwrap();
    tokio::spawn(async move {
        const PAGE: &str =
            "vllm:num_requests_waiting{model_name=\"m\"} 4\nvllm:num_requests_running 2\n";
        while let Ok((mut connection, _)) = engine.accept().await {
            let mut request = [0; 1024];
            while connection
                .read(&mut request)
                .await
                .is_ok_and(|read| read > 0)
            {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{PAGE}",
                    PAGE.len()
                );
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("endpoints.yaml");
    let list = format!(
        "endpoints: [{{name: a, address: {}, port: {}}}]\nobjectives: [{{name: batch, priority: -1}}]",
        address.ip(),
        address.port()
    );
    std::fs::write(&file, list).unwrap();
    let options = Options {
        endpoints_file: Some(file),
        ..Options::local()
    };
    let picker = epp::start(Config::default(), options, Clock::start(), Shutdown::new())
        .await
        .unwrap();
    picker.ready().await;
    assert_eq!(picker.pool().endpoints.len(), 1);
    let scraped = || picker.pool().endpoints[0].scraped();
    until("the first read", async || scraped().is_some()).await;
    assert_eq!(
        scraped().map(|scraped| (scraped.waiting, scraped.running)),
        Some((4.0, 2.0))
    );

    let mut stream = Stream::open(&picker).await;
    stream
        .say(request_headers(&[("x-llm-d-inference-objective", "batch")]))
        .await;
    stream.say(request_body(BODY, true)).await;
    assert!(matches!(stream.next().await, Outgoing::RequestHeaders(_)));
    assert_eq!(picker.demand().totals().bands[0].priority, -1);
}

//! What a picker tells of a request that goes through it: metrics, the last decisions, records, spans.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "the wire tests use the rest")]
#[path = "wire/proxy.rs"]
mod proxy;

use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Outgoing;
use epp::spans::{Exporter, Parent, Sampler, SpanOptions};
use epp::telemetry::{RecordOptions, Telling};
use epp::{Handle, Options};
use epp_core::record::Line;
use epp_core::{Config, Objectives};
use names::header;
use proxy::*;
use runtime::{Clock, Shutdown};
use std::time::Duration;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const EVENT: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
const END: &str = "data: {\"choices\":[{\"text\":\"b\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

async fn start(telling: Telling) -> Handle {
    let options = Options {
        telling,
        ..Options::local()
    };
    let config = Config {
        metrics: None,
        ..Config::headroom_default()
    };
    let picker = epp::start(config, options, Clock::start(), Shutdown::new())
        .await
        .unwrap();
    picker.set_endpoints(vec![endpoint(1), endpoint(2)], Objectives::default());
    picker
}

/// One streamed request; returns what was set on its way to the server.
async fn request(picker: &Handle, id: &str, extra: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let mut stream = Stream::open(picker).await;
    let headers = [
        &[
            (header::REQUEST_ID, id),
            ("x-llm-d-inference-fairness-id", "tenant"),
        ],
        extra,
    ]
    .concat();
    stream.say(request_headers(&headers)).await;
    stream.say(request_body(STREAMED, true)).await;
    let Outgoing::RequestHeaders(answer) = stream.next().await else {
        panic!("headers first")
    };
    let set = answer
        .response
        .unwrap()
        .header_mutation
        .unwrap()
        .set_headers;
    let set = set.into_iter().filter_map(|set| set.header);
    let set = set.map(|header| (header.key, header.raw_value)).collect();
    stream.next().await;
    stream.say(response_headers("text/event-stream")).await;
    stream.next().await;
    stream.say(response_body(EVENT, false)).await;
    stream.next().await;
    stream.say(response_body(END, true)).await;
    stream.rest().await.unwrap();
    idle(picker).await;
    set
}

/// A page of the picker's.
async fn page(picker: &Handle, path: &str) -> String {
    let url = format!("http://{}{path}", picker.admin);
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.text().await.unwrap()
}

#[tokio::test]
async fn a_request_is_in_every_family_that_it_belongs_to() {
    runtime::tls::install_provider();
    let picker = start(Telling {
        deprecated_names: true,
        ..Telling::default()
    })
    .await;
    request(&picker, "r-1", &[]).await;
    let page = page(&picker, "/metrics").await;
    let labels = r#"model_name="m",target_model_name="m",fairness_id="tenant",priority="0""#;
    let lines = [
        format!("llm_d_epp_request_total{{{labels}}} 1"),
        format!("inference_objective_request_total{{{labels}}} 1"),
        format!("llm_d_epp_request_running{{{labels}}} 0"),
        format!("llm_d_epp_request_size_bytes_count{{{labels}}} 1"),
        format!("llm_d_epp_response_size_bytes_count{{{labels}}} 1"),
        format!("llm_d_epp_request_cached_tokens_count{{{labels}}} 1"),
        format!("llm_d_epp_request_output_tokens_sum{{{labels}}} 2.0"),
        format!("llm_d_epp_request_ntpot_seconds_count{{{labels}}} 1"),
        format!("llm_d_epp_request_streaming_itl_seconds_count{{{labels}}} 1"),
        format!("llm_d_epp_request_ttft_seconds_count{{{labels},streaming=\"true\"}} 1"),
        format!("llm_d_epp_flow_control_queue_size{{{labels},inference_pool=\"default\"}} 0"),
        format!("llm_d_epp_flow_control_request_queue_duration_seconds_count{{{labels},inference_pool=\"default\",outcome=\"Dispatched\"}} 1"),
        r#"llm_d_epp_flow_control_request_enqueue_duration_seconds_count{fairness_id="tenant",priority="0",outcome="Dispatched"} 1"#.to_owned(),
        r#"llm_d_epp_flow_control_requests_total{outcome="Dispatched",priority="0",inference_pool="default"} 1"#.to_owned(),
        r#"llm_d_epp_inflight_requests{endpoint_name="e1",namespace="",producer_name="inflight-load-producer",fairness_id="",priority=""} 0.0"#.to_owned(),
        "llm_d_epp_request_processing_duration_seconds_count 1".to_owned(),
        r#"inference_pool_ready_pods{name="default"} 2.0"#.to_owned(),
        r#"llm_d_router_epp_extproc_streams_inflight 0"#.to_owned(),
    ];
    for line in lines {
        assert!(
            page.lines().any(|one| one == line),
            "{line} is not on the page:\n{page}"
        );
    }
    let attempts = "llm_d_epp_scheduler_attempts_total{status=\"success\",target_model_name=\"m\",endpoint_name=\"e";
    assert!(page.contains(attempts), "{page}");
    assert_eq!(page.matches("# EOF").count(), 1);
    // A family is declared once, or scrapers refuse the page.
    let mut declared: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let count = declared.len();
    declared.sort_unstable();
    declared.dedup();
    assert_eq!(declared.len(), count);
}

/// The picker's metrics, once one of them says what it is to say.
async fn metrics_with(picker: &Handle, line: &str) -> String {
    let told = async {
        loop {
            let page = page(picker, "/metrics").await;
            if page.lines().any(|one| one == line) {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await;
    told.unwrap_or_else(|_| panic!("{line} is not told"))
}

#[tokio::test]
async fn requests_that_are_refused_unread_are_counted() {
    runtime::tls::install_provider();
    let picker = start(Telling::default()).await;
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(b"no JSON", true)).await;
    assert!(matches!(
        stream.next().await,
        Outgoing::ImmediateResponse(_)
    ));
    stream.rest().await.unwrap();
    let line =
        "headroom_refused_before_queue_total{status=\"400\",reason=\"rejected-bad-request\"} 1";
    let page = metrics_with(&picker, line).await;
    let error = "llm_d_epp_request_error_total{model_name=\"\",target_model_name=\"\",fairness_id=\"\",priority=\"0\",error_code=\"BadRequest\"} 1";
    assert!(page.lines().any(|line| line == error), "{page}");
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_an_outcome_of_it() {
    runtime::tls::install_provider();
    let picker = start(Telling::default()).await;
    picker.set_endpoints(vec![], Objectives::default());
    let stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    let labels = "model_name=\"m\",target_model_name=\"m\",fairness_id=\"default-flow\",priority=\"0\",inference_pool=\"default\"";
    metrics_with(
        &picker,
        &format!("llm_d_epp_flow_control_queue_size{{{labels}}} 1"),
    )
    .await;
    drop(stream);
    let outcome = "outcome=\"EvictedContextCancelled\"";
    let line = format!(
        "llm_d_epp_flow_control_requests_total{{{outcome},priority=\"0\",inference_pool=\"default\"}} 1"
    );
    let page = metrics_with(&picker, &line).await;
    let waited = format!(
        "llm_d_epp_flow_control_request_queue_duration_seconds_count{{{labels},{outcome}}} 1"
    );
    assert!(page.lines().any(|line| line == waited), "{page}");
}

#[tokio::test]
async fn every_histogram_has_a_bucket_for_all() {
    runtime::tls::install_provider();
    let mut config = Config {
        metrics: None,
        ..Config::headroom_default()
    };
    config.flow.as_mut().unwrap().eviction = true;
    let picker = epp::start(config, Options::local(), Clock::start(), Shutdown::new())
        .await
        .unwrap();
    picker.set_endpoints(vec![endpoint(1)], Objectives::default());
    request(&picker, "r-1", &[]).await;
    let page = page(&picker, "/metrics").await;
    assert!(page.contains("revocation_confirmation"), "{page}");
    // The last bucket of each: the one before another family, or other labels.
    let buckets: Vec<_> = page
        .lines()
        .filter(|line| line.contains("_bucket{"))
        .collect();
    let of = |line: &str| {
        let (head, bound) = line.split_once("le=\"").unwrap();
        let (bound, _) = bound.split_once('"').unwrap();
        (head.to_owned(), bound.to_owned())
    };
    for pair in buckets.windows(2) {
        let ((one, bound), (next, _)) = (of(pair[0]), of(pair[1]));
        assert!(one == next || bound == "+Inf", "{}", pair[0]);
    }
    assert!(!page.contains("e308"), "{page}");
}

#[tokio::test]
async fn a_decision_can_be_asked_for_and_is_in_the_file() {
    runtime::tls::install_provider();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("picks.jsonl");
    let picker = start(Telling {
        records: Some(RecordOptions {
            path: path.clone(),
            sample: 1.0,
            most_bytes: 1 << 20,
        }),
        ..Telling::default()
    })
    .await;
    let secret = [("authorization", "Bearer hidden")];
    request(&picker, "r-7", &secret).await;
    let asked: serde_json::Value =
        serde_json::from_str(&page(&picker, "/debug/decisions?id=r-7").await).unwrap();
    let pick = &asked["picks"][0];
    assert_eq!(pick["id"], "r-7");
    assert_eq!(pick["request"]["flow"], "tenant");
    assert_eq!(pick["ended"]["outcome"], "Served");
    assert_eq!(pick["ended"]["outputTokens"], 2);
    let candidates = pick["picked"]["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2);
    assert_eq!(asked["pools"][0]["endpoints"][0]["name"], "e1");
    let state: serde_json::Value =
        serde_json::from_str(&page(&picker, "/debug/state").await).unwrap();
    assert_eq!(state["config"]["version"], pick["config"]);
    assert_eq!(state["flows"][0]["flow"], "tenant");

    picker.stop();
    picker.join().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("hidden") && !text.contains("hello"),
        "{text}"
    );
    let lines: Vec<_> = text
        .lines()
        .map(|line| Line::parse(line).unwrap())
        .collect();
    let [Line::Pool(pool), Line::Pick(pick)] = &lines[..] else {
        panic!("{lines:?}")
    };
    let picked = pick.picked.as_ref().unwrap();
    assert_eq!((picked.pool, pick.id.as_str()), (pool.pool, "r-7"));
    assert_eq!(pick.ended.as_ref().unwrap().outcome, "Served");
}

#[tokio::test]
async fn the_server_gets_the_trace_that_the_picker_is_part_of() {
    let tracing = |ratio| SpanOptions {
        exporter: Exporter::Console,
        sampler: Sampler {
            parent_based: true,
            ratio,
        },
        resource: vec![],
        most_queued: 10,
        most_at_once: 1,
        delay: Duration::ZERO,
    };
    let picker = start(Telling {
        tracing: Some(tracing(0.0)),
        ..Telling::default()
    })
    .await;
    let traceparent = |set: Vec<(String, Vec<u8>)>| {
        let named = set
            .into_iter()
            .find(|(name, _)| name == header::TRACEPARENT);
        named.map(|(_, value)| Parent::parse(&value).unwrap())
    };
    let came = Parent::parse(PARENT.as_bytes()).unwrap();
    let went = traceparent(request(&picker, "a", &[("traceparent", PARENT)]).await).unwrap();
    assert_eq!((went.trace, went.sampled), (came.trace, true));
    assert_ne!(
        went.span, came.span,
        "the server's spans hang below the picker's"
    );
    let unsampled = PARENT.replace("-01", "-00");
    assert_eq!(
        traceparent(request(&picker, "b", &[("traceparent", &unsampled)]).await),
        None
    );
    assert_eq!(
        traceparent(request(&picker, "c", &[]).await),
        None,
        "left as it came"
    );
}

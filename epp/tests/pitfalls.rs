//! The twenty pitfalls that others fell into, each held against the picker's public face: its ext_proc service, its
//! director, its configuration.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "wire/proxy.rs"]
#[allow(dead_code, reason = "the helpers of another test")]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Incoming;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Outgoing;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpHeaders, ImmediateResponse};
use epp::usage::sse::{Strip, Tap};
use epp::usage::tokens::Tokens;
use epp_core::config::{BandConfig, Detector, Ordering};
use epp_core::{
    Config, Director, Dispatch, End, EndpointSpec, Objectives, Outcome, Pool, Request, Scraped,
    Slo, Verdict,
};
use names::{header, health};
use proxy::*;
use tonic_health::pb::health_check_response::ServingStatus;

const SECOND: Duration = Duration::from_secs(1);

// --- a director by hand ---

fn specs(numbers: &[u8]) -> Vec<EndpointSpec> {
    numbers.iter().copied().map(endpoint).collect()
}

fn pool(numbers: &[u8]) -> Arc<Pool> {
    Arc::new(Pool::default().updated(specs(numbers)))
}

fn director(config: Config, pool: &Arc<Pool>) -> Director {
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director
}

fn request(priority: i32) -> Request {
    Request {
        priority,
        prompt_tokens: 100,
        bytes: 400,
        ..Request::default()
    }
}

fn dispatched(director: &mut Director) -> Box<Dispatch> {
    match director.poll() {
        Some((_, Verdict::Dispatched(dispatch))) => dispatch,
        other => panic!("expected a dispatch, got {other:?}"),
    }
}

fn refused_status(director: &mut Director) -> u16 {
    match director.poll() {
        Some((_, Verdict::Refused(refusal))) => refusal.status,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

const COMPLETE: End = End::Complete {
    status: 200,
    streaming: true,
    prompt_tokens: None,
    cached_tokens: None,
    output_tokens: Some(5),
};

// --- ext_proc ---

#[tokio::test]
async fn pitfall_01_a_second_end_of_the_body_is_ignored() {
    let picker = picker_with_one_endpoint().await;
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    stream.say(request_body(b"", true)).await;
    stream.say(request_body(BODY, true)).await;
    stream.say(response_headers("application/json")).await;
    stream.say(response_body("{}", true)).await;
    let kinds: Vec<_> = stream.rest().await.unwrap().into_iter().map(kind).collect();
    let once = [
        "request headers",
        "request body",
        "response headers",
        "response body",
    ];
    assert_eq!(kinds, once);
    assert_eq!(picker.demand().totals().offered().requests, 1);
}

#[tokio::test]
async fn pitfall_02_headers_are_not_answered_before_the_body_is_read() {
    let picker = picker_with_one_endpoint().await;
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(&BODY[..12], false)).await;
    // A second stream that is served in full shows that the picker had time to answer the first.
    let mut other = Stream::open(&picker).await;
    other.say(request_headers(&[])).await;
    other.say(request_body(BODY, true)).await;
    other.next().await;
    drop(other);
    idle(&picker).await;
    let early = tokio::time::timeout(Duration::ZERO, stream.replies.message()).await;
    assert!(
        early.is_err(),
        "answered before the body was there: {early:?}"
    );
    stream.say(request_body(&BODY[12..], true)).await;
    assert_eq!(kind(stream.next().await), "request headers");
    assert_eq!(kind(stream.next().await), "request body");
}

#[tokio::test]
async fn pitfall_03_no_piece_of_a_reply_is_longer_than_envoy_takes() {
    /// What Envoy takes in one message.
    const MOST: usize = 62_000;
    let picker = picker_with_one_endpoint().await;
    let prompt = "x".repeat(300_000);
    let body = format!(r#"{{"model":"m","prompt":"{prompt}"}}"#);
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    for (at, piece) in body.as_bytes().chunks(100_000).enumerate() {
        let last = (at + 1) * 100_000 >= body.len();
        stream.say(request_body(piece, last)).await;
    }
    assert_eq!(kind(stream.next().await), "request headers");
    let mut sent = Vec::new();
    loop {
        let Outgoing::RequestBody(piece) = stream.next().await else {
            panic!("the body")
        };
        let (bytes, ends) = streamed(piece.response);
        assert!(bytes.len() <= MOST, "{} bytes", bytes.len());
        sent.extend(bytes);
        if ends {
            break;
        }
    }
    assert!(sent == body.as_bytes(), "the body arrives whole");
}

#[test]
fn pitfall_04_a_stream_gives_back_what_it_took_where_it_took_it() {
    let first = pool(&[1]);
    let mut director = director(Config::round_robin(), &first);
    director.submit(Duration::ZERO, request(0));
    let mut old = dispatched(&mut director);
    // The endpoint goes and comes back under the same name and address: it starts from nothing.
    let empty = Arc::new(first.updated(Vec::new()));
    director.set_pool(SECOND, Arc::clone(&empty));
    let again = Arc::new(empty.updated(specs(&[1])));
    director.set_pool(2 * SECOND, Arc::clone(&again));
    let now = || again.endpoints[0].load.snapshot();
    assert_eq!(now().in_flight, 0);
    director.submit(2 * SECOND, request(0));
    let new = dispatched(&mut director);
    old.in_flight.first_token(3 * SECOND);
    old.in_flight.finish(4 * SECOND, COMPLETE);
    assert_eq!(
        now().in_flight,
        1,
        "the old stream took nothing from the new life"
    );
    new.in_flight.finish(5 * SECOND, COMPLETE);
    assert_eq!(now().in_flight, 0);
}

#[tokio::test]
async fn pitfall_05_load_lives_exactly_as_long_as_its_stream() {
    let picker = picker_with_one_endpoint().await;
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(STREAMED, true)).await;
    stream.next().await;
    let load = || picker.pool().endpoints[0].load.snapshot().in_flight;
    assert_eq!(load(), 1);
    stream.next().await;
    stream.say(response_headers("text/event-stream")).await;
    stream.next().await;
    let token = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
    for _ in 0..3 {
        stream.say(response_body(token, false)).await;
        stream.next().await;
        assert_eq!(load(), 1, "held while the answer runs");
    }
    drop(stream);
    idle(&picker).await;
    let totals = picker.demand().totals();
    assert_eq!(totals.outcome(Outcome::ClientGone).requests, 1);
}

#[test]
fn pitfall_06_saturation_is_read_from_live_counters() {
    let first = pool(&[1, 2]);
    let config = Config::round_robin().with_max_concurrency(2);
    let mut director = director(config, &first);
    let mut held = Vec::new();
    for dispatches in 1..=3 {
        director.submit(Duration::ZERO, request(0));
        held.push(dispatched(&mut director));
        let level = director.saturation(Duration::ZERO).unwrap();
        assert_eq!(level, f64::from(dispatches) / 4.0);
    }
    // A pool update makes new endpoints of the same servers; what they carry is still counted.
    let mut relabelled = specs(&[1, 2]);
    relabelled[0].labels.insert("zone".into(), "b".into());
    director.set_pool(SECOND, Arc::new(first.updated(relabelled)));
    assert_eq!(director.saturation(SECOND), Some(0.75));
    held.clear();
    assert_eq!(director.saturation(SECOND), Some(0.0));
}

#[test]
fn pitfall_07_a_dispatch_counts_when_it_is_decided() {
    let pool = pool(&[1]);
    let config = Config::round_robin().with_max_concurrency(1);
    let mut director = director(config, &pool);
    director.submit(Duration::ZERO, request(0));
    director.submit(Duration::ZERO, request(0));
    // Nobody has taken the verdict yet, let alone told the proxy.
    assert_eq!(pool.endpoints[0].load.snapshot().in_flight, 1);
    assert_eq!(director.queued().total().requests, 1);
    let _held = dispatched(&mut director);
    assert!(director.poll().is_none(), "the second waits for room");
}

#[test]
fn pitfall_08_a_pool_whose_metrics_are_all_stale_is_not_full() {
    let pool = pool(&[1, 2]);
    let config = Config {
        detector: Detector::utilization_default(),
        ..Config::llmd_default()
    };
    let mut director = director(config, &pool);
    let full = |at| Scraped {
        at,
        waiting: 500.0,
        running: 100.0,
        kv_utilization: 1.0,
        block_tokens: None,
        kv_blocks: None,
    };
    for endpoint in &pool.endpoints {
        endpoint.set_scraped(full(SECOND));
    }
    director.submit(SECOND, request(0));
    assert!(director.poll().is_none(), "fresh metrics say full");
    assert!(director.saturation(SECOND).unwrap() >= 1.0);
    let later = 30 * SECOND;
    assert_eq!(director.saturation(later), None, "unknown, not full");
    director.advance(later);
    dispatched(&mut director);
}

#[tokio::test]
async fn pitfall_09_what_clients_invent_does_not_grow_the_metrics() {
    const INVENTED: usize = 1_300;
    let picker = picker(Config {
        metrics: None,
        ..Config::default()
    })
    .await;
    picker.set_endpoints(vec![endpoint(1)], Objectives::default());
    for number in 0..INVENTED {
        let body = format!(r#"{{"model":"invented-{number}","prompt":"x"}}"#);
        let flow = format!("tenant-{number}");
        let mut stream = Stream::open(&picker).await;
        let headers = [(header::FAIRNESS_ID.canonical, flow.as_str())];
        stream.say(request_headers(&headers)).await;
        stream.say(request_body(body.as_bytes(), true)).await;
        stream.next().await;
    }
    let page = picker.metrics().encode();
    for invented in ["invented-", "tenant-"] {
        let mut names: Vec<&str> = page
            .split(invented)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert!(
            names.len() < INVENTED,
            "every one of {INVENTED} values of {invented} has its own series"
        );
    }
    assert!(page.contains("\"other\""), "the rest is counted together");
}

#[test]
fn pitfall_10_numbers_of_clients_saturate() {
    let pool = pool(&[1]);
    let mut config = Config::round_robin().with_max_concurrency(1);
    let flow = config.flow.as_mut().unwrap();
    for ordering in [Ordering::Edf, Ordering::SloDeadline] {
        let band = BandConfig {
            ordering,
            ..BandConfig::default()
        };
        let priority = flow.bands.len() as i32 + 1;
        flow.bands.insert(priority, band);
    }
    flow.request_ttl = None;
    let mut director = director(config, &pool);
    let now = Duration::MAX - SECOND;
    director.submit(now, request(0));
    let held = dispatched(&mut director);
    for priority in [0, 1, 2] {
        for ttft_ms in [f64::MAX, f64::INFINITY, f64::NAN, -1.0, 1e300] {
            let slo = Slo {
                ttft_ms: Some(ttft_ms),
                tpot_ms: Some(ttft_ms),
            };
            let wild = Request {
                slo,
                ttl: Some(Duration::MAX),
                max_output_tokens: Some(u32::MAX),
                prompt_tokens: u32::MAX,
                bytes: u64::from(u32::MAX),
                ..request(priority)
            };
            director.submit(now, wild);
        }
    }
    held.in_flight.finish(now, COMPLETE);
    let mut served = 0;
    loop {
        director.advance(now);
        let Some((_, verdict)) = director.poll() else {
            break;
        };
        served += 1;
        drop(verdict);
    }
    assert_eq!(served, 15, "nobody waits for an instant that never comes");
}

#[test]
fn pitfall_11_bands_of_objectives_outlive_their_silence() {
    let pool = pool(&[1]);
    let mut director = director(Config::round_robin(), &pool);
    director.pin_priorities(Duration::ZERO, [7, -3]);
    director.submit(SECOND, request(5));
    dispatched(&mut director)
        .in_flight
        .finish(2 * SECOND, COMPLETE);
    let bands = |director: &Director| -> Vec<i32> {
        let depth = director.queued();
        depth.bands.iter().map(|band| band.priority).collect()
    };
    assert_eq!(bands(&director), [7, 5, 0, -3]);
    let mut now = 2 * SECOND;
    for _ in 0..20 {
        now += 120 * SECOND;
        director.advance(now);
    }
    assert_eq!(bands(&director), [7, 0, -3], "5 was only ever asked for");
}

#[test]
fn pitfall_12_a_full_pool_is_429_and_an_empty_one_503() {
    let full = pool(&[1]);
    let mut config = Config::round_robin().with_max_concurrency(1);
    config.flow.as_mut().unwrap().default_band.max_requests = 1;
    let mut director = director(config, &full);
    for _ in 0..3 {
        director.submit(Duration::ZERO, request(0));
    }
    let _held = dispatched(&mut director);
    assert_eq!(refused_status(&mut director), 429, "the queue is full");
    director.advance(61 * SECOND);
    assert_eq!(refused_status(&mut director), 429, "its time was up");
    director.set_pool(62 * SECOND, Arc::new(full.updated(Vec::new())));
    for _ in 0..2 {
        director.submit(62 * SECOND, request(0));
    }
    assert_eq!(refused_status(&mut director), 503, "full, and nobody there");
    director.advance(200 * SECOND);
    assert_eq!(refused_status(&mut director), 503, "nobody ever came");
}

#[tokio::test]
async fn pitfall_13_a_drain_is_told_first_and_serves_on() {
    let picker = picker_with_one_endpoint().await;
    until("ready", async || {
        serving(&picker, health::EXT_PROC).await == Some(ServingStatus::Serving)
    })
    .await;
    picker.shutdown().begin_drain();
    until("no longer ready", async || {
        serving(&picker, health::EXT_PROC).await == Some(ServingStatus::NotServing)
    })
    .await;
    let mut stream = Stream::open(&picker).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    assert_eq!(kind(stream.next().await), "request headers");
    picker.stop();
    drop(stream);
    picker.join().await;
}

#[tokio::test]
async fn pitfall_14_every_picker_of_a_pool_answers() {
    let first = picker_with_one_endpoint().await;
    let second = picker_with_one_endpoint().await;
    for picker in [&first, &second] {
        let mut stream = Stream::open(picker).await;
        stream.say(request_headers(&[])).await;
        stream.say(request_body(BODY, true)).await;
        assert_eq!(kind(stream.next().await), "request headers");
    }
    first.stop();
    first.join().await;
    let mut stream = Stream::open(&second).await;
    stream.say(request_headers(&[])).await;
    stream.say(request_body(BODY, true)).await;
    assert_eq!(kind(stream.next().await), "request headers");
}

#[test]
fn pitfall_15_usage_in_parts_adds_up_at_every_cut() {
    let stream = concat!(
        "event: message_start\n",
        "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,",
        "\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n",
        "event: content_block_delta\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"hi\"}}\n\n",
        "event: message_delta\n",
        "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n",
    );
    for cut in 0..=stream.len() {
        let (mut out, mut tokens) = (Vec::new(), Tokens::default());
        let mut tap = Tap::new(Strip::Nothing);
        for piece in [&stream[..cut], &stream[cut..]] {
            tap.push(Bytes::from(piece.to_owned()), &mut out, |seen| {
                tokens = seen.usage.map_or(tokens, |later| tokens.merge(later));
            });
        }
        assert_eq!(out.concat(), stream.as_bytes(), "cut at {cut}");
        let counts = (tokens.whole_prompt(), tokens.cached, tokens.output);
        assert_eq!(counts, (Some(125), Some(100), Some(15)), "cut at {cut}");
    }
}

// --- what is not built says so ---

/// A sample configuration that asks for something that is not built: it loads, and what stands in is told.
fn stands_in(document: &str, what: &str, instead: &str) {
    let config = Config::from_yaml(document).unwrap();
    let told = config
        .stand_ins
        .iter()
        .find(|stand_in| stand_in.what == what)
        .unwrap_or_else(|| panic!("{what} is silent: {:?}", config.stand_ins));
    assert!(told.instead.contains(instead), "{told:?}");
    let warned = |warning: &String| warning.contains(what);
    assert!(config.warnings.iter().any(warned), "{:?}", config.warnings);
}

#[test]
fn pitfall_16_events_of_the_cache_are_not_read_in_silence() {
    stands_in(
        include_str!("../core/tests/configs/precise-sample.yaml"),
        "precise-prefix-cache-producer",
        "not those that engines report",
    );
}

#[test]
fn pitfall_17_prefill_elsewhere_is_not_left_out_in_silence() {
    let document = include_str!("../core/tests/configs/pd-sample.yaml");
    stands_in(document, "disagg-profile-handler", "decode");
    // The decode profile runs, and never picks a server that only prefills.
    let mut director = Director::new(Config::from_yaml(document).unwrap(), 1);
    let mut all = specs(&[1, 2, 3]);
    all[0]
        .labels
        .insert("llm-d.ai/role".into(), "prefill".into());
    all[1]
        .labels
        .insert("llm-d.ai/role".into(), "decode".into());
    director.set_pool(Duration::ZERO, Arc::new(Pool::default().updated(all)));
    for _ in 0..20 {
        director.submit(Duration::ZERO, request(0));
        assert_ne!(&*dispatched(&mut director).endpoint.name, "e1");
    }
    // With nobody left to decode, the answer says so instead of taking a server that cannot.
    let mut only = specs(&[1]);
    only[0]
        .labels
        .insert("llm-d.ai/role".into(), "prefill".into());
    director.set_pool(SECOND, Arc::new(Pool::default().updated(only)));
    director.submit(SECOND, request(0));
    assert!(refused_status(&mut director) >= 429);
}

#[test]
fn pitfall_18_no_tokeniser_is_waited_for() {
    // Tokens are estimated in the process: there is no call to wait for, and the configuration says so.
    stands_in(
        include_str!("../core/tests/configs/tokenizer-http.yaml"),
        "token-producer.vllm",
        "estimated",
    );
}

// --- ext_proc again ---

fn set(headers: &[HeaderValue], name: &str) -> Option<Vec<u8>> {
    let found = headers.iter().find(|header| header.key == name);
    found.map(|header| header.raw_value.clone())
}

#[tokio::test]
async fn pitfall_19_the_length_told_is_that_of_the_body_sent() {
    let picker = picker_with_one_endpoint().await;
    let mut stream = Stream::open(&picker).await;
    let length = STREAMED.len().to_string();
    let said = [("content-length", length.as_str())];
    stream.say(request_headers(&said)).await;
    stream.say(request_body(STREAMED, true)).await;
    let Outgoing::RequestHeaders(answer) = stream.next().await else {
        panic!("headers first")
    };
    let mutation = answer.response.unwrap().header_mutation.unwrap();
    let headers: Vec<HeaderValue> = mutation
        .set_headers
        .into_iter()
        .filter_map(|option| option.header)
        .collect();
    let Outgoing::RequestBody(body) = stream.next().await else {
        panic!("then the body")
    };
    let (sent, _) = streamed(body.response);
    assert_ne!(sent, STREAMED, "usage was asked for");
    let told = set(&headers, "content-length").unwrap();
    assert_eq!(told, sent.len().to_string().into_bytes());
}

#[tokio::test]
async fn pitfall_20_every_refusal_says_why() {
    let served = picker_with_one_endpoint().await;
    let empty = picker(Config {
        metrics: None,
        ..Config::default()
    })
    .await;
    empty.set_endpoints(Vec::new(), Objectives::default());
    let nowhere = Incoming::RequestHeaders(HttpHeaders {
        end_of_stream: true,
        ..headers(&[(":method", "GET"), (":path", "/v1/models")], true)
    });
    let broken: [(&epp::Handle, Vec<Incoming>); 4] = [
        (
            &served,
            vec![request_headers(&[]), request_body(b"{", true)],
        ),
        (
            &served,
            vec![request_headers(&[]), request_body(b"{}", true)],
        ),
        (&empty, vec![request_headers(&[]), request_body(BODY, true)]),
        (&empty, vec![nowhere]),
    ];
    for (picker, messages) in broken {
        let mut stream = Stream::open(picker).await;
        for message in messages {
            stream.say(message).await;
        }
        let replies = stream.rest().await.unwrap();
        let [Outgoing::ImmediateResponse(answer)] = &replies[..] else {
            panic!("one answer: {replies:?}")
        };
        let reason = reason(answer).unwrap_or_else(|| panic!("no reason: {answer:?}"));
        assert!(reason.starts_with("rejected-"), "{reason}");
    }
}

fn reason(answer: &ImmediateResponse) -> Option<String> {
    let options = &answer.headers.as_ref()?.set_headers;
    let headers: Vec<HeaderValue> = options
        .iter()
        .filter_map(|option| option.header.clone())
        .collect();
    set(&headers, header::DROPPED_REASON).map(|value| String::from_utf8_lossy(&value).into_owned())
}

//! The server over real sockets. Time is tokio's paused clock, so the engine's seconds take none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod client;

use client::{Client, Reply};
use serde_json::{Value, json};
use simulator::{NullUsage, Server, ServerOptions, spawn};
use simulator_core::{Profile, StepCost};
use std::time::Duration;
use tokio::time::Instant;

/// Every step takes 10 ms, whatever is in it.
fn options() -> ServerOptions {
    let profile = Profile {
        model: "tiny".into(),
        step: StepCost {
            base_ms: 10.0,
            prefill_ms_per_token: 0.0,
            sequence_ms: 0.0,
            kv_ms_per_token: 0.0,
            noise: 0.0,
        },
        async_scheduling: false,
        kv_blocks: Some(1000),
        max_num_seqs: 4,
        max_num_batched_tokens: 8192,
        max_model_len: 4096,
        startup: 0.0,
        ..Profile::builtin("llama-3.1-8b-rtxpro6000").unwrap()
    };
    ServerOptions::new(profile)
}

async fn start(options: ServerOptions) -> (Server, Client) {
    let server = spawn(options).await.unwrap();
    let client = Client::new(server.address());
    (server, client)
}

fn completion(tokens: u32) -> Value {
    json!({"model": "tiny", "prompt": "x".repeat(400), "max_tokens": tokens, "ignore_eos": true})
}

fn with(mut body: Value, extra: Value) -> Value {
    for (field, value) in extra.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

#[tokio::test(start_paused = true)]
async fn a_completion_has_text_usage_and_the_exact_length() {
    let (_server, client) = start(options()).await;
    for cached in [0, 96] {
        let reply = client.post(COMPLETIONS, &completion(7)).await;
        assert_eq!(reply.header("content-type"), "application/json");
        let answer = reply.json();
        assert_eq!(answer["object"], "text_completion");
        assert_eq!(answer["choices"][0]["text"].as_str().unwrap().len(), 7 * 4);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(
            answer["usage"],
            json!({"prompt_tokens": 100, "total_tokens": 107, "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": cached}})
        );
    }
}

#[tokio::test(start_paused = true)]
async fn token_ids_text_and_arrays_of_one_are_the_same_prompt() {
    let (_server, client) = start(options()).await;
    let ids = vec![u32::from_le_bytes(*b"xxxx"); 100];
    let mut texts = Vec::new();
    for prompt in [
        json!("x".repeat(400)),
        json!(["x".repeat(400)]),
        json!(ids),
        json!([ids]),
    ] {
        let reply = client
            .post(COMPLETIONS, &with(completion(9), json!({"prompt": prompt})))
            .await
            .json();
        assert_eq!(reply["usage"]["prompt_tokens"], 100);
        texts.push(reply["choices"][0]["text"].clone());
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_one_event_per_token_one_step_apart() {
    let (_server, client) = start(options()).await;
    let begin = Instant::now();
    let mut stream = client
        .stream(COMPLETIONS, &with(completion(5), json!({"stream": true})))
        .await;
    assert_eq!(
        stream.header("content-type"),
        "text/event-stream; charset=utf-8"
    );
    let mut frames = Vec::new();
    while let Some(frame) = stream.next().await {
        frames.push((
            begin.elapsed().as_millis(),
            String::from_utf8(frame.unwrap().to_vec()).unwrap(),
        ));
    }
    assert_eq!(frames.len(), 5);
    for (step, (at, frame)) in (1..).zip(&frames) {
        // The runtime's timers tick in whole milliseconds.
        assert!(
            (10 * step..10 * step + 3).contains(at),
            "token {step} at {at} ms"
        );
        let events = frame.matches("data: {").count();
        assert_eq!(
            (events, frame.ends_with("data: [DONE]\n\n")),
            (1, step == 5)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_what_the_json_answer_says_and_usage_only_when_asked() {
    let (_server, client) = start(options()).await;
    let chat =
        json!({"messages": [{"role": "user", "content": "tell me"}], "max_completion_tokens": 300});
    let whole = client.post(CHAT, &chat).await.json();
    let text = whole["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    for usage in [false, true] {
        let asked = json!({"stream": true, "stream_options": {"include_usage": usage}});
        let events = client.post(CHAT, &with(chat.clone(), asked)).await.events();
        assert_eq!(
            events[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": ""})
        );
        let said: String = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(said, text);
        let with_usage: Vec<_> = events
            .iter()
            .filter(|event| event["usage"].is_object())
            .collect();
        assert_eq!(with_usage.len(), usize::from(usage));
        let tokens = text.len() / 4;
        assert_eq!(events.len(), 1 + tokens + usize::from(usage));
        if usage {
            let last = events.last().unwrap();
            assert_eq!(last["usage"]["completion_tokens"], tokens);
            assert_eq!(last["choices"], json!([]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_ignore_eos_answers_end_by_themselves_and_by_seed() {
    let (_server, client) = start(options()).await;
    let mut lengths = Vec::new();
    for seed in 0..12 {
        let body = json!({"prompt": "hello there", "max_tokens": 600, "seed": seed});
        let first = client.post(COMPLETIONS, &body).await.json();
        let again = client.post(COMPLETIONS, &body).await.json();
        assert_eq!(first["choices"], again["choices"]);
        let length = first["usage"]["completion_tokens"].as_u64().unwrap();
        let reason = if length == 600 { "length" } else { "stop" };
        assert_eq!(first["choices"][0]["finish_reason"], reason);
        lengths.push(length);
    }
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 6 && lengths[0] >= 1, "{lengths:?}");
}

#[tokio::test(start_paused = true)]
async fn fixed_identities_make_equal_streams_and_usage_only_adds_its_chunk() {
    for null_usage in [NullUsage::Never, NullUsage::Always] {
        let (_server, client) = start(ServerOptions {
            fixed_identity: true,
            null_usage,
            ..options()
        })
        .await;
        let stream = with(completion(6), json!({"stream": true}));
        let plain = client.post(COMPLETIONS, &stream).await.body;
        assert_eq!(plain, client.post(COMPLETIONS, &stream).await.body);
        let nulls = plain.matches("\"usage\":null").count();
        assert_eq!(
            nulls,
            if null_usage == NullUsage::Always {
                6
            } else {
                0
            }
        );
        let asked = with(stream, json!({"stream_options": {"include_usage": true}}));
        let with_usage = client.post(COMPLETIONS, &asked).await.body;
        let added: Vec<_> = with_usage
            .split_inclusive("\n\n")
            .filter(|event| !plain.contains(*event))
            .collect();
        assert!(
            added.len() == 1 && added[0].contains("\"choices\":[],\"usage\":{"),
            "{added:?}"
        );
        assert_eq!(with_usage.replace(added[0], ""), plain);
    }
}

#[tokio::test(start_paused = true)]
async fn ids_are_the_clients_or_new_ones() {
    let (_server, client) = start(options()).await;
    let mine = client
        .post_with(COMPLETIONS, &completion(1), &[("x-request-id", "mine")])
        .await
        .json();
    assert_eq!(mine["id"], "cmpl-mine");
    let a = client.post(COMPLETIONS, &completion(1)).await.json();
    let b = client.post(COMPLETIONS, &completion(1)).await.json();
    assert_ne!(a["id"], b["id"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_before_the_start_up_is_over() {
    let (_server, client) = start(ServerOptions {
        startup: Duration::from_secs(6),
        ..options()
    })
    .await;
    for path in ["/health", "/metrics", "/v1/models"] {
        assert_eq!(client.get(path).await.status, 503, "{path}");
    }
    let early = client.post(COMPLETIONS, &completion(1)).await;
    assert_eq!(
        (early.status, early.header("retry-after")),
        (503, "6".to_owned())
    );
    assert!(
        early.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("still loading: ready in 6")
    );
    tokio::time::advance(Duration::from_secs(6)).await;
    let health = client.get("/health").await;
    assert_eq!((health.status, health.body.as_str()), (200, ""));
    assert_eq!(client.post(COMPLETIONS, &completion(1)).await.status, 200);
    let models = client.get("/v1/models").await.json();
    assert_eq!(
        (
            &models["data"][0]["id"],
            &models["data"][0]["max_model_len"]
        ),
        (&json!("tiny"), &json!(4096))
    );
}

#[tokio::test(start_paused = true)]
async fn errors_are_shaped_as_vllms_and_name_the_field() {
    let (_server, client) = start(ServerOptions {
        max_body_bytes: 1 << 20,
        ..options()
    })
    .await;
    let small = |extra| with(json!({"prompt": "abc"}), extra);
    for (body, status, kind, param, part) in [
        (
            small(json!({"max_tokens": -1})),
            400,
            "BadRequestError",
            json!("max_tokens"),
            "max_tokens is -1",
        ),
        (
            small(json!({"model": "huge"})),
            404,
            "NotFoundError",
            json!("model"),
            "`huge` does not exist",
        ),
        (
            small(json!({"max_tokens": 4096})),
            400,
            "BadRequestError",
            json!("max_tokens"),
            "exceed the model's 4096",
        ),
        (
            small(json!({"prompt": "x".repeat(20_000)})),
            400,
            "BadRequestError",
            json!("prompt"),
            "5000 prompt tokens",
        ),
        (
            small(json!({"prompt": "x".repeat(2 << 20)})),
            413,
            "BadRequestError",
            Value::Null,
            "limit of 1048576 bytes",
        ),
        (
            json!([1]),
            400,
            "BadRequestError",
            Value::Null,
            "one JSON object",
        ),
    ] {
        let reply = client.post(COMPLETIONS, &body).await;
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["type"], &error["param"]),
            (status, &json!(kind), &param)
        );
        assert_eq!(error["code"], status);
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    let lost = client.get("/v2").await;
    assert!(
        lost.status == 404 && lost.body.contains("GET /v2"),
        "{}",
        lost.body
    );
    assert_eq!(client.get(COMPLETIONS).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_could_never_fit_the_cache_is_refused() {
    let mut options = options();
    options.profile.kv_blocks = Some(8);
    let (_server, client) = start(options).await;
    let reply = client.post(COMPLETIONS, &completion(100)).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("kv_blocks is 8"), "{}", reply.body);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses() {
    let mut options = options();
    options.profile.max_num_seqs = 1;
    options.max_waiting = 1;
    let (_server, client) = start(options).await;
    let stream = with(completion(50), json!({"stream": true}));
    let mut running = client.stream(COMPLETIONS, &stream).await;
    running.next().await.unwrap().unwrap();
    let waiting = client.stream(COMPLETIONS, &stream).await;
    let refused = client.post(COMPLETIONS, &completion(1)).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["type"].as_str()),
        (429, Some("RateLimitError"))
    );
    drop(waiting);
    running.rest().await.unwrap();
}

async fn metric(client: &Client, sample: &str) -> f64 {
    let page = client.get("/metrics").await.body;
    let line = page
        .lines()
        .find(|line| line.starts_with(sample) && line[sample.len()..].starts_with(['{', ' ']));
    line.unwrap_or_else(|| panic!("no {sample} in {page}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

async fn ended(client: &Client, reason: &str) -> f64 {
    let page = client.get("/metrics").await.body;
    let sample = format!("vllm:request_success_total{{finished_reason=\"{reason}\"");
    page.lines()
        .find(|line| line.starts_with(&sample))
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Asks until `reason` was counted `times`: a closed connection is noticed soon, not at once.
async fn until_ended(client: &Client, reason: &str, times: f64) {
    for _ in 0..1000 {
        if ended(client, reason).await == times {
            return;
        }
    }
    panic!("{reason} was never counted {times} times");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_frees_its_place() {
    let mut options = options();
    options.profile.max_num_seqs = 1;
    let (_server, client) = start(options).await;
    // One is running, one waits, and the last waits for a JSON answer; all three leave.
    let mut running = client
        .stream(
            COMPLETIONS,
            &with(completion(3000), json!({"stream": true})),
        )
        .await;
    running.next().await.unwrap().unwrap();
    let waiting = client
        .stream(
            COMPLETIONS,
            &with(completion(3000), json!({"stream": true})),
        )
        .await;
    let body = completion(3000);
    let mut json = Box::pin(client.post(COMPLETIONS, &body));
    tokio::select! {
        _ = &mut json => panic!("30 s have not passed"),
        () = async { while metric(&client, "vllm:num_requests_waiting").await < 2.0 {} } => {}
    }
    drop((running, waiting, json));
    until_ended(&client, "abort", 3.0).await;
    for gauge in [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
    ] {
        assert_eq!(metric(&client, gauge).await, 0.0, "{gauge}");
    }
    assert_eq!(
        metric(&client, "vllm:e2e_request_latency_seconds_count").await,
        0.0
    );
}

#[tokio::test(start_paused = true)]
async fn histograms_count_every_request_and_include_the_queue() {
    let mut options = options();
    options.profile.max_num_seqs = 1;
    let (_server, client) = start(options).await;
    let begin = Instant::now();
    let ask = |tokens| {
        let client = client.clone();
        async move {
            let body = with(completion(tokens), json!({"stream": true}));
            let mut stream = client.stream(COMPLETIONS, &body).await;
            stream.next().await.unwrap().unwrap();
            let first = begin.elapsed();
            stream.rest().await.unwrap();
            (first.as_secs_f64(), begin.elapsed().as_secs_f64())
        }
    };
    let (a, b, c) = tokio::join!(ask(20), ask(30), ask(10));
    // One at a time: the others' TTFT is the wait for those before them.
    let near = |what: &str, actual: f64, expected: f64| {
        assert!(
            (actual - expected).abs() < 0.02,
            "{what}: {actual} against {expected}"
        );
    };
    near(
        "TTFT",
        metric(&client, "vllm:time_to_first_token_seconds_sum").await,
        a.0 + b.0 + c.0,
    );
    near(
        "E2E",
        metric(&client, "vllm:e2e_request_latency_seconds_sum").await,
        a.1 + b.1 + c.1,
    );
    let queued = metric(&client, "vllm:request_queue_time_seconds_sum").await;
    near("queue", queued, a.0 + b.0 + c.0 - 0.03);
    assert!(queued > 0.3, "{queued}");
    near(
        "decode",
        metric(&client, "vllm:request_decode_time_seconds_sum").await,
        0.19 + 0.29 + 0.09,
    );
    near(
        "between tokens",
        metric(&client, "vllm:inter_token_latency_seconds_sum").await,
        0.57,
    );
    for (count, expected) in [
        ("vllm:time_to_first_token_seconds_count", 3.0),
        ("vllm:inter_token_latency_seconds_count", 57.0),
        ("vllm:request_time_per_output_token_seconds_count", 3.0),
        ("vllm:e2e_request_latency_seconds_count", 3.0),
        ("vllm:prompt_tokens_total", 300.0),
        ("vllm:generation_tokens_total", 60.0),
        ("vllm:request_generation_tokens_sum", 60.0),
        ("vllm:prefix_cache_queries_total", 300.0),
        ("vllm:prefix_cache_hits_total", 192.0),
    ] {
        assert_eq!(metric(&client, count).await, expected, "{count}");
    }
    assert_eq!(ended(&client, "length").await, 3.0);
    let page = client.get("/metrics").await;
    assert_eq!(
        page.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(page.body.contains(
        "vllm:cache_config_info{block_size=\"16\",model_name=\"tiny\",num_gpu_blocks=\"1000\"} 1.0"
    ));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_requests_finish_and_takes_no_new_ones() {
    let (server, client) = start(options()).await;
    let mut running = client
        .stream(COMPLETIONS, &with(completion(100), json!({"stream": true})))
        .await;
    running.next().await.unwrap().unwrap();
    let (stopped, rest) = tokio::join!(server.stop(), running.rest());
    stopped.unwrap();
    assert!(rest.unwrap().ends_with("data: [DONE]\n\n"));
    assert!(client.try_get("/health").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_limit() {
    let (server, client) = start(ServerOptions {
        drain: Duration::from_secs(1),
        ..options()
    })
    .await;
    let mut running = client
        .stream(
            COMPLETIONS,
            &with(completion(3000), json!({"stream": true})),
        )
        .await;
    running.next().await.unwrap().unwrap();
    let begin = Instant::now();
    let (stopped, rest) = tokio::join!(server.stop(), running.rest());
    stopped.unwrap();
    assert!(rest.is_err(), "a cut stream must not look complete");
    let millis = begin.elapsed().as_millis();
    assert!((1000..1100).contains(&millis), "{millis}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_flag() {
    let (server, _client) = start(options()).await;
    let port = server.address().port();
    let error = spawn(ServerOptions { port, ..options() })
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&port.to_string()) && error.contains("--port"),
        "{error}"
    );
}

/// Replies are compared as text.
impl Reply {
    fn events(&self) -> Vec<Value> {
        let done = self
            .body
            .strip_suffix("data: [DONE]\n\n")
            .expect("a stream ends with [DONE]");
        done.split_terminator("\n\n")
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }
}

//! Requests that are not served: status, headers and an error that OpenAI's clients understand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use names::header;
use system_tests::client::{Answer, Call};
use system_tests::script::{Hold, Pace, Script};
use system_tests::stack::{Setup, Stack};
use system_tests::until;

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const PATH: &str = "/v1/completions";

fn document() -> Call {
    Call::post(PATH, r#"{"model":"fake-model","prompt":"hi"}"#)
}

/// A refusal of the picker's: JSON in OpenAI's shape, the reason, and when to come back.
fn refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header(header::DROPPED_REASON), Some(reason));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = &answer.json()["error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.len() > 10),
        "{error}"
    );
    assert!(error["type"].is_string(), "{error}");
    let members: Vec<_> = error
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(members, ["code", "message", "param", "type"]);
    let retry = answer
        .header("retry-after")
        .map(|value| value.parse::<u64>().expect("whole seconds"));
    if status == 400 {
        assert_eq!(retry, None, "the same request will be as wrong later");
    } else {
        assert!(
            retry.is_some_and(|seconds| (1..=60).contains(&seconds)),
            "{retry:?}"
        );
    }
}

#[tokio::test]
async fn requests_that_are_wrong_get_400_and_reach_no_server() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let good = r#"{"model":"fake-model","prompt":"hi"}"#;
    let cases = [
        (
            Call::post(PATH, "{\"model\":\"fake-model\",\"prompt\":"),
            None,
        ),
        (Call::post(PATH, "no JSON"), None),
        (Call::post(PATH, "[1]"), None),
        (Call::post(PATH, r#"{"prompt":"hi"}"#), Some("model")),
        (
            Call::post(PATH, r#"{"model":7,"prompt":"hi"}"#),
            Some("model"),
        ),
        (
            Call::post(PATH, r#"{"model":"fake-model"}"#),
            Some("prompt"),
        ),
        (Call::post("/v1/chat/completions", good), Some("messages")),
        (
            Call::post(PATH, good).header("x-llm-d-slo-ttft-ms", "soon"),
            Some("x-llm-d-slo-ttft-ms"),
        ),
        (
            Call::post(PATH, good).header("x-slo-ttft-ms", "-5"),
            Some("x-slo-ttft-ms"),
        ),
        (
            Call::post(PATH, good).header("x-llm-d-slo-tpot-ms", "-1"),
            Some("x-llm-d-slo-tpot-ms"),
        ),
        (
            Call::post(PATH, good).header("x-slo-tpot-ms", "NaN"),
            Some("x-slo-tpot-ms"),
        ),
        (
            Call::post(PATH, good).header("x-llm-d-inference-ttl", "forever"),
            Some("x-llm-d-inference-ttl"),
        ),
        (Call::post("/v1/embeddings", good), Some("input")),
    ];
    for (call, param) in cases {
        let answer = call.send(stack.proxy).await;
        refused(&answer, 400, "rejected-bad-request");
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{call:?}");
        assert_eq!(error["param"].as_str(), param, "{call:?}");
        if let Some(param) = param {
            assert!(
                error["message"].as_str().unwrap().contains(param),
                "the message names {param}: {error}"
            );
        }
    }
    stack.idle().await;
    assert!(stack.server().received().is_empty());
    assert!(stack.fallback.received().is_empty());
    assert_eq!(
        document().send(stack.proxy).await.status,
        200,
        "the connection to the picker is none the worse"
    );
}

#[tokio::test]
async fn a_pool_without_servers_answers_503() {
    let stack = Stack::start(Setup {
        servers: 0,
        ttl: "200ms",
        ..Setup::new(PICKER)
    })
    .await;
    refused(
        &document().send(stack.proxy).await,
        503,
        "rejected-no-endpoints",
    );
    refused(
        &Call::get("/v1/models").send(stack.proxy).await,
        503,
        "rejected-no-endpoints",
    );
    assert!(
        stack.fallback.received().is_empty(),
        "an answer of the picker's is no failure of the picker's"
    );
    stack.idle().await;
    assert_eq!(
        stack.outcomes().await,
        [("EvictedNoEndpoints".to_owned(), 1)].into()
    );
}

#[tokio::test]
async fn a_request_waits_for_a_first_server() {
    let stack = Stack::start(Setup {
        servers: 1,
        listed: false,
        ..Setup::new(PICKER)
    })
    .await;
    let proxy = stack.proxy;
    let waiting = tokio::spawn(async move { document().send(proxy).await });
    until("the request to be queued", async || {
        (stack.queued().await == 1).then_some(())
    })
    .await;
    stack.list(&[stack.server().address()]).await;
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_full_queue_answers_429() {
    let setup = Setup {
        max_concurrency: 1,
        max_queued: 1,
        ..Setup::new(PICKER)
    };
    let stack = Stack::start(setup).await;
    stack.server().follow(Script {
        hold: Hold::BeforeHeaders,
        ..Script::default()
    });
    let proxy = stack.proxy;
    let first = tokio::spawn(async move { document().send(proxy).await });
    stack.server_received(1).await;
    let second = tokio::spawn(async move { document().send(proxy).await });
    until("the second request to be queued", async || {
        (stack.queued().await == 1).then_some(())
    })
    .await;

    refused(&document().send(proxy).await, 429, "rejected-saturated");
    assert_eq!(
        stack.server().received().len(),
        1,
        "room is taken at dispatch"
    );

    stack.server().follow(Script::default());
    stack.server().release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    stack.idle().await;
    let outcomes = [("RejectedCapacity".to_owned(), 1), ("Served".to_owned(), 2)];
    assert_eq!(stack.outcomes().await, outcomes.into());
}

#[tokio::test]
async fn a_request_that_waited_too_long_gets_429() {
    let stack = Stack::start(Setup {
        max_concurrency: 1,
        ..Setup::new(PICKER)
    })
    .await;
    stack.server().follow(Script {
        hold: Hold::BeforeHeaders,
        ..Script::default()
    });
    let proxy = stack.proxy;
    let first = tokio::spawn(async move { document().send(proxy).await });
    stack.server_received(1).await;
    // The configured time to live is a minute; the client's own is shorter.
    let answer = document()
        .header("x-llm-d-inference-ttl", "150ms")
        .send(proxy)
        .await;
    refused(&answer, 429, "rejected-ttl-expired");
    stack.server().release();
    assert_eq!(first.await.unwrap().status, 200);
    stack.idle().await;
    let outcomes = [("EvictedTTL".to_owned(), 1), ("Served".to_owned(), 1)];
    assert_eq!(stack.outcomes().await, outcomes.into());
}

#[tokio::test]
async fn higher_priorities_leave_the_queue_first() {
    let stack = Stack::start(Setup {
        max_concurrency: 1,
        ..Setup::new(PICKER)
    })
    .await;
    stack.server().follow(Script {
        hold: Hold::BeforeHeaders,
        ..Script::default()
    });
    let proxy = stack.proxy;
    let mut clients = vec![tokio::spawn(async move { document().send(proxy).await })];
    stack.server_received(1).await;
    for (queued, objective) in ["batch", "none", "gold"].into_iter().enumerate() {
        let call = document()
            .header(header::OBJECTIVE.canonical, objective)
            .header("x-order", objective);
        clients.push(tokio::spawn(async move { call.send(proxy).await }));
        until("the request to be queued", async || {
            (stack.queued().await == queued as u64 + 1).then_some(())
        })
        .await;
    }
    stack.server().follow(Script::default());
    stack.server().release();
    for client in clients {
        assert_eq!(client.await.unwrap().status, 200);
    }
    let received = stack.server().received();
    let order: Vec<_> = received
        .iter()
        .filter_map(|received| received.header("x-order"))
        .collect();
    assert_eq!(order, ["gold", "none", "batch"]);
}

/// Teaches the picker a server's latencies through real traffic; then what cannot be in time is refused, if it
/// may be.
#[tokio::test]
async fn a_request_that_cannot_be_in_time_gets_429_once_the_model_is_trusted() {
    let script = Script {
        pace: Pace::ByPromptSize,
        ..Script::default()
    };
    let stack = Stack::start(Setup {
        script,
        ..Setup::new(PICKER)
    })
    .await;
    let hopeless = |objective: &str| {
        document()
            .header(header::OBJECTIVE.canonical, objective)
            .header("x-llm-d-slo-ttft-ms", "0.001")
    };
    let untrusted = hopeless("batch").send(stack.proxy).await;
    assert_eq!(
        untrusted.status,
        200,
        "nothing is refused on a guess: {}",
        untrusted.text()
    );

    until("the model to be trained", async || {
        for size in [10, 4_000, 12_000] {
            let prompt = "x".repeat(size);
            let body = format!(r#"{{"model":"fake-model","prompt":"{prompt}","stream":true}}"#);
            assert_eq!(Call::post(PATH, body).send(stack.proxy).await.status, 200);
        }
        stack.trained().await.then_some(())
    })
    .await;

    let before = stack.server().received().len();
    for objective in ["batch", "capped"] {
        refused(
            &hopeless(objective).send(stack.proxy).await,
            429,
            "rejected-slo-unattainable",
        );
    }
    assert_eq!(
        stack.server().received().len(),
        before,
        "a refused request reached a server"
    );
    for call in [
        hopeless("none"),
        hopeless("gold"),
        document().header(header::OBJECTIVE.canonical, "batch"),
    ] {
        assert_eq!(call.send(stack.proxy).await.status, 200, "{call:?}");
    }
    let in_time = document()
        .header(header::OBJECTIVE.canonical, "batch")
        .header("x-slo-ttft-ms", "30000");
    assert_eq!(in_time.send(stack.proxy).await.status, 200);
    assert_eq!(stack.outcomes().await.get("RejectedSLO"), Some(&2));
}

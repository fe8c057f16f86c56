//! Several endpoints named for a request: the proxy takes them in order, and the picker books who served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use names::header;
use system_tests::client::{Call, Next};
use system_tests::script::{Hold, Script};
use system_tests::stack::{Setup, Stack};
use system_tests::{ports, until};

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const PATH: &str = "/v1/completions";

fn call(stream: bool) -> Call {
    let body = format!(r#"{{"model":"fake-model","prompt":"hi","stream":{stream}}}"#);
    Call::post(PATH, body)
}

async fn start() -> Stack {
    Stack::start(Setup {
        endpoints_named: 2,
        ..Setup::new(PICKER)
    })
    .await
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, ports::free()).into()
}

/// Lists the stack's server and one that is not there, for the picker and for the proxy.
async fn with_a_dead_one(stack: &Stack) -> SocketAddr {
    let dead = nobody();
    let both = [dead, stack.server().address()];
    stack.list_for_proxy(&both).await;
    stack.list(&both).await;
    dead
}

#[tokio::test]
async fn the_second_serves_where_the_first_is_not_there_and_is_booked_for_it() {
    let stack = start().await;
    let dead = with_a_dead_one(&stack).await;
    stack.server().follow(Script {
        hold: Hold::AfterFrames(1),
        ..Script::default()
    });
    // Either may be named first: until the dead one was.
    let mut replies = Vec::new();
    until("the dead server to be named first", async || {
        let mut reply = call(true).open(stack.proxy).await.unwrap();
        assert_eq!(reply.status, 200);
        assert!(matches!(reply.next().await, Next::Frame(_)));
        replies.push(reply);
        (stack
            .envoy
            .counter("picked", "upstream_rq_retry_success")
            .await
            > 0)
        .then_some(())
    })
    .await;
    let count = replies.len();
    assert_eq!(stack.server().received().len(), count);
    for received in stack.server().received() {
        let named = received.header(header::DESTINATION).unwrap();
        assert_eq!(named.split(',').count(), 2, "{named}");
    }
    assert_eq!(stack.in_flight_at(dead).await, Some(0));
    let serving = stack.server().address();
    assert_eq!(stack.in_flight_at(serving).await, Some(count as u64));

    stack.server().release();
    for reply in replies {
        let rest = reply.read().await;
        assert!(!rest.cut && rest.text().ends_with("data: [DONE]\n\n"));
    }
    stack.idle().await;
    let served = [("Served".to_owned(), count as u64)];
    assert_eq!(stack.outcomes().await, served.into());
    assert!(stack.fallback.received().is_empty());
}

/// A pod that is Ready is in the picker's pool before the proxy's name server has it. That is not its fault, and the
/// proxy tells it from one that cannot be reached.
#[tokio::test]
async fn who_the_proxy_does_not_know_yet_is_passed_over_without_an_attempt() {
    let stack = start().await;
    let (new, serving) = (nobody(), stack.server().address());
    for (known, attempts) in [(vec![serving], "1"), (vec![new, serving], "2")] {
        stack.list_for_proxy(&known).await;
        stack.list(&[new, serving]).await;
        let numbers = AtomicU32::new(0);
        let first = until("the new server to be named first", async || {
            // Each of its own, which no server has seen.
            let number = numbers.fetch_add(1, Relaxed);
            let body = format!(r#"{{"model":"fake-model","prompt":"{attempts} {number}"}}"#);
            let answer = Call::post(PATH, body).send(stack.proxy).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let received = stack.server().received();
            let named = received.last()?.header(header::DESTINATION)?.to_owned();
            named.starts_with(&new.to_string()).then_some(answer)
        })
        .await;
        let told = first.headers.get(header::ATTEMPT_COUNT).unwrap();
        assert_eq!(told.to_str().unwrap(), attempts);
    }
}

#[tokio::test]
async fn a_list_of_which_nobody_is_there_ends_with_503() {
    let stack = start().await;
    let dead = [nobody(), nobody()];
    stack.list_for_proxy(&dead).await;
    stack.list(&dead).await;
    let answer = call(false).send(stack.proxy).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(
        stack.envoy.counter("picked", "upstream_rq_retry").await,
        1,
        "each was tried once"
    );
    stack.idle().await;
    assert_eq!(stack.outcomes().await, [("Failed".to_owned(), 1)].into());
}

/// An answer that has reached a server is that server's, whatever it is: nothing is done twice.
#[tokio::test]
async fn only_what_reached_no_server_is_sent_to_another() {
    let stack = Stack::start(Setup {
        servers: 2,
        endpoints_named: 2,
        script: Script {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            ..Script::default()
        },
        ..Setup::new(PICKER)
    })
    .await;
    assert_eq!(call(false).send(stack.proxy).await.status, 503);
    let received: usize = stack.servers.iter().map(|one| one.received().len()).sum();
    assert_eq!(received, 1);
    stack.idle().await;
}

/// A prompt that is larger than what the proxy keeps for a second attempt.
#[tokio::test]
async fn a_large_prompt_goes_to_the_first_that_is_there() {
    let stack = start().await;
    let prompt = "x".repeat(1_200_000);
    let body = format!(r#"{{"model":"fake-model","prompt":"{prompt}"}}"#);
    let answer = Call::post(PATH, body.clone()).send(stack.proxy).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(stack.server().only_request().body == body.as_bytes());
}

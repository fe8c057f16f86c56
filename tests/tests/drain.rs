//! A picker that is told to stop: nothing that it has begun is lost, running or queued.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use system_tests::client::{Answer, Call, Next};
use system_tests::script::{Hold, Script};
use system_tests::stack::{Setup, Stack};
use system_tests::until;
use system_tests::upstream::Upstream;
use tokio::task::JoinHandle;

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const PATH: &str = "/v1/completions";
/// Requests that a server takes at a time, and servers.
const ROOM: usize = 4;
const SERVERS: usize = 2;
const QUEUED: usize = 24;

fn streamed() -> Call {
    let body = r#"{"model":"fake-model","prompt":"hi","stream":true}"#;
    Call::post(PATH, body)
}

/// A client that reads its answer to the end, whenever it comes.
fn client(stack: &Stack) -> JoinHandle<Answer> {
    let proxy = stack.proxy;
    tokio::spawn(async move { streamed().send(proxy).await })
}

fn whole(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        !answer.cut && answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );
}

/// Running requests hold after their first event, in two waves, so that some begin and end while the picker drains.
#[tokio::test]
async fn streams_under_way_and_requests_in_the_queue_end_as_they_should() {
    let hold = |frames| Script {
        hold: Hold::AfterFrames(frames),
        ..Script::default()
    };
    let mut stack = Stack::start(Setup {
        servers: SERVERS,
        script: hold(1),
        max_concurrency: u32::try_from(ROOM).unwrap(),
        ..Setup::new(PICKER)
    })
    .await;
    let mut running = Vec::new();
    for _ in 0..ROOM * SERVERS {
        let mut reply = streamed().open(stack.proxy).await.unwrap();
        assert!(matches!(reply.next().await, Next::Frame(_)));
        running.push(reply);
    }
    let queued: Vec<_> = (0..QUEUED).map(|_| client(&stack)).collect();
    until("the others to be queued", async || {
        (stack.queued().await == QUEUED as u64).then_some(())
    })
    .await;

    stack.picker.terminate();
    until("the proxy to notice", async || {
        (!stack.envoy.healthy("picker").await).then_some(())
    })
    .await;
    assert_eq!(stack.queued().await, QUEUED as u64, "a drain is no refusal");
    whole(&client(&stack).await.unwrap());
    assert_eq!(stack.fallback.received().len(), 1);

    // The second wave holds before its first event; then everything goes.
    stack
        .servers
        .iter()
        .for_each(|server| server.follow(hold(0)));
    stack.servers.iter().for_each(Upstream::release);
    for reply in running {
        whole(&reply.read().await);
    }
    let received = || -> usize {
        let servers = stack.servers.iter();
        servers.map(|server| server.received().len()).sum()
    };
    until("the queue to move up", async || {
        (received() == 2 * ROOM * SERVERS).then_some(())
    })
    .await;
    for server in &stack.servers {
        server.follow(Script::default());
        server.release();
    }
    for client in queued {
        whole(&client.await.unwrap());
    }
    assert_eq!(received(), ROOM * SERVERS + QUEUED);
    assert_eq!(stack.fallback.received().len(), 1);
    until("the picker to end", async || {
        (!stack.picker.is_running()).then_some(())
    })
    .await;
    assert!(stack.picker.succeeded(), "{}", stack.picker.log());
}

//! Running requests of negative priority that are taken off their servers: what their clients see, that the servers
//! are rid of them, and who gets the room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use names::{dropped_reason, header};
use system_tests::answers::{self, NullUsage};
use system_tests::client::{Call, Next, Reply};
use system_tests::script::{Hold, Script};
use system_tests::stack::{Setup, Stack};
use system_tests::until;
use system_tests::upstream::Upstream;

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const PATH: &str = "/v1/chat/completions";

fn chat(objective: &str, stream: bool) -> Call {
    let body = format!(
        r#"{{"model":"fake-model","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#
    );
    Call::post(PATH, body).header(header::OBJECTIVE.canonical, objective)
}

/// Two servers with room for one request each.
async fn start(hold: Hold) -> Stack {
    let script = Script {
        hold,
        ..Script::default()
    };
    Stack::start(Setup {
        servers: 2,
        script,
        max_concurrency: 1,
        eviction: true,
        ..Setup::new(PICKER)
    })
    .await
}

fn total(stack: &Stack, count: impl Fn(&Upstream) -> usize) -> usize {
    stack.servers.iter().map(count).sum()
}

async fn received(stack: &Stack, count: usize) {
    until("the requests to reach the servers", async || {
        (total(stack, |server| server.received().len()) == count).then_some(())
    })
    .await;
}

/// Begins a stream and reads its first event.
async fn begun(stack: &Stack, call: Call) -> Reply {
    let mut reply = call.open(stack.proxy).await.unwrap();
    assert_eq!(reply.status, 200);
    let first = answers::events(PATH, false, NullUsage::Never).remove(0);
    assert_eq!(reply.next_bytes(first.len()).await, first);
    reply
}

/// Servers that answer at once from now on, and a request that goes first.
async fn served_at_once(stack: &Stack) {
    for server in &stack.servers {
        server.follow(Script::default());
    }
    let gold = chat("gold", false).send(stack.proxy).await;
    assert_eq!(gold.status, 200, "{}", gold.text());
}

/// Waits until a server has seen that its client is gone: the one that took the newest request, which then served.
async fn freed(stack: &Stack) {
    until("a server to see that its request is gone", async || {
        (total(stack, Upstream::aborted) == 1).then_some(())
    })
    .await;
    for server in &stack.servers {
        assert_eq!(server.aborted() + 1, server.received().len());
    }
}

async fn outcomes(stack: &Stack, all: &[(&str, u64)]) {
    stack.idle().await;
    let all = all.iter().map(|(name, count)| ((*name).to_owned(), *count));
    assert_eq!(stack.outcomes().await, all.collect());
}

/// The client has had no answer yet: it gets one.
#[tokio::test]
async fn before_its_answer_begins_a_request_ends_with_429() {
    let stack = start(Hold::BeforeHeaders).await;
    let proxy = stack.proxy;
    let mut clients = Vec::new();
    for count in 1..=2 {
        clients.push(tokio::spawn(async move {
            chat("batch", count == 1).send(proxy).await
        }));
        received(&stack, count).await;
    }
    served_at_once(&stack).await;
    freed(&stack).await;

    let newest = clients.pop().unwrap().await.unwrap();
    assert_eq!(newest.status, 429, "{}", newest.text());
    assert_eq!(
        newest.header(header::DROPPED_REASON),
        Some(dropped_reason::EVICTED_PRIORITY)
    );
    assert_eq!(newest.header("retry-after"), Some("1"));
    assert_eq!(newest.json()["error"]["code"], "evicted-priority");

    let oldest = clients.pop().unwrap();
    assert!(!oldest.is_finished(), "one was enough");
    stack.servers.iter().for_each(Upstream::release);
    assert_eq!(oldest.await.unwrap().status, 200);
    outcomes(&stack, &[("Evicted", 1), ("Served", 2)]).await;
}

/// A status cannot be taken back: the answer breaks off, and no client takes it for a whole one.
#[tokio::test]
async fn an_answer_that_has_begun_is_cut_off() {
    for http2 in [false, true] {
        let stack = start(Hold::AfterFrames(1)).await;
        let batch = || {
            let call = chat("batch", true);
            if http2 { call.http2() } else { call }
        };
        let oldest = begun(&stack, batch()).await;
        let mut newest = begun(&stack, batch()).await;
        served_at_once(&stack).await;
        freed(&stack).await;
        assert_eq!(newest.next().await, Next::Cut, "HTTP/2: {http2}");

        stack.servers.iter().for_each(Upstream::release);
        let rest = oldest.read().await;
        assert!(!rest.cut && rest.text().ends_with("data: [DONE]\n\n"));
        outcomes(&stack, &[("Evicted", 1), ("Served", 2)]).await;
    }
}

/// Nothing of priority 0 or above is taken off, however much higher the one that waits.
#[tokio::test]
async fn requests_that_may_not_be_shed_run_on() {
    let stack = start(Hold::AfterFrames(1)).await;
    let running = [
        begun(&stack, chat("none", true)).await,
        begun(&stack, chat("gold", true)).await,
    ];
    let proxy = stack.proxy;
    let waiting = tokio::spawn(async move { chat("gold", false).send(proxy).await });
    until("the third request to be queued", async || {
        (stack.queued().await == 1).then_some(())
    })
    .await;
    for server in &stack.servers {
        server.follow(Script::default());
        server.release();
    }
    for one in running {
        let rest = one.read().await;
        assert!(!rest.cut && rest.text().ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(total(&stack, Upstream::aborted), 0);
    outcomes(&stack, &[("Served", 3)]).await;
}

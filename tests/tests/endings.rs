//! Streams that end before their time: what is counted once, and that no load is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::StatusCode;
use system_tests::answers::{self, NullUsage};
use system_tests::client::{Call, Next};
use system_tests::script::{Hold, Script};
use system_tests::stack::{Setup, Stack};
use system_tests::until;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const PATH: &str = "/v1/chat/completions";

fn streamed() -> Call {
    Call::post(
        PATH,
        r#"{"model":"fake-model","messages":[{"role":"user","content":"hi"}],"stream":true}"#,
    )
}

fn document() -> Call {
    Call::post(
        PATH,
        r#"{"model":"fake-model","messages":[{"role":"user","content":"hi"}]}"#,
    )
}

/// The one outcome that was counted.
async fn only_outcome(stack: &Stack) -> String {
    let mut outcomes = stack.outcomes().await;
    assert_eq!(outcomes.values().sum::<u64>(), 1, "{outcomes:?}");
    outcomes.pop_first().unwrap().0
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_stream() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    stack.server().follow(Script {
        hold: Hold::AfterFrames(1),
        ..Script::default()
    });
    let mut reply = streamed().open(stack.proxy).await.unwrap();
    let first = answers::events(PATH, false, NullUsage::Never).remove(0);
    assert_eq!(reply.next().await, Next::Frame(first.into()));
    assert_eq!(stack.in_flight().await, 1);
    drop(reply);
    stack.idle().await;
    until("the server to see that the client left", async || {
        (stack.server().aborted() == 1).then_some(())
    })
    .await;
    assert_eq!(only_outcome(&stack).await, "ClientGone");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_own_request() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let mut client = TcpStream::connect(stack.proxy).await.unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&[b' '; 100_000]).await.unwrap();
    until("the picker to be asked", async || {
        (stack.streams().await == 1).then_some(())
    })
    .await;
    drop(client);
    stack.idle().await;
    assert!(
        stack.outcomes().await.is_empty(),
        "half a request is no demand"
    );
    assert!(stack.server().received().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_begins() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    stack.server().follow(Script {
        hold: Hold::BeforeHeaders,
        ..Script::default()
    });
    for (number, call) in [streamed(), document()].into_iter().enumerate() {
        let proxy = stack.proxy;
        let client = tokio::spawn(async move { call.send(proxy).await });
        stack.server_received(number + 1).await;
        assert_eq!(stack.in_flight().await, 1);
        client.abort();
        stack.idle().await;
        until("the server to see it", async || {
            (stack.server().aborted() == number + 1).then_some(())
        })
        .await;
    }
    assert_eq!(
        stack.outcomes().await,
        [("ClientGone".to_owned(), 2)].into()
    );
}

#[tokio::test]
async fn a_client_that_leaves_while_queued_is_never_sent_on() {
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
    let served = tokio::spawn(async move { document().send(proxy).await });
    stack.server_received(1).await;
    let leaving = tokio::spawn(async move { document().send(proxy).await });
    until("the second request to be queued", async || {
        (stack.queued().await == 1).then_some(())
    })
    .await;
    leaving.abort();
    until("the queue to forget it", async || {
        (stack.queued().await == 0).then_some(())
    })
    .await;
    stack.server().release();
    assert_eq!(served.await.unwrap().status, 200);
    stack.idle().await;
    let outcomes = [
        ("EvictedContextCancelled".to_owned(), 1),
        ("Served".to_owned(), 1),
    ];
    assert_eq!(stack.outcomes().await, outcomes.into());
    assert_eq!(stack.server().received().len(), 1);
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_its_stream() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let script = Script {
        hold: Hold::AfterFrames(2),
        die_after: Some(2),
        ..Script::default()
    };
    stack.server().follow(script);
    let mut reply = streamed().open(stack.proxy).await.unwrap();
    let half = answers::events(PATH, false, NullUsage::Never)[..2].concat();
    assert_eq!(reply.next_bytes(half.len()).await, half);
    stack.server().release();
    assert_eq!(
        reply.next().await,
        Next::Cut,
        "half an answer must not be taken for a whole one"
    );
    stack.idle().await;
    // The proxy ends the picker's stream alike whoever broke off.
    let outcome = only_outcome(&stack).await;
    assert!(
        ["UpstreamCut", "ClientGone"].contains(&&*outcome),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_server_that_answers_with_an_error() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    stack.server().follow(Script {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        ..Script::default()
    });
    for call in [streamed(), document()] {
        let answer = call.send(stack.proxy).await;
        assert_eq!(answer.status, 500);
        assert_eq!(answer.json()["error"]["message"], "scripted");
    }
    stack.idle().await;
    assert_eq!(stack.outcomes().await, [("Failed".to_owned(), 2)].into());
}

#[tokio::test]
async fn a_server_that_is_listed_and_not_there() {
    let stack = Stack::start(Setup::new(PICKER)).await;
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, system_tests::ports::free()));
    stack.list(&[nobody]).await;
    let answer = document().send(stack.proxy).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    stack.idle().await;
    assert_eq!(only_outcome(&stack).await, "Failed");
    assert!(stack.server().received().is_empty());
}

/// A server that leaves the list keeps its streams, and the list's next version starts from their load.
#[tokio::test]
async fn a_server_that_is_unlisted_finishes_its_streams() {
    let stack = Stack::start(Setup {
        servers: 2,
        ..Setup::new(PICKER)
    })
    .await;
    let [first, second] = &stack.servers[..] else {
        panic!("two servers were asked for")
    };
    stack.list(&[first.address()]).await;
    first.follow(Script {
        hold: Hold::AfterFrames(1),
        ..Script::default()
    });
    let mut reply = streamed().open(stack.proxy).await.unwrap();
    assert!(matches!(reply.next().await, Next::Frame(_)));
    stack.list(&[second.address()]).await;
    assert_eq!(document().send(stack.proxy).await.status, 200);
    assert_eq!(second.received().len(), 1);
    first.release();
    let rest = reply.read().await;
    assert!(!rest.cut && rest.text().ends_with("data: [DONE]\n\n"));
    stack.idle().await;
    assert_eq!(stack.outcomes().await, [("Served".to_owned(), 2)].into());
}

/// Room that a client gives back by leaving, at whatever moment, goes to the next in the queue.
#[tokio::test]
async fn a_crowd_of_which_many_leave() {
    let setup = Setup {
        max_concurrency: 2,
        ..Setup::new(PICKER)
    };
    let stack = Stack::start(setup).await;
    let proxy = stack.proxy;
    let clients: Vec<_> = (0..60_u64)
        .map(|number| {
            tokio::spawn(async move {
                let call = streamed();
                if number % 3 == 0 {
                    return Some(call.send(proxy).await);
                }
                // Two thirds leave, spread over the time that the whole crowd takes.
                tokio::time::timeout(Duration::from_millis(5 * number), call.send(proxy))
                    .await
                    .ok()
            })
        })
        .collect();
    let mut served = 0;
    for (number, client) in clients.into_iter().enumerate() {
        let answer = client.await.unwrap();
        assert!(
            answer.is_some() || number % 3 != 0,
            "a client that stayed got no answer"
        );
        if let Some(answer) = answer {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().ends_with("data: [DONE]\n\n") && !answer.cut);
            served += 1;
        }
    }
    stack.idle().await;
    let outcomes = stack.outcomes().await;
    // An answer may be complete at the picker just when its client turns away.
    assert!(outcomes["Served"] >= served, "{outcomes:?}");
    let left = ["ClientGone", "EvictedContextCancelled", "Served"];
    assert!(
        outcomes
            .keys()
            .all(|outcome| left.contains(&outcome.as_str())),
        "{outcomes:?}"
    );
}

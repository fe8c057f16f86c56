//! Who chooses where a request goes: the picker, else the fallback, never the client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use names::header;
use system_tests::client::{Call, Next};
use system_tests::script::{Hold, Script};
use system_tests::stack::{Bootstrap, Setup, Stack};
use system_tests::until;
use system_tests::upstream::Upstream;

const PICKER: &str = env!("CARGO_BIN_EXE_picker");
const PATH: &str = "/v1/completions";

fn document() -> Call {
    Call::post(PATH, r#"{"model":"fake-model","prompt":"hi"}"#)
}

fn large_document() -> Call {
    Call::post(
        PATH,
        format!(
            r#"{{"model":"fake-model","prompt":"{}"}}"#,
            "x".repeat(1_200_000)
        ),
    )
}

/// The calls of a client that tries every routing header, alone and all at once, and without a body.
fn smuggling(decoy: &Upstream) -> Vec<Call> {
    let address = decoy.address();
    let mut calls = Vec::new();
    for name in header::ROUTING {
        calls.push(document().header(name, address));
        calls.push(
            document()
                .header(&name.to_uppercase(), address)
                .header(name, format!("{address},{address}")),
        );
        calls.push(Call::get("/v1/models").header(name, address));
    }
    // What Envoy itself would take an address from, were it not told another name.
    calls.push(document().header("x-envoy-original-dst-host", address));
    let all = |call: Call| {
        header::ROUTING
            .iter()
            .fold(call, |call, name| call.header(name, address))
    };
    calls.extend([
        all(document()),
        all(large_document()),
        all(Call::get("/v1/models")),
    ]);
    calls
}

/// Nothing of what the client put into routing headers is in what `server` got.
fn saw_no_smuggled_header(server: &Upstream, decoy: &Upstream) {
    let address = decoy.address().to_string();
    for received in server.received() {
        let values = received
            .headers
            .iter()
            .filter(|(name, _)| header::ROUTING.contains(&name.as_str()));
        for (name, value) in values {
            assert!(
                !value.to_str().unwrap().contains(&address),
                "{name} reached the server: {value:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_cannot_choose_an_address_past_the_picker() {
    // Wherever `picked` takes its addresses from.
    for endpoints_named in [1, 2] {
        no_address_past_the_picker(Setup {
            endpoints_named,
            ..Setup::new(PICKER)
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_of_the_charts_proxy_cannot_choose_an_address_past_the_picker() {
    no_address_past_the_picker(charts()).await;
}

fn charts() -> Setup {
    Setup {
        bootstrap: Bootstrap::Chart,
        ..Setup::new(PICKER)
    }
}

async fn no_address_past_the_picker(setup: Setup) {
    let stack = Stack::start(setup).await;
    let decoy = Upstream::start(Script::default()).await;
    let calls = smuggling(&decoy);
    for call in &calls {
        let answer = call.send(stack.proxy).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(stack.server().received().len(), calls.len());
    saw_no_smuggled_header(stack.server(), &decoy);
    assert!(decoy.received().is_empty());
    assert!(stack.fallback.received().is_empty());
}

#[tokio::test]
async fn without_the_picker_requests_go_to_the_fallback_and_nowhere_else() {
    nowhere_but_to_the_fallback(Setup::new(PICKER)).await;
}

#[tokio::test]
async fn without_the_picker_the_charts_proxy_goes_to_the_fallback_and_nowhere_else() {
    nowhere_but_to_the_fallback(charts()).await;
}

async fn nowhere_but_to_the_fallback(setup: Setup) {
    let mut stack = Stack::start(setup).await;
    let decoy = Upstream::start(Script::default()).await;
    let calls = smuggling(&decoy);
    stack.picker.kill();
    // Before the proxy has noticed, requests may fail; they must not follow the client's headers.
    for call in &calls {
        let answer = call.send(stack.proxy).await;
        assert!(
            [200, 500, 503].contains(&answer.status.as_u16()),
            "{}",
            answer.status
        );
    }
    until("the proxy to notice", async || {
        (!stack.envoy.healthy("picker").await).then_some(())
    })
    .await;
    let before = stack.fallback.received().len();
    for call in &calls {
        let answer = call.send(stack.proxy).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(stack.fallback.received().len(), before + calls.len());
    saw_no_smuggled_header(&stack.fallback, &decoy);
    assert!(decoy.received().is_empty());
    assert!(stack.server().received().is_empty());

    stack.restart_picker().await;
    assert_eq!(document().send(stack.proxy).await.status, 200);
    assert_eq!(
        stack.server().received().len(),
        1,
        "a picker that is back picks again"
    );
}

#[tokio::test]
async fn a_new_list_of_fallback_servers_is_taken_over() {
    let mut stack = Stack::start(Setup::new(PICKER)).await;
    let other = Upstream::start(Script::default()).await;
    assert_eq!(
        stack.envoy.endpoints("fallback").await,
        [stack.fallback.address().to_string()]
    );
    stack.list_fallback(&[other.address()]);
    let wanted = [other.address().to_string()];
    until("the proxy to read the new list", async || {
        (stack.envoy.endpoints("fallback").await == wanted).then_some(())
    })
    .await;
    stack.picker.kill();
    until("the proxy to notice", async || {
        (!stack.envoy.healthy("picker").await).then_some(())
    })
    .await;
    assert_eq!(document().send(stack.proxy).await.status, 200);
    assert_eq!(other.received().len(), 1);
    assert!(stack.fallback.received().is_empty());
}

/// The health turns off first; what comes meanwhile is served by somebody, what is under way is finished.
#[tokio::test]
async fn a_picker_that_is_told_to_stop_loses_nothing() {
    let mut stack = Stack::start(Setup::new(PICKER)).await;
    stack.server().follow(Script {
        hold: Hold::AfterFrames(1),
        ..Script::default()
    });
    let streamed = Call::post(
        PATH,
        r#"{"model":"fake-model","prompt":"hi","stream":true}"#,
    );
    let mut under_way = streamed.open(stack.proxy).await.unwrap();
    assert!(matches!(under_way.next().await, Next::Frame(_)));
    stack.server().follow(Script::default());

    stack.picker.terminate();
    until("the proxy to notice", async || {
        assert_eq!(
            document().send(stack.proxy).await.status,
            200,
            "lost in the drain"
        );
        assert!(
            stack.picker.is_running(),
            "the stream under way was not waited for"
        );
        (!stack.envoy.healthy("picker").await).then_some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(document().send(stack.proxy).await.status, 200);
    }
    assert!(
        stack.fallback.received().len() >= 3,
        "the drained picker was asked again"
    );

    stack.server().release();
    let rest = under_way.read().await;
    assert!(
        !rest.cut && rest.text().ends_with("data: [DONE]\n\n"),
        "{}",
        rest.text()
    );
    until("the picker to end", async || {
        (!stack.picker.is_running()).then_some(())
    })
    .await;
    assert!(stack.picker.succeeded(), "{}", stack.picker.log());
}

//! The fakes and the proxy by themselves: what they do without a picker, the others rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};

use system_tests::answers::{self, NullUsage};
use system_tests::client::{Call, Next};
use system_tests::envoy::Envoy;
use system_tests::script::{Framing, Hold, Script};
use system_tests::upstream::Upstream;
use system_tests::{ports, until};

const PATH: &str = "/v1/chat/completions";
const STREAMED: &str = r#"{"model":"fake-model","stream":true}"#;

/// A proxy in front of `upstream`, and its port.
async fn pass_through(upstream: SocketAddr) -> (Envoy, SocketAddr) {
    let (listener, admin) = (ports::free(), ports::free());
    let bootstrap = format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: llm
    address: {{socket_address: {{address: 127.0.0.1, port_value: {listener}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: llm
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: servers}}}}]}}]}}
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
  clusters:
  - name: servers
    type: STATIC
    load_assignment: {{cluster_name: servers, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}
"#,
        port = upstream.port()
    );
    (
        Envoy::start(&bootstrap, admin).await,
        (Ipv4Addr::LOCALHOST, listener).into(),
    )
}

#[tokio::test]
async fn every_framing_carries_the_same_bytes() {
    let upstream = Upstream::start(Script::default()).await;
    let (envoy, proxy) = pass_through(upstream.address()).await;
    let whole = answers::events(PATH, false, NullUsage::Never).concat();
    for framing in [
        Framing::Events,
        Framing::LastTwoTogether,
        Framing::CutAt(vec![1, 7, 100]),
    ] {
        upstream.follow(Script {
            framing,
            ..Script::default()
        });
        let answer = Call::post(PATH, STREAMED).send(proxy).await;
        assert_eq!(answer.text(), whole);
        assert!(!answer.cut);
    }
    assert!(envoy.healthy("servers").await);
    assert_eq!(
        envoy.endpoints("servers").await,
        [upstream.address().to_string()]
    );
    assert_eq!(upstream.aborted(), 0);
}

#[tokio::test]
async fn a_server_that_dies_and_a_client_that_leaves_are_seen() {
    let dying = Script {
        hold: Hold::AfterFrames(2),
        die_after: Some(2),
        ..Script::default()
    };
    let upstream = Upstream::start(dying).await;
    let (_envoy, proxy) = pass_through(upstream.address()).await;
    let events = answers::events(PATH, false, NullUsage::Never);
    let half = events[..2].concat();

    let mut reply = Call::post(PATH, STREAMED).open(proxy).await.unwrap();
    assert_eq!(reply.next_bytes(half.len()).await, half);
    upstream.release();
    assert_eq!(reply.next().await, Next::Cut);
    assert_eq!(upstream.aborted(), 0);

    upstream.follow(Script {
        hold: Hold::AfterFrames(1),
        ..Script::default()
    });
    let mut reply = Call::post(PATH, STREAMED).open(proxy).await.unwrap();
    assert_eq!(reply.next_bytes(events[0].len()).await, events[0]);
    drop(reply);
    until("the server to see that the client left", async || {
        (upstream.aborted() == 1).then_some(())
    })
    .await;
}

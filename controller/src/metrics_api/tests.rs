//! The whole server: against a played API server, over a router and over TLS.

mod cluster;
mod exchanges;
mod matrix;

use std::time::Duration;

use axum::body::Body;
use cluster::Cluster;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use runtime::{Clock, Shutdown};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::published::{
    Answer, Mode, ObjectRef, Published, PublishedModel, PublishedVariant, Role, label_value,
};

/// 2026-10-05T10:00:00Z.
const DECIDED_MS: u64 = 1_791_194_400_000;

fn variant(name: &str, role: Role, [desired, current]: [u32; 2]) -> PublishedVariant {
    PublishedVariant {
        name: name.into(),
        role,
        accelerator: "H100".into(),
        target: ObjectRef::new("apps/v1", "Deployment", format!("llama-{name}")),
        scaler: None,
        desired,
        current,
        ready: Some(current),
        capacity: None,
        lower: None,
        upper: None,
    }
}

fn model(namespace: &str, name: &str, variants: Vec<PublishedVariant>) -> PublishedModel {
    PublishedModel {
        namespace: namespace.into(),
        model: name.into(),
        slug: label_value(name),
        pool: Some("llama-pool".into()),
        source: Some(ObjectRef::new(
            "headroom.dev/v1alpha1",
            "ModelScaler",
            "llama",
        )),
        mode: Mode::Publish,
        decided_at_ms: DECIDED_MS,
        state: Answer::Fresh,
        slo_pressure: Some(0.8125),
        offered_tokens_per_second: Some(12_345.6),
        queue_seconds: Some(0.0),
        variants,
    }
}

/// Two variants of one model in `team-a`, the same names in `team-b`, a model without metrics in `team-c`.
fn published() -> Published {
    let mut second = variant("cheap", Role::Both, [2, 0]);
    second.accelerator = "L4".into();
    second.target = ObjectRef::new(
        "leaderworkerset.x-k8s.io/v1",
        "LeaderWorkerSet",
        "llama-cheap",
    );
    let llama = "meta-llama/Llama-3.1-8B-Instruct";
    let mut unseen = model(
        "team-c",
        "unseen",
        vec![variant("only", Role::Both, [1, 1])],
    );
    unseen.slo_pressure = None;
    Published {
        at_ms: DECIDED_MS,
        sequence: 1,
        models: vec![
            model(
                "team-a",
                llama,
                vec![variant("fast", Role::Both, [7, 4]), second],
            ),
            model("team-b", llama, vec![variant("fast", Role::Both, [1, 1])]),
            unseen,
        ],
    }
}

fn board() -> Board {
    let board = Board::new(Clock::start());
    board.publish(published());
    board
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

async fn answer_of(router: Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = router.oneshot(request).await.unwrap();
    let code = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or_default())
}

fn external(namespace: &str, metric: &str, selector: &str) -> Request<Body> {
    let selector = selector.replace('=', "%3D").replace(',', "%2C");
    get(&format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}?labelSelector={selector}"
    ))
}

#[tokio::test]
async fn each_variant_is_one_item_and_the_path_decides_the_namespace() {
    let router = Cluster::lenient().api(board()).await.router();
    for (namespace, desired) in [("team-a", "7"), ("team-b", "1")] {
        let request = external(namespace, "llm_desired_replicas", "variant=fast");
        let (code, body) = answer_of(router.clone(), request).await;
        assert_eq!(code, 200, "{body}");
        let items = body["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{body}");
        assert_eq!(items[0]["value"], desired);
        assert_eq!(items[0]["metricLabels"]["namespace"], namespace);
    }
    // A selector cannot reach into another namespace either.
    let request = external("team-a", "llm_desired_replicas", "namespace=team-b");
    assert_eq!(answer_of(router, request).await.0, 404);
}

#[tokio::test]
async fn old_names_carry_the_old_labels() {
    let router = Cluster::lenient().api(board()).await.router();
    let selector = "variant_name=fast,exported_namespace=team-a,accelerator_type=H100";
    let request = external("team-a", "wva_desired_replicas", selector);
    let (code, body) = answer_of(router.clone(), request).await;
    assert_eq!(
        (code, &body["items"][0]["value"]),
        (StatusCode::OK, &Value::from("7"))
    );
    let request = external("team-a", "llm_desired_replicas", selector);
    assert_eq!(answer_of(router, request).await.0, 404);
}

#[tokio::test]
async fn a_fixed_name_is_exactly_one_item_for_every_kind_of_object() {
    let router = Cluster::lenient().api(board()).await.router();
    for (object, desired, ratio) in [
        (
            "namespaces/team-a/deployments.apps/llama-fast",
            "7",
            "1750m",
        ),
        (
            "namespaces/team-a/leaderworkersets.leaderworkerset.x-k8s.io/llama-cheap",
            "2",
            "2",
        ),
        (
            "namespaces/team-a/inferencepools.inference.networking.k8s.io/llama-pool",
            "9",
            "2",
        ),
        (
            "namespaces/team-a/modelscalers.headroom.dev/llama",
            "9",
            "2",
        ),
        (
            "namespaces/team-b/inferencepools.inference.networking.k8s.io/llama-pool",
            "1",
            "1",
        ),
        ("namespaces/team-a/metrics", "9", "2"),
    ] {
        for version in path::CUSTOM_VERSIONS {
            for (metric, expected) in [
                ("llm_desired_replicas", desired),
                ("llm_desired_ratio", ratio),
            ] {
                let request = get(&format!(
                    "/apis/custom.metrics.k8s.io/{version}/{object}/{metric}"
                ));
                let (code, body) = answer_of(router.clone(), request).await;
                assert_eq!(code, 200, "{object}: {body}");
                let items = body["items"].as_array().unwrap();
                assert_eq!(items.len(), 1, "{object}: {body}");
                assert_eq!(items[0]["value"], expected, "{object} {metric}");
            }
        }
    }
}

#[tokio::test]
async fn every_object_of_a_kind_is_listed_by_a_star() {
    let mut published = published();
    published.models[0].variants[1].target = ObjectRef::new("apps/v1", "Deployment", "llama-cheap");
    published.models[0].variants[1]
        .target
        .labels
        .insert("tier".into(), "cheap".into());
    let board = Board::new(Clock::start());
    board.publish(published);
    let router = Cluster::lenient().api(board).await.router();
    for (query, expected) in [
        ("", vec!["llama-fast", "llama-cheap"]),
        ("?labelSelector=tier%3Dcheap", vec!["llama-cheap"]),
        (
            "?metricLabelSelector=accelerator%3DH100",
            vec!["llama-fast"],
        ),
    ] {
        let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/deployments.apps";
        for star in ["*", "%2A"] {
            let request = get(&format!("{path}/{star}/llm_desired_replicas{query}"));
            let (_, body) = answer_of(router.clone(), request).await;
            let names: Vec<&str> = body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["describedObject"]["name"].as_str().unwrap())
                .collect();
            assert_eq!(names, expected, "{query}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_acted_on_is_an_error_with_its_reason_everywhere() {
    let board = Board::new(Clock::start());
    let router = Cluster::lenient().api(board.clone()).await.router();
    let requests = || {
        [
            external("team-a", "llm_desired_replicas", "variant=fast"),
            external("team-a", "wva_desired_replicas", ""),
            get(
                "/apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/deployments.apps/llama-fast/llm_desired_ratio",
            ),
            get(
                "/apis/custom.metrics.k8s.io/v1beta1/namespaces/team-a/deployments.apps/%2A/llm_slo_pressure",
            ),
            get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/metrics/llm_queue_seconds"),
        ]
    };
    let refused = async |why: &str| {
        for request in requests() {
            let path = request.uri().to_string();
            let (code, body) = answer_of(router.clone(), request).await;
            assert_eq!(code, 503, "{path}: {body}");
            assert_eq!(body["reason"], "ServiceUnavailable");
            let message = body["message"].as_str().unwrap();
            assert!(message.contains(why), "{path}: {message}");
        }
    };
    let with = |change: &dyn Fn(&mut PublishedModel)| {
        let mut published = published();
        change(&mut published.models[0]);
        board.publish(published);
    };
    refused("no decision has been made yet").await;
    with(&|model| model.mode = Mode::Advise);
    refused("mode advise").await;
    let reason = "no request has been answered".to_owned();
    with(&|model| {
        model.state = Answer::Cold {
            reason: reason.clone(),
        };
    });
    refused(&reason).await;
    let reason = "endpoint picker llama-0 is silent".to_owned();
    with(&|model| {
        model.state = Answer::Stale {
            reason: reason.clone(),
        };
    });
    refused(&reason).await;
    with(&|_| {});
    tokio::time::advance(Duration::from_secs(11)).await;
    refused("11.0 s old").await;
    with(&|_| {});
    for request in requests() {
        assert_eq!(answer_of(router.clone(), request).await.0, 200);
    }
}

#[tokio::test]
async fn a_value_that_is_not_known_is_no_zero() {
    let router = Cluster::lenient().api(board()).await.router();
    let request = external("team-c", "llm_slo_pressure", "");
    let (code, body) = answer_of(router.clone(), request).await;
    assert_eq!(code, 503, "{body}");
    let request = external("team-c", "llm_desired_replicas", "");
    assert_eq!(answer_of(router, request).await.0, 200);
}

#[tokio::test]
async fn discovery_does_not_wait_for_a_decision() {
    let router = Cluster::lenient()
        .api(Board::new(Clock::start()))
        .await
        .router();
    for path in [
        "/apis",
        "/apis/custom.metrics.k8s.io",
        "/apis/custom.metrics.k8s.io/v1beta1",
        "/apis/custom.metrics.k8s.io/v1beta2",
        "/apis/external.metrics.k8s.io",
        "/apis/external.metrics.k8s.io/v1beta1",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/apis/custom.metrics.k8s.io/v1beta2",
        "/version",
    ] {
        let (code, body) = answer_of(router.clone(), get(path)).await;
        assert_eq!(code, 200, "{path}: {body}");
    }
}

#[tokio::test]
async fn openapi_documents_are_sent_once() {
    let router = Cluster::lenient().api(board()).await.router();
    let first = router.clone().oneshot(get("/openapi/v3")).await.unwrap();
    let etag = first.headers()[header::ETAG].clone();
    let mut again = get("/openapi/v3");
    again
        .headers_mut()
        .insert(header::IF_NONE_MATCH, etag.clone());
    let again = router.clone().oneshot(again).await.unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(again.headers()[header::ETAG], etag);
    let mut other = get("/openapi/v2");
    other.headers_mut().insert(header::IF_NONE_MATCH, etag);
    assert_eq!(router.oneshot(other).await.unwrap().status(), 200);
}

#[tokio::test]
async fn readiness_follows_what_is_known_and_the_drain() {
    let cluster = Cluster::lenient();
    let unread = cluster.unread_api(board()).router();
    let (code, _) = answer_of(unread.clone(), get("/readyz")).await;
    assert_eq!(code, 503);
    assert_eq!(answer_of(unread, get("/livez")).await.0, 200);
    let shutdown = Shutdown::new();
    let router = cluster.api_until(board(), shutdown.clone()).await.router();
    assert_eq!(answer_of(router.clone(), get("/readyz")).await.0, 200);
    shutdown.begin_drain();
    assert_eq!(answer_of(router.clone(), get("/readyz")).await.0, 503);
    // What is asked during the drain is still answered.
    let request = external("team-a", "llm_desired_replicas", "");
    assert_eq!(answer_of(router, request).await.0, 200);
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_again() {
    let api = Cluster::lenient().api(board()).await;
    let room: Vec<_> = (0..CONCURRENT)
        .map(|_| api.inner.room.try_acquire().unwrap())
        .collect();
    let request = || external("team-a", "llm_desired_replicas", "");
    let response = api.router().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(answer_of(api.router(), get("/livez")).await.0, 200);
    drop(room);
    assert_eq!(answer_of(api.router(), request()).await.0, 200);
}

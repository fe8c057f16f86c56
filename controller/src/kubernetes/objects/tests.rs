use std::time::Duration;

use kubernetes::mock::{self, Exchange, Watch};
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::labels::Selector;
use crate::kubernetes::targets::TargetKey;
use crate::published::ObjectRef;

fn list(kind: &str, items: Value) -> Value {
    json!({"apiVersion": "v1", "kind": format!("{kind}List"), "metadata": {"resourceVersion": "5"}, "items": items})
}

fn resource(name: &str, kind: &str) -> Value {
    json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get", "list", "watch"]})
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "llama", "namespace": "chat", "uid": "d", "resourceVersion": "7", "annotations": {"headroom.dev/model": "llama"}},
        "spec": {"replicas": replicas},
    })
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "llama-1", "namespace": "chat", "labels": {"app": "llm"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// Plays an API server that has Deployments and pods, no LeaderWorkerSets, no InferencePools and no ModelScalers. Watches
/// are handed over, and stand.
async fn answer(exchange: Exchange, watches: &tokio::sync::mpsc::UnboundedSender<(String, Watch)>) {
    let target = exchange.target();
    if exchange.is_watch() {
        watches.send((target, exchange.watch())).unwrap();
        return;
    }
    let empty = || list("", json!([]));
    match target.as_str() {
        "GET /apis/apps/v1" => {
            let resources = [
                resource("deployments", "Deployment"),
                resource("deployments/scale", "Scale"),
                resource("statefulsets", "StatefulSet"),
                resource("statefulsets/scale", "Scale"),
            ];
            let answer = json!({"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": resources});
            exchange.reply(&answer).await;
        }
        "GET /apis/apps/v1/deployments" => {
            exchange
                .reply(&list("Deployment", json!([deployment(3)])))
                .await
        }
        "GET /apis/apps/v1/statefulsets" => exchange.reply(&empty()).await,
        "GET /apis/autoscaling/v2/horizontalpodautoscalers" => exchange.reply(&empty()).await,
        "GET /api/v1/pods" => exchange.reply(&list("Pod", json!([pod()]))).await,
        "GET /apis/apps/v1/namespaces/chat/deployments/llama/scale" => {
            let scale = json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "llama", "namespace": "chat"},
                "spec": {"replicas": 3}, "status": {"replicas": 1, "selector": "app=llm"},
            });
            exchange.reply(&scale).await;
        }
        _ => exchange.fail(404, "NotFound").await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_our_crds_is_followed_all_the_same() {
    let (client, mut server) = mock::server();
    let (clock, shutdown, tasks) = (Clock::start(), Shutdown::new(), Tasks::new());
    let followed = Followed::start(&client, None, clock, &shutdown, &tasks);
    let (sender, mut watches) = tokio::sync::mpsc::unbounded_channel();
    let player = tokio::spawn(async move {
        while let Some(exchange) = server.next().await {
            answer(exchange, &sender).await;
        }
    });
    let mut models = followed.models.changes();
    let snapshot = models
        .wait_for(|snapshot| snapshot.synced)
        .await
        .unwrap()
        .clone();
    assert_eq!(snapshot.models.len(), 1);
    assert_eq!(snapshot.models[0].key.to_string(), "chat/llama");

    let key = TargetKey::new("chat", &ObjectRef::new("apps/v1", "Deployment", "llama"));
    let asked = || async {
        loop {
            let state = followed.targets.state(&key);
            if !state.selector.is_empty() {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let state = asked().await;
    assert_eq!(state.replicas, Some(3));
    assert_eq!(state.selector, Selector::parse("app=llm").unwrap());
    assert_eq!(
        followed
            .pods
            .replicas("chat", &state.selector)
            .replicas
            .ready,
        1
    );

    // The count follows the watch; the scale subresource need not be asked again.
    let mut standing = loop {
        let (target, watch) = watches.recv().await.unwrap();
        if target == "GET /apis/apps/v1/deployments" {
            break watch;
        }
    };
    let mut changes = followed.kinds.changes();
    changes.mark_unchanged();
    standing.event("MODIFIED", &deployment(5)).await;
    changes.changed().await.unwrap();
    assert_eq!(followed.targets.state(&key).replicas, Some(5));
    shutdown.stop();
    tasks.join().await;
    player.abort();
}

//! Headroom by its own chart.

use std::process::Command;

use kube::Client;
use serde_json::Value;

use crate::cluster::{Cluster, repository};
use crate::objects::{apply, get, list};
use crate::until;

/// Name of the release.
pub const RELEASE: &str = "headroom";

/// Renders the chart with `values` (YAML) for `namespace`.
///
/// # Panics
/// With Helm's words, when it refuses.
pub fn render(cluster: &Cluster, namespace: &str, values: &str) -> String {
    let file = cluster.description.directory.join("values.yaml");
    std::fs::write(&file, values).expect("a file");
    let output = Command::new(&cluster.tools.helm)
        .args(["template", RELEASE])
        .arg(repository().join("deploy/charts/headroom"))
        .args([
            "--namespace",
            namespace,
            "--kube-version",
            "1.36.0",
            "--values",
        ])
        .arg(&file)
        .output()
        .expect("Helm runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Installs the chart with `values` and waits until all of its Deployments are available and, where it serves them,
/// the metrics APIs too.
pub async fn install(cluster: &Cluster, namespace: &str, values: &str) {
    let manifests = render(cluster, namespace, values);
    for object in apply(&cluster.client, namespace, &manifests).await {
        let name = object.metadata.name.unwrap_or_default();
        let namespace = object.metadata.namespace.unwrap_or_default();
        match object.types.map(|types| types.kind).as_deref() {
            Some("Deployment") => available(&cluster.client, &namespace, &name).await,
            Some("APIService") => served(&cluster.client, &name).await,
            _ => {}
        }
    }
}

/// Waits until every replica of a Deployment is available in its newest form.
pub async fn available(client: &Client, namespace: &str, name: &str) {
    until(
        &format!("Deployment {namespace}/{name} to be available"),
        async || {
            let found = get(client, "apps/v1/Deployment", namespace, name).await?;
            let count = |path: &str| found.pointer(path).and_then(Value::as_i64).unwrap_or(0);
            let wanted = count("/spec/replicas");
            let current = count("/status/observedGeneration") >= count("/metadata/generation");
            let all = [
                "/status/replicas",
                "/status/updatedReplicas",
                "/status/availableReplicas",
            ]
            .iter()
            .all(|path| count(path) == wanted);
            (current && all).then_some(())
        },
    )
    .await;
}

async fn served(client: &Client, name: &str) {
    use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
    let api: kube::Api<APIService> = kube::Api::all(client.clone());
    until(&format!("APIService {name} to be available"), async || {
        let status = api.get(name).await.ok()?.status?;
        let conditions = status.conditions?;
        let available = conditions
            .iter()
            .any(|condition| condition.type_ == "Available" && condition.status == "True");
        available.then_some(())
    })
    .await;
}

/// Names and addresses of the Ready pods with these labels.
pub async fn ready_pods(client: &Client, namespace: &str, labels: &str) -> Vec<(String, String)> {
    let pods = list(client, "v1/Pod", namespace, labels).await;
    pods.iter()
        .filter(|pod| {
            let going = pod.pointer("/metadata/deletionTimestamp").is_some();
            let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            ready && !going
        })
        .map(|pod| {
            let text = |path: &str| {
                pod.pointer(path)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            (text("/metadata/name"), text("/status/podIP"))
        })
        .collect()
}

//! docs/migrate.md, command by command.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::load::{Load, Shape, lost};
use e2e::servers::Servers;
use e2e::stack::{MODEL, NAMESPACE};
use e2e::{Cluster, cluster, install, objects, until};
use serde_json::Value;

/// What is there before: a Deployment, a Service and an HPA.
const BEFORE: &str = "
apiVersion: v1
kind: Service
metadata: {name: llama}
spec:
  selector: {app: llama}
  ports: [{name: http, port: 80, targetPort: 8000}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: llama}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: llama}
  minReplicas: 1
  maxReplicas: 8
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}]
";

/// Programs by the names that the page calls them by.
fn programs(cluster: &Cluster, directory: &Path) {
    let script = |name: &str, line: String| {
        let path = directory.join(name);
        std::fs::write(&path, format!("#!/bin/sh\nexec {line} \"$@\"\n")).expect("a file");
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("an executable");
    };
    let tools = &cluster.tools;
    script("kubectl", format!("{} kubectl", tools.cluster.display()));
    script("helm", tools.helm.display().to_string());
    script("headroom", tools.headroom.display().to_string());
    let root = cluster::repository();
    std::os::unix::fs::symlink(root.join("deploy"), directory.join("deploy")).expect("a link");
}

/// Runs one block of the page and returns what it printed.
fn run(cluster: &Cluster, directory: &Path, block: &str) -> String {
    try_run(cluster, directory, block).unwrap_or_else(|said| panic!("{block}\n{said}"))
}

fn try_run(cluster: &Cluster, directory: &Path, block: &str) -> Result<String, String> {
    let path = format!(
        "{}:{}",
        directory.display(),
        std::env::var("PATH").expect("a PATH")
    );
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", block])
        .current_dir(directory)
        .env("PATH", path)
        .env("KUBECONFIG", &cluster.description.kubeconfig)
        .output()
        .expect("bash");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(printed)
    } else {
        Err(printed + &String::from_utf8_lossy(&output.stderr))
    }
}

/// Where the Service `llama` leads now. There is no kube-proxy: clients resolve it to its pods.
async fn service(cluster: &Cluster) -> SocketAddr {
    until("the Service to lead somewhere", async || {
        let labels = "kubernetes.io/service-name=llama";
        let slices = objects::list(
            &cluster.client,
            "discovery.k8s.io/v1/EndpointSlice",
            NAMESPACE,
            labels,
        )
        .await;
        let slice = slices.first()?;
        let port = slice.pointer("/ports/0/port")?.as_u64()?;
        let ready = slice["endpoints"]
            .as_array()?
            .iter()
            .find(|one| one["conditions"]["ready"] == true)?;
        format!("{}:{port}", ready["addresses"][0].as_str()?)
            .parse()
            .ok()
    })
    .await
}

async fn traffic(cluster: &Cluster, rate: f64, seconds: u64) {
    let shape = Shape {
        model: MODEL.to_owned(),
        prompt_words: 300,
        output_tokens: 30,
        headers: Vec::new(),
    };
    let mut load = Load::new(service(cluster).await, shape);
    load.at_rate(rate, Duration::from_secs(seconds)).await;
    let outcomes = load.finish().await;
    assert!(lost(&outcomes).is_empty(), "{:?}", lost(&outcomes));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_takes_a_deployment_to_headroom_and_back() {
    let cluster = Cluster::start(cluster::Shape::default()).await;
    objects::namespace(&cluster.client, NAMESPACE).await;
    objects::apply(
        &cluster.client,
        NAMESPACE,
        &Servers::new("llama", MODEL).manifest(),
    )
    .await;
    objects::apply(&cluster.client, NAMESPACE, BEFORE).await;
    install::available(&cluster.client, NAMESPACE, "llama").await;
    let directory = tempfile::tempdir().expect("a directory");
    programs(&cluster, directory.path());
    let dns = cluster.description.dns;
    let extra = format!(
        "poolDefaults: {{proxy: {{replicas: 1, drainSeconds: 5, resolvers: [{{address: {}, port: {}}}]}}}}\n",
        dns.ip(),
        dns.port()
    );
    std::fs::write(directory.path().join("test.yaml"), extra).expect("a file");

    let page =
        std::fs::read_to_string(cluster::repository().join("docs/migrate.md")).expect("the page");
    let blocks: Vec<String> = page
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| {
            Some(
                rest.split_once("```")?
                    .0
                    .replace("-f values.yaml", "-f values.yaml -f test.yaml"),
            )
        })
        .collect();
    assert_eq!(blocks.len(), 7, "five steps, one of two blocks, and back");
    let step = |number: usize| run(&cluster, directory.path(), &blocks[number]);

    traffic(&cluster, 2.0, 3).await;
    step(0);
    traffic(&cluster, 2.0, 3).await;
    step(1);
    until("the Service to lead to Envoy", async || {
        (service(&cluster).await.port() == 8081).then_some(())
    })
    .await;
    traffic(&cluster, 4.0, 45).await;
    step(2);
    // "A few seconds later".
    let advice = until("an explanation", async || {
        try_run(&cluster, directory.path(), &blocks[3]).ok()
    })
    .await;
    assert!(advice.contains("llama"), "{advice}");
    step(4);
    until("the HPA to follow", async || {
        let hpa = objects::get(
            &cluster.client,
            "autoscaling/v2/HorizontalPodAutoscaler",
            NAMESPACE,
            "llama",
        )
        .await?;
        let conditions = hpa.pointer("/status/conditions")?.as_array()?.clone();
        let active = |one: &Value| one["type"] == "ScalingActive" && one["status"] == "True";
        conditions.iter().any(active).then_some(())
    })
    .await;
    let checked = step(5);
    eprintln!("{checked}");
    traffic(&cluster, 4.0, 10).await;
    step(6);
    until("the Service to lead to the servers again", async || {
        (service(&cluster).await.port() == 8000).then_some(())
    })
    .await;
    traffic(&cluster, 2.0, 3).await;
    let hpa = objects::get(
        &cluster.client,
        "autoscaling/v2/HorizontalPodAutoscaler",
        NAMESPACE,
        "llama",
    )
    .await
    .expect("the HPA");
    assert_eq!(hpa["spec"]["metrics"][0]["type"], "Resource");
    assert!(
        hpa.pointer("/metadata/annotations/headroom.dev~1model")
            .is_none(),
        "{hpa:#}"
    );
}

//! The whole loop on a test cluster: servers, pickers, Envoy, controller.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, Shape, repository};
use crate::load::{self, Load};
use crate::objects::{self, apply, get};
use crate::servers::Servers;
use crate::{install, until};

/// The model that everything here serves.
pub const MODEL: &str = "meta-llama/Llama-3.1-8B";
/// Namespace of everything.
pub const NAMESPACE: &str = "inference";
/// The pool, its picker and its proxy are named after it.
pub const POOL: &str = "llama";

/// A cluster with Headroom installed by its chart.
pub struct Stack {
    /// The control plane.
    pub cluster: Cluster,
}

impl Stack {
    /// Starts a cluster with `servers`, all in the pool [`POOL`], and the chart with `values` on top of what the test
    /// cluster needs.
    pub async fn start(shape: Shape, servers: &[Servers], values: &str) -> Self {
        let cluster = Cluster::start(shape).await;
        objects::namespace(&cluster.client, NAMESPACE).await;
        for one in servers {
            apply(&cluster.client, NAMESPACE, &one.manifest()).await;
        }
        let dns = cluster.description.dns;
        let pool = format!(
            r#"
pools:
- name: {POOL}
  model: {MODEL}
  modelServers: {{matchLabels: {{app: {POOL}}}}}
  slo: {{ttftMs: 2000, tpotMs: 100, percentile: 90}}
  proxy: {{enabled: true, replicas: 1, failOpen: false, drainSeconds: 15, resolvers: [{{address: {}, port: {}}}]}}
"#,
            dns.ip(),
            dns.port()
        );
        install::install(&cluster, NAMESPACE, &format!("{pool}{values}")).await;
        for one in servers.iter().filter(|one| one.replicas > 0) {
            install::available(&cluster.client, NAMESPACE, &one.name).await;
        }
        Self { cluster }
    }

    /// Applies a file of deploy/examples.
    pub async fn apply_example(&self, file: &str) {
        let path = repository().join("deploy/examples").join(file);
        let yaml = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.apply(&yaml).await;
    }

    /// Applies manifests.
    pub async fn apply(&self, yaml: &str) {
        apply(&self.cluster.client, NAMESPACE, yaml).await;
    }

    /// One object as JSON.
    pub async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        get(&self.cluster.client, kind, NAMESPACE, name).await
    }

    /// Replicas that a Deployment is told to have.
    pub async fn replicas(&self, deployment: &str) -> i64 {
        let found = self.get("apps/v1/Deployment", deployment).await;
        found
            .and_then(|found| found.pointer("/spec/replicas")?.as_i64())
            .expect("a Deployment with a count")
    }

    /// Names and addresses of the Ready pods of a component of the chart: `controller`, `epp` or `proxy`.
    pub async fn component(&self, component: &str) -> Vec<(String, String)> {
        let labels = format!("app.kubernetes.io/component={component}");
        install::ready_pods(&self.cluster.client, NAMESPACE, &labels).await
    }

    /// Where clients send requests.
    pub async fn proxy(&self) -> SocketAddr {
        let pods = self.component("proxy").await;
        let (_, address) = pods.first().expect("a proxy");
        format!("{address}:8081").parse().expect("an address")
    }

    /// A load towards the proxy.
    pub async fn load(&self, prompt_words: u32, output_tokens: u32) -> Load {
        let shape = load::Shape {
            model: MODEL.to_owned(),
            prompt_words,
            output_tokens,
            headers: Vec::new(),
        };
        Load::new(self.proxy().await, shape)
    }

    /// Serves until every picker has learned what the controller sizes by.
    ///
    /// # Panics
    /// When a request is lost.
    pub async fn learn(&self) {
        // A proxy is Ready before it has found the pickers' names.
        let models = format!("http://{}/v1/models", self.proxy().await);
        until("an answer through the proxy", async || {
            let answer = reqwest::get(&models).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        let mut load = self.load(400, 60).await;
        // Up to what one server can just hold: what was never seen would be extrapolated.
        for rate in [6.0, 12.0, 18.0, 24.0] {
            load.at_rate(rate, Duration::from_secs(8)).await;
        }
        let outcomes = load.finish().await;
        let lost = load::lost(&outcomes);
        assert!(lost.is_empty(), "{lost:?}");
    }

    /// Waits until the HPA acts on its metric.
    pub async fn hpa_active(&self, name: &str) {
        until(&format!("HPA {name} to read its metric"), async || {
            let hpa = self
                .get("autoscaling/v2/HorizontalPodAutoscaler", name)
                .await?;
            let conditions = hpa.pointer("/status/conditions")?.as_array()?.clone();
            let active = |condition: &Value| {
                condition["type"] == "ScalingActive" && condition["status"] == "True"
            };
            conditions.iter().any(active).then_some(())
        })
        .await;
    }

    /// What `headroom explain --json` says of [`MODEL`].
    pub fn explain(&self) -> Value {
        let output = std::process::Command::new(&self.cluster.tools.headroom)
            .args(["explain", &format!("{NAMESPACE}/{MODEL}"), "--json"])
            .env("KUBECONFIG", &self.cluster.description.kubeconfig)
            .output()
            .expect("headroom runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Sends `rate` requests a second for `time` and notes the replica count of `deployment` once a second meanwhile.
pub async fn watched(
    stack: &Stack,
    load: &mut Load,
    deployment: &str,
    rate: f64,
    time: Duration,
) -> Vec<i64> {
    let mut counts = Vec::new();
    for _ in 0..time.as_secs() {
        load.at_rate(rate, Duration::from_secs(1)).await;
        counts.push(stack.replicas(deployment).await);
    }
    counts
}

//! A cluster with one annotated model, and controllers in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use controller::kubernetes::pickers::TrustOptions;
use controller::kubernetes::run::{self, KubernetesOptions, Running, TIMING};
use controller::published::{Board, Posted};
use kube::{Client, Config};
use kubernetes::client::Identity;
use predictor::snapshot::{ClassModel, ModelSet, encode};
use predictor::{Features, Learner, LearnerConfig, Observation, Target};
use runtime::tls::CertificateAuthority;
use runtime::{Clock, Metrics, Shutdown, Tasks};
use serde_json::{Value, json};

use crate::api::Api;
use crate::picker::Picker;

/// The model that there is from the start.
pub(crate) const MODEL: &str = "llama";

const TOKEN: &str = "a-token";
/// Nothing here takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) api: Arc<Api>,
    authority: CertificateAuthority,
    folder: tempfile::TempDir,
    models: Arc<(Vec<u8>, ClassModel)>,
}

/// Waits until `happens`, looking again and again.
pub(crate) async fn until(what: &str, mut happens: impl FnMut() -> bool) {
    let waiting = async {
        while !happens() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("waited in vain for {what}");
    }
}

/// What the metrics APIs would say of the first model: replicas wanted, or why not.
pub(crate) fn desired(posted: &Posted, now: Duration) -> Result<u32, String> {
    let models = &posted.published().models;
    let model = models.first().ok_or("nothing is published")?;
    posted
        .answer(model, now)
        .map_err(|error| error.to_string())?;
    Ok(model.variants[0].desired)
}

impl World {
    pub(crate) async fn new() -> Self {
        runtime::tls::install_provider();
        let api = Api::serve().await;
        let clock = Clock::start();
        let authority = CertificateAuthority::generate("pickers", clock.unix_ms()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.bundle()).unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let world = Self {
            api,
            authority,
            folder,
            models: Arc::new(learned()),
        };
        world.deploy(MODEL);
        world
    }

    /// One annotated Deployment with one pod that serves; its pool has the model's name.
    pub(crate) fn deploy(&self, model: &str) {
        self.api.put(
            "deployments",
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "name": model, "namespace": "ns", "uid": format!("uid-{model}"), "generation": 1,
                    "annotations": {
                        "headroom.dev/model": model,
                        "headroom.dev/mode": "publish",
                        "headroom.dev/pool": model,
                        "headroom.dev/startup-seconds": "6",
                        "headroom.dev/max-replicas": "10",
                    },
                },
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": model}},
                         "template": {"metadata": {"labels": {"app": model}}}},
                "status": {"replicas": 1},
            }),
        );
        self.pod(&format!("{model}-0"), &json!({"app": model}), &json!([]));
    }

    /// A picker of the model's pool, with its pod.
    pub(crate) async fn picker(&self, model: &str, name: &str) -> Arc<Picker> {
        let name = format!("{model}-epp-{name}");
        let models = Arc::clone(&self.models);
        let (picker, port) = Picker::serve(&name, model, TOKEN, &self.authority, models).await;
        let ports = json!([{"name": "epp", "ports": [{"name": "admin", "containerPort": port}]}]);
        self.pod(&name, &json!({"headroom.dev/pool": model}), &ports);
        picker
    }

    fn pod(&self, name: &str, labels: &Value, containers: &Value) {
        self.api.put(
            "pods",
            json!({
                "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"),
                    "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": "n", "containers": containers},
                "status": {"phase": "Running", "podIP": "127.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:06Z"}]},
            }),
        );
    }

    fn options(&self, pod: &str) -> KubernetesOptions {
        options(pod, self.folder.path().into())
    }

    pub(crate) async fn replica(&self, pod: &str) -> Replica {
        Replica::start(&self.api.url(), &self.options(pod)).await
    }

    /// A replica in a runtime of its own, which can be killed without a word.
    pub(crate) fn replica_apart(&self, pod: &str) -> Apart {
        let (url, options) = (self.api.url(), self.options(pod));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (sender, receiver) = mpsc::channel();
        runtime.spawn(async move {
            let replica = Replica::start(&url, &options).await;
            sender.send(replica.running.board.clone()).unwrap();
            std::future::pending::<()>().await;
            drop(replica);
        });
        Apart {
            board: receiver.recv_timeout(PATIENCE).unwrap(),
            runtime: Some(runtime),
        }
    }
}

fn options(pod: &str, folder: PathBuf) -> KubernetesOptions {
    KubernetesOptions {
        host: [127, 0, 0, 1].into(),
        metrics_api_port: 0,
        metrics_port: 0,
        keda_port: None,
        followers_port: 0,
        identity: Identity {
            namespace: Some("headroom".into()),
            pod: Some(pod.to_owned()),
            pod_ip: Some([127, 0, 0, 1].into()),
        },
        namespace: "headroom".into(),
        namespaces: Vec::new(),
        lease: "headroom-controller".into(),
        timing: TIMING,
        service: "headroom-controller".into(),
        service_port: 443,
        api_services: false,
        cert_dir: None,
        metrics_auth: false,
        trust: TrustOptions {
            ca_file: Some(folder.join("ca.crt")),
            token_file: folder.join("token"),
        },
        prometheus: None,
        engine_port: 8000,
        freshness: Duration::from_secs(10),
    }
}

pub(crate) struct Replica {
    pub(crate) running: Running,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Replica {
    async fn start(url: &str, options: &KubernetesOptions) -> Self {
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let metrics = Metrics::new();
        let running = run::start(client, options, &metrics, Clock::start(), &shutdown, &tasks)
            .await
            .unwrap();
        Self {
            running,
            shutdown,
            tasks,
        }
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.begin_drain();
        let leadership = self.running.leadership.clone();
        until("the Lease is given back", || !leadership.borrow().leader).await;
        self.shutdown.stop();
        self.tasks.join().await;
    }
}

pub(crate) struct Apart {
    board: Board,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Apart {
    pub(crate) fn desired(&self) -> Result<u32, String> {
        desired(&self.board.latest(), self.board.clock().now())
    }

    /// Ends it as SIGKILL does: its sockets are closed, nothing else is done.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A trained model of a replica that takes some dozens of short requests per second, as a picker serves it.
fn learned() -> (Vec<u8>, ClassModel) {
    let mut learner = Learner::new(LearnerConfig::default());
    let mut now = Duration::ZERO;
    let mut state = 1_u32;
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for _ in 0..600 {
        now += Duration::from_millis(50);
        learner.note_dispatch(now);
        let (waiting, running) = (random(6) as f32, random(33) as f32);
        let features = Features {
            input_tokens: (20 + random(2_000)) as f32,
            cached_tokens: 0.0,
            waiting,
            waiting_tokens: waiting * 500.0,
            running,
            resident_tokens: running * 700.0,
            kv_utilization: running / 64.0,
        };
        for target in Target::ALL {
            let prefill = features.uncached_tokens() + features.waiting_tokens;
            let noise = 0.85 + 0.3 * (random(1_000) as f32 / 1_000.0);
            let actual_ms = noise
                * match target {
                    Target::Ttft => 15.0 + 0.06 * prefill * (1.0 + 0.02 * running),
                    Target::Tpot => 12.0 + 0.2 * running + 1e-4 * features.resident_tokens,
                };
            learner.observe(Observation {
                target,
                features,
                actual_ms,
                at: now,
                predicted: Some(learner.model(now).predict_target(&features, target)),
            });
        }
        if learner.due(now) {
            let candidate = learner.fit(now);
            learner.install(candidate, now);
        }
    }
    let report = learner.report(now);
    let class = ClassModel {
        class: "".into(),
        model: learner.model(now),
        labels: [report.ttft.labels, report.tpot.labels],
        fresh_labels: [report.ttft.fresh_labels, report.tpot.fresh_labels],
        fitted_at_ms: 1_800_000_000_000,
    };
    let set = ModelSet {
        classes: vec![class.clone()],
    };
    (encode(&set).unwrap(), class)
}

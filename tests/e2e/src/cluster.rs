//! The test cluster: started for one test binary, gone with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use tempfile::TempDir;

/// Addresses of pods, as tests/e2e/network.sh lays them.
const POD_RANGE: &str = "10.128.0.0/16";

/// What the tests need on this machine, by the environment variables that `make e2e` sets.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The test cluster's binary.
    pub cluster: PathBuf,
    /// `headroom`, built for release.
    pub headroom: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
    /// Helm.
    pub helm: PathBuf,
}

impl Tools {
    /// From the environment.
    ///
    /// # Panics
    /// With the variable's name, when one is missing.
    pub fn find() -> Self {
        let tool = |variable: &str| {
            let path = std::env::var_os(variable)
                .unwrap_or_else(|| panic!("{variable} is not set: run these tests by `make e2e`"));
            PathBuf::from(path)
        };
        Self {
            cluster: tool("HEADROOM_CLUSTER"),
            headroom: tool("HEADROOM_BIN"),
            envoy: tool("HEADROOM_ENVOY"),
            helm: tool("HEADROOM_HELM"),
        }
    }
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tests/e2e lies two levels down")
        .to_owned()
}

/// `cluster.json`, as far as the tests read it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The state directory.
    pub directory: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The API server.
    pub url: String,
    /// The cluster's CA.
    pub ca: PathBuf,
    /// The CA of the aggregation layer's clients.
    pub front_proxy_ca: PathBuf,
    /// Its name server: Services resolve to the addresses of their Ready pods.
    pub dns: SocketAddr,
    /// Its processes.
    pub components: BTreeMap<String, Component>,
}

/// One process of the control plane.
#[derive(Clone, Debug, Deserialize)]
pub struct Component {
    /// Process id.
    pub pid: u32,
    /// Its log.
    pub log: PathBuf,
}

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes, as `cluster up --node` takes them.
    pub nodes: Vec<String>,
    /// Further arguments of `cluster up`.
    pub arguments: Vec<String>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes: vec![
                "cpu,cpu=256,memory=512Gi,pods=200".to_owned(),
                "h100,product=H100,gpu=16,cpu=64".to_owned(),
            ],
            arguments: Vec::new(),
        }
    }
}

/// A running control plane.
pub struct Cluster {
    /// What it told of itself.
    pub description: Description,
    /// The administrator's client.
    pub client: Client,
    /// What the tests need on this machine.
    pub tools: Tools,
    child: Child,
    directory: Option<TempDir>,
}

impl Cluster {
    /// Starts one with all CRDs, and waits until it answers.
    pub async fn start(shape: Shape) -> Self {
        runtime::tls::install_provider();
        let tools = Tools::find();
        let directory = tempfile::Builder::new()
            .prefix("headroom-e2e-")
            .tempdir()
            .expect("a temporary directory");
        let image = |name: &str, path: &Path| format!("{name}={}", path.display());
        let repository = repository();
        let mut command = Command::new(&tools.cluster);
        command.arg("up").arg("--dir").arg(directory.path());
        for node in &shape.nodes {
            command.args(["--node", node]);
        }
        command
            .args(["--image", &image("headroom", &tools.headroom)])
            .args(["--image", &image("envoy", &tools.envoy)])
            .arg("--crds")
            .arg(repository.join("deploy/charts/headroom/crds"))
            .arg("--crds")
            .arg(repository.join("tests/cluster/crds"))
            .args(["--crds", "third-party"])
            .args(["--pod-range", POD_RANGE])
            // No kube-proxy: the API server finds metrics APIs by the addresses of their pods.
            .arg("--apiserver-arg=--enable-aggregator-routing=true")
            .args(&shape.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the test cluster starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("a line");
        let description: Description = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the test cluster did not come up: {error}: {line:?}"));
        let client = client(&description.kubeconfig).await;
        Self {
            description,
            client,
            tools,
            child,
            directory: Some(directory),
        }
    }

    /// A client with the rights of one ServiceAccount.
    pub async fn client_as(&self, namespace: &str, account: &str) -> Client {
        let output = self.run(&[
            "kubeconfig",
            "--serviceaccount",
            &format!("{namespace}/{account}"),
        ]);
        let path = self
            .description
            .directory
            .join(format!("kubeconfig-{namespace}-{account}"));
        std::fs::write(&path, output.stdout).expect("a file");
        client(&path).await
    }

    /// A token of one ServiceAccount.
    pub fn token(&self, namespace: &str, account: &str) -> String {
        let output = self.run(&[
            "token",
            "--namespace",
            namespace,
            "--serviceaccount",
            account,
        ]);
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    /// Runs a command of the cluster's binary on this cluster.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.try_run(arguments);
        assert!(
            output.status.success(),
            "cluster {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// The same, whatever becomes of it.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().expect("a command");
        Command::new(&self.tools.cluster)
            .arg(command)
            .arg("--dir")
            .arg(&self.description.directory)
            .args(rest)
            .output()
            .expect("the test cluster's binary runs")
    }

    /// Runs kubectl as the administrator and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["kubectl"];
        all.extend(arguments);
        String::from_utf8(self.run(&all).stdout).expect("text")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!(
                "the cluster's state is kept in {}",
                directory.keep().display()
            );
        }
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a usable kubeconfig");
    Client::try_from(config).expect("a client")
}

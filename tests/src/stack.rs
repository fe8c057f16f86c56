//! Client, Envoy, picker and model servers together.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use epp::bootstrap::{self, BootstrapOptions};
use epp_core::EndpointSpec;
use tempfile::TempDir;

use crate::client::Call;
use crate::envoy::Envoy;
use crate::metrics::Page;
use crate::picker::{Picker, Ports};
use crate::script::Script;
use crate::upstream::{Upstream, WARM_UP};
use crate::{ports, until};

/// Objectives that every stack knows: `gold` goes first, `batch` last and may be shed, `capped` may be shed
/// whatever its priority.
const OBJECTIVES: &str = "\
objectives:
- {name: gold, priority: 1}
- {name: batch, priority: -1}
- {name: capped, priority: 0, shed: true}
";

/// Where the rendered bootstrap describes the servers that are picked, and what makes Envoy speak to them as its
/// client spoke to it.
const PICKED: &str = "  - name: picked\n    type: ORIGINAL_DST\n";
const AS_DOWNSTREAM: &str = "    \
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {http2_protocol_options: {}}
";

/// What a test varies.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program `picker` of this package: `env!("CARGO_BIN_EXE_picker")` in a test.
    pub picker: &'static str,
    /// Model servers behind the picker.
    pub servers: usize,
    /// Whether the picker knows them from the start.
    pub listed: bool,
    /// What they all do.
    pub script: Script,
    /// Requests per server at a time.
    pub max_concurrency: u32,
    /// Requests that may wait.
    pub max_queued: u32,
    /// How long they may wait, a Go duration.
    pub ttl: &'static str,
    /// Request parsers; none = the automatic ones.
    pub parsers: &'static [&'static str],
    /// Send HTTP/2 on to the servers where a client spoke HTTP/2, as gRPC needs it.
    pub h2c: bool,
}

impl Setup {
    /// One server with plenty of room.
    pub fn new(picker: &'static str) -> Self {
        Self {
            picker,
            servers: 1,
            listed: true,
            script: Script::default(),
            max_concurrency: 100,
            max_queued: 100,
            ttl: "60s",
            parsers: &[],
            h2c: false,
        }
    }

    /// The picker's configuration: a queue, predictions, and refusal of what cannot be in time.
    fn config(&self, endpoints: &Path) -> String {
        let Self {
            max_concurrency,
            max_queued,
            ttl,
            parsers,
            ..
        } = self;
        let plugins: String = parsers
            .iter()
            .map(|name| format!("\n- {{type: {name}}}"))
            .collect();
        let list: Vec<_> = parsers
            .iter()
            .map(|name| format!("{{pluginRef: {name}}}"))
            .collect();
        let list = list.join(", ");
        let endpoints = endpoints.display();
        format!(
            "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: file-discovery, parameters: {{path: {endpoints}, watchFile: true}}}}
- {{type: concurrency-detector, parameters: {{maxConcurrency: {max_concurrency}}}}}
- {{type: predicted-latency-producer, parameters: {{streamingMode: true}}}}
- {{type: latency-slo-admitter, parameters: {{idleAdmits: false}}}}
- {{type: latency-scorer}}
- {{type: max-score-picker}}{plugins}
requestHandler: {{parsers: [{list}]}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: latency-scorer, weight: 1}}
  - {{pluginRef: max-score-picker}}
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
flowControl:
  maxRequests: {max_queued}
  defaultRequestTTL: {ttl}
  saturationDetector: {{pluginRef: concurrency-detector}}
"
        )
    }
}

/// Everything running; gone when dropped.
#[derive(Debug)]
pub struct Stack {
    /// Where clients connect.
    pub proxy: SocketAddr,
    /// The model servers behind the picker.
    pub servers: Vec<Upstream>,
    /// The model server that Envoy uses while there is no picker.
    pub fallback: Upstream,
    /// The picker.
    pub picker: Picker,
    /// The proxy.
    pub envoy: Envoy,
    binary: &'static str,
    ports: Ports,
    /// Configuration, endpoints, list of fallback servers, the picker's log.
    folder: TempDir,
}

impl Stack {
    /// Starts everything, and waits until requests go through the picker.
    pub async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut servers = Vec::new();
        for _ in 0..setup.servers {
            servers.push(Upstream::start(setup.script.clone()).await);
        }
        let fallback = Upstream::start(Script::default()).await;
        let listed = if setup.listed {
            servers.as_slice()
        } else {
            &[]
        };
        let addresses: Vec<_> = listed.iter().map(Upstream::address).collect();
        let endpoints = folder.path().join("endpoints.yaml");
        replace(&endpoints, &endpoints_file(&addresses));
        replace(
            &folder.path().join("picker.yaml"),
            &setup.config(&endpoints),
        );
        replace(
            &eds_file(&folder),
            &bootstrap::render_eds(&specs(&[fallback.address()])),
        );

        let ports = Ports::free();
        let picker = Picker::start(
            setup.picker.as_ref(),
            &folder.path().join("picker.yaml"),
            ports,
            &log(&folder),
        )
        .await;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let options = BootstrapOptions {
            listener: local(ports::free()),
            admin: local(ports::free()),
            picker: local(ports.grpc),
            picker_health_port: ports.health,
            fallback_eds: eds_file(&folder),
            longest_queueing: Duration::from_secs(60),
            health_interval: Duration::from_millis(100),
            ..BootstrapOptions::default()
        };
        let mut bootstrap = bootstrap::render(&options);
        if setup.h2c {
            bootstrap = bootstrap.replace(PICKED, &format!("{PICKED}{AS_DOWNSTREAM}"));
            assert!(
                bootstrap.contains(AS_DOWNSTREAM),
                "the cluster of picked servers"
            );
        }
        let envoy = Envoy::start(&bootstrap, options.admin.port()).await;
        let (proxy, binary) = (options.listener, setup.picker);
        let stack = Self {
            proxy,
            servers,
            fallback,
            picker,
            envoy,
            binary,
            ports,
            folder,
        };
        stack.known(&addresses).await;
        stack.picked_again().await;
        stack
    }

    /// The only server behind the picker.
    ///
    /// # Panics
    /// When the setup has none or several.
    pub fn server(&self) -> &Upstream {
        let [server] = &self.servers[..] else {
            panic!("{} servers were set up", self.servers.len())
        };
        server
    }

    /// Waits until the only server has got `count` requests.
    pub async fn server_received(&self, count: usize) {
        let what = format!("request {count} to reach the server");
        until(&what, async || {
            (self.server().received().len() >= count).then_some(())
        })
        .await;
    }

    /// Tells the picker by its endpoints file that `servers` are there, and waits until it knows.
    pub async fn list(&self, servers: &[SocketAddr]) {
        replace(
            &self.folder.path().join("endpoints.yaml"),
            &endpoints_file(servers),
        );
        self.known(servers).await;
    }

    /// Tells Envoy which servers to use while there is no picker.
    pub fn list_fallback(&self, servers: &[SocketAddr]) {
        replace(
            &eds_file(&self.folder),
            &bootstrap::render_eds(&specs(servers)),
        );
    }

    /// Starts the picker again on the same ports, and waits until Envoy sees it.
    pub async fn restart_picker(&mut self) {
        let config = self.folder.path().join("picker.yaml");
        self.picker = Picker::start(
            self.binary.as_ref(),
            &config,
            self.ports,
            &log(&self.folder),
        )
        .await;
        self.picked_again().await;
    }

    /// Waits until requests go through the picker: that Envoy has found it well does not mean that its workers
    /// know already.
    async fn picked_again(&self) {
        until("Envoy to ask the picker", async || {
            let answer = Call::post(WARM_UP, "{}").send(self.proxy).await;
            (answer.status == 400).then_some(())
        })
        .await;
    }

    /// Waits until the picker knows exactly `servers`.
    async fn known(&self, servers: &[SocketAddr]) {
        until("the picker to read its endpoints file", async || {
            let page = self.picker.metrics().await;
            let each = servers
                .iter()
                .all(|server| page.sum(IN_FLIGHT, &[&format!("\"{server}\"")]).is_some());
            (each && page.count("llm_d_epp_ready_endpoints", &[]) == servers.len() as u64)
                .then_some(())
        })
        .await;
    }

    /// Requests dispatched and not ended.
    pub async fn in_flight(&self) -> u64 {
        self.picker.metrics().await.count(IN_FLIGHT, &[])
    }

    /// Requests in the queue.
    pub async fn queued(&self) -> u64 {
        self.picker.metrics().await.count(QUEUED, &[])
    }

    /// ext_proc streams open.
    pub async fn streams(&self) -> u64 {
        self.picker.metrics().await.count(STREAMS, &[])
    }

    /// Requests by what became of them; those still going are not in it.
    pub async fn outcomes(&self) -> BTreeMap<String, u64> {
        outcomes(&self.picker.metrics().await)
    }

    /// Whether the picker trusts its predictions.
    pub async fn trained(&self) -> bool {
        let page = self.picker.metrics().await;
        page.count("headroom_predictor_state", &["state=\"trained\""]) == 2
    }

    /// Waits until nothing is queued or in flight, no stream is open and no load is counted on any server, and
    /// checks that every request that came has become exactly one thing.
    pub async fn idle(&self) {
        let page = until("the picker to have nothing in flight", async || {
            let page = self.picker.metrics().await;
            let load = [IN_FLIGHT, QUEUED, STREAMS, "llm_d_epp_inflight_tokens"];
            load.iter()
                .all(|name| page.count(name, &[]) == 0)
                .then_some(page)
        })
        .await;
        let offered = page.count(DEMAND, &["outcome=\"Offered\""]);
        assert_eq!(
            outcomes(&page).values().sum::<u64>(),
            offered,
            "requests that came, by outcome: {page:?}"
        );
    }
}

const IN_FLIGHT: &str = "llm_d_epp_inflight_requests";
const QUEUED: &str = "llm_d_epp_flow_control_queue_size";
const STREAMS: &str = "llm_d_epp_extproc_streams_inflight";
const DEMAND: &str = "headroom_demand_requests_total";

fn outcomes(page: &Page) -> BTreeMap<String, u64> {
    let mut outcomes = BTreeMap::new();
    for (outcome, count) in page.by_label(DEMAND, "outcome") {
        if outcome != "Offered" && count > 0.0 {
            outcomes.insert(outcome, count as u64);
        }
    }
    outcomes
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("picker.log")
}

/// In a folder of its own: Envoy watches the folder, and the others' files are none of its business.
fn eds_file(folder: &TempDir) -> PathBuf {
    folder.path().join("envoy").join("fallback.yaml")
}

fn specs(servers: &[SocketAddr]) -> Vec<EndpointSpec> {
    let spec = |server: &SocketAddr| EndpointSpec {
        name: server.to_string(),
        address: server.to_string(),
        labels: BTreeMap::new(),
    };
    servers.iter().map(spec).collect()
}

fn endpoints_file(servers: &[SocketAddr]) -> String {
    let mut text = String::from(OBJECTIVES);
    text.push_str("endpoints:");
    if servers.is_empty() {
        text.push_str(" []");
    }
    for server in servers {
        text.push_str(&format!(
            "\n- {{name: \"{server}\", address: \"{}\", port: \"{}\"}}",
            server.ip(),
            server.port()
        ));
    }
    text.push('\n');
    text
}

/// Writes `text` to `path` by atomic rename, as everything that is watched is written.
fn replace(path: &Path, text: &str) {
    let folder = path.parent().expect("a file in a folder");
    std::fs::create_dir_all(folder).expect("a writable folder");
    let next = path.with_extension("next");
    std::fs::write(&next, text).expect("a writable folder");
    std::fs::rename(&next, path).expect("a rename within the folder");
}

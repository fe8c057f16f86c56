//! How a picker runs, beyond what its `EndpointPickerConfig` says.

use crate::admin_port::{AdminPortOptions, Gate};
use crate::grpc::MinimumTls;
use crate::kubernetes::Cluster;
use crate::peers::PeerOptions;
use crate::reload::Origin;
use crate::telemetry::Telling;
use predictor::LearnerConfig;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Ports, limits and intervals. Port 0 takes any free one; [`crate::Handle`] tells which.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on.
    pub ip: IpAddr,
    /// ext_proc.
    pub grpc_port: u16,
    /// gRPC health checks.
    pub grpc_health_port: u16,
    /// Metrics and admin.
    pub metrics_port: u16,
    /// Name of the pool, for metrics.
    pub pool_name: String,
    /// Namespace of the pool; empty outside Kubernetes.
    pub pool_namespace: String,
    /// Name of this picker among its peers, such as its pod's.
    pub name: String,
    /// How it exchanges what it does with the pool's other pickers; `None` = it is alone.
    pub peers: Option<PeerOptions>,
    /// The admin port; `None` = there is none.
    pub admin_port: Option<AdminPortOptions>,
    /// Where what was learned outlives a restart; `None` = it does not.
    pub model_dir: Option<PathBuf>,
    /// Serve ext_proc with TLS; `None` = in the clear.
    pub tls: Option<Tls>,
    /// Answer health checks on the ext_proc port as well.
    pub health_on_grpc_port: bool,
    /// Who may read metrics and admin pages; `None` = everybody.
    pub metrics_gate: Option<Arc<dyn Gate>>,
    /// Where endpoints come from instead of a file.
    pub cluster: Option<Cluster>,
    /// Endpoints file; it wins over the one the configuration names, and is always watched. Without either,
    /// endpoints come through [`crate::Handle::set_endpoints`].
    pub endpoints_file: Option<PathBuf>,
    /// Time between reads of an engine's metrics, unless the configuration says otherwise.
    pub refresh_metrics_interval: Duration,
    /// Time that is served on after draining began.
    pub drain_timeout: Duration,
    /// Largest request body, bytes.
    pub max_request_bytes: usize,
    /// Request bodies that are arriving take at most this together, bytes.
    pub max_arriving_bytes: u64,
    /// Largest gRPC message, bytes.
    pub grpc_max_recv_msg_size: usize,
    /// Ask for usage in the client's place, and keep it from the client.
    pub inject_usage: bool,
    /// Tell the proxy every candidate's score.
    pub emit_endpoint_scores: bool,
    /// Ignore the proxy's choice of endpoints.
    pub disable_endpoint_subset_filter: bool,
    /// Limits of the latency model.
    pub learner: LearnerConfig,
    /// Share of one core that training may take.
    pub trainer_cpu_share: f32,
    /// Decides all ties.
    pub seed: u64,
    /// Further routes of the admin server.
    pub admin_routes: axum::Router,
    /// What is told beyond the metrics, and under which names.
    pub telling: Telling,
    /// Where the configuration came from.
    pub origin: Origin,
}

/// How ext_proc is served with TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What it is served with.
    pub certificate: Certificate,
    /// The oldest version spoken.
    pub minimum: MinimumTls,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// One that vouches for itself, renewed before it ends.
    SelfSigned,
    /// `tls.crt` and `tls.key` in a directory, such as a mounted Secret.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Take new ones as they come; the last good one is kept.
        reload: bool,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ip: Ipv4Addr::UNSPECIFIED.into(),
            grpc_port: 9002,
            grpc_health_port: 9003,
            metrics_port: 9090,
            pool_name: "default".into(),
            pool_namespace: String::new(),
            name: "epp".into(),
            peers: None,
            admin_port: None,
            model_dir: None,
            tls: None,
            health_on_grpc_port: false,
            metrics_gate: None,
            cluster: None,
            endpoints_file: None,
            refresh_metrics_interval: Duration::from_millis(50),
            drain_timeout: Duration::from_secs(30),
            max_request_bytes: 64 << 20,
            max_arriving_bytes: 1 << 30,
            grpc_max_recv_msg_size: 4 << 20,
            inject_usage: true,
            emit_endpoint_scores: false,
            disable_endpoint_subset_filter: false,
            learner: LearnerConfig::default(),
            trainer_cpu_share: 0.25,
            seed: 1,
            admin_routes: axum::Router::new(),
            telling: Telling::default(),
            origin: Origin::default(),
        }
    }
}

impl Options {
    /// Everything on loopback and on free ports: for tests and for running inside another process.
    pub fn local() -> Self {
        Self {
            ip: Ipv4Addr::LOCALHOST.into(),
            grpc_port: 0,
            grpc_health_port: 0,
            metrics_port: 0,
            ..Self::default()
        }
    }
}

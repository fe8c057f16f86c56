//! What the controller on Kubernetes is told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use kubernetes::client::Identity;
use kubernetes::lease::Timing;

use crate::kubernetes::pickers::TrustOptions;
use crate::kubernetes::prometheus::PrometheusOptions;

/// Followers answer with what the leader published up to ten seconds ago: within that time a leader that died must be
/// succeeded and its successor have published. Hence a shorter lease than client-go's fifteen seconds.
pub const TIMING: Timing = Timing {
    lease: Duration::from_secs(5),
    renew_deadline: Duration::from_millis(3500),
    retry: Duration::from_millis(700),
};

/// Where the token of the pod's ServiceAccount is.
pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Settings of the controller on Kubernetes.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// Address that all servers listen on.
    pub host: IpAddr,
    /// Port of the metrics APIs, TLS.
    pub metrics_api_port: u16,
    /// Port of metrics and decisions.
    pub metrics_port: u16,
    /// Port of the KEDA external scaler; `None` = it is not served.
    pub keda_port: Option<u16>,
    /// Port that followers are served on, TLS.
    pub followers_port: u16,
    /// Who this process is.
    pub identity: Identity,
    /// Namespace of Lease, Secret and ConfigMap.
    pub namespace: String,
    /// Namespaces whose models are sized; empty = all.
    pub namespaces: Vec<String>,
    /// The Lease.
    pub lease: String,
    /// Its spans.
    pub timing: Timing,
    /// The Service that the API server finds the metrics APIs by.
    pub service: String,
    /// Port of that Service.
    pub service_port: u16,
    /// Whether the APIService objects are kept.
    pub api_services: bool,
    /// Folder with `tls.crt` and `tls.key` to serve the metrics APIs with; `None` = the controllers' own authority
    /// issues.
    pub cert_dir: Option<PathBuf>,
    /// Whether metrics and decisions are shown only to whom the cluster lets see them.
    pub metrics_auth: bool,
    /// How endpoint pickers are believed.
    pub trust: TrustOptions,
    /// Prometheus, where endpoint pickers are not ours.
    pub prometheus: Option<PrometheusOptions>,
    /// Port at which engines show their metrics.
    pub engine_port: u16,
    /// Oldest decision that is served.
    pub freshness: Duration,
}

//! The flags of `headroom epp`, named as llm-d's endpoint picker names them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction;
use epp::api::head::duration;
use epp::grpc::MinimumTls;

use super::llmd;
use super::peers::Peers;

/// Arguments of `headroom epp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration: an EndpointPickerConfig in YAML. Without one, llm-d's defaults.
    #[arg(long, value_name = "FILE", conflicts_with = "config_text")]
    pub(super) config_file: Option<PathBuf>,
    /// The configuration itself.
    #[arg(long, value_name = "YAML")]
    pub(super) config_text: Option<String>,
    #[command(flatten)]
    pub(super) endpoints: Endpoints,
    #[command(flatten)]
    pub(super) ports: Ports,
    #[command(flatten)]
    pub(super) security: Security,
    #[command(flatten)]
    pub(super) limits: Limits,
    #[command(flatten)]
    pub(super) behaviour: Behaviour,
    #[command(flatten)]
    pub(super) telling: Telling,
    #[command(flatten)]
    pub(super) logs: Logs,
    #[command(flatten)]
    pub(super) peers: Peers,
    #[command(flatten)]
    pub(super) llmd: llmd::Flags,
}

/// Where endpoints come from: a file, an InferencePool, or pods selected by their labels.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Endpoints")]
pub(super) struct Endpoints {
    /// Endpoints file; wins over the one the configuration names, and is always watched.
    #[arg(long, value_name = "FILE", conflicts_with = "endpoint_selector")]
    pub(super) endpoints_file: Option<PathBuf>,
    /// InferencePool to pick for. With endpoints from a file: what the pool is called in metrics.
    #[arg(long, value_name = "NAME", conflicts_with = "endpoint_selector")]
    pub(super) pool_name: Option<String>,
    /// Namespace of the pool and of everything read with it; without it that of this pod, else the client's.
    #[arg(long, value_name = "NAMESPACE")]
    pub(super) pool_namespace: Option<String>,
    /// API group of the InferencePool.
    #[arg(long, default_value = epp::kubernetes::POOL_GROUP, value_name = "GROUP")]
    pub(super) pool_group: String,
    /// Pods to pick from, as a Kubernetes label selector; needs no InferencePool and no custom resource.
    #[arg(long, value_name = "SELECTOR", requires = "endpoint_target_ports")]
    pub(super) endpoint_selector: Option<String>,
    /// Ports that those pods serve on, 1 to 8.
    #[arg(
        long,
        value_name = "PORTS",
        value_delimiter = ',',
        requires = "endpoint_selector"
    )]
    pub(super) endpoint_target_ports: Vec<u16>,
    /// Time that requests are held while there is no endpoint, 0s = not at all. Without it: 5m on Kubernetes where the
    /// configuration does not say (noEndpointRequestTTL), else what the configuration says.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) empty_pool_ttl: Option<Duration>,
    /// Be ready only while holding the pool's Lease.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(super) ha_enable_leader_election: bool,
}

/// Where it listens.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Ports (0 takes any free one)")]
pub(super) struct Ports {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "ADDRESS")]
    pub(super) host: IpAddr,
    /// ext_proc.
    #[arg(long, default_value_t = 9002)]
    pub(super) grpc_port: u16,
    /// gRPC health checks.
    #[arg(long, default_value_t = 9003)]
    pub(super) grpc_health_port: u16,
    /// Metrics and admin pages.
    #[arg(long, default_value_t = 9090)]
    pub(super) metrics_port: u16,
    /// Demand and models for controllers, over TLS.
    #[arg(long, default_value_t = 9443)]
    pub(super) admin_port: u16,
    /// Answer health checks on the ext_proc port as well.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(super) health_checking: bool,
}

/// Certificates, and who may read.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Security")]
pub(super) struct Security {
    /// Serve ext_proc with TLS. Without it: true on Kubernetes, false where endpoints come from a file.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) secure_serving: Option<bool>,
    /// Directory with tls.crt and tls.key; without it the certificate vouches for itself.
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) cert_path: Option<PathBuf>,
    /// Take the certificates in --cert-path as they change.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(super) enable_cert_reload: bool,
    /// Oldest TLS that is spoken: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "VersionTLS12", value_name = "VERSION", value_parser = parse_tls)]
    pub(super) tls_min_version: MinimumTls,
    /// Ask for a token with the right to `get` the page before metrics are told. Without it: true on Kubernetes.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) metrics_endpoint_auth: Option<bool>,
    /// File with the bearer token that readers of the admin port must show. Without one, and outside Kubernetes, the
    /// admin port listens on loopback only, and asks for none.
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
}

/// Times and sizes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct Limits {
    /// Time between reads of an engine's metrics, unless the configuration says otherwise.
    #[arg(long, default_value = "50ms", value_name = "TIME", value_parser = parse_interval)]
    pub(super) refresh_metrics_interval: Duration,
    /// Age from which an engine's metrics no longer count.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_time)]
    pub(super) metrics_staleness_threshold: Duration,
    /// Time that is served on after SIGTERM.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time)]
    pub(super) drain_timeout: Duration,
    /// Largest request body, bytes.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub(super) max_request_bytes: usize,
    /// Request bodies that are arriving take at most this together: bytes, or a size such as 256MiB. Beyond it requests are
    /// refused with 429: this picker holds all that it can.
    #[arg(long, default_value = "1GiB", value_name = "SIZE", value_parser = llmd::parse_size)]
    pub(super) max_arriving_bytes: usize,
    /// Largest gRPC message: bytes, or a size such as 25MiB.
    #[arg(long, default_value = "4MiB", value_name = "SIZE", value_parser = llmd::parse_size)]
    pub(super) grpc_max_recv_msg_size: usize,
}

/// What it does beyond picking.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Behaviour")]
pub(super) struct Behaviour {
    /// Do not ask for usage where the client did not; such streams then teach no time per token.
    #[arg(long)]
    pub(super) disable_usage_injection: bool,
    /// Tell the proxy every candidate's score.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(super) emit_endpoint_scores: bool,
    /// Ignore the proxy's choice of endpoints.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(super) disable_endpoint_subset_filter: bool,
    /// Directory where what was learned outlives a restart; one per picker.
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) model_dir: Option<PathBuf>,
    /// Decides all ties.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Share of one core that training may take.
    #[arg(long, default_value_t = 0.25, value_name = "SHARE", value_parser = parse_share)]
    pub(super) trainer_cpu_share: f32,
    /// Threads that serve; 0 = one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) threads: usize,
}

/// What it tells of its decisions.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Metrics, records and spans")]
pub(super) struct Telling {
    /// Write metrics under their older names too (inference_objective_*, inference_pool_*, inference_extension_*,
    /// llm_d_inference_scheduler_*, llm_d_router_epp_*).
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(super) deprecated_metric_names: bool,
    /// Distinct fairness ids that metrics keep apart; later ones count as `other`.
    #[arg(long, default_value_t = epp::telemetry::capped::DISTINCT_VALUES, value_name = "N")]
    pub(super) fairness_id_metric_label_limit: usize,
    /// Record sampled decisions in this file, one JSON object a line; the file before it has .1 after its name.
    #[arg(long, value_name = "FILE")]
    pub(super) decision_records: Option<PathBuf>,
    /// Share of the requests that are recorded, 0 to 1.
    #[arg(long, default_value_t = 0.01, value_name = "SHARE", value_parser = parse_sample, requires = "decision_records")]
    pub(super) decision_record_sample: f64,
    /// Both files together: bytes, or a size such as 256MiB.
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = llmd::parse_size, requires = "decision_records")]
    pub(super) decision_record_max_bytes: usize,
    /// Send spans where OpenTelemetry's variables say: OTEL_TRACES_EXPORTER (otlp, console, none),
    /// OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER (parentbased_traceidratio), OTEL_TRACES_SAMPLER_ARG (0.1) and
    /// the others. Nothing is sent where they say nothing.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(super) tracing: bool,
}

/// What it says.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
pub(super) struct Logs {
    /// What to log: a level, or target=level pairs; wins over -v. [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// Log JSON, one object a line.
    #[arg(long)]
    pub(super) log_json: bool,
    /// How much to log, as llm-d counts: 0 warnings, 1 to 3 info, 4 debug, 5 and above trace.
    #[arg(short = 'v', long = "v", value_name = "N")]
    pub(super) verbosity: Option<u8>,
}

impl Logs {
    /// The filter in force; `zap` is what llm-d's own flag says.
    pub(super) fn filter(&self, zap: Option<&str>) -> String {
        let counted = |level: u8| match level {
            0 => "warn",
            1..=3 => "info",
            4 => "debug",
            _ => "trace",
        };
        let level = self.verbosity.map(counted).or(zap).unwrap_or("info");
        self.log.clone().unwrap_or_else(|| level.to_owned())
    }
}

/// A time such as `30s`.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "give a time such as 500ms, 30s or 1m30s".to_owned())
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    parse_time(text).and_then(|time| {
        if time.is_zero() {
            Err("give a time above zero, such as 50ms".to_owned())
        } else {
            Ok(time)
        }
    })
}

fn parse_share(text: &str) -> Result<f32, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share: &f32| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "give a share of one core above 0 and at most 1".to_owned())
}

fn parse_sample(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "give a share from 0 to 1, such as 0.01".to_owned())
}

fn parse_tls(text: &str) -> Result<MinimumTls, String> {
    match text {
        "VersionTLS12" => Ok(MinimumTls::V12),
        "VersionTLS13" => Ok(MinimumTls::V13),
        "VersionTLS10" | "VersionTLS11" => {
            Err("TLS before 1.2 is not spoken; give VersionTLS12 or VersionTLS13".to_owned())
        }
        _ => Err("give VersionTLS12 or VersionTLS13".to_owned()),
    }
}

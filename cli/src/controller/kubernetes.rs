//! `headroom controller` on a Kubernetes cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ::kubernetes::client::{self, DEFAULT_NAMESPACE, Identity};
use anyhow::Context as _;
use controller::kubernetes::pickers::TrustOptions;
use controller::kubernetes::prometheus::PrometheusOptions;
use controller::kubernetes::run::{self, KubernetesOptions, SERVICE_ACCOUNT_TOKEN, TIMING};
use runtime::{Clock, Metrics, Shutdown, Tasks};

use super::Args;
use crate::story::Trouble;

/// Time that the metrics APIs go on answering after SIGTERM, while the next leader takes over.
const DRAIN: Duration = Duration::from_secs(20);

/// Arguments that count on Kubernetes only.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "On Kubernetes")]
pub(super) struct ClusterArgs {
    /// Namespaces whose models are sized, separated by commas; all without it.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMESPACES",
        alias = "watch-namespaces"
    )]
    namespaces: Vec<String>,
    /// Namespace of the controller's Lease, Secret and ConfigMap. By default the one that NAMESPACE names.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Name of the Lease that the deciding replica holds.
    #[arg(long, default_value = names::kubernetes::CONTROLLER, value_name = "NAME")]
    lease_name: String,
    /// custom.metrics.k8s.io and external.metrics.k8s.io, TLS.
    #[arg(long, default_value_t = 6443)]
    metrics_api_port: u16,
    /// KEDA's external scaler, gRPC. Not served without it.
    #[arg(long, value_name = "PORT")]
    keda_port: Option<u16>,
    /// Where replicas that do not decide follow the one that does, TLS.
    #[arg(long, default_value_t = 9444)]
    followers_port: u16,
    /// Folder with tls.crt and tls.key for the metrics APIs. By default an authority of the controllers' own issues.
    #[arg(long, value_name = "FOLDER")]
    cert_dir: Option<PathBuf>,
    /// Service by which the API server finds the metrics APIs.
    #[arg(long, default_value = names::kubernetes::CONTROLLER, value_name = "NAME")]
    service_name: String,
    /// Port of that Service.
    #[arg(long, default_value_t = 443)]
    service_port: u16,
    /// Leave the APIService objects alone.
    #[arg(long)]
    no_api_services: bool,
    /// Show metrics and decisions only to whom the cluster lets see them.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    metrics_endpoint_auth: bool,
    /// Certificates (PEM) that endpoint pickers' admin pages are verified by.
    #[arg(long, value_name = "FILE")]
    epp_ca_file: Option<PathBuf>,
    /// Token shown to endpoint pickers. Without --epp-ca-file it must be one for the audience headroom.dev/epp.
    #[arg(long, default_value = SERVICE_ACCOUNT_TOKEN, value_name = "FILE")]
    epp_token_file: PathBuf,
    /// Prometheus, for demand on pools whose endpoint picker is not Headroom's.
    #[arg(long, value_name = "URL")]
    prometheus_url: Option<String>,
    /// Certificates (PEM) that Prometheus is verified by.
    #[arg(long, value_name = "FILE", requires = "prometheus_url")]
    prometheus_ca_file: Option<PathBuf>,
    /// Token shown to Prometheus.
    #[arg(long, value_name = "FILE", requires = "prometheus_url")]
    prometheus_token_file: Option<PathBuf>,
    /// Seconds that Prometheus takes rates over: at least four times its scrape interval.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=900), value_name = "SECONDS", requires = "prometheus_url")]
    prometheus_window_seconds: u64,
    /// Port at which engines show their metrics, for pools that nobody else tells of.
    #[arg(long, default_value_t = 8000)]
    engine_port: u16,
    /// Seconds after which a decision is not served any more.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600), value_name = "SECONDS")]
    freshness_seconds: u64,
}

/// Runs until SIGTERM (after a drain) or Ctrl-C (at once).
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    runtime::tls::install_provider();
    let runtime =
        tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(options(args)))
}

async fn serve(options: KubernetesOptions) -> anyhow::Result<()> {
    let (clock, shutdown, tasks) = (Clock::start(), Shutdown::new(), Tasks::new());
    shutdown
        .listen_to_signals(DRAIN)
        .context("cannot listen to signals")?;
    let client = client::connect().await.map_err(|error| {
        Trouble::failed("there is no Kubernetes cluster to run on")
            .because(error)
            .advice("give --config FILE to run on one machine")
    })?;
    let metrics = Metrics::new();
    let running = run::start(client, &options, &metrics, clock, &shutdown, &tasks).await?;
    tracing::info!(
        metrics_api = %running.metrics_api,
        metrics = %running.metrics,
        followers = %running.followers,
        namespace = options.namespace,
        "controller runs"
    );
    shutdown.draining().await;
    let interrupted = shutdown.is_stopped();
    // What asks the metrics APIs needs a while to notice; connections that are idle then do not hold the process up.
    tokio::select! {
        () = shutdown.stopped() => {}
        () = tokio::time::sleep(NOTICE) => shutdown.stop(),
    }
    tasks.join().await;
    if interrupted {
        Err(Trouble::interrupted().into())
    } else {
        Ok(())
    }
}

/// Answers go on for this long after SIGTERM: as long as endpoints take to be updated everywhere.
const NOTICE: Duration = Duration::from_secs(8);

fn options(args: &Args) -> KubernetesOptions {
    let cluster = &args.cluster;
    let identity = Identity::from_env();
    let namespace = cluster
        .namespace
        .clone()
        .or_else(|| identity.namespace.clone())
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    KubernetesOptions {
        host: args.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        metrics_api_port: cluster.metrics_api_port,
        metrics_port: args.metrics_port,
        keda_port: cluster.keda_port,
        followers_port: cluster.followers_port,
        identity,
        namespace,
        namespaces: cluster.namespaces.clone(),
        lease: cluster.lease_name.clone(),
        timing: TIMING,
        service: cluster.service_name.clone(),
        service_port: cluster.service_port,
        api_services: !cluster.no_api_services,
        cert_dir: cluster.cert_dir.clone(),
        metrics_auth: cluster.metrics_endpoint_auth,
        trust: TrustOptions {
            ca_file: cluster.epp_ca_file.clone(),
            token_file: cluster.epp_token_file.clone(),
        },
        prometheus: cluster.prometheus_url.clone().map(|url| PrometheusOptions {
            url,
            ca_file: cluster.prometheus_ca_file.clone(),
            token_file: cluster.prometheus_token_file.clone(),
            window: Duration::from_secs(cluster.prometheus_window_seconds),
        }),
        engine_port: cluster.engine_port,
        freshness: Duration::from_secs(cluster.freshness_seconds),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        let words = ["controller"].iter().chain(flags);
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn the_charts_arguments_are_understood() {
        let args = parse(&[
            "--kubernetes",
            "--host=0.0.0.0",
            "--service-name=headroom",
            "--metrics-port=9090",
            "--metrics-api-port=6443",
            "--followers-port=9444",
            "--keda-port=9091",
            "--namespaces=a,b",
            "--prometheus-url=http://prometheus:9090",
            "--epp-ca-file=/etc/headroom/picker-ca/ca.crt",
            "--log=info",
            "--log-json",
        ])
        .unwrap();
        let options = options(&args);
        assert_eq!(options.namespaces, ["a", "b"]);
        assert_eq!(
            (options.service.as_str(), options.keda_port),
            ("headroom", Some(9091))
        );
        assert_eq!(options.prometheus.unwrap().url, "http://prometheus:9090");
        assert!(options.api_services && !options.metrics_auth);
    }

    #[test]
    fn one_machine_and_a_cluster_exclude_each_other() {
        assert!(parse(&["--kubernetes", "--config", "controller.yaml"]).is_err());
        assert!(parse(&[]).unwrap().config.is_none());
        assert!(parse(&["--prometheus-ca-file", "ca.pem"]).is_err());
        assert!(parse(&["--freshness-seconds", "0"]).is_err());
    }
}

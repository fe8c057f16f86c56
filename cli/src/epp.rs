//! `headroom epp`: the endpoint picker alone, under llm-d's flags.

mod args;
mod llmd;
mod peers;
#[cfg(test)]
mod tests;

pub(crate) use args::Args;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use args::{Ports, Security};
use epp::Options;
use epp::admin_port::{AdminPortOptions, Delegated, Gate, Open, TokenFile};
use epp::kubernetes::{Cluster, Source};
use epp::options::{Certificate, Tls};
use epp::reload::{Flags, Origin, hash};
use epp::spans::SpanOptions;
use epp::telemetry::{RecordOptions, Telling};
use epp_core::Config;
use kubernetes::client::{self, Identity};
use kubernetes::delegated::{Authenticator, Authorizer};
use runtime::logging::{self, LogOptions};
use runtime::{Clock, Shutdown};

use crate::story::Trouble;

/// How long requests wait for a first endpoint on Kubernetes, where nobody says otherwise: as long as a large model
/// takes to load.
const EMPTY_POOL_TTL: Duration = Duration::from_secs(5 * 60);
/// How much longer than its drain a picker may take to end by itself.
const OVERTIME: Duration = Duration::from_secs(13);
/// What the pool is called in metrics where nobody says.
const POOL: &str = "default";
/// Tells what the pool is called where pods are selected by a flag.
const POOL_VARIABLE: &str = "POOL_NAME";

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Discovery {
    /// A file, named by a flag or by the configuration.
    File,
    /// A cluster.
    Cluster(Source),
}

/// Serves until SIGTERM (after a drain) or Ctrl-C (at once).
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    logging::init(&LogOptions {
        filter: args.logs.filter(args.llmd.level()),
        json: args.logs.log_json || args.llmd.json(),
    })?;
    for warning in args.llmd.warnings() {
        tracing::warn!("without effect: {warning}");
    }
    let (config, mut origin) = config(&args)?;
    let discovery = discovery(&args, &config)?;
    origin.flags = flags(&args, &discovery);
    let config = origin.flags.over(config);
    let threads = match args.behaviour.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(config, origin, args, discovery))
}

async fn serve(
    config: Config,
    origin: Origin,
    args: Args,
    discovery: Discovery,
) -> anyhow::Result<()> {
    let (shutdown, clock) = (Shutdown::new(), Clock::start());
    // The picker ends its drain itself; this one is only there should it not.
    shutdown
        .listen_to_signals(args.limits.drain_timeout + OVERTIME)
        .context("cannot listen to signals")?;
    let cluster = match discovery {
        Discovery::File => None,
        Discovery::Cluster(source) => Some(cluster(&args, source).await?),
    };
    let options = Options {
        origin,
        ..options(args, cluster, clock)?
    };
    let picker = epp::start(config, options, clock, shutdown.clone()).await?;
    tracing::info!(ext_proc = %picker.grpc, health = %picker.grpc_health, admin = %picker.admin, admin_port = ?picker.admin_port, "endpoint picker serves");
    picker.join().await;
    Ok(())
}

/// Where endpoints come from, if the flags and the configuration agree on it.
fn discovery(args: &Args, config: &Config) -> Result<Discovery, Trouble> {
    let endpoints = &args.endpoints;
    let file = endpoints.endpoints_file.is_some() || config.discovery.is_some();
    let discovery = match (file, &endpoints.endpoint_selector, &endpoints.pool_name) {
        (true, Some(selector), _) => {
            let both = format!(
                "endpoints come from two places: a file, and --endpoint-selector {selector}"
            );
            return Err(Trouble::usage(both)
                .advice("leave the selector out, or the file-discovery of the configuration"));
        }
        (true, None, _) => Discovery::File,
        (false, Some(selector), _) => {
            let ports = endpoints.endpoint_target_ports.clone();
            let members = epp::kubernetes::members(selector, ports).map_err(|wrong| {
                Trouble::usage(format!(
                    "--endpoint-selector and --endpoint-target-ports cannot be used: {wrong}"
                ))
            })?;
            let name = std::env::var(POOL_VARIABLE).ok();
            let name = name.filter(|name| !name.is_empty());
            Discovery::Cluster(Source::Pods { members, name })
        }
        (false, None, Some(name)) => Discovery::Cluster(Source::Pool {
            group: endpoints.pool_group.clone(),
            name: name.clone(),
        }),
        (false, None, None) => {
            return Err(Trouble::usage("nothing names the endpoints to pick from")
                .advice("on Kubernetes give --pool-name NAME, or --endpoint-selector app=vllm --endpoint-target-ports 8000; elsewhere --endpoints-file FILE, or a configuration whose dataLayer.discovery refers to a file-discovery plugin"));
        }
    };
    if discovery == Discovery::File {
        let election = endpoints.ha_enable_leader_election;
        let auth = args.security.metrics_endpoint_auth == Some(true);
        for (asked, flag) in [
            (election, "--ha-enable-leader-election"),
            (auth, "--metrics-endpoint-auth"),
        ] {
            if asked {
                return Err(Trouble::usage(format!(
                    "{flag} needs Kubernetes, and endpoints come from a file"
                ))
                .advice("leave the flag out, or pick for an InferencePool with --pool-name"));
            }
        }
    }
    Ok(discovery)
}

/// What flags say over the configuration, now and whenever it changes.
fn flags(args: &Args, discovery: &Discovery) -> Flags {
    Flags {
        metrics_staleness: Some(args.limits.metrics_staleness_threshold),
        empty_pool_ttl: args.endpoints.empty_pool_ttl,
        empty_pool_default: (*discovery != Discovery::File).then_some(EMPTY_POOL_TTL),
    }
}

async fn cluster(args: &Args, source: Source) -> Result<Cluster, Trouble> {
    let client = client::connect().await.map_err(|error| {
        Trouble::usage("endpoints are on Kubernetes, and there is no way to it")
            .because(error)
            .advice("run in a pod with a service account, or set KUBECONFIG; without Kubernetes give --endpoints-file FILE")
    })?;
    let identity = Identity::from_env();
    let given = args.endpoints.pool_namespace.clone();
    let namespace = given
        .or_else(|| identity.namespace.clone())
        .unwrap_or_else(|| client.default_namespace().to_owned());
    Ok(Cluster {
        client,
        identity,
        namespace,
        source,
        leader_election: args.endpoints.ha_enable_leader_election,
    })
}

/// The configuration as it is written, and where it is from.
fn config(args: &Args) -> Result<(Config, Origin), Trouble> {
    let (text, name) = match (&args.config_file, &args.config_text) {
        (Some(path), _) => (read(path)?, format!("--config-file {}", path.display())),
        (None, Some(text)) => (text.clone(), "--config-text".to_owned()),
        (None, None) => return Ok((Config::default(), Origin::default())),
    };
    let config = Config::from_yaml(&text)
        .map_err(|error| Trouble::usage(format!("{name} cannot be used")).because(error))?;
    let origin = Origin {
        hash: hash(&text),
        file: args.config_file.clone(),
        ..Origin::default()
    };
    Ok((config, origin))
}

fn read(path: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(path).map_err(|error| {
        Trouble::usage(format!("cannot read --config-file {}", path.display()))
            .because(error)
            .advice("give the path of an EndpointPickerConfig in YAML, or leave the flag out for llm-d's defaults")
    })
}

fn options(args: Args, cluster: Option<Cluster>, clock: Clock) -> Result<Options, Trouble> {
    let Args {
        endpoints,
        ports,
        security,
        limits,
        behaviour,
        telling,
        peers,
        ..
    } = args;
    let others = peers.options(ports.host, cluster.as_ref())?;
    let gate = cluster.as_ref().map(|cluster| gate(cluster, clock));
    let metrics_gate = gate
        .clone()
        .filter(|_| security.metrics_endpoint_auth.unwrap_or(true));
    let tls = tls(&security, cluster.is_some())?;
    let defaults = Options::default();
    // Outside Kubernetes a name matters only to peers.
    let identity = cluster.as_ref().map(|cluster| cluster.identity.clone());
    let identity = identity.or_else(|| others.as_ref().map(|_| Identity::from_env()));
    let name = identity.map(|identity| identity.holder());
    let namespace = cluster.as_ref().map(|cluster| cluster.namespace.clone());
    let pool_name = match &cluster {
        Some(cluster) => cluster.source.name(),
        None => endpoints.pool_name.unwrap_or_else(|| POOL.to_owned()),
    };
    Ok(Options {
        name: peers.picker_name.or(name).unwrap_or(defaults.name),
        peers: others,
        admin_port: Some(admin_port(&ports, &security, gate)),
        model_dir: behaviour.model_dir,
        tls,
        health_on_grpc_port: ports.health_checking,
        metrics_gate,
        cluster,
        ip: ports.host,
        grpc_port: ports.grpc_port,
        grpc_health_port: ports.grpc_health_port,
        metrics_port: ports.metrics_port,
        pool_name,
        pool_namespace: namespace.unwrap_or_default(),
        endpoints_file: endpoints.endpoints_file,
        refresh_metrics_interval: limits.refresh_metrics_interval,
        drain_timeout: limits.drain_timeout,
        max_request_bytes: limits.max_request_bytes,
        max_arriving_bytes: u64::try_from(limits.max_arriving_bytes).unwrap_or(u64::MAX),
        grpc_max_recv_msg_size: limits.grpc_max_recv_msg_size,
        inject_usage: !behaviour.disable_usage_injection,
        emit_endpoint_scores: behaviour.emit_endpoint_scores,
        disable_endpoint_subset_filter: behaviour.disable_endpoint_subset_filter,
        trainer_cpu_share: behaviour.trainer_cpu_share,
        seed: behaviour.seed,
        telling: told(telling)?,
        ..Options::default()
    })
}

/// What is told of decisions, and where spans go.
fn told(args: args::Telling) -> Result<Telling, Trouble> {
    let tracing = if args.tracing {
        SpanOptions::from_env(|name| std::env::var(name).ok()).map_err(|wrong| {
            Trouble::usage("spans cannot be sent as the environment says")
                .because(wrong)
                .advice("change the variable, or give --tracing=false")
        })?
    } else {
        None
    };
    Ok(Telling {
        deprecated_names: args.deprecated_metric_names,
        label_limit: args.fairness_id_metric_label_limit,
        records: args.decision_records.map(|path| RecordOptions {
            path,
            sample: args.decision_record_sample,
            most_bytes: u64::try_from(args.decision_record_max_bytes).unwrap_or(u64::MAX),
        }),
        tracing,
    })
}

/// How ext_proc is secured: always on a cluster unless the flag says otherwise.
fn tls(security: &Security, on_cluster: bool) -> Result<Option<Tls>, Trouble> {
    if !security.secure_serving.unwrap_or(on_cluster) {
        return match &security.cert_path {
            None => Ok(None),
            Some(path) => Err(Trouble::usage(format!(
                "--cert-path {} has no use: ext_proc is served in the clear",
                path.display()
            ))
            .advice("add --secure-serving, or leave --cert-path out")),
        };
    }
    let certificate = match &security.cert_path {
        None => Certificate::SelfSigned,
        Some(path) => Certificate::Directory {
            path: path.clone(),
            reload: security.enable_cert_reload,
        },
    };
    Ok(Some(Tls {
        certificate,
        minimum: security.tls_min_version,
    }))
}

/// Who may read on a cluster: whom its access rules let `get` the page.
fn gate(cluster: &Cluster, clock: Clock) -> Arc<dyn Gate> {
    Arc::new(Delegated {
        authenticator: Authenticator::tokens_only(
            cluster.client.clone(),
            clock,
            Some(names::admin::AUDIENCE),
        ),
        authorizer: Authorizer::new(cluster.client.clone(), clock),
    })
}

/// The admin port: on a cluster for whom its rules let in, elsewhere for who knows the token, else for this machine.
fn admin_port(
    ports: &Ports,
    security: &Security,
    cluster: Option<Arc<dyn Gate>>,
) -> AdminPortOptions {
    let token = security.admin_token_file.clone();
    let (ip, gate): (IpAddr, Arc<dyn Gate>) = match (token, cluster) {
        (Some(path), _) => (ports.host, Arc::new(TokenFile { path })),
        (None, Some(gate)) => (ports.host, gate),
        (None, None) => (Ipv4Addr::LOCALHOST.into(), Arc::new(Open)),
    };
    AdminPortOptions {
        address: (ip, ports.admin_port).into(),
        tls: None,
        gate,
    }
}

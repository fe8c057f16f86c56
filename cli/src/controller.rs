//! `headroom controller`: on one machine, with a file, or on Kubernetes.
//!
//! On one machine, endpoint picker and controller run in this process; the servers that they need are started and
//! stopped as its children. Envoy, in front, is yours: its configuration is written.

mod kubernetes;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use controller::file::ControllerFile;
use controller::local::InFlight;
use controller::publication::endpoints_document;
use controller::standalone::Observe;
use controller::{Journal, Listed, Publication, Standalone, StandaloneOptions};
use controller_core::Signals;
use epp::bootstrap::{self, BootstrapOptions, ServerProtocol};
use epp_core::config::Detector;
use epp_core::{Config, EndpointSpec, Load};
use runtime::logging::{self, LogOptions};
use runtime::{Clock, Shutdown, Tasks};
use serde_json::Value;

use crate::story::Trouble;

/// Arguments of `headroom controller`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run on one machine by this file: policy, servers, objectives.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run on the Kubernetes cluster that KUBECONFIG names or that this pod is in. The default without --config.
    #[arg(long, conflicts_with = "config")]
    kubernetes: bool,
    /// The endpoint picker's configuration in YAML. Without one, Headroom's own: queue, prediction, SLO admission.
    #[arg(long, value_name = "FILE")]
    epp_config: Option<PathBuf>,
    /// Folder for endpoints.yaml, fallback.yaml and envoy.yaml; made if it does not exist.
    #[arg(long, default_value = "headroom-state", value_name = "FOLDER")]
    folder: PathBuf,
    /// Address to listen on: by default this machine only, on Kubernetes all addresses.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// ext_proc.
    #[arg(long, default_value_t = 9002)]
    grpc_port: u16,
    /// gRPC health checks.
    #[arg(long, default_value_t = 9003)]
    grpc_health_port: u16,
    /// Metrics, decisions and admin pages.
    #[arg(long, default_value_t = 9090)]
    metrics_port: u16,
    /// Where the written Envoy configuration listens for clients.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What the written Envoy configuration speaks to the servers. Without this: `as-client` where the picker's
    /// configuration lists a parser of gRPC, else `http1`.
    #[arg(long, value_name = "PROTOCOL")]
    server_protocol: Option<Speaks>,
    /// What to log: a level, or target=level pairs.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
    /// Log JSON, one object a line.
    #[arg(long)]
    log_json: bool,
    #[command(flatten)]
    cluster: kubernetes::ClusterArgs,
}

/// `--server-protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// What the client spoke, HTTP/1.1 or HTTP/2.
    AsClient,
}

/// Names of the files in the folder.
pub(crate) const ENDPOINTS: &str = "endpoints.yaml";
pub(crate) const FALLBACK: &str = "fallback.yaml";
pub(crate) const ENVOY: &str = "envoy.yaml";
/// Time that is served on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs until SIGTERM (after a drain) or Ctrl-C (at once); the servers end with it.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    logging::init(&LogOptions {
        filter: args.log.clone(),
        json: args.log_json,
    })?;
    let Some(path) = &args.config else {
        return kubernetes::run(&args);
    };
    let mut file = ControllerFile::parse(&read("--config", path)?).map_err(|error| {
        Trouble::usage(format!("--config {} cannot be used", path.display())).because(error)
    })?;
    let config = picker_config(&args, &mut file)?;
    file.server.command = tied(&file.server.command)?;
    let folder = folder(&args.folder)?;
    let runtime =
        tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(&args, &folder, file, config))
}

async fn serve(
    args: &Args,
    folder: &Path,
    file: ControllerFile,
    config: Config,
) -> anyhow::Result<()> {
    let (clock, shutdown, tasks) = (Clock::start(), Shutdown::new(), Tasks::new());
    shutdown
        .listen_to_signals(DRAIN + Duration::from_secs(5))
        .context("cannot listen to signals")?;
    let journal = Journal::new();
    let publication = publication(folder, file.objectives);
    // The picker reads the list from its start on.
    publication.write(&[])?;
    let proxy = proxy(args, folder, &config);
    let picker = epp::start(
        config,
        options(args, folder, &journal),
        clock,
        shutdown.clone(),
    )
    .await?;
    let picker = Arc::new(picker);
    let options = StandaloneOptions {
        policy: file.policy,
        server: file.server,
        initial: file.initial,
        publication,
        observe: observe(&picker),
        in_flight: in_flight(&picker),
        journal,
    };
    let started = Standalone::start(options, clock, picker.metrics(), &shutdown, &tasks);
    if started.is_ok() {
        let envoy = envoy(proxy, folder, &picker)?;
        tracing::info!(admin = %picker.admin, envoy = %envoy.display(), "controller runs; start Envoy with -c and the file named here");
        picker.shutdown().stopped().await;
    }
    let interrupted = shutdown.is_stopped();
    // The picker is done: now the servers may go.
    shutdown.stop();
    tasks.join().await;
    if let Some(picker) = Arc::into_inner(picker) {
        picker.join().await;
    }
    started?;
    if interrupted {
        Err(Trouble::interrupted().into())
    } else {
        Ok(())
    }
}

/// The picker's configuration. It and the policy must agree on how many requests a server takes at a time: what the
/// file says counts, else the configuration's concurrency detector.
fn picker_config(args: &Args, file: &mut ControllerFile) -> anyhow::Result<Config> {
    let mut config = match &args.epp_config {
        None => Config::headroom_default(),
        Some(path) => Config::from_yaml(&read("--epp-config", path)?).map_err(|error| {
            Trouble::usage(format!("--epp-config {} cannot be used", path.display())).because(error)
        })?,
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Detector::Concurrency(detector) = &config.detector {
        let detected = detector.max_concurrency;
        match file.policy.max_in_flight {
            None => file.policy.max_in_flight = Some(detected),
            Some(wanted) if wanted == detected => {}
            Some(wanted) if args.epp_config.is_none() => {
                config = config.with_max_concurrency(wanted)
            }
            Some(wanted) => {
                let what = format!(
                    "policy.maxInFlight is {wanted}, and maxConcurrency in --epp-config is {detected}"
                );
                return Err(Trouble::usage(what)
                    .advice("give both the same number, or leave policy.maxInFlight out")
                    .into());
            }
        }
    }
    Ok(config)
}

fn options(args: &Args, folder: &Path, journal: &Journal) -> epp::Options {
    epp::Options {
        ip: args.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        grpc_port: args.grpc_port,
        grpc_health_port: args.grpc_health_port,
        metrics_port: args.metrics_port,
        endpoints_file: Some(folder.join(ENDPOINTS)),
        drain_timeout: DRAIN,
        admin_routes: journal.routes(),
        ..epp::Options::default()
    }
}

/// What Envoy's configuration follows from: the picker's, and what flags say.
fn proxy(args: &Args, folder: &Path, config: &Config) -> BootstrapOptions {
    let derived = BootstrapOptions::for_picker(config);
    BootstrapOptions {
        listener: args.listen,
        fallback_eds: folder.join(FALLBACK),
        server_protocol: match args.server_protocol {
            Some(Speaks::Http1) => ServerProtocol::Http1,
            Some(Speaks::Http2) => ServerProtocol::Http2,
            Some(Speaks::AsClient) => ServerProtocol::AsClient,
            None => derived.server_protocol,
        },
        ..derived
    }
}

fn envoy(proxy: BootstrapOptions, folder: &Path, picker: &epp::Handle) -> anyhow::Result<PathBuf> {
    let path = folder.join(ENVOY);
    let text = bootstrap::render(&BootstrapOptions {
        picker: picker.grpc,
        picker_health_port: picker.grpc_health.port(),
        ..proxy
    });
    std::fs::write(&path, text).map_err(|error| {
        Trouble::failed(format!("{} cannot be written", path.display())).because(error)
    })?;
    Ok(path)
}

/// The servers' command, run so that the kernel ends a server when this process dies, however that happens.
/// `{headroom}` is this program.
pub(crate) fn tied(command: &[String]) -> anyhow::Result<Vec<String>> {
    let this = std::env::current_exe().context("this program cannot find itself")?;
    let this = this
        .to_str()
        .ok_or_else(|| Trouble::failed("the path of this program is not UTF-8"))?;
    let parent = std::process::id().to_string();
    let tether = [this, "tether", "--parent", &parent, "--"].map(str::to_owned);
    // An empty command is refused by the actuator, in its own words.
    if command.is_empty() {
        return Ok(Vec::new());
    }
    Ok(tether
        .into_iter()
        .chain(command.iter().map(|word| word.replace("{headroom}", this)))
        .collect())
}

fn folder(path: &Path) -> Result<PathBuf, Trouble> {
    let made = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
    made.map_err(|error| {
        let trouble =
            Trouble::failed(format!("the folder {} cannot be made", path.display())).because(error);
        trouble.advice("choose another with --folder")
    })
}

fn read(flag: &str, path: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(path).map_err(|error| {
        Trouble::usage(format!("cannot read {flag} {}", path.display())).because(error)
    })
}

/// Lists servers for the picker (with `objectives` in its format) and for Envoy's fallback.
pub(crate) fn publication(folder: &Path, objectives: Value) -> Publication {
    Publication::new()
        .document(folder.join(ENDPOINTS), endpoints_document(objectives))
        .document(
            folder.join(FALLBACK),
            Box::new(|listed| bootstrap::render_eds(&specs(listed))),
        )
}

fn specs(listed: &[Listed]) -> Vec<EndpointSpec> {
    let spec = |server: &Listed| EndpointSpec {
        name: server.name.clone(),
        address: server.address.to_string(),
        labels: BTreeMap::new(),
    };
    listed.iter().map(spec).collect()
}

/// Signals from a picker in this process.
pub(crate) fn observe(picker: &Arc<epp::Handle>) -> Observe {
    let picker = Arc::clone(picker);
    Box::new(move |now, replicas| {
        let (queued, pool, model) = (picker.queued(), picker.pool(), picker.trainer().model());
        Signals::observe(now, picker.demand(), &queued, &pool, replicas, model)
    })
}

/// Requests on a server, also after it has left the picker's pool: its counters are kept from when it was in it.
pub(crate) fn in_flight(picker: &Arc<epp::Handle>) -> InFlight {
    let picker = Arc::clone(picker);
    let known: Mutex<BTreeMap<SocketAddr, Arc<Load>>> = Mutex::default();
    Box::new(move |server| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let address = server.to_string();
        if let Some(endpoint) = picker
            .pool()
            .endpoints
            .iter()
            .find(|endpoint| *endpoint.address == *address)
        {
            known.insert(server, Arc::clone(&endpoint.load));
        }
        known
            .get(&server)
            .map_or(0, |load| u64::from(load.snapshot().in_flight))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const FILE: &str = "
policy:
  model: llama
  slo: {percentile: 0.9, ttftMs: 2000, tpotMs: 150}
  min: 1
  max: 4
  startupSeconds: 6
server:
  command: [\"{headroom}\", simulate, server, --port, \"{port}\"]
  firstPort: 8101
  lastPort: 8108
";

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Args {
        let words = ["controller", "--config", "controller.yaml"]
            .iter()
            .chain(flags);
        Command::try_parse_from(words).unwrap().args
    }

    fn concurrency(config: &Config) -> u32 {
        match &config.detector {
            Detector::Concurrency(detector) => detector.max_concurrency,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn picker_and_policy_agree_on_the_requests_a_server_takes() {
        let mut silent = ControllerFile::parse(FILE).unwrap();
        let config = picker_config(&parse(&[]), &mut silent).unwrap();
        assert_eq!(silent.policy.max_in_flight, Some(concurrency(&config)));

        let mut told = ControllerFile::parse(FILE).unwrap();
        told.policy.max_in_flight = Some(7);
        assert_eq!(
            concurrency(&picker_config(&parse(&[]), &mut told).unwrap()),
            7
        );

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epp.yaml");
        let plugin = "{type: concurrency-detector, parameters: {maxConcurrency: 9}}";
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins: [{plugin}]\nflowControl: {{saturationDetector: {{pluginRef: concurrency-detector}}}}\n"
        );
        std::fs::write(&path, text).unwrap();
        let args = parse(&["--epp-config", path.to_str().unwrap()]);
        let error = picker_config(&args, &mut told).unwrap_err().to_string();
        assert_eq!(
            error,
            "policy.maxInFlight is 7, and maxConcurrency in --epp-config is 9"
        );
    }

    #[test]
    fn the_proxy_is_configured_as_the_picker_is() {
        let of = |flags: &[&str], text: &str| {
            let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{text}");
            proxy(
                &parse(flags),
                Path::new("."),
                &Config::from_yaml(&text).unwrap(),
            )
        };
        let plain = of(&[], "");
        let default = (1, ServerProtocol::Http1);
        assert_eq!((plain.endpoints_named, plain.server_protocol), default);
        let grpc = "plugins: [{type: openai-parser}, {type: vllmgrpc-parser}, {type: max-score-picker, parameters: {maxNumOfEndpoints: 3}}]
requestHandler: {parsers: [{pluginRef: openai-parser}, {pluginRef: vllmgrpc-parser}]}
schedulingProfiles: [{name: default, plugins: [{pluginRef: max-score-picker}]}]
";
        let derived = of(&[], grpc);
        let wanted = (3, ServerProtocol::AsClient);
        assert_eq!((derived.endpoints_named, derived.server_protocol), wanted);
        let queued = |ttl: &str| {
            let text = format!("featureGates: [flowControl]\nflowControl: {{{ttl}}}");
            of(&[], &text).longest_queueing.as_secs()
        };
        assert_eq!(
            queued("defaultRequestTTL: 5m"),
            600,
            "with servers and without"
        );
        assert_eq!(queued("defaultRequestTTL: 1s"), 60);
        let told = of(&["--server-protocol", "http2"], grpc);
        assert_eq!(told.server_protocol, ServerProtocol::Http2);
    }

    #[test]
    fn servers_are_tied_to_this_process_and_may_be_this_program() {
        let file = ControllerFile::parse(FILE).unwrap();
        let words = tied(&file.server.command).unwrap();
        let this = std::env::current_exe()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            (&words[0], words[1].as_str(), words[4].as_str()),
            (&this, "tether", "--")
        );
        assert_eq!((&words[5], words[6].as_str()), (&this, "simulate"));
        assert_eq!(words.last().unwrap(), "{port}");
        assert!(tied(&[]).unwrap().is_empty());
    }

    #[test]
    fn both_lists_are_written_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        let listed = [Listed {
            name: "a".into(),
            address: "127.0.0.1:8101".parse().unwrap(),
        }];
        publication(
            folder.path(),
            serde_json::json!([{"name": "batch", "priority": -1}]),
        )
        .write(&listed)
        .unwrap();
        let endpoints = std::fs::read_to_string(folder.path().join(ENDPOINTS)).unwrap();
        let read = epp_core::discovery_file::DiscoveryFile::parse(&endpoints).unwrap();
        assert_eq!(read.endpoints, specs(&listed));
        assert!(
            std::fs::read_to_string(folder.path().join(FALLBACK))
                .unwrap()
                .contains("port_value: 8101")
        );
    }
}

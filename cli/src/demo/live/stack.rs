//! Everything that runs in the live part: picker and controller as tasks of this process, Envoy and the simulated
//! servers as its children.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use controller::{Journal, ServerOptions, Standalone, StandaloneOptions};
use controller_core::fleet::client::Kind;
use controller_core::{Policy, SloTargets};
use epp::bootstrap::{self, BootstrapOptions};
use epp_core::Config;
use predictor::LearnerConfig;
use runtime::{Clock, Shutdown, Tasks};
use serde_json::json;
use tempfile::TempDir;

use super::preflight::{Envoy, Ports};
use super::proxy::{Proxy, tethered};
use crate::controller::{ENDPOINTS, FALLBACK, in_flight, observe, publication};
use crate::demo::args::LiveSettings;
use crate::story::Trouble;

/// The percentile of the SLO that capacity is computed for.
const PERCENTILE: f32 = 0.9;
/// A server that is not healthy this long after its start-up time is given up.
const START_MARGIN: Duration = Duration::from_secs(30);
/// A server that is no longer wanted may finish its answers for this long.
const DRAIN: Duration = Duration::from_secs(60);
/// Least time between refits: a live run is short, and fits on its few rows take milliseconds.
const REFIT_INTERVAL: Duration = Duration::from_secs(2);
/// Share of one core that training may take: the machine has the servers and the clients to carry too.
const TRAINER_SHARE: f32 = 0.25;

/// The running parts. Dropping it kills the children.
pub(crate) struct Stack {
    pub(super) picker: Arc<epp::Handle>,
    pub(super) fleet: Standalone,
    pub(super) proxy: Proxy,
    pub(super) clock: Clock,
    ports: Ports,
    model: String,
    shutdown: Shutdown,
    tasks: Tasks,
    /// Configuration and logs; removed at the end.
    _files: TempDir,
}

impl Stack {
    /// Starts everything and waits until the first servers serve.
    ///
    /// # Errors
    /// Whatever did not start, with its last words. Nothing is left running.
    pub(super) async fn start(
        settings: &LiveSettings,
        envoy: &Envoy,
        ports: Ports,
        seed: u64,
    ) -> Result<Self, Trouble> {
        let files = tempfile::Builder::new()
            .prefix("headroom-demo-")
            .tempdir()
            .map_err(|error| {
                Trouble::failed("no folder for temporary files can be made")
                    .because(error)
                    .advice("point TMPDIR to a folder that you may write to")
            })?;
        let (clock, shutdown, tasks) = (Clock::start(), Shutdown::new(), Tasks::new());
        let journal = Journal::new();
        let publication = publication(files.path(), objectives());
        publication.write(&[]).map_err(|error| {
            Trouble::failed("the endpoints file cannot be written").because(error)
        })?;
        let picker = epp::start(
            config(settings),
            options(&files, ports, &journal, seed),
            clock,
            shutdown.clone(),
        )
        .await
        .map_err(|error| {
            Trouble::failed("the endpoint picker could not be started").because(error)
        })?;
        let picker = Arc::new(picker);
        let fleet = Standalone::start(
            StandaloneOptions {
                policy: policy(settings),
                server: servers(settings, files.path(), ports, seed)?,
                initial: settings.min,
                publication,
                observe: observe(&picker),
                in_flight: in_flight(&picker),
                journal,
            },
            clock,
            picker.metrics(),
            &shutdown,
            &tasks,
        )
        .map_err(|error| Trouble::failed("the controller could not be started").because(error))?;
        let started = serve(settings, envoy, ports, &files, &fleet).await;
        let stop = || async {
            shutdown.stop();
            tasks.join().await;
        };
        let proxy = match started {
            Ok(proxy) => proxy,
            Err(trouble) => {
                stop().await;
                return Err(trouble);
            }
        };
        Ok(Self {
            picker,
            fleet,
            proxy,
            clock,
            ports,
            model: settings.model.clone(),
            shutdown,
            tasks,
            _files: files,
        })
    }

    /// Where clients send completions.
    pub(super) fn completions(&self) -> String {
        format!("http://127.0.0.1:{}/v1/completions", self.ports.proxy)
    }

    /// Ends everything, clients' side first; waits until every child is gone.
    pub(crate) async fn stop(self) {
        self.proxy.stop().await;
        self.shutdown.stop();
        self.tasks.join().await;
        if let Some(picker) = Arc::into_inner(self.picker) {
            picker.join().await;
        }
    }

    /// What can be tried while it runs, ready to be pasted.
    pub(crate) fn examples(&self) -> String {
        let (completions, admin, model) = (self.completions(), self.ports.admin, &self.model);
        let json = "-H 'content-type: application/json'";
        let (objective, slo) = (
            names::header::OBJECTIVE.canonical,
            names::header::SLO_TTFT_MS.canonical,
        );
        format!(
            "
Everything is left running; Ctrl-C ends it. To try:

  # an answer as a stream, asked for within two seconds
  curl -sN {completions} {json} -H '{objective}: interactive' -H '{slo}: 2000' \\
    -d '{{\"model\": \"{model}\", \"prompt\": \"Hello\", \"max_tokens\": 16, \"stream\": true}}'

  # a request that may be shed and that nobody can answer in a millisecond: 429 with its reason
  curl -si {completions} {json} -H '{objective}: sheddable' -H '{slo}: 1' \\
    -d '{{\"model\": \"{model}\", \"prompt\": \"Hello\", \"max_tokens\": 16}}'

  # the last scaling decisions and why; the last picks and why; all metrics
  curl -s 'http://127.0.0.1:{admin}/decisions?limit=3'
  curl -s 'http://127.0.0.1:{admin}/debug/decisions?limit=3'
  curl -s http://127.0.0.1:{admin}/metrics
"
        )
    }
}

/// Waits for the first servers, then opens the door.
async fn serve(
    settings: &LiveSettings,
    envoy: &Envoy,
    ports: Ports,
    files: &TempDir,
    fleet: &Standalone,
) -> Result<Proxy, Trouble> {
    let enough = fleet
        .actuator
        .until(|view| view.listed.len() >= settings.min as usize);
    let patience = settings.startup + START_MARGIN;
    if !tokio::time::timeout(patience, enough)
        .await
        .unwrap_or(false)
    {
        let what = format!(
            "the simulated servers did not answer within {} s",
            patience.as_secs()
        );
        return Err(
            Trouble::failed(what).because(last_words(&files.path().join("logs/replica-0.log")))
        );
    }
    let bootstrap = files.path().join("envoy.yaml");
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let text = bootstrap::render(&BootstrapOptions {
        listener: local(ports.proxy),
        admin: local(ports.proxy_admin),
        picker: local(ports.epp),
        picker_health_port: ports.epp_health,
        fallback_eds: files.path().join(FALLBACK),
        ..BootstrapOptions::default()
    });
    std::fs::write(&bootstrap, text).map_err(|error| {
        Trouble::failed("Envoy's configuration cannot be written").because(error)
    })?;
    Proxy::start(
        envoy,
        &bootstrap,
        ports.proxy_admin,
        files.path().join("logs/envoy.log"),
    )
    .await
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    format!(
        "the first one's log ends with {:?}",
        text.lines().last().unwrap_or("")
    )
}

/// The objectives that clients name, as the endpoints file lists them.
fn objectives() -> serde_json::Value {
    json!(Kind::ALL.map(|kind| json!({"name": kind.name(), "priority": kind.priority()})))
}

fn config(settings: &LiveSettings) -> Config {
    Config::headroom_default().with_max_concurrency(settings.concurrency)
}

fn options(files: &TempDir, ports: Ports, journal: &Journal, seed: u64) -> epp::Options {
    epp::Options {
        grpc_port: ports.epp,
        grpc_health_port: ports.epp_health,
        metrics_port: ports.admin,
        endpoints_file: Some(files.path().join(ENDPOINTS)),
        learner: LearnerConfig {
            seed,
            min_refit_interval: REFIT_INTERVAL,
            ..LearnerConfig::default()
        },
        trainer_cpu_share: TRAINER_SHARE,
        seed,
        admin_routes: journal.routes(),
        ..epp::Options::local()
    }
}

fn policy(settings: &LiveSettings) -> Policy {
    let slo = SloTargets {
        percentile: PERCENTILE,
        ttft_ms: settings.slo.ttft_ms,
        tpot_ms: settings.slo.tpot_ms,
    };
    let mut policy = Policy::new(
        settings.model.clone(),
        slo,
        settings.min,
        settings.max,
        settings.startup,
    );
    policy.scale_down_guard = settings.scale_down_guard;
    policy.max_in_flight = Some(settings.concurrency);
    policy
}

fn servers(
    settings: &LiveSettings,
    folder: &Path,
    ports: Ports,
    seed: u64,
) -> Result<ServerOptions, Trouble> {
    let logs = folder.join("logs");
    std::fs::create_dir(&logs)
        .map_err(|error| Trouble::failed("no folder for logs can be made").because(error))?;
    let (startup, drain) = (
        format!("{}ms", settings.startup.as_millis()),
        format!("{}s", DRAIN.as_secs()),
    );
    let seed = seed.to_string();
    let words = [
        "{headroom}",
        "simulate",
        "server",
        "--profile",
        &settings.profile,
        "--model",
        &settings.model,
        "--port",
        "{port}",
    ];
    let more = [
        "--startup",
        &startup,
        "--drain",
        &drain,
        "--seed",
        &seed,
        "--log",
        "warn",
    ];
    let command: Vec<String> = words.into_iter().chain(more).map(str::to_owned).collect();
    let mut options = ServerOptions::new(
        tethered(&command)?,
        ports.servers..=ports.servers + (ports.server_count - 1),
    );
    options.start_limit = settings.startup + START_MARGIN;
    options.drain_limit = DRAIN;
    options.logs = Some(logs);
    Ok(options)
}

//! Starts a picker: servers, discovery, scraping, the director's timer; and stops it in order.

use crate::admin_port::{self, AdminPortError, AdminPortOptions, Picker, debug};
use crate::api::paths::Parsers;
use crate::api::wanted::Wanted;
use crate::drain::drain;
use crate::extproc::budget::Budget;
use crate::extproc::hub::Hub;
use crate::extproc::protocol::Rules;
use crate::extproc::service::ExternalProcessor;
use crate::grpc::{Secure, serve, server};
use crate::health::Readiness;
use crate::model_dir::ModelDir;
use crate::options::{Certificate, Options};
use crate::peers::{self, Listening, PeersCollector, PeersError};
use crate::spans::CollectorError;
use crate::telemetry::Telemetry;
use crate::telemetry::collector::HubCollector;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::setup::{Told, set_up};
use crate::{discovery, health, reload, scrape};
use axum::middleware::from_fn_with_state;
use epp_core::report::PoolName;
use epp_core::{
    Config, DemandLedger, Director, EndpointSpec, Objectives, Pool, QueueDepth, Slo, Stopwatch,
};
use kubernetes::lease::{Elector, Leadership};
use predictor::Learners;
use predictor::trainer::Trainer;
use runtime::admin::{self, AdminOptions};
use runtime::listen::{ListenError, bind};
use runtime::tls::{ServerTls, TlsError};
use runtime::{Clock, Metrics, Shutdown, Tasks};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why a picker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin port is not to be had.
    #[error(transparent)]
    AdminPort(#[from] AdminPortError),
    /// There is no certificate to serve with.
    #[error("no certificate to serve ext_proc with (--secure-serving, --cert-path): {0}")]
    Tls(#[from] TlsError),
    /// What pickers tell each other cannot be exchanged.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// Spans cannot be sent as the environment says.
    #[error(transparent)]
    Spans(#[from] CollectorError),
    /// Endpoints' pages cannot be asked for as the configuration says.
    #[error("endpoints' pages cannot be read (caCertPath, clientCertPath, clientKeyPath): {0}")]
    Pages(#[source] TlsError),
}

/// A running picker. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "a picker ends with its handle"]
pub struct Handle {
    /// Where ext_proc is served.
    pub grpc: SocketAddr,
    /// Where gRPC health checks are answered.
    pub grpc_health: SocketAddr,
    /// Where metrics and the admin pages are.
    pub admin: SocketAddr,
    /// Where controllers read demand and models.
    pub admin_port: Option<SocketAddr>,
    /// Where other pickers tell what they do.
    pub peers: Option<SocketAddr>,
    hub: Arc<Hub>,
    metrics: Metrics,
    ready: watch::Sender<bool>,
    shutdown: Shutdown,
    tasks: Tasks,
}

/// Starts a picker inside this process; it ends with `shutdown`, or with [`Handle::stop`].
///
/// # Errors
/// [`StartError`]: a port in use, with the flag that changes it, or a configuration that cannot be carried out.
pub async fn start(
    config: Config,
    options: Options,
    clock: Clock,
    shutdown: Shutdown,
) -> Result<Handle, StartError> {
    for warning in &config.warnings {
        tracing::warn!("configuration: {warning}");
    }
    let plan = scrape::Plan::new(&config, options.refresh_metrics_interval, clock)
        .map_err(StartError::Pages)?;
    let discovered = config
        .discovery
        .as_ref()
        .map(|file| (file.path.clone().into(), file.watch_file));
    let endpoints_file = options
        .endpoints_file
        .clone()
        .map(|path| (path, true))
        .or(discovered);
    let grpc = bind(
        (options.ip, options.grpc_port).into(),
        "ext_proc",
        "--grpc-port",
    )
    .await?;
    let grpc_health = bind(
        (options.ip, options.grpc_health_port).into(),
        "gRPC health",
        "--grpc-health-port",
    )
    .await?;
    let (metrics, tasks, shutdown) = (Metrics::new(), Tasks::new(), shutdown.child());
    let Told {
        telemetry,
        decisions,
        errands,
    } = set_up(&config, &options, &metrics, clock);
    let about = debug::About::of(&options);
    errands.start(clock, &shutdown, &tasks)?;
    let hub = Arc::new(hub(config, &options, telemetry, decisions, clock));
    let pool_name = &options.pool_name;
    metrics.register(|registry| {
        registry.register_collector(Box::new(HubCollector::new(&hub, pool_name)))
    });
    let peers = exchange(&options, &hub, &metrics, clock, &shutdown, &tasks).await?;
    let admin = AdminOptions {
        address: (options.ip, options.metrics_port).into(),
        flag: "--metrics-port",
        routes: options.admin_routes.clone().merge(debug::routes(
            &hub,
            about,
            peers.as_ref().map(|listening| Arc::clone(&listening.peers)),
        )),
    };
    let gate = options.metrics_gate.clone();
    let guard = |pages: axum::Router| match gate {
        Some(gate) => pages.layer(from_fn_with_state(gate, admin_port::admit)),
        None => pages,
    };
    let (registry, until) = (metrics.clone(), shutdown.clone());
    let admin = admin::serve_guarded(admin, registry, guard, until, &tasks).await?;
    let secure = secure(&options, clock, &shutdown, &tasks)?;
    let (ready, _) = watch::channel(false);
    let admin_port = match options.admin_port.clone() {
        None => None,
        Some(port) => {
            let picker = Picker {
                name: options.name.clone(),
                pool: PoolName {
                    namespace: options.pool_namespace.clone(),
                    name: options.pool_name.clone(),
                },
                incarnation: clock.unix_ms(),
            };
            let (hub, ready) = (Arc::clone(&hub), ready.subscribe());
            let drain = options.drain_timeout;
            // A certificate that was given for ext_proc stands for the same process here.
            let given = secure.as_ref().map(|secure| secure.tls.clone());
            let port = AdminPortOptions {
                tls: port.tls.or(given),
                ..port
            };
            Some(admin_port::start(port, picker, hub, ready, drain, &shutdown, &tasks).await?)
        }
    };
    let handle = Handle {
        grpc: local(&grpc, options.ip, options.grpc_port),
        grpc_health: local(&grpc_health, options.ip, options.grpc_health_port),
        admin,
        admin_port,
        peers: peers.map(|listening| listening.address),
        hub,
        metrics,
        ready,
        shutdown,
        tasks,
    };
    handle.spawn(grpc, grpc_health, &options, secure, plan, endpoints_file);
    Ok(handle)
}

/// Begins the exchange with the pool's other pickers, where the options ask for one.
async fn exchange(
    options: &Options,
    hub: &Arc<Hub>,
    metrics: &Metrics,
    clock: Clock,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<Option<Listening>, PeersError> {
    let Some(others) = options.peers.clone() else {
        return Ok(None);
    };
    hub.with_director(|director, _| director.share_prefixes());
    let (desk, pool) = (Arc::clone(hub), hub.watch_pool());
    let listening = peers::start(others, &options.name, desk, pool, clock, shutdown, tasks).await?;
    let collector = PeersCollector {
        peers: Arc::clone(&listening.peers),
        pool: options.pool_name.clone(),
    };
    metrics.register(|registry| registry.register_collector(Box::new(collector)));
    Ok(Some(listening))
}

/// The certificate that ext_proc is served with, kept fresh as one of `tasks`; `None` = it is served in the clear.
fn secure(
    options: &Options,
    clock: Clock,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<Option<Secure>, StartError> {
    let Some(tls) = &options.tls else {
        return Ok(None);
    };
    let (server, renewed) = match &tls.certificate {
        Certificate::SelfSigned => {
            let pod_ip = options
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.identity.pod_ip);
            let mut names = vec![options.name.clone(), "localhost".to_owned()];
            names.extend(pod_ip.map(|ip| ip.to_string()));
            (ServerTls::self_signed(&names, clock)?, true)
        }
        Certificate::Directory { path, reload } => {
            let (certificate, key) = (path.join("tls.crt"), path.join("tls.key"));
            (ServerTls::from_files(certificate, key)?, *reload)
        }
    };
    if renewed {
        server.watch(shutdown.clone(), tasks);
    }
    Ok(Some(Secure {
        tls: server,
        minimum: tls.minimum,
    }))
}

fn local(listener: &TcpListener, ip: std::net::IpAddr, port: u16) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| (ip, port).into())
}

fn hub(
    config: Config,
    options: &Options,
    telemetry: Telemetry,
    decisions: Decisions,
    clock: Clock,
) -> Hub {
    let parsers = Arc::new(Parsers::new(&config.parsers));
    let wanted = Arc::new(Wanted::of(&config));
    let mut director = Director::new(config, options.seed);
    director.lend(Stopwatch::new(move || clock.now()));
    let rules = Rules {
        objectives: Objectives::default(),
        default_slo: Slo::NONE,
        rewrites: Arc::default(),
        hashing: director.prefix_hashing(),
        max_request_bytes: options.max_request_bytes,
        bodies: Arc::new(Budget::new(options.max_arriving_bytes)),
        inject_usage: options.inject_usage,
        emit_scores: options.emit_endpoint_scores,
        subsets: !options.disable_endpoint_subset_filter,
        dialects: Arc::default(),
        parsers,
        wanted,
    };
    let learner = options.learner.clone();
    let learners = match &options.model_dir {
        Some(path) => ModelDir::new(path.clone()).load(learner, clock),
        None => Learners::new(learner),
    };
    let trainer = Trainer::spawn(
        learners,
        options.trainer_cpu_share,
        Box::new(move || clock.now()),
    );
    // The keys of a hash map are random per process: so is the hash of nothing.
    let first_serial = RandomState::new().hash_one(()) << 20;
    let trainer = Arc::new(trainer);
    let mut hub = Hub::new(director, rules, trainer, telemetry, clock, first_serial);
    hub.decisions = decisions;
    hub
}

impl Handle {
    fn spawn(
        &self,
        grpc: TcpListener,
        grpc_health: TcpListener,
        options: &Options,
        secure: Option<Secure>,
        plan: Option<scrape::Plan>,
        endpoints_file: Option<(std::path::PathBuf, bool)>,
    ) {
        let (hub, shutdown) = (|| Arc::clone(&self.hub), || self.shutdown.clone());
        let processor = ExternalProcessor::new(hub(), options.grpc_max_recv_msg_size);
        let (reporter, health) = tonic_health::server::health_reporter();
        let closing = CancellationToken::new();
        let beside = options.health_on_grpc_port.then(|| health.clone());
        let router = server().add_service(processor).add_optional_service(beside);
        let closed = closing.clone().cancelled_owned();
        self.tasks
            .spawn(serve(router, grpc, secure, closed, shutdown()));
        let (router, until) = (server().add_service(health), shutdown());
        let stopped = async move { until.stopped().await };
        self.tasks
            .spawn(serve(router, grpc_health, None, stopped, shutdown()));
        let leadership = self.follow_cluster(options);
        let readiness = Readiness {
            synced: self.ready.subscribe(),
            leadership,
        };
        self.tasks
            .spawn(health::announce(reporter, readiness, shutdown()));
        let timed = hub();
        let until = shutdown();
        self.tasks
            .spawn(async move { timed.keep_time(until).await });
        if let Some(plan) = plan {
            self.tasks.spawn(scrape::run(hub(), plan, shutdown()));
        }
        if let Some((path, watch)) = endpoints_file {
            self.tasks.spawn(discovery::follow(
                path,
                watch,
                hub(),
                self.ready.clone(),
                shutdown(),
            ));
        }
        if let Some(path) = options.origin.file.clone() {
            let origin = options.origin.clone();
            self.tasks
                .spawn(reload::follow(path, origin, hub(), shutdown()));
        }
        if let Some(path) = &options.model_dir {
            let (dir, trainer) = (ModelDir::new(path.clone()), Arc::clone(&self.hub.trainer));
            self.tasks
                .spawn(dir.keep(trainer, self.hub.clock, shutdown()));
        }
        self.tasks
            .spawn(drain(hub(), options.drain_timeout, closing, shutdown()));
    }

    /// Finds endpoints on the cluster, if that is where they are, and stands for election if asked to.
    fn follow_cluster(&self, options: &Options) -> Option<watch::Receiver<Leadership>> {
        let cluster = options.cluster.as_ref()?;
        let leadership = cluster.leader_election.then(|| {
            Elector::stand(
                cluster.client.clone(),
                cluster.candidate(self.hub.clock.unix_ms()),
                std::future::ready(()),
                self.hub.clock,
                self.shutdown.clone(),
                &self.tasks,
            )
        });
        crate::kubernetes::start(
            cluster,
            Arc::clone(&self.hub),
            self.ready.clone(),
            leadership.clone(),
            &self.shutdown,
            &self.tasks,
        );
        leadership
    }

    /// Puts endpoints and objectives in force, for callers that discover them by themselves. What stays keeps
    /// its load and what is known of it.
    pub fn set_endpoints(&self, endpoints: Vec<EndpointSpec>, objectives: Objectives) {
        self.hub.set_endpoints(endpoints, objectives);
        self.ready.send_replace(true);
    }

    /// Resolves once the endpoints are known and requests are routed.
    pub async fn ready(&self) {
        // The sender lives in this handle, so waiting cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Everything that arrived and what became of it; cheap to read, shared by its clones.
    pub fn demand(&self) -> &DemandLedger {
        self.hub.demand()
    }

    /// What is queued, by band.
    pub fn queued(&self) -> QueueDepth {
        self.hub.queued()
    }

    /// The endpoints in force, with their load.
    pub fn pool(&self) -> Arc<Pool> {
        self.hub.pool()
    }

    /// The latency model's trainer: newest model and report.
    pub fn trainer(&self) -> &Arc<Trainer> {
        &self.hub.trainer
    }

    /// The registry behind `/metrics`, for what runs beside the picker.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The picker's clock.
    pub fn clock(&self) -> Clock {
        self.hub.clock
    }

    /// Ends this picker alone: at once, whatever is in flight.
    pub fn stop(&self) {
        self.shutdown.stop();
    }

    /// The steps of this picker's end. Beginning to drain announces unreadiness and goes on serving.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Waits until everything has ended.
    pub async fn join(self) {
        self.tasks.join().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

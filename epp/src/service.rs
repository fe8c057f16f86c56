//! Starts a picker: servers, discovery, scraping, the director's timer; and stops it in order.

use crate::extproc::budget::Budget;
use crate::extproc::hub::Hub;
use crate::extproc::protocol::Rules;
use crate::extproc::service::ExternalProcessor;
use crate::options::Options;
use crate::telemetry::Telemetry;
use crate::telemetry::collector::HubCollector;
use crate::{discovery, health, scrape};
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use epp_core::config::Detector;
use epp_core::{Config, DemandLedger, Director, EndpointSpec, Objectives, Pool, QueueDepth};
use predictor::Learners;
use predictor::trainer::Trainer;
use runtime::admin::{self, AdminOptions};
use runtime::listen::{ListenError, bind};
use runtime::{Clock, Metrics, Shutdown, Tasks};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Flow-control windows: large, so that a prompt is not held up by acknowledgements on a local connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// HTTP requests in flight on one connection of the proxy.
const STREAMS_PER_CONNECTION: u32 = 10_000;
/// A connection whose proxy is gone is noticed after this much silence.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a drain goes on after the last stream ended: longer than a proxy takes to notice that this picker
/// is not ready any more.
const QUIET: Duration = Duration::from_secs(3);
/// What is left of answers when everything is stopped may still take this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a picker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A metrics source that is not built.
    #[error(
        "metrics-data-source: scheme {0:?} is not built: only http is; engines are asked in the clear"
    )]
    Scheme(String),
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
    let schedule = schedule(&config, &options)?;
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
    let hub = Arc::new(hub(config, &options, &metrics, clock));
    let pool_name = &options.pool_name;
    metrics.register(|registry| {
        registry.register_collector(Box::new(HubCollector::new(&hub, pool_name)))
    });
    let admin = AdminOptions {
        address: (options.ip, options.metrics_port).into(),
        flag: "--metrics-port",
        routes: options.admin_routes.clone().merge(routes(&hub)),
    };
    let admin = admin::serve(admin, metrics.clone(), shutdown.clone(), &tasks).await?;
    let (ready, _) = watch::channel(false);
    let handle = Handle {
        grpc: local(&grpc, options.ip, options.grpc_port),
        grpc_health: local(&grpc_health, options.ip, options.grpc_health_port),
        admin,
        hub,
        metrics,
        ready,
        shutdown,
        tasks,
    };
    handle.spawn(grpc, grpc_health, &options, schedule, endpoints_file);
    Ok(handle)
}

fn local(listener: &TcpListener, ip: std::net::IpAddr, port: u16) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| (ip, port).into())
}

fn schedule(config: &Config, options: &Options) -> Result<Option<scrape::Schedule>, StartError> {
    // A configuration that reads no metrics does not cause any to be asked for.
    let Some(metrics) = config.metrics.as_ref().filter(|_| config.reads_metrics()) else {
        return Ok(None);
    };
    if metrics.source.scheme != "http" {
        return Err(StartError::Scheme(metrics.source.scheme.clone()));
    }
    let interval = metrics.interval.unwrap_or(options.refresh_metrics_interval);
    let staleness = match &config.detector {
        Detector::Utilization { staleness, .. } => config.metrics_staleness.min(*staleness),
        Detector::Concurrency(_) => config.metrics_staleness,
    };
    Ok(Some(scrape::Schedule::new(
        interval,
        staleness,
        &metrics.source.path,
    )))
}

fn hub(config: Config, options: &Options, metrics: &Metrics, clock: Clock) -> Hub {
    let director = Director::new(config, options.seed);
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
    };
    let trainer = Trainer::spawn(
        Learners::new(options.learner.clone()),
        options.trainer_cpu_share,
        Box::new(move || clock.now()),
    );
    let telemetry = metrics.register(|registry| Telemetry::new(registry, &options.pool_name));
    // The keys of a hash map are random per process: so is the hash of nothing.
    let first_serial = RandomState::new().hash_one(()) << 20;
    Hub::new(
        director,
        rules,
        Arc::new(trainer),
        telemetry,
        clock,
        first_serial,
    )
}

#[derive(serde::Deserialize)]
struct Limit {
    limit: Option<usize>,
}

fn routes(hub: &Arc<Hub>) -> axum::Router {
    let decisions = |State(hub): State<Arc<Hub>>, Query(Limit { limit }): Query<Limit>| async move {
        (
            [(CONTENT_TYPE, "application/json")],
            hub.decisions.to_json(limit.unwrap_or(20)),
        )
    };
    axum::Router::new()
        .route("/debug/decisions", get(decisions))
        .with_state(Arc::clone(hub))
}

impl Handle {
    fn spawn(
        &self,
        grpc: TcpListener,
        grpc_health: TcpListener,
        options: &Options,
        schedule: Option<scrape::Schedule>,
        endpoints_file: Option<(std::path::PathBuf, bool)>,
    ) {
        let (hub, shutdown) = (|| Arc::clone(&self.hub), || self.shutdown.clone());
        let processor = ExternalProcessor::new(hub(), options.grpc_max_recv_msg_size);
        let (reporter, health) = tonic_health::server::health_reporter();
        self.tasks
            .spawn(serve(server().add_service(processor), grpc, shutdown()));
        self.tasks
            .spawn(serve(server().add_service(health), grpc_health, shutdown()));
        self.tasks.spawn(health::announce(
            reporter,
            self.ready.subscribe(),
            shutdown(),
        ));
        let timed = hub();
        let until = shutdown();
        self.tasks
            .spawn(async move { timed.keep_time(until).await });
        if let Some(schedule) = schedule {
            self.tasks.spawn(scrape::run(hub(), schedule, shutdown()));
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
        self.tasks
            .spawn(drain(hub(), options.drain_timeout, shutdown()));
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

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
}

async fn serve(
    router: tonic::transport::server::Router,
    listener: TcpListener,
    shutdown: Shutdown,
) {
    // Without TCP_NODELAY every reply waits for an acknowledgement: 44 ms instead of 0.1.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut serving =
        std::pin::pin!(router.serve_with_incoming_shutdown(incoming, shutdown.stopped()));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = last_words(&shutdown) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::error!(%error, "gRPC server ended");
        shutdown.stop();
    }
}

async fn last_words(shutdown: &Shutdown) {
    shutdown.stopped().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// Stops once a drain has gone on long enough: no stream for a while, or the time is over. Then what is
/// still queued is refused.
async fn drain(hub: Arc<Hub>, timeout: Duration, shutdown: Shutdown) {
    let over = async {
        shutdown.draining().await;
        let deadline = hub.clock.now() + timeout;
        let mut quiet_since = hub.clock.now();
        while hub.clock.now() < deadline && hub.clock.now() < quiet_since + QUIET {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if hub.telemetry.streams_inflight.get() > 0 {
                quiet_since = hub.clock.now();
            }
        }
    };
    tokio::select! {
        () = over => {}
        () = shutdown.stopped() => {}
    }
    hub.refuse_queued();
    shutdown.stop();
}

//! The controller on Kubernetes, put together.
//!
//! Every replica follows the cluster, polls the endpoint pickers and serves the metrics APIs. The one that holds the
//! Lease decides once a second ([`cycle`]) and publishes; the others hold what it publishes
//! ([`followers`](super::followers)) and can go on from what it remembers ([`state`]).

pub mod cycle;
pub mod leader;
pub mod metrics;
pub mod options;
mod publish;
mod signals;
mod sources;

pub use options::{KubernetesOptions, SERVICE_ACCOUNT_TOKEN, TIMING};

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use kube::Client;
use kubernetes::delegated::{Authenticator, Authorizer};
use kubernetes::events::Recorder;
use kubernetes::lease::{Candidate, Elector, Leadership};
use runtime::admin::{self, AdminOptions};
use runtime::listen::{ListenError, bind};
use runtime::serve::{self, ServeOptions};
use runtime::tls::{CertificateAuthority, ClientAuth, ServerTls, TlsError};
use runtime::{Clock, Metrics, Shutdown, Tasks};
use tokio::sync::watch;

use self::cycle::Cycle;
use self::leader::{Leader, Writers};
use self::metrics::ControllerMetrics;
use self::sources::Sources;
use super::apiservice::{ApiServices, Service};
use super::certificates::{CertificateError, Certificates};
use super::direct::Direct;
use super::followers::{Follow, IdentityError, Lead, server};
use super::objects::Followed;
use super::prometheus::PrometheusError;
use super::state::{self, Keeper, States};
use super::status::Reporter;
use crate::journal::ModelJournal;
use crate::keda::ExternalScaler;
use crate::metrics_api::MetricsApi;
use crate::published::Board;

/// Component that Events are from.
const COMPONENT: &str = "headroom-controller";

/// Why the controller cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A certificate that cannot be used.
    #[error("the metrics APIs cannot have their certificate: {0}")]
    Tls(#[from] TlsError),
    /// Replicas cannot know each other.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Prometheus cannot be asked.
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
}

/// A running controller.
#[derive(Debug)]
pub struct Running {
    /// Where the metrics APIs are.
    pub metrics_api: SocketAddr,
    /// Where metrics and decisions are.
    pub metrics: SocketAddr,
    /// Where followers are served.
    pub followers: SocketAddr,
    /// Where KEDA is served.
    pub keda: Option<SocketAddr>,
    /// What is published.
    pub board: Board,
    /// The decisions.
    pub journal: ModelJournal,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
}

/// What every part needs.
struct Ground<'a> {
    client: Client,
    options: &'a KubernetesOptions,
    clock: Clock,
    shutdown: &'a Shutdown,
    tasks: &'a Tasks,
}

/// Starts the controller as `tasks`: it ends when `shutdown` is stopped, and decides no more once it drains.
///
/// # Errors
/// [`StartError`].
pub async fn start(
    client: Client,
    options: &KubernetesOptions,
    metrics: &Metrics,
    clock: Clock,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<Running, StartError> {
    let ground = Ground {
        client,
        options,
        clock,
        shutdown,
        tasks,
    };
    let board = Board::with_bound(clock, options.freshness);
    let shown = metrics.register(|registry| ControllerMetrics::register(registry, &board));
    let journal = ModelJournal::new();
    let (certificates, authority) = ground.certificates().await?;
    let sources = Sources::start(&ground)?;
    let followers = bind(
        (options.host, options.followers_port).into(),
        "followers",
        "--followers-port",
    )
    .await?;
    let followers_at = local(&followers, (options.host, options.followers_port).into());
    let (ready, readiness) = watch::channel(false);
    let leadership = ground.elect(followers_at.port(), readiness);
    let (states, _) = watch::channel(Arc::new(States::new()));
    ground.follow(&authority, &board, &states, &leadership);
    let lead = Lead {
        board: board.clone(),
        states: states.subscribe(),
        leadership: leadership.clone(),
        shutdown: shutdown.clone(),
    };
    let tls = server(authority.clone(), clock, tasks)?;
    tls.watch(shutdown.clone(), tasks);
    let limits = ServeOptions::default();
    serve::https(
        followers,
        tls,
        lead.routes(),
        limits,
        shutdown.clone(),
        tasks,
    );
    ground.decide(
        &sources,
        &board,
        &journal,
        &shown,
        &states,
        &leadership,
        ready,
        authority,
    );
    let authenticator = Authenticator::start(ground.client.clone(), clock, shutdown.clone(), tasks);
    let authorizer = Authorizer::new(ground.client.clone(), clock);
    let api = MetricsApi::new(board.clone(), authenticator, authorizer, shutdown.clone());
    let metrics_api = ground
        .serve_api(&api, &journal, certificates, &shown)
        .await?;
    let pages = ground.serve_pages(&api, &journal, metrics).await?;
    let keda = ground.serve_keda(&board).await?;
    Ok(Running {
        metrics_api,
        metrics: pages,
        followers: followers_at,
        keda,
        board,
        journal,
        leadership,
    })
}

fn local(listener: &tokio::net::TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

impl Ground<'_> {
    /// What the metrics APIs are served with, and the authority of all replicas.
    async fn certificates(
        &self,
    ) -> Result<(ServerTls, watch::Receiver<CertificateAuthority>), StartError> {
        let options = self.options;
        let own = Certificates::start(
            self.client.clone(),
            &options.namespace,
            &options.service,
            self.clock,
            self.shutdown.clone(),
            self.tasks,
        )
        .await?;
        let serving = match &options.cert_dir {
            None => own.serving,
            Some(folder) => {
                let mounted =
                    ServerTls::from_files(folder.join("tls.crt"), folder.join("tls.key"))?;
                mounted.watch(self.shutdown.clone(), self.tasks);
                mounted
            }
        };
        // The aggregator shows one; who shows none brings a token.
        Ok((serving.with_client_auth(ClientAuth::Asked)?, own.authority))
    }

    /// Stands for election once `ready` says that this replica could lead.
    fn elect(
        &self,
        followers_port: u16,
        mut ready: watch::Receiver<bool>,
    ) -> watch::Receiver<Leadership> {
        let options = self.options;
        let ip = options.identity.pod_ip.unwrap_or(options.host);
        let candidate = Candidate {
            namespace: options.namespace.clone(),
            name: options.lease.clone(),
            identity: options.identity.candidate(self.clock.unix_ms()),
            address: Some(SocketAddr::new(ip, followers_port).to_string()),
            timing: options.timing,
        };
        Elector::stand(
            self.client.clone(),
            candidate,
            async move {
                // Nobody to say so any more: the process ends.
                if ready.wait_for(|ready| *ready).await.is_err() {
                    std::future::pending::<()>().await;
                }
            },
            self.clock,
            self.shutdown.clone(),
            self.tasks,
        )
    }

    fn follow(
        &self,
        authority: &watch::Receiver<CertificateAuthority>,
        board: &Board,
        states: &watch::Sender<Arc<States>>,
        leadership: &watch::Receiver<Leadership>,
    ) {
        let follow = Follow {
            board: board.clone(),
            states: states.clone(),
            leadership: leadership.clone(),
            authority: authority.clone(),
        };
        self.tasks.spawn(follow.run(self.shutdown.clone()));
    }

    #[expect(clippy::too_many_arguments, reason = "everything meets here, once")]
    fn decide(
        &self,
        sources: &Sources,
        board: &Board,
        journal: &ModelJournal,
        shown: &ControllerMetrics,
        states: &watch::Sender<Arc<States>>,
        leadership: &watch::Receiver<Leadership>,
        ready: watch::Sender<bool>,
        authority: watch::Receiver<CertificateAuthority>,
    ) {
        let options = self.options;
        let recorder = Recorder::start(
            self.client.clone(),
            COMPONENT,
            &options.identity.holder(),
            self.clock,
            self.shutdown.clone(),
            self.tasks,
        );
        let writers = sources
            .followed
            .iter()
            .map(|followed| self.writers(followed, &recorder))
            .collect();
        let services = options.api_services.then(|| {
            ApiServices::start(
                self.client.clone(),
                Service {
                    namespace: options.namespace.clone(),
                    name: options.service.clone(),
                    port: options.service_port,
                },
                // Who mounts a certificate says in the APIService who vouches for it.
                options.cert_dir.is_none().then_some(authority),
                leadership.clone(),
                self.shutdown.clone(),
                self.tasks,
            )
        });
        let keeper = || Keeper::new(self.client.clone(), &options.namespace);
        let leader = Leader {
            cycle: Cycle::new(
                sources.followed.clone(),
                Arc::clone(&sources.gathering),
                board.clone(),
            ),
            gathering: Arc::clone(&sources.gathering),
            leadership: leadership.clone(),
            ready,
            board: board.clone(),
            writers,
            services,
            journal: journal.clone(),
            metrics: shown.clone(),
            states: states.clone(),
            keeper: keeper(),
            clock: self.clock,
            now: sources.now.clone(),
        };
        self.tasks.spawn(leader.run(self.shutdown.clone()));
        let written = shown.clone();
        self.tasks.spawn(state::keep(
            keeper(),
            states.subscribe(),
            leadership.clone(),
            move |done| written.state_written(done),
            self.shutdown.clone(),
        ));
    }

    fn writers(&self, followed: &Followed, recorder: &Recorder) -> Writers {
        Writers {
            reporter: Reporter::start(
                self.client.clone(),
                recorder.clone(),
                followed.scalers.clone(),
                self.clock,
                self.shutdown.clone(),
                self.tasks,
            ),
            direct: Direct::start(
                self.client.clone(),
                followed.kinds.clone(),
                self.clock,
                self.shutdown.clone(),
                self.tasks,
            ),
        }
    }

    async fn serve_api(
        &self,
        api: &MetricsApi,
        journal: &ModelJournal,
        tls: ServerTls,
        shown: &ControllerMetrics,
    ) -> Result<SocketAddr, StartError> {
        let options = self.options;
        let asked = (options.host, options.metrics_api_port).into();
        let listener = bind(asked, "the metrics APIs", "--metrics-api-port").await?;
        let at = local(&listener, asked);
        let counted = (shown.clone(), self.clock);
        let router = api
            .router()
            .layer(from_fn_with_state(counted, count))
            .merge(api.gate().protect(journal.routes()));
        let limits = ServeOptions::default();
        serve::https(
            listener,
            tls,
            router,
            limits,
            self.shutdown.clone(),
            self.tasks,
        );
        Ok(at)
    }

    /// Metrics and decisions, without TLS: for scrapers in the cluster, behind the cluster's rights if asked for.
    async fn serve_pages(
        &self,
        api: &MetricsApi,
        journal: &ModelJournal,
        metrics: &Metrics,
    ) -> Result<SocketAddr, StartError> {
        let options = self.options;
        let (gate, auth) = (api.gate(), options.metrics_auth);
        let pages = AdminOptions {
            address: (options.host, options.metrics_port).into(),
            flag: "--metrics-port",
            routes: journal.routes(),
        };
        let guard = move |pages: Router| if auth { gate.protect(pages) } else { pages };
        let (shutdown, tasks) = (self.shutdown.clone(), self.tasks);
        Ok(admin::serve_guarded(pages, metrics.clone(), guard, shutdown, tasks).await?)
    }

    /// KEDA's external scaler, if it is asked for.
    async fn serve_keda(&self, board: &Board) -> Result<Option<SocketAddr>, StartError> {
        let options = self.options;
        let Some(port) = options.keda_port else {
            return Ok(None);
        };
        let asked = (options.host, port).into();
        let listener = bind(asked, "the KEDA external scaler", "--keda-port").await?;
        let at = local(&listener, asked);
        let scaler = ExternalScaler::new(board.clone(), self.shutdown.clone());
        let limits = ServeOptions::default();
        serve::http(
            listener,
            scaler.router(),
            limits,
            self.shutdown.clone(),
            self.tasks,
        );
        Ok(Some(at))
    }
}

/// Counts an answer of the metrics APIs.
async fn count(
    State((shown, clock)): State<(ControllerMetrics, Clock)>,
    request: Request,
    next: Next,
) -> Response {
    let began = clock.now();
    let response = next.run(request).await;
    let length = clock.now().saturating_sub(began);
    shown.answered(response.status().as_u16(), length);
    response
}

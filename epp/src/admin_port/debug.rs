//! Pages for who wants to know why: `/debug/decisions`, the last picks with what led to them, and `/debug/state`, what
//! the picker knows at this moment. Both are bounded whatever the pool and its clients are.

use crate::extproc::hub::Hub;
use crate::options::Options;
use crate::peers::Peers;
use crate::telemetry::Telemetry;
use crate::telemetry::reloads::LastReload;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use epp_core::config::{BandConfig, FlowConfig};
use epp_core::peers::PeerState;
use epp_core::{Config, Endpoint, FlowTotals, Lora, QueueDepth, StageSaturation};
use predictor::TargetReport;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Version of `/debug/state`.
const SCHEMA: u32 = 1;
/// Decisions told at once unless asked for more.
const DECISIONS: usize = 20;
/// Endpoints told at most.
const ENDPOINTS: usize = 2000;
/// Bands whose limits are told at most.
const BANDS: usize = 64;
/// Flows told at most.
const FLOWS: usize = 100;
/// Warnings of the configuration told at most.
const WARNINGS: usize = 100;
/// Models of one endpoint told at most.
const MODELS: usize = 32;

/// What is the same as long as the process runs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    build: Build,
    picker: String,
    pool: String,
}

#[derive(Clone, Debug, Serialize)]
struct Build {
    version: &'static str,
    commit: &'static str,
}

/// What the configuration in force says, in short.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    version: Arc<str>,
    /// What became of the last change of its file; `null` = there was none.
    last_reload: Option<LastReload>,
    flow_control: bool,
    limits: Option<Limits>,
    detector: &'static str,
    predicts: bool,
    filters: Vec<Part>,
    scorers: Vec<Part>,
    picker: &'static str,
    warnings: Vec<String>,
}

/// What the queue holds at most; `null` = no limit.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    max_requests: Option<u64>,
    max_bytes: Option<u64>,
    request_ttl_ms: Option<f64>,
    no_endpoint_ttl_ms: Option<f64>,
    bands: Vec<BandLimits>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BandLimits {
    /// `null` = bands without an entry of their own.
    priority: Option<i32>,
    max_requests: u64,
    max_bytes: u64,
}

impl Limits {
    fn of(flow: &FlowConfig) -> Self {
        let ms = |ttl: Option<Duration>| ttl.map(|ttl| ttl.as_secs_f64() * 1e3);
        let band = |priority, band: &BandConfig| BandLimits {
            priority,
            max_requests: band.max_requests,
            max_bytes: band.max_bytes,
        };
        let named = flow.bands.iter().rev().take(BANDS);
        let named = named.map(|(&priority, of)| band(Some(priority), of));
        Self {
            max_requests: flow.max_requests,
            max_bytes: flow.max_bytes,
            request_ttl_ms: ms(flow.request_ttl),
            no_endpoint_ttl_ms: ms(flow.no_endpoint_ttl),
            bands: named.chain([band(None, &flow.default_band)]).collect(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Part {
    name: Arc<str>,
    #[serde(rename = "type")]
    kind: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
}

impl About {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            build: Build {
                version: env!("CARGO_PKG_VERSION"),
                commit: COMMIT,
            },
            picker: options.name.clone(),
            pool: options.pool_name.clone(),
        }
    }
}

impl Configuration {
    fn of(config: &Config, telemetry: &Telemetry) -> Self {
        let part = |name: &Arc<str>, weight| Part {
            name: Arc::clone(name),
            kind: telemetry.plugin_type(name),
            weight,
        };
        let profile = &config.profile;
        let filters = profile.filters.iter().map(|named| part(&named.name, None));
        let scorers = profile.scorers.iter();
        let scorers = scorers.map(|scorer| part(&scorer.name, Some(scorer.weight)));
        Self {
            version: Arc::clone(&telemetry.configured().version),
            last_reload: telemetry.reloads.last(),
            flow_control: config.flow_control(),
            limits: config.flow.as_ref().map(Limits::of),
            detector: config.detector.type_name(),
            predicts: config.predicted_latency.is_some(),
            filters: filters.collect(),
            scorers: scorers.collect(),
            picker: profile.picker.type_name(),
            warnings: config.warnings.iter().take(WARNINGS).cloned().collect(),
        }
    }
}

/// The commit that was built, where whoever built said so.
pub(crate) const COMMIT: &str = match option_env!("HEADROOM_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What the picker knows at one moment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot<'a> {
    schema: u32,
    #[serde(flatten)]
    about: &'a About,
    config: Configuration,
    at_ms: u64,
    uptime_ms: u64,
    saturation: Saturation,
    queue: QueueDepth,
    /// The flows with the most requests.
    flows: Vec<FlowTotals>,
    arriving_body_bytes: u64,
    /// The other pickers of the pool that are heard; `null` = nothing is exchanged.
    peers: Option<Vec<Peer>>,
    models: Vec<Model>,
    endpoints: Vec<EndpointState>,
    /// Endpoints beyond those told.
    endpoints_left_out: usize,
}

/// Another picker of the pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    name: Arc<str>,
    /// Since it last said something.
    silent_ms: f64,
    /// Whether it hears this picker too: only then is room shared.
    hears_us: bool,
    queued: u64,
    queued_bytes: u64,
}

impl Peer {
    fn of(state: PeerState, now: Duration) -> Self {
        Self {
            name: state.name,
            silent_ms: now.saturating_sub(state.heard_at).as_secs_f64() * 1e3,
            hears_us: state.hears_us,
            queued: state.queued.requests,
            queued_bytes: state.queued.bytes,
        }
    }
}

/// How full the pool is by stage; `null` = unknown.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Saturation {
    prefill: Option<f64>,
    decode: Option<f64>,
    effective: Option<f64>,
    stale_endpoints: usize,
}

impl From<StageSaturation> for Saturation {
    fn from(level: StageSaturation) -> Self {
        Self {
            prefill: level.prefill,
            decode: level.decode,
            effective: level.effective,
            stale_endpoints: level.unknown,
        }
    }
}

/// One class's latency model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    class: Arc<str>,
    version: u64,
    ttft: TargetState,
    tpot: TargetState,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetState {
    state: predictor::State,
    labels: u64,
    median_ape: Option<f64>,
    coverage_p90: Option<f64>,
}

impl From<&TargetReport> for TargetState {
    fn from(report: &TargetReport) -> Self {
        let known = |value: f64| (!value.is_nan()).then_some(value);
        Self {
            state: report.state,
            labels: report.labels,
            median_ape: known(report.median_ape.into()),
            coverage_p90: known(report.coverage_p90.into()),
        }
    }
}

/// One endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointState {
    name: Arc<str>,
    address: Arc<str>,
    class: Arc<str>,
    load: LoadState,
    /// `null` = its metrics were never read.
    scrape: Option<ScrapeState>,
    health: epp_core::HealthView,
    #[serde(skip_serializing_if = "Option::is_none")]
    lora: Option<LoraState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Vec<(Arc<str>, f64)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<Vec<Arc<str>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadState {
    in_flight: u32,
    /// Of those, what peers have there.
    of_peers: u32,
    waiting: u32,
    waiting_tokens: u64,
    resident_tokens: u64,
    labels: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScrapeState {
    age_ms: f64,
    waiting: Option<f32>,
    running: Option<f32>,
    kv_utilization: Option<f32>,
    block_tokens: Option<u32>,
    kv_blocks: Option<u32>,
}

#[derive(Debug, Serialize)]
struct LoraState {
    max: u32,
    running: Vec<Arc<str>>,
    waiting: Vec<Arc<str>>,
}

impl EndpointState {
    fn of(endpoint: &Endpoint, now: Duration) -> Self {
        let load = endpoint.load.snapshot();
        let known = |value: f32| (!value.is_nan()).then_some(value);
        let few = |names: &[Arc<str>]| names.iter().take(MODELS).map(Arc::clone).collect();
        let lora = |lora: Arc<Lora>| LoraState {
            max: lora.max,
            running: few(&lora.running),
            waiting: few(&lora.waiting),
        };
        Self {
            name: Arc::clone(&endpoint.name),
            address: Arc::clone(&endpoint.address),
            class: Arc::clone(&endpoint.class),
            load: LoadState {
                in_flight: load.in_flight,
                of_peers: endpoint
                    .load
                    .remote()
                    .map_or(0, |remote| remote.flight.in_flight),
                waiting: load.waiting,
                waiting_tokens: load.waiting_tokens,
                resident_tokens: load.resident_tokens,
                labels: load.served,
            },
            scrape: endpoint.scraped().map(|scraped| ScrapeState {
                age_ms: scraped.age(now).as_secs_f64() * 1e3,
                waiting: known(scraped.waiting),
                running: known(scraped.running),
                kv_utilization: known(scraped.kv_utilization),
                block_tokens: scraped.block_tokens,
                kv_blocks: scraped.kv_blocks,
            }),
            health: endpoint.load.health.view(now),
            lora: endpoint.lora().map(lora),
            attributes: endpoint.attributes().map(|attributes| attributes.to_vec()),
            models: endpoint.models().map(|models| few(&models)),
        }
    }
}

/// What the pages are made from.
struct Sources {
    hub: Arc<Hub>,
    about: About,
    peers: Option<Arc<Peers>>,
}

/// The pages over `hub` and its `peers`.
pub(crate) fn routes(hub: &Arc<Hub>, about: About, peers: Option<Arc<Peers>>) -> Router {
    let hub = Arc::clone(hub);
    let pages = Arc::new(Sources { hub, about, peers });
    Router::new()
        .route("/debug/decisions", get(decisions))
        .route("/debug/state", get(state))
        .with_state(pages)
}

type Pages = Arc<Sources>;

#[derive(serde::Deserialize)]
struct Which {
    limit: Option<usize>,
    id: Option<String>,
}

async fn decisions(State(pages): State<Pages>, Query(which): Query<Which>) -> impl IntoResponse {
    let limit = which.limit.unwrap_or(DECISIONS);
    let page = pages.hub.decisions.to_json(limit, which.id.as_deref());
    ([(CONTENT_TYPE, "application/json")], page)
}

async fn state(State(pages): State<Pages>) -> impl IntoResponse {
    Json(snapshot(&pages)).into_response()
}

fn snapshot(pages: &Sources) -> Snapshot<'_> {
    let Sources { hub, about, peers } = pages;
    let now = hub.clock.now();
    let pool = hub.pool();
    let endpoints = pool.endpoints.iter().take(ENDPOINTS);
    let models = hub.trainer.reports();
    let models = models.iter().map(|of| Model {
        class: Arc::clone(&of.class),
        version: of.report.version,
        ttft: (&of.report.ttft).into(),
        tpot: (&of.report.tpot).into(),
    });
    Snapshot {
        schema: SCHEMA,
        about,
        config: Configuration::of(&hub.config(), &hub.telemetry),
        at_ms: hub.clock.unix_ms(),
        uptime_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        saturation: hub.stages().into(),
        queue: hub.queued(),
        flows: hub.demand().top_flows(FLOWS),
        arriving_body_bytes: hub.bodies().held(),
        peers: peers.as_ref().map(|peers| {
            let states = peers.states().into_iter();
            states.map(|state| Peer::of(state, now)).collect()
        }),
        models: models.collect(),
        endpoints: endpoints
            .map(|endpoint| EndpointState::of(endpoint, now))
            .collect(),
        endpoints_left_out: pool.endpoints.len().saturating_sub(ENDPOINTS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extproc::hub::tests::hub_of;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use epp_core::{EndpointSpec, Objectives};
    use tower::ServiceExt as _;

    fn hub(endpoints: usize) -> (Arc<Hub>, About) {
        let hub = hub_of(Config::headroom_default());
        let spec = |number: usize| EndpointSpec {
            name: format!("e{number}"),
            address: format!("10.0.{}.{}:80", number / 250, number % 250),
            labels: Default::default(),
        };
        hub.set_endpoints((0..endpoints).map(spec).collect(), Objectives::default());
        let about = About::of(&Options::default());
        (Arc::new(hub), about)
    }

    async fn page(hub: &Arc<Hub>, about: &About, path: &str) -> serde_json::Value {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = routes(hub, about.clone(), None)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        let body = to_bytes(answer.into_body(), 1 << 24).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn the_state_is_the_golden_one() {
        let (hub, about) = hub(1);
        let endpoint = &hub.pool().endpoints[0];
        endpoint.set_attribute(&"GPUUtilization".into(), 0.5);
        endpoint.set_models(Arc::new(vec!["llama".into()]));
        endpoint.set_lora(Arc::new(Lora {
            max: 2,
            running: vec!["sql".into()],
            waiting: vec![],
        }));
        let mut state = page(&hub, &about, "/debug/state").await;
        // Clocks, and what differs from build to build.
        for changing in ["atMs", "uptimeMs"] {
            state[changing] = 0.into();
        }
        state["build"] = "…".into();
        state["config"]["version"] = "…".into();
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/admin_port/state.golden.json"
        );
        let text = serde_json::to_string_pretty(&state).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap());
    }

    #[tokio::test]
    async fn a_large_pool_is_cut_and_the_rest_counted() {
        let (hub, about) = hub(ENDPOINTS + 7);
        let state = page(&hub, &about, "/debug/state").await;
        assert_eq!(state["endpoints"].as_array().unwrap().len(), ENDPOINTS);
        assert_eq!(state["endpointsLeftOut"], 7);
    }

    #[tokio::test]
    async fn decisions_are_asked_for_by_number_and_id() {
        let (hub, about) = hub(1);
        let all = page(&hub, &about, "/debug/decisions?limit=5&id=nobody").await;
        assert_eq!(all["picks"].as_array().unwrap().len(), 0);
        assert_eq!(all["schema"], 1);
    }
}

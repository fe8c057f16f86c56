//! A played endpoint picker: its admin port, over TLS, with a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use epp_core::demand::{BandTotals, DemandTotals, Totals};
use epp_core::report::{ClassReport, DemandReport, PoolName, SCHEMA, TargetReport};
use epp_core::{MixSample, Outcome, QueueDepth, Slo};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use names::admin;
use predictor::Target;
use predictor::snapshot::ClassModel;
use runtime::serve::{self, ServeOptions};
use runtime::tls::{CertificateAuthority, ServerTls};
use runtime::{Clock, Shutdown, Tasks};
use serde::Deserialize;
use std::sync::Mutex;

pub(crate) struct Picker {
    name: String,
    pool: String,
    token: String,
    clock: Clock,
    models: Arc<(Vec<u8>, ClassModel)>,
    traffic: Mutex<Traffic>,
    hangs: AtomicBool,
    schema: AtomicU32,
    shutdown: Shutdown,
}

#[derive(Default)]
struct Traffic {
    rate: f64,
    until: Duration,
    requests: f64,
}

impl Drop for Picker {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

impl Picker {
    pub(crate) async fn serve(
        name: &str,
        pool: &str,
        token: &str,
        authority: &CertificateAuthority,
        models: Arc<(Vec<u8>, ClassModel)>,
    ) -> (Arc<Self>, u16) {
        let (clock, shutdown) = (Clock::start(), Shutdown::new());
        let picker = Arc::new(Self {
            name: name.to_owned(),
            pool: pool.to_owned(),
            token: format!("Bearer {token}"),
            clock,
            models,
            traffic: Mutex::default(),
            hangs: AtomicBool::new(false),
            schema: AtomicU32::new(SCHEMA),
            shutdown: shutdown.clone(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTls::issued(authority, &[format!("{pool}-epp.ns.svc")], clock).unwrap();
        let router = Router::new()
            .route(admin::DEMAND, get(demand))
            .route(admin::MODEL, get(model))
            .with_state(Arc::clone(&picker));
        serve::https(
            listener,
            tls,
            router,
            ServeOptions::default(),
            shutdown,
            &Tasks::new(),
        );
        (picker, port)
    }

    /// Requests per second from now on, all of them served.
    pub(crate) fn rate(&self, rate: f64) {
        self.count();
        self.traffic.lock().unwrap().rate = rate;
    }

    /// Whether it takes questions and answers none.
    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// The version that its reports bear.
    pub(crate) fn schema(&self, schema: u32) {
        self.schema.store(schema, Ordering::Relaxed);
    }

    /// Requests until now.
    fn count(&self) -> u64 {
        let now = self.clock.now();
        let mut traffic = self.traffic.lock().unwrap();
        traffic.requests += traffic.rate * (now - traffic.until).as_secs_f64();
        traffic.until = now;
        traffic.requests as u64
    }

    fn report(&self, mix_after: u64) -> DemandReport {
        let requests = self.count();
        let served = Totals {
            requests,
            prompt_tokens: 500 * requests,
            cached_tokens: 0,
            output_tokens: 100 * requests,
        };
        let mut outcomes = vec![Totals::default(); Outcome::ALL.len()];
        outcomes[Outcome::Served as usize] = served;
        let band = BandTotals {
            priority: 0,
            sheddable: false,
            offered: Totals {
                output_tokens: 0,
                ..served
            },
            outcomes,
            slo_offered: 0,
            slo_met: 0,
            expected_misses: 0,
        };
        let mix_from = mix_after.max(requests.saturating_sub(500)).min(requests);
        DemandReport {
            schema: self.schema.load(Ordering::Relaxed),
            epp: self.name.clone(),
            incarnation: 1,
            at_ms: self.clock.unix_ms(),
            uptime_ms: self.clock.now().as_millis() as u64,
            ready: true,
            pool: PoolName {
                namespace: "ns".into(),
                name: self.pool.clone(),
            },
            totals: DemandTotals { bands: vec![band] },
            queued: QueueDepth::default(),
            in_flight: 2,
            endpoints: Vec::new(),
            mix_from,
            mix: (mix_from..requests).map(shape).collect(),
            models: vec![self.class()],
            default_slo: Slo::NONE,
            model_names: Default::default(),
            flows: Vec::new(),
        }
    }

    fn class(&self) -> ClassReport {
        let (_, class) = &*self.models;
        let target = |target: Target| TargetReport {
            state: class.model.state(target),
            labels: class.labels[target as usize],
            labels_last_minute: 60,
            fresh_labels: class.fresh_labels[target as usize],
            mape: None,
            coverage_p90: None,
        };
        ClassReport {
            class: class.class.to_string(),
            version: class.model.version(),
            checksum: class.checksum(),
            ttft: target(Target::Ttft),
            tpot: target(Target::Tpot),
        }
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        headers
            .get(AUTHORIZATION)
            .is_some_and(|shown| *shown == *self.token)
    }
}

fn shape(number: u64) -> MixSample {
    MixSample {
        at: Duration::from_millis(number),
        input_tokens: 300 + (number % 5) as u32 * 100,
        cached_tokens: 0,
        output_tokens: 80 + (number % 3) as u32 * 20,
        priority: 0,
        slo: Slo::NONE,
    }
}

#[derive(Deserialize)]
struct After {
    mix_after: u64,
}

async fn demand(
    State(picker): State<Arc<Picker>>,
    Query(after): Query<After>,
    headers: HeaderMap,
) -> Response {
    if !picker.knows(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if picker.hangs.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    Json(picker.report(after.mix_after)).into_response()
}

async fn model(State(picker): State<Arc<Picker>>, headers: HeaderMap) -> Response {
    if picker.knows(&headers) {
        picker.models.0.clone().into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

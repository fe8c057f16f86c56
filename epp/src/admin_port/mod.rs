//! The authenticated admin port: what a controller reads of a picker, over TLS.
//!
//! `GET /headroom/v1/demand` is the [`epp_core::DemandReport`], `GET /headroom/v1/model` the models in force as
//! [`predictor::snapshot`] writes them. Who may read either is up to the [`Gate`]: Kubernetes' own access rules in a
//! cluster, a token in a file elsewhere, anybody on a loopback address.

pub(crate) mod debug;
mod demand;
mod gate;
mod models;
#[cfg(test)]
mod tests;

pub use demand::Picker;
pub use gate::{Asked, Delegated, Denied, Gate, Open, TokenFile};

use crate::extproc::hub::Hub;
use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use models::Offered;
use names::admin;
use runtime::listen::{ListenError, bind};
use runtime::serve::{self, ServeOptions};
use runtime::tls::{ServerTls, TlsError};
use runtime::{Shutdown, Tasks};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Connections at the same time: some controllers, and whoever looks.
const CONNECTIONS: usize = 64;

/// Where the admin port is and who may read from it.
#[derive(Clone, Debug)]
pub struct AdminPortOptions {
    /// Where to listen; port 0 takes any free one.
    pub address: SocketAddr,
    /// The certificate to serve with; `None` = one that vouches for itself.
    pub tls: Option<ServerTls>,
    /// Who may read.
    pub gate: Arc<dyn Gate>,
}

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminPortError {
    /// The port is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No certificate could be made.
    #[error("no certificate for the admin port (--admin-port): {0}")]
    Tls(#[from] TlsError),
}

/// What the pages are made from.
#[derive(Debug)]
struct Pages {
    hub: Arc<Hub>,
    picker: Picker,
    offered: Offered,
    ready: watch::Receiver<bool>,
    shutdown: Shutdown,
}

/// Opens the port as one of `tasks`; it ends when `shutdown` is stopped, and is readable through a drain of up to
/// `drain`. Returns where it listens.
///
/// # Errors
/// [`AdminPortError`]: a port in use, or a name that cannot be in a certificate.
pub(crate) async fn start(
    options: AdminPortOptions,
    picker: Picker,
    hub: Arc<Hub>,
    ready: watch::Receiver<bool>,
    drain: Duration,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<SocketAddr, AdminPortError> {
    let AdminPortOptions { address, tls, gate } = options;
    let listener = bind(address, "the admin port", "--admin-port").await?;
    let local = listener.local_addr().unwrap_or(address);
    let tls = match tls {
        Some(tls) => tls,
        None => {
            let names = [
                picker.name.clone(),
                "localhost".to_owned(),
                local.ip().to_string(),
            ];
            let tls = ServerTls::self_signed(&names, hub.clock)?;
            tls.watch(shutdown.clone(), tasks);
            tls
        }
    };
    let offered = Offered::new(&hub);
    let pages = Arc::new(Pages {
        hub,
        picker,
        offered,
        ready,
        shutdown: shutdown.clone(),
    });
    let limits = ServeOptions {
        connections: CONNECTIONS,
        // A controller goes on counting what a draining picker still serves.
        notice: drain,
        ..ServeOptions::default()
    };
    let router = router(Arc::clone(&pages), gate);
    serve::https(listener, tls, router, limits, shutdown.clone(), tasks);
    let until = shutdown.clone();
    tasks.spawn(async move { pages.offered.follow(&pages.hub, until).await });
    Ok(local)
}

fn router(pages: Arc<Pages>, gate: Arc<dyn Gate>) -> Router {
    Router::new()
        .route(admin::DEMAND, get(demand))
        .route(admin::MODEL, get(model))
        .with_state(pages)
        .layer(middleware::from_fn_with_state(gate, admit))
}

/// Lets a request through if its sender may `GET` the page. What is there, and how it can be asked for, is told only
/// to those who may.
pub(crate) async fn admit(
    State(gate): State<Arc<dyn Gate>>,
    request: Request,
    next: Next,
) -> Response {
    let asked = Asked {
        token: bearer(request.headers()),
        path: request.uri().path(),
    };
    match gate.admit(asked).await {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            let mut answer = (denied.status(), format!("{denied}\n")).into_response();
            if denied.status() == StatusCode::UNAUTHORIZED {
                let scheme = HeaderValue::from_static("Bearer");
                answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            answer
        }
    }
}

/// The bearer token that a request shows.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[derive(serde::Deserialize)]
struct After {
    /// Samples of the mix that the reader has had.
    mix_after: Option<u64>,
}

async fn demand(State(pages): State<Arc<Pages>>, Query(after): Query<After>) -> Response {
    let ready = *pages.ready.borrow() && !pages.shutdown.is_draining();
    let after = after.mix_after.unwrap_or(0);
    let report = pages
        .picker
        .report(&pages.hub, &pages.offered.load(), ready, after);
    Json(report).into_response()
}

async fn model(State(pages): State<Arc<Pages>>, headers: HeaderMap) -> Response {
    let current = pages.offered.load();
    let tag = [(ETAG, current.tag.clone())];
    let known = headers.get_all(IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok());
    if known
        .flat_map(|value| value.split(','))
        .any(|value| current.is(value.trim()))
    {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    (tag, kind, current.bytes.clone()).into_response()
}

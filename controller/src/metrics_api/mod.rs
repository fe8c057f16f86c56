//! `custom.metrics.k8s.io` and `external.metrics.k8s.io`, served from memory behind the Kubernetes aggregation layer.
//!
//! A request is let in ([`Gate`]), its path is read ([`path`]), and the answer is a pure function of what hangs on the
//! [`Board`] ([`external`], [`custom`]) or a document that is always the same ([`discovery`]). Nothing on the way waits
//! for the decision loop or for Prometheus. A value that may not be acted on is an error with the reason
//! ([`status`]): an autoscaler then keeps the replicas that it has.

pub mod accept;
pub mod custom;
pub mod discovery;
pub mod external;
mod gate;
pub mod path;
pub mod quantity;
pub mod selector;
pub mod status;
#[cfg(test)]
mod tests;
mod values;

pub use gate::Gate;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use kubernetes::delegated::{Authenticator, Authorizer};
use runtime::Shutdown;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::published::Board;
use path::{Asked, asked};
use selector::Selector;
use status::Failure;

/// Requests that are worked on at the same time; what is beyond is told to come again.
const CONCURRENT: usize = 256;

/// The server of both metrics APIs.
#[derive(Clone, Debug)]
pub struct MetricsApi {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    board: Board,
    gate: Gate,
    shutdown: Shutdown,
    room: Semaphore,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selectors {
    label_selector: String,
    metric_label_selector: String,
}

impl MetricsApi {
    /// Serves what hangs on `board` to whom `authenticator` knows and `authorizer` lets; `/readyz` says no once
    /// `shutdown` drains.
    pub fn new(
        board: Board,
        authenticator: Authenticator,
        authorizer: Authorizer,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                board,
                gate: Gate::new(authenticator, authorizer),
                shutdown,
                room: Semaphore::new(CONCURRENT),
            }),
        }
    }

    /// The gate in front of it, for further pages on the same port.
    pub fn gate(&self) -> Gate {
        self.inner.gate.clone()
    }

    /// Everything under `/apis`, `/openapi`, `/version` and the health pages; every other path is a `Status` 404.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", any(health))
            .route("/livez", any(health))
            .route("/readyz", any(ready))
            .route("/version", any(version))
            .fallback(answer)
            .with_state(self.clone())
    }
}

async fn health(method: Method) -> Response {
    page(&method, StatusCode::OK, "ok")
}

async fn ready(State(api): State<MetricsApi>, method: Method) -> Response {
    let Inner { gate, shutdown, .. } = &*api.inner;
    if shutdown.is_draining() {
        page(&method, StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if !gate.is_ready() {
        let what = "not ready: whom the API server trusts has not been read yet";
        page(&method, StatusCode::SERVICE_UNAVAILABLE, what)
    } else {
        page(&method, StatusCode::OK, "ok")
    }
}

async fn version(method: Method) -> Response {
    if method == Method::GET {
        json(discovery::version().to_string())
    } else {
        failure(&not_allowed(&method))
    }
}

fn page(method: &Method, code: StatusCode, text: &'static str) -> Response {
    if method == Method::GET {
        (code, text).into_response()
    } else {
        failure(&not_allowed(method))
    }
}

/// Everything else: in this order too many, who, may they, what.
async fn answer(State(api): State<MetricsApi>, mut request: Request) -> Response {
    let Ok(_room) = api.inner.room.try_acquire() else {
        let message = "too many requests are being worked on, come again";
        let mut response = failure(&Failure::new(StatusCode::TOO_MANY_REQUESTS, message));
        let second = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, second);
        return response;
    };
    if let Err(refusal) = api.inner.gate.admit(&mut request).await {
        return failure(&refusal.into());
    }
    match respond(
        &api.inner.board,
        request.method(),
        request.uri(),
        request.headers(),
    ) {
        Ok(response) => response,
        Err(failed) => failure(&failed),
    }
}

fn respond(
    board: &Board,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    if method != Method::GET {
        return Err(not_allowed(method));
    }
    let document = match asked(uri.path()) {
        // Whoever reads these asks for a media type of their own and takes what comes.
        Asked::OpenApiV2 => return Ok(cached(headers, &discovery::openapi_v2())),
        Asked::OpenApiV3 => return Ok(cached(headers, &discovery::openapi_v3())),
        Asked::OpenApiV3Of(..) => return Ok(cached(headers, &discovery::openapi_v3_document())),
        asked => asked,
    };
    acceptable(headers)?;
    let posted = board.latest();
    let now = board.clock().now();
    let body = match document {
        Asked::Groups => discovery::groups().to_string().into(),
        Asked::Group(group) => discovery::group(group).to_string().into(),
        Asked::Resources(group, version) => discovery::resources(group, version, posted.catalog())
            .to_string()
            .into(),
        Asked::External { namespace, metric } => {
            let (selector, _) = selectors(uri)?;
            external::values(&posted, now, &namespace, &metric, &selector)?
        }
        Asked::Custom(ask) => {
            let (objects, metrics) = selectors(uri)?;
            custom::values(&posted, now, &ask, &objects, &metrics)?
                .to_string()
                .into()
        }
        Asked::Malformed => {
            return Err(Failure::new(
                StatusCode::NOT_FOUND,
                format!(
                    "the path {} leads to no metric: custom metrics are at …/namespaces/<namespace>/<resource.group>/<name or *>/<metric>, external ones at …/namespaces/<namespace>/<metric>",
                    uri.path()
                ),
            ));
        }
        _ => {
            let message = "the server could not find the requested resource";
            return Err(Failure::new(StatusCode::NOT_FOUND, message));
        }
    };
    Ok(json(body))
}

fn not_allowed(method: &Method) -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("the server does not allow {method} here: metrics are read with GET"),
    )
}

fn acceptable(headers: &HeaderMap) -> Result<(), Failure> {
    let ranges = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<&str> = ranges.filter_map(|value| value.to_str().ok()).collect();
    if accept::takes_json(&ranges.join(",")) {
        Ok(())
    } else {
        let message = "only the following media types are accepted: application/json";
        Err(Failure::new(StatusCode::NOT_ACCEPTABLE, message))
    }
}

/// The selectors of objects and of metrics in a query.
fn selectors(uri: &Uri) -> Result<(Selector, Selector), Failure> {
    let Query(texts) = Query::<Selectors>::try_from_uri(uri)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    Ok((
        Selector::parse(&texts.label_selector)?,
        Selector::parse(&texts.metric_label_selector)?,
    ))
}

fn json(body: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache, private"),
    ];
    (headers, body.into()).into_response()
}

/// A document that changes with the program only: whoever has it is told so.
fn cached(headers: &HeaderMap, document: &Value) -> Response {
    let body = document.to_string();
    let etag = discovery::etag(body.as_bytes());
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/") == etag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json(body)
    };
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn failure(failure: &Failure) -> Response {
    let mut response = json(failure.body().to_string());
    *response.status_mut() = failure.code;
    if failure.code == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

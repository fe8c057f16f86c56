//! The HTTP routes.

use crate::answer::{Answer, Identity, Shape};
use crate::driver::{Handle, Job, Progress, Ticket};
use crate::error::ApiError;
use crate::options::NullUsage;
use crate::request::{Api, Generation, Limits};
use crate::sampling::Lengths;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use runtime::Clock;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every route needs.
pub(crate) struct Service {
    pub(crate) driver: Handle,
    pub(crate) clock: Clock,
    /// On `clock`: from then on the server answers.
    pub(crate) ready_at: Duration,
    /// Unix time, seconds, at which `clock` read zero.
    pub(crate) started: u64,
    pub(crate) limits: Limits,
    pub(crate) block_tokens: u32,
    pub(crate) seed: u64,
    pub(crate) lengths: Lengths,
    pub(crate) fixed_identity: bool,
    pub(crate) null_usage: NullUsage,
    pub(crate) max_body_bytes: usize,
    /// Requests so far; gives ids.
    pub(crate) served: AtomicU64,
}

/// All routes; each answers 503 until the server has started.
pub(crate) fn router(service: Service) -> Router {
    let limit = DefaultBodyLimit::max(service.max_body_bytes);
    let service = Arc::new(service);
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/health", get(|| std::future::ready(())))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .layer(limit)
        .layer(middleware::from_fn_with_state(
            service.clone(),
            once_started,
        ))
        .with_state(service)
}

async fn once_started(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let left = service.ready_at.saturating_sub(service.clock.now());
    if left.is_zero() {
        return next.run(request).await;
    }
    let message = format!(
        "The model is still loading: ready in {:.1} s.",
        left.as_secs_f64()
    );
    let retry = left.as_secs_f64().ceil() as u64;
    (
        [(RETRY_AFTER, retry.to_string())],
        ApiError::unavailable(message),
    )
        .into_response()
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown_route(method.as_str(), uri.path())
}

async fn models(State(service): State<Arc<Service>>) -> Response {
    let model = &service.limits.model;
    let list = json!({
        "object": "list",
        "data": [{
            "id": model,
            "object": "model",
            "created": service.created(),
            "owned_by": "headroom",
            "root": model,
            "parent": null,
            "max_model_len": service.limits.max_model_len,
        }],
    });
    axum::Json(list).into_response()
}

async fn metrics(State(service): State<Arc<Service>>) -> Result<Response, ApiError> {
    let page = service.driver.exposition().await?;
    Ok(([(CONTENT_TYPE, PROMETHEUS)], page).into_response())
}

async fn completions(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    service.generate(Api::Completions, &headers, body).await
}

async fn chat(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    service.generate(Api::Chat, &headers, body).await
}

impl Service {
    async fn generate(
        &self,
        api: Api,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, ApiError> {
        let body = body.map_err(|_| ApiError::too_large(self.max_body_bytes))?;
        let asked = Generation::of_body(api, &body, &self.limits)?;
        let answer = self.answer(&asked, headers);
        let job = Job {
            prompt_tokens: answer.prompt_tokens,
            prefix: asked.prompt.prefix(self.block_tokens),
            output_tokens: answer.output_tokens,
            finish: answer.finish,
            max_tokens: asked.max_tokens,
            stream: asked.stream,
        };
        let ticket = self.driver.submit(job).await?;
        if asked.stream {
            Ok(streamed(answer, ticket))
        } else {
            whole(&answer, ticket).await
        }
    }

    fn answer(&self, asked: &Generation, headers: &HeaderMap) -> Answer {
        let fingerprint = asked.prompt.fingerprint(self.seed ^ asked.seed);
        let given = headers
            .get(names::header::REQUEST_ID)
            .and_then(|id| id.to_str().ok());
        let (id, created) = if self.fixed_identity {
            ("0".to_owned(), 0)
        } else {
            let number = self.served.fetch_add(1, Ordering::Relaxed);
            let id =
                given.map_or_else(|| format!("{:x}-{number:08x}", self.started), str::to_owned);
            (id, self.created())
        };
        let identity = Identity {
            id: &id,
            created,
            model: &self.limits.model,
        };
        let shape = Shape {
            api: asked.api,
            stream: asked.stream,
            include_usage: asked.include_usage,
            null_usage: self.null_usage,
        };
        let length = self
            .lengths
            .answer(fingerprint, asked.max_tokens, asked.ignore_eos);
        Answer::new(identity, shape, fingerprint, asked.prompt.tokens(), length)
    }

    /// Unix time now, seconds; 0 where identities are fixed.
    fn created(&self) -> u64 {
        if self.fixed_identity {
            0
        } else {
            self.started + self.clock.now().as_secs()
        }
    }
}

/// Waits for the end and answers at once.
async fn whole(answer: &Answer, mut ticket: Ticket) -> Result<Response, ApiError> {
    loop {
        let stopped = || {
            ApiError::unavailable("The server stopped before the answer was complete: ask another.")
        };
        let Progress {
            cached_tokens,
            finished,
            ..
        } = ticket.news().await.ok_or_else(stopped)?;
        if finished {
            return Ok(([(CONTENT_TYPE, JSON)], answer.json(cached_tokens)).into_response());
        }
    }
}

/// Answers with events as the tokens come; all that are due together are one write.
fn streamed(answer: Answer, ticket: Ticket) -> Response {
    let stream = futures::stream::unfold(Some((answer, ticket, 0)), |state| async {
        let (answer, mut ticket, sent) = state?;
        loop {
            let Some(Progress {
                cached_tokens,
                emitted,
                finished,
            }) = ticket.news().await
            else {
                let cut =
                    std::io::Error::other("the server stopped before the answer was complete");
                return Some((Err(cut), None));
            };
            if emitted == sent {
                // Heard of the last token before hearing that it was the last.
                if finished {
                    return None;
                }
                continue;
            }
            let mut events = String::new();
            answer.events(sent, emitted, cached_tokens, &mut events);
            let rest = (!finished).then_some((answer, ticket, emitted));
            return Some((Ok(Bytes::from(events)), rest));
        }
    });
    ([(CONTENT_TYPE, EVENT_STREAM)], Body::from_stream(stream)).into_response()
}

//! Errors as vLLM and OpenAI send them.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A refusal on the wire: status and `{"error": {"message", "type", "param", "code"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    param: Option<&'static str>,
    message: String,
}

impl ApiError {
    /// 400: the request cannot be served as it stands; `param` names the field.
    pub(crate) fn bad_request(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestError", param, message)
    }

    /// 404: no such model.
    pub(crate) fn unknown_model(asked: &str, served: &str) -> Self {
        let message = format!("The model `{asked}` does not exist: this server has `{served}`.");
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFoundError",
            Some("model"),
            message,
        )
    }

    /// 404: no such route.
    pub(crate) fn unknown_route(method: &str, path: &str) -> Self {
        let message = format!(
            "There is no {method} {path}: try POST /v1/completions, POST /v1/chat/completions, GET /v1/models, GET /health or GET /metrics."
        );
        Self::new(StatusCode::NOT_FOUND, "NotFoundError", None, message)
    }

    /// 413: the body is over the server's limit.
    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("The body is over this server's limit of {limit} bytes.");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BadRequestError",
            None,
            message,
        )
    }

    /// 429: too many requests wait.
    pub(crate) fn queue_full(limit: u32) -> Self {
        let message =
            format!("{limit} requests wait already, the most this server allows: try again later.");
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "RateLimitError",
            None,
            message,
        )
    }

    /// 503: not yet, or no longer.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailableError",
            None,
            message,
        )
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        param: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            param,
            message: message.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.status.as_u16(),
            }
        });
        (self.status, axum::Json(body)).into_response()
    }
}

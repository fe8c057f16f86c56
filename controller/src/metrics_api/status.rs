//! Errors as Kubernetes tells them: `Status` objects.

use http::StatusCode;
use kubernetes::delegated::Refusal;
use serde_json::{Value, json};

use crate::published::Unavailable;

use super::selector::SelectorError;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub code: StatusCode,
    /// Why, for people: an HPA shows it in its conditions.
    pub message: String,
    /// What it is about, where that is one thing.
    pub details: Option<Details>,
}

/// What an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Name of the object or metric.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource.
    pub kind: String,
}

impl Failure {
    /// An error about nothing in particular.
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
        }
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>, details: Details) -> Self {
        Self {
            details: Some(details),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    /// The `Status` object.
    pub fn body(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": reason(self.code),
            "code": self.code.as_u16(),
        });
        if let Some(Details { name, group, kind }) = &self.details {
            status["details"] = json!({"name": name, "group": group, "kind": kind});
        }
        status
    }
}

/// Kubernetes' word for a code.
fn reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::NOT_ACCEPTABLE => "NotAcceptable",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status(), refusal.to_string())
    }
}

impl From<Unavailable> for Failure {
    fn from(unavailable: Unavailable) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, unavailable.to_string())
    }
}

impl From<SelectorError> for Failure {
    fn from(error: SelectorError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

//! Why a request is not served.

use http::StatusCode;

/// Why a request is not served, with the answer that a Kubernetes server gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it shows to prove who asks does not.
    #[error("Unauthorized: {0}")]
    Unauthorized(String),
    /// Who asks may not.
    #[error("{0}")]
    Forbidden(String),
    /// The API server could not be asked.
    #[error("the API server cannot be asked {question}: {problem}")]
    Unavailable {
        /// What it was asked.
        question: &'static str,
        /// What went wrong.
        problem: String,
    },
}

impl Refusal {
    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

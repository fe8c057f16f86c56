//! Who may read from the admin port.

use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use futures::future::BoxFuture;
use kubernetes::delegated::{Attributes, Authenticator, Authorizer, Refusal};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::PathBuf;

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The bearer token that they show.
    pub token: Option<&'a str>,
    /// The page.
    pub path: &'a str,
}

/// Why somebody may not read a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is not known who they are.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// It is, and they may not.
    #[error("{0}")]
    Forbidden(String),
    /// It could not be found out.
    #[error("it cannot be found out who may read this: {0}")]
    Unavailable(String),
}

impl Denied {
    /// HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Decides who may read.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Whether who asks may `GET` the page.
    fn admit<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<(), Denied>>;
}

/// Lets everybody read: for loopback addresses.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Gate for Open {
    fn admit<'a>(&'a self, _: Asked<'a>) -> BoxFuture<'a, Result<(), Denied>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Lets those read who show the token that a file holds. The file is read each time, so that the token can be
/// changed while serving.
#[derive(Clone, Debug)]
pub struct TokenFile {
    /// The file; white space around the token does not count.
    pub path: PathBuf,
}

impl Gate for TokenFile {
    fn admit<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<(), Denied>> {
        Box::pin(async move {
            let shown = shown(asked)?;
            let held = tokio::fs::read_to_string(&self.path).await;
            let held = held.map_err(|error| {
                Denied::Unavailable(format!("cannot read {}: {error}", self.path.display()))
            })?;
            let held = held.trim();
            // Hashes take as long to compare wherever the tokens begin to differ.
            if !held.is_empty() && Sha256::digest(held) == Sha256::digest(shown) {
                Ok(())
            } else {
                Err(Denied::Unauthenticated(
                    "the bearer token is not the one of this port".to_owned(),
                ))
            }
        })
    }
}

/// Lets those read whom Kubernetes' access rules allow to `get` the page as a non-resource URL.
#[derive(Clone, Debug)]
pub struct Delegated {
    /// Finds out who holds a token.
    pub authenticator: Authenticator,
    /// Finds out what they may.
    pub authorizer: Authorizer,
}

impl Gate for Delegated {
    fn admit<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<(), Denied>> {
        Box::pin(async move {
            let shown = shown(asked)?;
            let mut headers = HeaderMap::new();
            let value = HeaderValue::try_from(format!("Bearer {shown}"));
            headers.insert(AUTHORIZATION, value.map_err(|_| missing())?);
            let identity = self.authenticator.identify(&mut headers, &[]).await?;
            let page = Attributes::Page {
                verb: "get",
                path: asked.path.to_owned(),
            };
            Ok(self.authorizer.allow(&identity, &page).await?)
        })
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Unauthorized(problem) => Self::Unauthenticated(problem),
            Refusal::Forbidden(_) => Self::Forbidden(text),
            Refusal::Unavailable { .. } => Self::Unavailable(text),
        }
    }
}

fn shown(asked: Asked<'_>) -> Result<&str, Denied> {
    asked.token.ok_or_else(missing)
}

fn missing() -> Denied {
    Denied::Unauthenticated("show a bearer token in the header authorization".to_owned())
}

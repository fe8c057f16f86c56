//! Who asks and whether they may, decided as the API server's own aggregated servers decide it: identities come from
//! the aggregator's headers, from client certificates and from bearer tokens, rights from the cluster's RBAC.
//!
//! [`Authenticator`] and [`Authorizer`] are thin shells: what a request's evidence proves is decided by [`evidence`]
//! from what the API server published ([`Trust`]), without I/O. What has to be asked of the API server is remembered
//! for ten seconds, and for two minutes more while the API server cannot be reached, in caches of fixed size.

mod authenticator;
mod authorizer;
mod cache;
pub mod evidence;
mod identity;
mod refusal;
mod trust;

#[cfg(test)]
mod tests;

pub use authenticator::Authenticator;
pub use authorizer::{Attributes, Authorizer};
pub use identity::{ANONYMOUS, AUTHENTICATED, Identity, MASTERS, UNAUTHENTICATED};
pub use refusal::Refusal;
pub use trust::{FrontProxy, Trust};

use std::future::Future;
use std::time::Duration;
use tokio::sync::Semaphore;

/// For how long an answer of the API server is not asked for again.
const FRESH: Duration = Duration::from_secs(10);
/// For how much longer it counts while the API server does not answer.
const GRACE: Duration = Duration::from_secs(120);
/// Answers remembered; the oldest make room.
const REMEMBERED: usize = 4_096;
/// Questions to the API server at the same time.
const QUESTIONS: usize = 32;
/// A question that is not answered by then will not be.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the API server, at most [`QUESTIONS`] times at once and for at most [`TIMEOUT`].
async fn ask<T>(
    questions: &Semaphore,
    question: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, String> {
    let asked = async {
        let _permit = questions
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        question.await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

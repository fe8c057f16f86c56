//! Who is let in.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use kubernetes::delegated::{Authenticator, Authorizer, Refusal};
use runtime::tls::PeerCertificates;

use super::path::right;

/// Lets in whom the cluster knows and grants the right to. What is behind it sees no header that claims who asks, and
/// finds an [`Identity`](kubernetes::delegated::Identity) in the request's extensions.
#[derive(Clone, Debug)]
pub struct Gate {
    authenticator: Authenticator,
    authorizer: Authorizer,
}

impl Gate {
    /// A gate that asks these two.
    pub fn new(authenticator: Authenticator, authorizer: Authorizer) -> Self {
        Self {
            authenticator,
            authorizer,
        }
    }

    /// Whether it is known whom the API server trusts; before, everybody would be turned away.
    pub fn is_ready(&self) -> bool {
        self.authenticator.is_synced()
    }

    /// What keeps requests through the API server from being believed; `None` when all is well.
    pub fn problem(&self) -> Option<String> {
        self.authenticator.problem()
    }

    /// Puts every route of `router` behind this gate; a page needs the right to its path (`nonResourceURLs`).
    pub fn protect(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), pass))
    }

    /// Finds out who sends `request` and whether they may.
    pub(super) async fn admit(&self, request: &mut Request) -> Result<(), Refusal> {
        let peer = request.extensions().get::<PeerCertificates>().cloned();
        let peer = peer.unwrap_or_default();
        let identity = self
            .authenticator
            .identify(request.headers_mut(), &peer.0)
            .await?;
        let right = right(request.method(), request.uri().path());
        self.authorizer.allow(&identity, &right).await?;
        request.extensions_mut().insert(identity);
        Ok(())
    }
}

async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    match gate.admit(&mut request).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => super::failure(&refusal.into()),
    }
}

//! The leader's side: every publication to everyone who follows.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::Stream;
use futures::stream::unfold;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use kubernetes::lease::Leadership;
use names::followers::PUBLISHED;
use runtime::Shutdown;
use tokio::sync::watch;

use super::wire::{Message, encode};
use crate::kubernetes::state::States;
use crate::published::Board;

/// What followers are told, and whether there is anything to tell.
#[derive(Clone, Debug)]
pub struct Lead {
    /// What is published.
    pub board: Board,
    /// What the decisions remember; changes every few seconds.
    pub states: watch::Receiver<Arc<States>>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Streams end when draining begins, so that followers turn to the next leader at once.
    pub shutdown: Shutdown,
}

impl Lead {
    /// `GET /headroom/v1/published`: an endless stream of messages; 503 on a replica that does not lead. To be served
    /// to clients that are known by their certificates only.
    pub fn routes(self) -> Router {
        Router::new()
            .route(PUBLISHED, get(published))
            .with_state(self)
    }
}

async fn published(State(lead): State<Lead>) -> Response {
    if !lead.leadership.borrow().leader {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "this replica does not lead\n",
        )
            .into_response();
    }
    let body = Body::from_stream(messages(lead));
    ([(CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

struct Telling {
    lead: Lead,
    changes: watch::Receiver<u64>,
    first: bool,
}

/// The newest publication, then each that follows while this replica leads. A reader that is slow skips some.
fn messages(mut lead: Lead) -> impl Stream<Item = Result<Bytes, Infallible>> {
    lead.states.mark_changed();
    let telling = Telling {
        changes: lead.board.changes(),
        lead,
        first: true,
    };
    unfold(telling, |mut telling| async move {
        if !telling.wait().await {
            return None;
        }
        let told = telling.message()?;
        Some((Ok(told), telling))
    })
}

impl Telling {
    /// Waits for something to tell; whether there will be anything.
    async fn wait(&mut self) -> bool {
        if std::mem::take(&mut self.first) && self.lead.board.latest().any() {
            return true;
        }
        loop {
            tokio::select! {
                () = self.lead.shutdown.draining() => return false,
                led = self.lead.leadership.changed() => {
                    if led.is_err() || !self.lead.leadership.borrow_and_update().leader {
                        return false;
                    }
                }
                changed = self.changes.changed() => return changed.is_ok(),
            }
        }
    }

    fn message(&mut self) -> Option<Bytes> {
        self.changes.mark_unchanged();
        let posted = self.lead.board.latest();
        let changed = self.lead.states.has_changed().unwrap_or(false);
        let states = changed.then(|| Arc::clone(&self.lead.states.borrow_and_update()));
        let message = Message::new(posted.published().clone(), states.as_deref());
        encode(&message)
            .inspect_err(|error| tracing::error!(%error, "followers cannot be told"))
            .ok()
    }
}

//! A follower's side: the leader's publications onto this replica's own board.
//!
//! Cut off, it goes on trying; what hangs on the board grows old meanwhile, and past the board's bound is refused to
//! whoever asks. It never posts anything of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use kubernetes::lease::Leadership;
use kubernetes::watch::Backoff;
use names::followers::PUBLISHED;
use runtime::Shutdown;
use runtime::tls::CertificateAuthority;
use rustls::pki_types::ServerName;
use tokio::sync::watch;

use super::identity::{IdentityError, NAME, client};
use super::wire::{Decoder, WireError};
use crate::kubernetes::pickers::{Ask, Connection, FetchError};
use crate::kubernetes::state::States;
use crate::published::Board;

/// Connecting takes no longer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// A leader publishes every second: one that is silent for longer is gone or hangs.
const SILENCE: Duration = Duration::from_secs(4);
/// Between attempts.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Why a leader is not heard.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("its address {0:?} on the Lease is not host:port")]
    Address(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the stream broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("silent for {} s", SILENCE.as_secs())]
    Silent,
    #[error("it ended the stream")]
    Ended,
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Follows whoever leads.
#[derive(Debug)]
pub struct Follow {
    /// Where publications are put.
    pub board: Board,
    /// What the leader's decisions remember, for when this replica has to go on from there.
    pub states: watch::Sender<Arc<States>>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Issues this replica's certificate, and vouches for the leader.
    pub authority: watch::Receiver<CertificateAuthority>,
}

impl Follow {
    /// Follows until `shutdown` is stopped; idle while this replica leads.
    pub async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = self.follow_on() => {}
            () = shutdown.stopped() => {}
        }
    }

    async fn follow_on(&mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut told = String::new();
        loop {
            let current = self.leadership.borrow_and_update().clone();
            let Some(address) = current.address.filter(|_| !current.leader) else {
                if self.leadership.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let mut leadership = self.leadership.clone();
            // The same leader renews without a change; another one, or none, ends the stream.
            let outcome = tokio::select! {
                outcome = self.stream(&address, &mut backoff) => outcome,
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            };
            if let Err(error) = outcome {
                let reason = error.to_string();
                if reason != told {
                    tracing::warn!(leader = %address, error = %reason, "the leader is not heard; what it published last grows old");
                    told = reason;
                }
            }
            tokio::time::sleep(backoff.failed(LONGEST_WAIT)).await;
        }
    }

    /// Puts everything that the leader at `address` tells onto the board, until it ends or fails.
    async fn stream(&self, address: &str, backoff: &mut Backoff) -> Result<(), FollowError> {
        let target: SocketAddr = address
            .parse()
            .map_err(|_| FollowError::Address(address.to_owned()))?;
        let name = ServerName::try_from(NAME).map_err(|_| FollowError::Address(NAME.to_owned()))?;
        // A new certificate each time: nothing has to be renewed.
        let tls = client(&self.authority.borrow(), self.board.clock().unix_ms())?;
        let opening = async {
            let mut connection = Connection::open(target, Some((tls, name))).await?;
            let ask = Ask {
                path: PUBLISHED,
                token: None,
                unless: None,
                most: 0,
            };
            let body = connection.stream(ask).await?;
            Ok::<_, FetchError>((connection, body))
        };
        let (_connection, mut body) = tokio::time::timeout(CONNECT_DEADLINE, opening)
            .await
            .map_err(|_| FetchError::Deadline(CONNECT_DEADLINE))??;
        let mut decoder = Decoder::default();
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| FollowError::Silent)?
                .ok_or(FollowError::Ended)??;
            if let Some(bytes) = frame.data_ref() {
                decoder.push(bytes);
            }
            while let Some(message) = decoder.message()? {
                backoff.reset();
                let states = message.states();
                if !states.is_empty() {
                    self.states.send_replace(Arc::new(states));
                }
                self.board.publish(message.published);
            }
        }
    }
}

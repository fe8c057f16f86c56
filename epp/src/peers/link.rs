//! Telling peers: a connection to each, for as long as it is among the members.

use super::wire::{Said, TELL, Told};
use super::{PeerTls, Peers, tls as identity};
use epp_core::peers::{Delta, SILENCE};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// Time to open a connection, handshake included.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection on which nothing comes back for so long is given up; both together a little over [`SILENCE`].
const PING_EVERY: Duration = Duration::from_millis(500);
const PING_PATIENCE: Duration = Duration::from_secs(1);
/// Rest after the first failure; it doubles up to [`LONGEST_REST`], or up to [`SHORT_REST`] while the peer was there
/// within [`RECENT`]. It ends when somebody comes: that may be the peer.
const REST: Duration = Duration::from_millis(100);
const SHORT_REST: Duration = Duration::from_millis(300);
const LONGEST_REST: Duration = Duration::from_secs(2);
const RECENT: Duration = Duration::from_secs(60);

/// Connections to all peers.
pub(super) struct Links {
    pub(super) peers: Arc<Peers>,
    pub(super) tls: PeerTls,
    /// Where this picker listens itself.
    pub(super) own: SocketAddr,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It leads to this picker itself.
    Oneself,
    /// It can be tried again.
    Failed(String),
}

impl Links {
    /// Keeps a connection to every member that `found` tells of.
    pub(super) async fn keep(self, mut found: watch::Receiver<BTreeSet<SocketAddr>>) {
        let mut links: BTreeMap<SocketAddr, Link> = BTreeMap::new();
        loop {
            let members = found.borrow_and_update().clone();
            links.retain(|member, _| members.contains(member));
            for member in members.into_iter().filter(|member| *member != self.own) {
                links.entry(member).or_insert_with(|| {
                    let telling = tell(Arc::clone(&self.peers), self.tls.clone(), member);
                    Link(tokio::spawn(telling).abort_handle())
                });
            }
            if found.changed().await.is_err() {
                // The members are known for good.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A connection that is kept; it ends when this is dropped.
struct Link(AbortHandle);

impl Drop for Link {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells `member` what happens here, over one connection after the other.
pub(super) async fn tell(peers: Arc<Peers>, tls: PeerTls, member: SocketAddr) {
    let mut rest = Rest::new();
    let mut complaint = String::new();
    loop {
        let begun = peers.clock.now();
        match connection(&peers, &tls, member).await {
            Ended::Oneself => {
                tracing::debug!(%member, "this member is this picker itself");
                return;
            }
            Ended::Failed(why) => {
                let now = peers.clock.now();
                if now.saturating_sub(begun) > SILENCE {
                    rest.was_there(now);
                }
                // Once per reason: a peer that is being replaced stays away for a while.
                if why != complaint {
                    tracing::warn!(%member, "a peer does not hear this picker: {why}");
                    complaint = why;
                }
            }
        }
        let pause = rest.next(peers.clock.now());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = peers.arrived.notified() => rest = rest.cut_short(),
        }
    }
}

/// How long to wait before the next connection.
#[derive(Clone, Copy, Debug)]
struct Rest {
    next: Duration,
    /// When the peer was last connected to.
    seen: Option<Duration>,
}

impl Rest {
    fn new() -> Self {
        Self {
            next: REST,
            seen: None,
        }
    }

    /// A connection held until `now`.
    fn was_there(&mut self, now: Duration) {
        (self.next, self.seen) = (REST, Some(now));
    }

    /// Begins with a short one again.
    fn cut_short(self) -> Self {
        Self { next: REST, ..self }
    }

    /// The rest after another failure.
    fn next(&mut self, now: Duration) -> Duration {
        let recent = self
            .seen
            .is_some_and(|seen| now.saturating_sub(seen) <= RECENT);
        let longest = if recent { SHORT_REST } else { LONGEST_REST };
        let rest = self.next.min(longest);
        self.next = longest.min(rest * 2);
        rest
    }
}

pub(super) async fn connection(peers: &Peers, tls: &PeerTls, member: SocketAddr) -> Ended {
    let channel = match timeout(PATIENCE, connect(tls, member)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Ended::Failed(error),
        Err(_) => return Ended::Failed(format!("no connection within {PATIENCE:?}")),
    };
    let (whole, follows) = peers.opening();
    let told: Result<tonic::Response<Told>, Status> = {
        let mut grpc = Grpc::new(channel);
        if let Err(error) = grpc.ready().await {
            return Ended::Failed(error.to_string());
        }
        let path = PathAndQuery::from_static(TELL);
        let request = tonic::Request::new(messages(whole, follows));
        grpc.client_streaming(request, path, ProstCodec::default())
            .await
    };
    match told {
        Ok(_) => Ended::Failed("it hung up".to_owned()),
        Err(status) if status.code() == Code::AlreadyExists => Ended::Oneself,
        Err(status) => Ended::Failed(status.message().to_owned()),
    }
}

/// Everything, then what follows. It ends when the connection lags behind: the next one begins anew.
fn messages(
    whole: Delta,
    follows: broadcast::Receiver<Arc<Delta>>,
) -> impl Stream<Item = Said> + Send {
    let first = Said::from(&whole);
    futures::stream::unfold((Some(first), follows), |(first, mut follows)| async move {
        if let Some(first) = first {
            return Some((first, (None, follows)));
        }
        let next = follows.recv().await.ok()?;
        Some((Said::from(&*next), (None, follows)))
    })
}

async fn connect(tls: &PeerTls, member: SocketAddr) -> Result<Channel, String> {
    let connector = tls.connector().map_err(|error| error.to_string())?;
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let connection = TcpStream::connect(member).await?;
            connection.set_nodelay(true)?;
            let connection = connector
                .connect(identity::server_name(), connection)
                .await?;
            std::io::Result::Ok(TokioIo::new(connection))
        }
    });
    let endpoint = Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(true);
    let connected = endpoint.connect_with_connector(connect).await;
    connected.map_err(|error| reasons(&error))
}

/// An error with what caused it.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_there_is_looked_for_more_often() {
        let (mut rest, at) = (Rest::new(), Duration::from_secs);
        let rests = |rest: &mut Rest, now| [0; 6].map(|_| rest.next(now).as_millis());
        assert_eq!(rests(&mut rest, at(1)), [100, 200, 400, 800, 1_600, 2_000]);
        rest = rest.cut_short();
        assert_eq!(rest.next(at(2)), REST, "somebody came");
        rest.was_there(at(10));
        assert_eq!(rests(&mut rest, at(11)), [100, 200, 300, 300, 300, 300]);
        assert_eq!(
            rests(&mut rest, at(71)),
            [300, 600, 1_200, 2_000, 2_000, 2_000]
        );
    }
}

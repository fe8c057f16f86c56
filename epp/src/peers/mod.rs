//! The pickers of a pool tell each other what they do: the shell around [`epp_core::peers`].
//!
//! Every picker connects to every other over mutual TLS and tells what changed ten times a second. Whoever has a
//! certificate from the peers' authority for the name [`names::peer::SERVER_NAME`] is a peer, and nobody else.

mod collector;
mod desk;
mod find;
mod link;
mod service;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub(crate) use collector::PeersCollector;
pub use find::{Members, listed};
pub use tls::PeerTls;

use crate::grpc::{MinimumTls, Secure, serve, server};
use epp_core::Pool;
use epp_core::peers::{Applied, BandUse, Chain, Delta, Exchange, PeerState, Refused, TICK};
use parking_lot::Mutex;
use runtime::listen::{ListenError, bind};
use runtime::{Clock, Shutdown, Tasks};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};

/// Deltas that a slow connection may lag behind before it starts anew with a whole one.
const BACKLOG: usize = 8;

/// How a picker takes part.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// Where it listens to its peers.
    pub address: SocketAddr,
    /// Where they are.
    pub members: Members,
    /// What it shows them, and whom it believes.
    pub tls: PeerTls,
}

/// What a picker tells of itself, and where it puts what it is told.
pub(crate) trait Desk: Send + Sync + 'static {
    /// What is queued, and which prompts were sent where since the last call, by slot of the pool in force.
    fn gather(&self) -> (Vec<BandUse>, Vec<Chain>);
    /// A peer sent these prompts to endpoints; loads have changed.
    fn learned(&self, applied: Applied);
    /// What all peers have queued by now.
    fn queued_elsewhere(&self, bands: BTreeMap<i32, BandUse>);
}

/// Why a picker cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// The port is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is nothing to prove who it is with.
    #[error("pickers exchange what they do over mutual TLS only (--peer-cert-path): {0}")]
    Tls(#[from] runtime::tls::TlsError),
}

/// One picker among its peers.
pub(crate) struct Peers {
    exchange: Mutex<Exchange>,
    desk: Arc<dyn Desk>,
    said: broadcast::Sender<Arc<Delta>>,
    /// Somebody told of all it has, as one does who has just come.
    arrived: Notify,
    clock: Clock,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers")
            .field("exchange", &self.exchange.lock())
            .finish_non_exhaustive()
    }
}

/// Where a picker listens to its peers, and what it knows of them.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) peers: Arc<Peers>,
}

/// Takes part as some of `tasks`, under `name`, until `shutdown` is stopped. `pool` is followed.
///
/// # Errors
/// [`PeersError`]: a port in use, or no usable certificates.
pub(crate) async fn start(
    options: PeerOptions,
    name: &str,
    desk: Arc<dyn Desk>,
    pool: watch::Receiver<Arc<Pool>>,
    clock: Clock,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Result<Listening, PeersError> {
    let listener = bind(options.address, "the port for peers", "--peer-port").await?;
    let address = listener.local_addr().unwrap_or(options.address);
    let tls = options.tls.server(shutdown, tasks)?;
    let incarnation = incarnation(name, clock);
    let peers = Arc::new(Peers {
        exchange: Mutex::new(Exchange::new(name.into(), incarnation)),
        desk,
        said: broadcast::Sender::new(BACKLOG),
        arrived: Notify::new(),
        clock,
    });
    let router = server().add_service(service::Listener::new(Arc::clone(&peers)));
    let secure = Secure {
        tls,
        minimum: MinimumTls::V13,
    };
    let until = shutdown.clone();
    let closing = async move { until.stopped().await };
    tasks.spawn(serve(
        router,
        listener,
        Some(secure),
        closing,
        shutdown.clone(),
    ));
    let (telling, until) = (Arc::clone(&peers), shutdown.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = telling.keep_telling(pool) => {}
            () = until.stopped() => {}
        }
    });
    let links = link::Links {
        peers: Arc::clone(&peers),
        tls: options.tls,
        own: address,
    };
    let until = shutdown.clone();
    let found = options.members.follow(clock, shutdown, tasks);
    tasks.spawn(async move {
        tokio::select! {
            () = links.keep(found) => {}
            () = until.stopped() => {}
        }
    });
    Ok(Listening { address, peers })
}

/// A number that no other life of this picker has had.
fn incarnation(name: &str, clock: Clock) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((name, clock.unix_ms()))
}

impl Peers {
    async fn keep_telling(&self, mut pool: watch::Receiver<Arc<Pool>>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pool.mark_changed();
        loop {
            ticks.tick().await;
            if pool.has_changed().unwrap_or_default() {
                let pool = Arc::clone(&pool.borrow_and_update());
                self.exchange.lock().set_pool(pool);
            }
            self.tick();
        }
    }

    /// Says what changed, and forgets who is silent.
    fn tick(&self) {
        let (bands, chains) = self.desk.gather();
        let epoch = Duration::from_millis(self.clock.unix_ms());
        let (delta, queued, lost) = {
            let mut exchange = self.exchange.lock();
            let delta = exchange.tick(self.clock.now(), epoch, bands, chains);
            (delta, exchange.queued(), exchange.lost_peer())
        };
        self.desk.queued_elsewhere(queued);
        if lost {
            self.desk.learned(Applied::default());
        }
        if let Some(delta) = delta {
            // Without a connection nobody listens: the next one begins with everything.
            let _ = self.said.send(Arc::new(delta));
        }
    }

    /// Takes in what a peer says.
    fn hear(&self, delta: &Delta) -> Result<(), Refused> {
        let (now, mut exchange) = (self.clock.now(), self.exchange.lock());
        let applied = exchange.apply(now, delta)?;
        drop(exchange);
        if delta.whole.is_some() {
            self.arrived.notify_waiters();
        }
        self.desk.learned(applied);
        Ok(())
    }

    /// What a connection begins with, and what follows it.
    fn opening(&self) -> (Delta, broadcast::Receiver<Arc<Delta>>) {
        // In this order nothing falls in between; what is said twice does no harm.
        let follows = self.said.subscribe();
        (self.exchange.lock().whole(), follows)
    }

    /// The peers that are there.
    pub(crate) fn states(&self) -> Vec<PeerState> {
        self.exchange.lock().peers()
    }
}

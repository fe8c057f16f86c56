//! An HTTP server for an axum router, over TLS or plain: HTTP/1.1 and HTTP/2 on one port, gRPC included.
//!
//! Bounded in connections, in streams per connection, in the time that a handshake and a request's head may take.
//! When draining begins it goes on serving for a while, because clients and load balancers need time to notice, then
//! closes the listener and lets every connection finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::tls::{PeerCertificates, ServerTls};
use crate::{Shutdown, Tasks};

/// A dead client's connection is noticed after two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Rest after an error of the listener itself, such as too many open files.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Limits of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Connections at the same time; further ones wait until one ends.
    pub connections: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub streams: u32,
    /// Longest time from a connection, or from its last answer, to the end of the next request's head (HTTP/1.1).
    pub head: Duration,
    /// How long it goes on serving as before once draining begins.
    pub notice: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: 512,
            streams: 250,
            head: Duration::from_secs(75),
            notice: Duration::from_secs(3),
        }
    }
}

/// Serves `router` over TLS as one of `tasks` until `shutdown` is stopped, or drained and done. Every request carries
/// [`PeerCertificates`] and [`ConnectInfo`] of the client's address in its extensions.
pub fn https(
    listener: TcpListener,
    tls: ServerTls,
    router: Router,
    options: ServeOptions,
    shutdown: Shutdown,
    tasks: &Tasks,
) -> JoinHandle<()> {
    tasks.spawn(serve(listener, Some(tls), router, options, shutdown))
}

/// Serves `router` without TLS, otherwise as [`https`]. HTTP/2 is taken with prior knowledge.
pub fn http(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    shutdown: Shutdown,
    tasks: &Tasks,
) -> JoinHandle<()> {
    tasks.spawn(serve(listener, None, router, options, shutdown))
}

async fn serve(
    listener: TcpListener,
    tls: Option<ServerTls>,
    router: Router,
    options: ServeOptions,
    shutdown: Shutdown,
) {
    let builder = Arc::new(builder(options));
    let room = Arc::new(Semaphore::new(options.connections));
    let connections = Tasks::new();
    // Connections end later than the process begins to drain: see `ServeOptions::notice`.
    let closing = Shutdown::new();
    let mut noticed = pin!(async {
        shutdown.draining().await;
        tokio::select! {
            () = tokio::time::sleep(options.notice) => {}
            () = shutdown.stopped() => {}
        }
    });
    loop {
        let accepted = tokio::select! {
            () = &mut noticed => break,
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await.ok();
                (permit, listener.accept().await)
            } => accepted,
        };
        let (permit, stream, from) = match accepted {
            (permit, Ok((stream, from))) => (permit, stream, from),
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let one = Connection {
            from,
            router: router.clone(),
            builder: Arc::clone(&builder),
            closing: closing.clone(),
        };
        let tls = tls.clone();
        connections.spawn(async move {
            one.run(stream, tls).await;
            drop(permit);
        });
    }
    drop(listener);
    closing.begin_drain();
    tokio::select! {
        () = connections.join() => {}
        () = shutdown.stopped() => closing.stop(),
    }
}

fn builder(options: ServeOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

struct Connection {
    from: SocketAddr,
    router: Router,
    builder: Arc<Builder<TokioExecutor>>,
    closing: Shutdown,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<ServerTls>) {
        // Only a hint to the kernel; a connection that refuses it serves as well.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.answer(stream, PeerCertificates::default()).await;
        };
        let handshake = tokio::select! {
            handshake = tls.accept(stream) => handshake,
            () = self.closing.stopped() => return,
        };
        match handshake {
            Ok(stream) => {
                let peer = PeerCertificates::of(&stream);
                self.answer(stream, peer).await;
            }
            Err(error) => tracing::debug!(from = %self.from, %error, "TLS handshake failed"),
        }
    }

    async fn answer<I>(self, io: I, peer: PeerCertificates)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            from,
            router,
            builder,
            closing,
        } = self;
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(ConnectInfo(from));
            route(router.clone(), request)
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            ended = connection.as_mut() => return told(from, ended),
            () = closing.draining() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            ended = connection => told(from, ended),
            () = closing.stopped() => {}
        }
    }
}

async fn route(
    router: Router,
    request: Request<Incoming>,
) -> Result<Response<axum::body::Body>, Infallible> {
    router.oneshot(request.map(axum::body::Body::new)).await
}

fn told<E: std::fmt::Display>(from: SocketAddr, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests;

//! Listening, starting up and stopping in order.

use crate::driver::Driver;
use crate::metrics::Metrics;
use crate::options::ServerOptions;
use crate::request::Limits;
use crate::routes::{Service, router};
use crate::sampling::Lengths;
use axum::serve::ListenerExt;
use runtime::Clock;
use simulator_core::Engine;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Why a server did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port could not be had.
    #[error(transparent)]
    Listen(#[from] runtime::listen::ListenError),
    /// The listening socket failed.
    #[error("the simulated server at {address} failed")]
    Io {
        /// Where it listened.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

/// Serves until `shutdown` resolves; then takes no more connections, lets requests finish for at most
/// [`ServerOptions::drain`], and cuts the rest.
///
/// # Errors
/// [`ServeError`] when the port cannot be listened on or the socket fails.
pub async fn serve(
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let listener = listen(&options).await?;
    run(listener, options, shutdown).await
}

/// A server in this process.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it as [`serve`] does, and waits for the end.
    ///
    /// # Errors
    /// What [`serve`] returned.
    pub async fn stop(self) -> Result<(), ServeError> {
        // A server that already ended has nobody who listens.
        let _ = self.stop.send(());
        // The task is never aborted and does not panic; there would be nothing left to report.
        self.task.await.unwrap_or(Ok(()))
    }
}

/// Starts a server in the background; with port 0 it gets a free one. Dropping the [`Server`] stops it as
/// [`Server::stop`] does, without waiting.
///
/// # Errors
/// [`ServeError::Listen`] when the port cannot be listened on.
pub async fn spawn(options: ServerOptions) -> Result<Server, ServeError> {
    let listener = listen(&options).await?;
    let address = local_address(&listener, &options)?;
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        // Dropped or told: both mean the end.
        let _ = stopped.await;
    };
    let task = tokio::spawn(run(listener, options, shutdown));
    Ok(Server {
        address,
        stop,
        task,
    })
}

async fn listen(options: &ServerOptions) -> Result<TcpListener, ServeError> {
    Ok(runtime::listen::bind(options.address(), "the simulated server", "--port").await?)
}

fn local_address(
    listener: &TcpListener,
    options: &ServerOptions,
) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Io {
        address: options.address(),
        source,
    })
}

async fn run(
    listener: TcpListener,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let address = local_address(&listener, &options)?;
    let clock = Clock::start();
    let engine = Engine::new(options.profile.clone(), options.seed);
    let metrics = Metrics::new(options.model.clone(), &options.profile);
    let (driver, handle, inbox) = Driver::new(engine, metrics, clock, options.max_waiting);
    let driver = tokio::spawn(driver.run(inbox));
    tracing::info!(%address, model = options.model, profile = options.profile.name, "simulated server listens");
    let drain = options.drain;
    let router = router(Service {
        driver: handle,
        clock,
        ready_at: options.startup,
        started: unix_seconds(),
        limits: Limits {
            model: options.model,
            max_model_len: options.profile.max_model_len,
        },
        block_tokens: options.profile.block_tokens,
        seed: options.seed,
        lengths: Lengths::new(),
        fixed_identity: options.fixed_identity,
        null_usage: options.null_usage,
        max_body_bytes: options.max_body_bytes,
        served: AtomicU64::new(0),
    });
    // Without this every token would wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let (begin_drain, draining) = oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        shutdown.await;
        let _ = begin_drain.send(());
    });
    let drained = async {
        let _ = draining.await;
        tokio::time::sleep(drain).await;
    };
    let result = tokio::select! {
        result = server.into_future() => result.map_err(|source| ServeError::Io { address, source }),
        () = drained => {
            tracing::warn!(%address, limit = ?drain, "requests were cut at the end of the drain");
            Ok(())
        }
    };
    // Ends what still runs: its clients see their connections cut.
    driver.abort();
    result
}

/// Unix time now. Answers carry the date they were made; everything else runs on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the only wall time in this crate, read once"
)]
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

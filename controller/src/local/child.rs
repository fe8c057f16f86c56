//! One server process: started, watched, asked for its health, ended.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use runtime::Tasks;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc};

use super::ServerOptions;

/// Between two health checks of a server that has not answered yet.
const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// A health check without an answer for this long has failed.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle on a server process. Dropping it kills the process.
pub(super) struct Server {
    seen: Arc<Seen>,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Default)]
struct Seen {
    ended: AtomicBool,
    healthy: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Terminate,
    Kill,
}

impl Server {
    /// Starts a server for `name` on `address`; `changed` is notified when it becomes healthy or ends. A server that
    /// cannot be started has ended at once.
    pub(super) fn start(
        options: &ServerOptions,
        name: &str,
        address: SocketAddr,
        changed: Arc<Notify>,
        tasks: &Tasks,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let (orders, receiver) = mpsc::unbounded_channel();
        match command(options, name, address).and_then(|mut command| command.spawn()) {
            Ok(child) => {
                tracing::info!(replica = name, %address, pid = child.id(), "server started");
                let health = format!("http://{address}{}", options.health_path);
                tasks.spawn(watch(
                    child,
                    name.to_owned(),
                    health,
                    Arc::clone(&seen),
                    receiver,
                    changed,
                ));
            }
            Err(error) => {
                tracing::error!(replica = name, %error, command = ?options.command, "server cannot be started");
                seen.ended.store(true, Ordering::Release);
                changed.notify_one();
            }
        }
        Self { seen, orders }
    }

    /// Whether the process runs.
    pub(super) fn running(&self) -> bool {
        !self.seen.ended.load(Ordering::Acquire)
    }

    /// Whether it has answered its health check.
    pub(super) fn healthy(&self) -> bool {
        self.seen.healthy.load(Ordering::Acquire)
    }

    /// Sends SIGTERM.
    pub(super) fn terminate(&self) {
        // The watcher is gone only when the process is.
        let _ = self.orders.send(Order::Terminate);
    }

    /// Sends SIGKILL.
    pub(super) fn kill(&self) {
        let _ = self.orders.send(Order::Kill);
    }
}

fn command(options: &ServerOptions, name: &str, address: SocketAddr) -> std::io::Result<Command> {
    let filled = options.command.iter().map(|word| {
        let word = word.replace("{port}", &address.port().to_string());
        word.replace("{address}", &address.ip().to_string())
            .replace("{name}", name)
    });
    let mut words = filled;
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    // A process group of its own: the terminal's Ctrl-C is for us, and what the server starts ends with it.
    command
        .args(words)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(directory) = &options.logs {
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{name}.log")))?;
        command.stdout(log.try_clone()?).stderr(log);
    } else {
        command.stdout(Stdio::null());
    }
    Ok(command)
}

async fn watch(
    mut child: Child,
    name: String,
    health: String,
    seen: Arc<Seen>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    changed: Arc<Notify>,
) {
    // Taken before the process is reaped: afterwards the number may be somebody else's.
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw);
    let answered = until_healthy(&health);
    tokio::pin!(answered);
    loop {
        tokio::select! {
            status = child.wait() => {
                match status {
                    Ok(status) => tracing::info!(replica = name, %status, "server ended"),
                    Err(error) => tracing::warn!(replica = name, %error, "server cannot be waited for"),
                }
                break;
            }
            order = orders.recv() => match order {
                Some(Order::Terminate) => signal(group, Signal::SIGTERM),
                // Nobody holds the handle any more.
                Some(Order::Kill) | None => {
                    signal(group, Signal::SIGKILL);
                    let _ = child.wait().await;
                    break;
                }
            },
            () = &mut answered, if !seen.healthy.load(Ordering::Acquire) => {
                seen.healthy.store(true, Ordering::Release);
                changed.notify_one();
            }
        }
    }
    seen.ended.store(true, Ordering::Release);
    changed.notify_one();
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It may have ended by itself this very moment.
        let _ = killpg(group, signal);
    }
}

/// Resolves when the health check is answered with success.
async fn until_healthy(url: &str) {
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let Ok(url) = url.parse::<http::Uri>() else {
        tracing::error!(url, "health check has no valid address");
        return std::future::pending().await;
    };
    loop {
        let answer = tokio::time::timeout(HEALTH_TIMEOUT, client.get(url.clone())).await;
        if answer.is_ok_and(|answer| answer.is_ok_and(|response| response.status().is_success())) {
            return;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

//! Orderly stop: drain first, then stop; and the tasks that are joined at the end.

use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Two steps that everything in a process can wait for: *draining* (finish what is there, announce
/// unreadiness) and *stopped* (end now). Clones share the steps; stopping implies draining.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    /// Running, until told otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows this shutdown, and can be ended alone without ending this one.
    pub fn child(&self) -> Self {
        Self {
            drain: self.drain.child_token(),
            stop: self.stop.child_token(),
        }
    }

    /// First step: stop taking on, finish what is there.
    pub fn begin_drain(&self) {
        self.drain.cancel();
    }

    /// Last step: end now.
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Resolves once draining began.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Resolves once everything is to end.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether draining began.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether everything is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Turns signals into steps: SIGTERM begins the drain, SIGINT or a second signal stops. When
    /// draining lasts longer than `drain_timeout`, stop follows by itself.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn listen_to_signals(&self, drain_timeout: Duration) -> std::io::Result<JoinHandle<()>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        Ok(tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!(?drain_timeout, "SIGTERM: draining; a second signal stops at once"),
                _ = interrupt.recv() => {
                    tracing::info!("SIGINT: stopping");
                    shutdown.stop();
                    return;
                }
                () = shutdown.draining() => {}
            }
            shutdown.begin_drain();
            tokio::select! {
                () = shutdown.stopped() => return,
                _ = terminate.recv() => tracing::info!("second signal: stopping"),
                _ = interrupt.recv() => tracing::info!("second signal: stopping"),
                () = tokio::time::sleep(drain_timeout) => tracing::info!("drain time is over: stopping"),
            }
            shutdown.stop();
        }))
    }
}

/// Tasks that are joined before the process ends.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` on the current runtime and remembers it.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Waits until every task has ended. Tasks spawned meanwhile are waited for too.
    pub async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn stopping_implies_draining_and_reaches_children() {
        let parent = Shutdown::new();
        let child = parent.child();
        child.begin_drain();
        assert!(child.is_draining() && !parent.is_draining());
        parent.stop();
        child.stopped().await;
        assert!(parent.is_draining() && child.is_stopped());
    }

    #[tokio::test]
    async fn join_waits_for_every_task() {
        let tasks = Tasks::new();
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let shutdown = Shutdown::new();
        let waiting = shutdown.clone();
        tasks.spawn(async move {
            waiting.stopped().await;
            flag.store(true, Ordering::Release);
        });
        shutdown.stop();
        tasks.join().await;
        assert!(done.load(Ordering::Acquire));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_lasts_too_long_is_ended() {
        let shutdown = Shutdown::new();
        shutdown.listen_to_signals(Duration::from_secs(30)).unwrap();
        shutdown.begin_drain();
        shutdown.stopped().await;
        assert!(shutdown.is_stopped());
    }
}

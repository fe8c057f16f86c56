//! Polls one picker until told to end: its demand twice a second, its models when better ones are offered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use epp_core::report::DemandReport;
use names::admin;
use parking_lot::Mutex;
use predictor::snapshot;
use runtime::{Clock, Shutdown};
use rustls::pki_types::ServerName;

use super::connection::{Ask, Connection, FetchError};
use super::pod::PickerPod;
use super::trust::{Pin, Server, TrustError, TrustOptions};
use crate::kubernetes::demand::Gathering;

/// Between two polls of a picker.
pub const PERIOD: Duration = Duration::from_millis(500);
/// A poll that takes longer is given up, its connection with it.
const DEADLINE: Duration = Duration::from_secs(2);
/// Fetching models may take longer: they are larger.
const MODEL_DEADLINE: Duration = Duration::from_secs(10);
/// Between attempts to reach a picker that is not reached.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Largest demand report that is read, bytes.
const MAX_REPORT: usize = 8 << 20;
/// Largest set of models that is read, bytes: a megabyte per class.
const MAX_MODELS: usize = 9 << 20;

/// Why a poll failed.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("its demand report is not understood: {0}")]
    Report(#[from] serde_json::Error),
    #[error("its models cannot be used: {0}")]
    Models(#[from] snapshot::SnapshotError),
    #[error("{0}")]
    Nonsense(String),
}

/// One picker and where its answers go.
#[derive(Debug)]
pub struct Poller {
    /// The picker.
    pub pod: PickerPod,
    /// Whom to believe.
    pub trust: Arc<TrustOptions>,
    /// The certificate first seen, kept for as long as the container lives.
    pub pin: Pin,
    /// Takes the answers.
    pub gathering: Arc<Mutex<Gathering>>,
    /// Whose `now` reports are counted at.
    pub now: Now,
}

/// Time on the epoch that demand is counted on: unix time that never goes back. Clones agree.
#[derive(Clone, Debug)]
pub struct Now {
    clock: Clock,
    /// Nanoseconds between the clock's start and the epoch.
    offset: Arc<AtomicU64>,
}

/// Clocks of two nodes are taken to differ by no more than this.
const SKEW: Duration = Duration::from_secs(60);

impl Now {
    /// Begins at the wall time of this moment, and goes on with `clock`.
    pub fn new(clock: Clock) -> Self {
        let offset = Duration::from_millis(clock.unix_ms()).saturating_sub(clock.now());
        Self {
            clock,
            offset: Arc::new(AtomicU64::new(nanos(offset))),
        }
    }

    /// Goes on from `at`, which another replica's clock has shown, if that is later: what it remembers lies in the past
    /// then. A time that no clock of a cluster in order could have shown is not followed.
    pub fn catch_up(&self, at: Duration) {
        if at <= self.get() + SKEW {
            let offset = nanos(at.saturating_sub(self.clock.now()));
            self.offset.fetch_max(offset, Ordering::Relaxed);
        }
    }

    /// Time since the Unix epoch.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.offset.load(Ordering::Relaxed)) + self.clock.now()
    }

    /// The same, in milliseconds.
    pub fn unix_ms(&self) -> u64 {
        u64::try_from(self.get().as_millis()).unwrap_or(u64::MAX)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A connection is made anew after this long, with files that may have been rotated meanwhile.
const CONNECTION_AGE: Duration = Duration::from_secs(300);

struct Open {
    connection: Connection,
    token: String,
    since: Duration,
}

impl Poller {
    /// Polls until `shutdown` is stopped.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            () = self.poll_on() => {}
            () = shutdown.stopped() => {}
        }
    }

    async fn poll_on(&self) {
        let mut open = None;
        let mut told = String::new();
        let mut pace = kubernetes::watch::Backoff::new(PERIOD, LONGEST_WAIT);
        // Pollers that were started together do not stay together.
        let mut steady = kubernetes::watch::Backoff::new(PERIOD, PERIOD);
        loop {
            let wait = match self.poll(&mut open).await {
                Ok(()) => {
                    if !told.is_empty() {
                        tracing::info!(picker = %self.pod.name, namespace = %self.pod.namespace, "endpoint picker is heard again");
                        told.clear();
                    }
                    pace.reset();
                    // Between 1 and 1.25 times: half the jitter of a full period.
                    PERIOD * 3 / 4 + steady.failed(PERIOD) / 2
                }
                Err(error) => {
                    if !matches!(
                        error,
                        PollError::Nonsense(_) | PollError::Fetch(FetchError::Status { .. })
                    ) {
                        open = None;
                    }
                    let reason = error.to_string();
                    self.gathering.lock().failed(&self.pod.uid, &reason);
                    if reason != told {
                        tracing::warn!(picker = %self.pod.name, namespace = %self.pod.namespace, error = %reason, "endpoint picker is not heard: its share of the demand is unknown");
                        told = reason;
                    }
                    pace.failed(LONGEST_WAIT)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks once for the demand, and for models if they are wanted.
    async fn poll(&self, open: &mut Option<Open>) -> Result<(), PollError> {
        within(DEADLINE, self.demand(open)).await?;
        let now = self.now.get();
        if self.gathering.lock().asks_for_models(now, &self.pod.uid) {
            within(MODEL_DEADLINE, self.models(open)).await?;
        }
        Ok(())
    }

    async fn demand(&self, open: &mut Option<Open>) -> Result<(), PollError> {
        let after = self.gathering.lock().mix_after(&self.pod.uid);
        let path = format!("{}?mix_after={after}", admin::DEMAND);
        let Some(page) = self.get(open, &path, MAX_REPORT).await? else {
            return Ok(());
        };
        let report: DemandReport = serde_json::from_slice(&page.body)?;
        let now = self.now.get();
        let heard = self.gathering.lock().heard(now, &self.pod.uid, &report);
        heard.map_err(PollError::Nonsense)
    }

    async fn models(&self, open: &mut Option<Open>) -> Result<(), PollError> {
        let Some(page) = self.get(open, admin::MODEL, MAX_MODELS).await? else {
            return Ok(());
        };
        // Reading a forest takes milliseconds: not on a thread that others wait for.
        let decoded = tokio::task::spawn_blocking(move || snapshot::decode(&page.body)).await;
        let models = match decoded {
            Ok(models) => models?,
            Err(_) => return Ok(()),
        };
        let now = self.now.get();
        let mut gathering = self.gathering.lock();
        gathering.fetched(now, &self.pod.uid, models.classes);
        Ok(())
    }

    async fn get(
        &self,
        open: &mut Option<Open>,
        path: &str,
        most: usize,
    ) -> Result<Option<super::Page>, PollError> {
        let Some(address) = self.pod.address else {
            return Err(PollError::Nonsense("its pod has no address yet".to_owned()));
        };
        let now = self.now.get();
        let there = match open {
            Some(there) if now < there.since + CONNECTION_AGE => there,
            _ => {
                let server = Server {
                    namespace: self.pod.namespace.clone(),
                    pool: self.pod.pool.clone(),
                    ip: address.ip(),
                };
                let credentials = self.trust.credentials(&server, &self.pin)?;
                let name = ServerName::IpAddress(address.ip().into());
                open.insert(Open {
                    connection: Connection::open(address, Some((credentials.tls, name))).await?,
                    token: credentials.token,
                    since: now,
                })
            }
        };
        let ask = Ask {
            path,
            token: Some(&there.token),
            unless: None,
            most,
        };
        let answer = there.connection.get(ask).await;
        if matches!(answer, Err(FetchError::Status { status: 401 })) {
            // The token may have been rotated: the next attempt reads it anew.
            *open = None;
        }
        Ok(answer?)
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, PollError>>,
) -> Result<T, PollError> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or(Err(FetchError::Deadline(deadline).into()))
}

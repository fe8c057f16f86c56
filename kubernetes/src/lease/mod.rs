//! Leader election over a Lease of `coordination.k8s.io/v1`.
//!
//! [`core`] decides; [`Elector`] reads and writes. Writes carry the resource version that was read, so that of
//! two candidates at most one succeeds. The lease is given back as soon as the process begins to drain.

pub mod core;

#[cfg(test)]
mod tests;

pub use core::{Leadership, Timing};

use self::core::{Candidacy, Record, Step};
use crate::conditions::timestamp;
use crate::watch::Backoff;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use names::annotation;
use runtime::{Clock, Shutdown, Tasks};
use std::time::Duration;
use tokio::sync::watch;

/// Longest wait for giving the lease back: a process that ends is not held up by an API server that is away.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who stands for which lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// What this candidate is called; no other may be called the same.
    pub identity: String,
    /// `host:port` for followers, put on the Lease as an annotation; `None` = followers need none.
    pub address: Option<String>,
    /// Spans.
    pub timing: Timing,
}

/// Stands for election for as long as it runs.
#[derive(Debug)]
pub struct Elector {
    leases: Api<Lease>,
    candidate: Candidate,
    clock: Clock,
    core: Candidacy,
    /// The Lease as last read or written, so that what others put there stays.
    lease: Option<Lease>,
    told: watch::Sender<Leadership>,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the Kubernetes API server did not answer in time")]
    Timeout,
}

impl Elector {
    /// Stands for election as one of `tasks`, until `shutdown` begins to drain; then the lease is released.
    /// The receiver tells who leads, beginning with nobody.
    pub fn stand(
        client: Client,
        candidate: Candidate,
        ready: impl Future<Output = ()> + Send + 'static,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> watch::Receiver<Leadership> {
        let (told, leadership) = watch::channel(Leadership::default());
        let core = Candidacy::new(
            candidate.identity.clone(),
            candidate.address.clone(),
            candidate.timing,
        );
        let elector = Self {
            leases: Api::namespaced(client, &candidate.namespace),
            candidate,
            clock,
            core,
            lease: None,
            told,
        };
        tasks.spawn(elector.run(ready, shutdown));
        leadership
    }

    async fn run(mut self, ready: impl Future<Output = ()>, shutdown: Shutdown) {
        let standing = async {
            ready.await;
            self.campaign().await;
        };
        tokio::select! {
            () = standing => {}
            () = shutdown.draining() => {}
        }
        self.release().await;
    }

    async fn campaign(&mut self) {
        let retry = self.candidate.timing.retry;
        // At least half of it and at most one of it: candidates drift apart by themselves.
        let mut pace = Backoff::new(retry, retry);
        let mut failing = false;
        loop {
            // An attempt that hangs must not keep a leader from noticing that its time is over.
            let due = self.core.expiry().filter(|_| self.told.borrow().leader);
            let limit = self.candidate.timing.renew_deadline / 2;
            let limit = due.map_or(limit, |due| {
                limit.min(due.saturating_sub(self.clock.now()).max(retry / 2))
            });
            let attempt = tokio::time::timeout(limit, self.attempt())
                .await
                .unwrap_or(Err(Failure::Timeout));
            match &attempt {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(lease = %self.candidate.name, %error, "leader election cannot reach its lease");
                }
                Err(_) => {}
            }
            self.tell();
            let wait = pace.failed(retry);
            let wake = self.clock.instant(self.clock.now() + wait);
            let expiry = self.core.expiry().map(|at| self.clock.instant(at));
            if let Some(expiry) = expiry.filter(|&expiry| expiry < wake) {
                tokio::time::sleep_until(expiry).await;
                self.tell();
            }
            tokio::time::sleep_until(wake).await;
        }
    }

    /// Reads the lease, and takes or renews it where that is right.
    async fn attempt(&mut self) -> Result<(), Failure> {
        self.lease = self.leases.get_opt(&self.candidate.name).await?;
        let began = self.clock.now();
        let found = self.lease.as_ref().map(record);
        match self.core.read(began, self.clock.unix_ms(), found) {
            Step::Wait => Ok(()),
            Step::Write(record) => match self.write(&record).await {
                Ok(()) => {
                    self.core.written(began, record);
                    Ok(())
                }
                // Another candidate was quicker: no failure, only a lost race.
                Err(kube::Error::Api(status))
                    if status.is_conflict() || status.is_already_exists() =>
                {
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    async fn write(&mut self, record: &Record) -> Result<(), kube::Error> {
        let parameters = PostParams {
            field_manager: Some(names::kubernetes::FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let written = match self.lease.take() {
            Some(lease) => {
                let lease = describe(lease, record);
                self.leases
                    .replace(&self.candidate.name, &parameters, &lease)
                    .await?
            }
            None => {
                let fresh = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.candidate.name.clone()),
                        namespace: Some(self.candidate.namespace.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: None,
                };
                self.leases
                    .create(&parameters, &describe(fresh, record))
                    .await?
            }
        };
        self.lease = Some(written);
        Ok(())
    }

    /// Gives the lease back, if it is held and the server answers soon.
    async fn release(&mut self) {
        let released = self.core.release(self.clock.unix_ms());
        self.tell();
        let Some(record) = released else { return };
        match tokio::time::timeout(RELEASE_TIMEOUT, self.write(&record)).await {
            Ok(Ok(())) => tracing::info!(lease = %self.candidate.name, "lease released"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.candidate.name, %error, "lease could not be released; it expires by itself");
            }
            Err(_) => {
                tracing::warn!(lease = %self.candidate.name, "lease could not be released in time; it expires by itself");
            }
        }
    }

    fn tell(&self) {
        let leadership = self.core.leadership(self.clock.now());
        self.told.send_if_modified(|told| {
            if *told == leadership {
                return false;
            }
            if told.leader != leadership.leader {
                tracing::info!(lease = %self.candidate.name, leader = leadership.leader, "leadership changed");
            }
            *told = leadership;
            true
        });
    }
}

/// The part of `lease` that the election reads.
fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let count = |number: Option<i32>| number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let unix_ms = |time: Option<MicroTime>| {
        time.and_then(|time| u64::try_from(time.0.as_millisecond()).ok())
            .unwrap_or(0)
    };
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        lease_seconds: count(spec.lease_duration_seconds),
        acquired_ms: unix_ms(spec.acquire_time),
        renewed_ms: unix_ms(spec.renew_time),
        transitions: count(spec.lease_transitions),
        address: lease.annotations().get(annotation::LEADER_ADDRESS).cloned(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// `lease` saying what `record` says; whatever else stands in it stays.
fn describe(mut lease: Lease, record: &Record) -> Lease {
    let count = |number: u32| Some(i32::try_from(number).unwrap_or(i32::MAX));
    let time = |unix_ms| Some(MicroTime(timestamp(unix_ms)));
    let annotations = lease.annotations_mut();
    match &record.address {
        Some(address) => {
            annotations.insert(annotation::LEADER_ADDRESS.into(), address.clone());
        }
        None => {
            annotations.remove(annotation::LEADER_ADDRESS);
        }
    }
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder.clone().unwrap_or_default()),
        lease_duration_seconds: count(record.lease_seconds),
        acquire_time: time(record.acquired_ms),
        renew_time: time(record.renewed_ms),
        lease_transitions: count(record.transitions),
        ..lease.spec.unwrap_or_default()
    });
    lease
}

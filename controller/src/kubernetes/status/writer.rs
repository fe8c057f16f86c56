//! Writes what was found and decided: Events, and the status of ModelScalers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::ModelScaler;
use crds::model_scaler::ModelScalerStatus;
use futures::StreamExt as _;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource as _};
use kubernetes::events::{Recorder, Remark};
use kubernetes::watch::{ObjectKey, Store};
use runtime::{Clock, Shutdown, Tasks};
use serde_json::json;
use tokio::sync::watch;

use super::conditions::{Grounds, set_all};
use super::pace::{Limiter, Told};
use super::report::{Report, status_of};
use crate::kubernetes::models::{Finding, Snapshot, Source};
use crate::kubernetes::scalers::{self, Scaler};
use crate::published::Mode;

/// A status is written at most this often.
const EVERY: Duration = Duration::from_secs(10);
/// Where only rates, ages and wordings differ, at most this often.
const EVERY_DETAIL: Duration = Duration::from_secs(30);
/// A write that has not been answered by then is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Writes at a time.
const CONCURRENCY: usize = 4;
/// What was being done, in Events.
const ACTION: &str = "Size";

/// Tells of every cycle. Events are handed over at once; statuses are written in the background, the newest of each.
#[derive(Debug)]
pub struct Reporter {
    recorder: Recorder,
    told: Told,
    known: Store<Scaler>,
    statuses: BTreeMap<ObjectKey, ModelScalerStatus>,
    wanted: watch::Sender<Arc<BTreeMap<ObjectKey, ModelScalerStatus>>>,
}

impl Reporter {
    /// A reporter whose writer runs as one of `tasks` until `shutdown` is stopped. `known` are the ModelScalers with
    /// the status that they have.
    pub fn start(
        client: Client,
        recorder: Recorder,
        known: Store<Scaler>,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Self {
        let wanted = watch::Sender::new(Arc::default());
        let writer = Writer {
            client,
            clock,
            known: known.clone(),
            limiter: Limiter::new(EVERY),
            details: Limiter::new(EVERY_DETAIL),
            written: BTreeMap::new(),
        };
        let news = wanted.subscribe();
        tasks.spawn(async move {
            tokio::select! {
                () = writer.run(news) => {}
                () = shutdown.stopped() => {}
            }
        });
        Self {
            recorder,
            told: Told::default(),
            known,
            statuses: BTreeMap::new(),
            wanted,
        }
    }

    /// Tells what a cycle found and decided, at `now` on the process's clock and `now_ms` unix time.
    pub fn report(&mut self, now: Duration, now_ms: u64, snapshot: &Snapshot, reports: &[Report]) {
        let findings = reports.iter().flat_map(Report::all_findings);
        for finding in findings.chain(&snapshot.findings) {
            if self.told.tell(now, finding) {
                self.recorder
                    .remark(finding.about.reference(), remark(finding));
            }
        }
        self.told.forget(now);
        for report in reports {
            for (about, remark) in decided(report) {
                self.recorder.remark(about.reference(), remark);
            }
        }
        let mut statuses: BTreeMap<ObjectKey, ModelScalerStatus> = reports
            .iter()
            .filter(|report| report.spec.has_status())
            .map(|report| {
                let key = key(&report.spec.source);
                let status = status_of(report, &self.before(&key), now_ms);
                (key, status)
            })
            .collect();
        for (key, status) in self.refused(snapshot, now_ms) {
            statuses.entry(key).or_insert(status);
        }
        self.statuses = statuses.clone();
        self.wanted.send_replace(Arc::new(statuses));
    }

    /// The status computed last, else the one that the object has.
    fn before(&self, key: &ObjectKey) -> ModelScalerStatus {
        self.statuses
            .get(key)
            .cloned()
            .or_else(|| self.known.get(key).map(|scaler| scaler.status.clone()))
            .unwrap_or_default()
    }

    /// ModelScalers that no model came of: their conditions say why, the rest of their status stays.
    fn refused(&self, snapshot: &Snapshot, now_ms: u64) -> Vec<(ObjectKey, ModelScalerStatus)> {
        let about = |finding: &&Finding| &*finding.about.kind == scalers::KIND;
        let sources: BTreeSet<&Source> = snapshot
            .findings
            .iter()
            .filter(about)
            .map(|finding| &finding.about)
            .collect();
        let status = |source: &Source| {
            let findings: Vec<&Finding> = snapshot
                .findings
                .iter()
                .filter(|finding| finding.about == *source)
                .collect();
            let mut status = self.before(&key(source));
            let grounds = Grounds {
                mode: Mode::Publish,
                findings: &findings,
                decision: None,
                snapshots: &[],
            };
            status.observed_generation = source.generation;
            set_all(&mut status.conditions, &grounds, source.generation, now_ms);
            (key(source), status)
        };
        sources.into_iter().map(status).collect()
    }
}

fn key(source: &Source) -> ObjectKey {
    ObjectKey::new(&source.namespace, &source.name)
}

fn remark(finding: &Finding) -> Remark {
    let tell = if finding.note {
        Remark::normal
    } else {
        Remark::warning
    };
    tell(finding.reason, ACTION, finding.message.as_str())
}

/// A changed count, told to the object that asks. In mode direct it was Headroom that scaled; else it advised.
fn decided(report: &Report) -> Vec<(&Source, Remark)> {
    let Some(decision) = report.decision.as_deref() else {
        return Vec::new();
    };
    let reason = match report.spec.mode {
        Mode::Direct => "Scaled",
        Mode::Advise | Mode::Publish => "Advised",
    };
    let changed = |name: &str| {
        let variant = decision.variant(name)?;
        (variant.changes() && decision.evidence.is_fresh()).then(|| variant.to_string())
    };
    let told = report.spec.variants.iter().filter_map(|variant| {
        let sentence = changed(&variant.name)?;
        Some((&variant.source, Remark::normal(reason, ACTION, sentence)))
    });
    told.collect()
}

struct Writer {
    client: Client,
    clock: Clock,
    known: Store<Scaler>,
    limiter: Limiter<ObjectKey>,
    details: Limiter<ObjectKey>,
    written: BTreeMap<ObjectKey, ModelScalerStatus>,
}

impl Writer {
    async fn run(mut self, mut news: watch::Receiver<Arc<BTreeMap<ObjectKey, ModelScalerStatus>>>) {
        while news.changed().await.is_ok() {
            let wanted = Arc::clone(&news.borrow_and_update());
            let due = self.due(self.clock.now(), &wanted);
            let client = &self.client;
            let written: Vec<(ObjectKey, ModelScalerStatus)> = futures::stream::iter(due)
                .map(|(key, status)| async move {
                    write(client, &key, &status).await.then_some((key, status))
                })
                .buffer_unordered(CONCURRENCY)
                .filter_map(std::future::ready)
                .collect()
                .await;
            self.written.extend(written);
        }
    }

    /// What is to be written at `now`: what differs from what is there, as often as is allowed.
    fn due(
        &mut self,
        now: Duration,
        wanted: &BTreeMap<ObjectKey, ModelScalerStatus>,
    ) -> Vec<(ObjectKey, ModelScalerStatus)> {
        self.written.retain(|key, _| wanted.contains_key(key));
        let mut due = Vec::new();
        for (key, status) in wanted {
            let there = self
                .written
                .get(key)
                .cloned()
                .or_else(|| self.known.get(key).map(|scaler| scaler.status.clone()))
                .unwrap_or_default();
            if there == *status {
                continue;
            }
            // What is written for its details' sake counts as written, and the other way round.
            let details = outline(&there) == outline(status);
            if self.limiter.would_pass(now, key) && (!details || self.details.would_pass(now, key))
            {
                self.limiter.pass(now, key);
                self.details.pass(now, key);
                due.push((key.clone(), status.clone()));
            }
        }
        self.limiter.forget(now);
        self.details.forget(now);
        due
    }
}

/// A status without what changes all the time: rates, ages, wordings.
fn outline(status: &ModelScalerStatus) -> ModelScalerStatus {
    let mut outline = status.clone();
    outline.demand = None;
    (outline.capacity, outline.headroom, outline.slo_pressure) = (None, None, None);
    for condition in &mut outline.conditions {
        condition.message.clear();
    }
    for snapshot in &mut outline.model_snapshots {
        (snapshot.version, snapshot.labels, snapshot.fitted_at) = (0, 0, None);
        snapshot.from.clear();
    }
    for variant in &mut outline.variants {
        (variant.capacity, variant.capacity_age_seconds) = (None, None);
        variant.startup_seconds = None;
        variant.reasons.clear();
    }
    if let Some(last) = &mut outline.last_decision {
        last.reasons.clear();
    }
    outline
}

/// Server-side apply on the status subresource; tells whether it was taken.
async fn write(client: &Client, key: &ObjectKey, status: &ModelScalerStatus) -> bool {
    let api: Api<ModelScaler> = Api::namespaced(client.clone(), &key.namespace);
    let body = json!({
        "apiVersion": ModelScaler::api_version(&()),
        "kind": ModelScaler::kind(&()),
        "metadata": {"name": &*key.name, "namespace": &*key.namespace},
        "status": status,
    });
    let ours = PatchParams::apply(names::kubernetes::FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    let written = tokio::time::timeout(TIMEOUT, api.patch_status(&key.name, &ours, &patch)).await;
    let problem = match written {
        Ok(Ok(_)) => return true,
        // Gone meanwhile: nobody reads it.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => return false,
        Ok(Err(error)) => error.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::warn!(modelscaler = %key, problem, "a status could not be written; it is tried again");
    false
}

#[cfg(test)]
mod tests;

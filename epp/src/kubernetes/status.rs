//! Writes the condition `Accepted` on objectives, so that whoever made one sees that it counts.

use super::Cluster;
use super::discover::Verdict;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kubernetes::lease::Leadership;
use kubernetes::watch::Backoff;
use names::kubernetes::FIELD_MANAGER;
use runtime::Clock;
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

/// Between two rounds of writes, so that no object is written more often.
const PACE: Duration = Duration::from_secs(10);
/// Until it is tried again what is not allowed.
const FORBIDDEN: Duration = Duration::from_secs(600);
/// A write that has not been answered by then has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Without an election several pickers would write the same: they begin at different times within this span, and
/// whoever comes later finds it written.
const SPREAD: Duration = Duration::from_secs(4);

/// Writes conditions, while it is this picker's turn.
pub(super) struct Writer {
    client: Client,
    namespace: String,
    clock: Clock,
    leadership: Option<watch::Receiver<Leadership>>,
    spread: Backoff,
    /// Nothing is written before.
    silent_until: Duration,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Done,
    Again,
}

impl Writer {
    pub(super) fn new(
        cluster: &Cluster,
        clock: Clock,
        leadership: Option<watch::Receiver<Leadership>>,
    ) -> Self {
        Self {
            client: cluster.client.clone(),
            namespace: cluster.namespace.clone(),
            clock,
            leadership,
            spread: Backoff::new(SPREAD, SPREAD),
            silent_until: Duration::ZERO,
        }
    }

    /// Writes what is due for as long as this is polled.
    pub(super) async fn run(mut self, mut verdicts: watch::Receiver<Vec<Verdict>>) {
        loop {
            if self.leadership.is_none() {
                tokio::time::sleep(self.spread.failed(SPREAD)).await;
            }
            let current = verdicts.borrow_and_update().clone();
            let round = self.round(&current).await;
            tokio::time::sleep(PACE).await;
            if round == Round::Again {
                continue;
            }
            tokio::select! {
                changed = verdicts.changed() => if changed.is_err() { return },
                () = changed(&mut self.leadership) => {}
            }
        }
    }

    async fn round(&mut self, verdicts: &[Verdict]) -> Round {
        let turn = self
            .leadership
            .as_ref()
            .is_none_or(|leadership| leadership.borrow().leader);
        if !turn {
            return Round::Done;
        }
        if self.clock.now() < self.silent_until {
            return Round::Again;
        }
        let mut round = Round::Done;
        for verdict in verdicts {
            let Some(conditions) = verdict.due(self.clock.unix_ms()) else {
                continue;
            };
            let patch = json!({
                "metadata": {"resourceVersion": verdict.resource_version},
                "status": {"conditions": conditions},
            });
            match self.write(verdict, patch).await {
                Ok(()) => {}
                // Somebody wrote in between, or took it away: that comes as a change.
                Err(code) if code == 409 || code == 404 => {}
                Err(code) if code == 401 || code == 403 => {
                    self.silent_until = self.clock.now() + FORBIDDEN;
                    tracing::info!(objective = %verdict.key, "conditions of objectives are not written: this account may not patch inferenceobjectives/status");
                    return Round::Again;
                }
                Err(code) => {
                    tracing::debug!(objective = %verdict.key, code, "a condition could not be written");
                    round = Round::Again;
                }
            }
        }
        round
    }

    /// Writes one status; the error is the server's status code, 0 = none came.
    async fn write(&self, verdict: &Verdict, patch: serde_json::Value) -> Result<(), u16> {
        let (group, version) = verdict
            .api_version
            .split_once('/')
            .unwrap_or(("", &verdict.api_version));
        let kind = GroupVersionKind::gvk(group, version, "InferenceObjective");
        let resource = ApiResource::from_gvk_with_plural(&kind, "inferenceobjectives");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        let written = api.patch_status(&verdict.key.name, &parameters, &patch);
        match tokio::time::timeout(TIMEOUT, written).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) => Err(status.code),
            Ok(Err(_)) | Err(_) => Err(0),
        }
    }
}

/// Resolves when leadership changes; never without an election.
async fn changed(leadership: &mut Option<watch::Receiver<Leadership>>) {
    let ended = match leadership {
        Some(leadership) => leadership.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending::<()>().await;
    }
}

//! Keeps one poller per picker that is of interest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use kubernetes::watch::{Selection, Store, follow};
use names::label;
use parking_lot::Mutex;
use runtime::{Clock, Shutdown, Tasks};

use super::pod::PickerPod;
use super::poll::{Now, Poller};
use super::trust::{Pin, TrustOptions};
use crate::kubernetes::demand::{Gathering, Wanted};

/// Between two looks at what is wanted, if nothing changes.
const PERIOD: Duration = Duration::from_secs(1);

/// Follows the picker pods of `namespace`, or of all, as one of `tasks`.
pub fn pods(
    client: &Client,
    namespace: Option<&str>,
    clock: Clock,
    shutdown: &Shutdown,
    tasks: &Tasks,
) -> Store<PickerPod> {
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let labelled = Selection::labels(label::POOL);
    follow(
        api,
        labelled,
        PickerPod::trim,
        clock,
        shutdown.clone(),
        tasks,
    )
}

/// What the supervisor works with.
pub struct Supervisor {
    /// The picker pods, by namespace followed.
    pub pods: Vec<Store<PickerPod>>,
    /// The models wanted now; `None` while that is not known.
    pub wanted: Box<dyn Fn() -> Option<Vec<Wanted>> + Send>,
    /// Takes the answers.
    pub gathering: Arc<Mutex<Gathering>>,
    /// Whom to believe.
    pub trust: Arc<TrustOptions>,
    /// The epoch that demand is counted on.
    pub now: Now,
}

struct Running {
    pod: PickerPod,
    pin: Pin,
    shutdown: Shutdown,
}

impl Supervisor {
    /// Starts and ends pollers until `shutdown` is stopped.
    pub async fn run(self, shutdown: Shutdown, tasks: Tasks) {
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.stopped() => return,
                _ = ticks.tick() => {}
            }
            // What was known stays known: a list that was never read is not an empty one.
            let synced = self.pods.iter().all(Store::is_synced);
            let Some(wanted) = (self.wanted)().filter(|_| synced) else {
                continue;
            };
            let snapshots: Vec<_> = self.pods.iter().map(Store::snapshot).collect();
            let pods = snapshots
                .iter()
                .flat_map(|objects| objects.values().map(Arc::as_ref));
            let now = self.now.get();
            let polled = self.gathering.lock().expect(now, &wanted, pods);
            self.match_up(&mut running, polled, &shutdown, &tasks);
        }
    }

    /// Ends the pollers of pickers that are not to be polled any more, and starts those that are missing.
    fn match_up(
        &self,
        running: &mut BTreeMap<String, Running>,
        polled: Vec<PickerPod>,
        shutdown: &Shutdown,
        tasks: &Tasks,
    ) {
        let mut before = std::mem::take(running);
        for pod in polled {
            let known = before.remove(&pod.uid);
            let kept = match known {
                Some(known) if known.pod == pod => known,
                known => {
                    // The same container keeps the certificate first seen; a restarted one may show another.
                    let same = known
                        .as_ref()
                        .filter(|known| known.pod.restarts == pod.restarts);
                    let pin = same.map_or_else(Pin::default, |known| Arc::clone(&known.pin));
                    if let Some(known) = &known {
                        known.shutdown.stop();
                    }
                    self.start(pod, pin, shutdown, tasks)
                }
            };
            running.insert(kept.pod.uid.clone(), kept);
        }
        for ended in before.into_values() {
            ended.shutdown.stop();
        }
    }

    fn start(&self, pod: PickerPod, pin: Pin, shutdown: &Shutdown, tasks: &Tasks) -> Running {
        let running = Running {
            pod: pod.clone(),
            pin: Arc::clone(&pin),
            shutdown: shutdown.child(),
        };
        let poller = Poller {
            pod,
            trust: Arc::clone(&self.trust),
            pin,
            gathering: Arc::clone(&self.gathering),
            now: self.now.clone(),
        };
        tasks.spawn(poller.run(running.shutdown.clone()));
        running
    }
}

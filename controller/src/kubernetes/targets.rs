//! Scale targets of any kind: which kinds the cluster has, what their objects ask for, and which pods are theirs.
//!
//! Every kind that is scaled is followed, so that a change of the count is seen at once; the scale subresource is read
//! for what only it tells (the selector of the pods), again when the object's status names other pods, and now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use kubernetes::watch::ObjectKey;
use parking_lot::RwLock;
use runtime::{Clock, Shutdown, Tasks};
use tokio::time::{MissedTickBehavior, interval};

pub use super::annotated::TargetKey;
use super::kinds::{KindState, Kinds};
use super::labels::Selector;
use super::models::Models;
use crate::published::ObjectRef;

/// Time between two looks for what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// A scale subresource that was read is read again after this long.
const REFRESH: Duration = Duration::from_secs(300);
/// The same where nothing else tells the count.
const REFRESH_COUNT: Duration = Duration::from_secs(5);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Requests at a time.
const CONCURRENCY: usize = 8;
/// A request that has not been answered by then is given up.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of one scale target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScaleState {
    /// Replicas asked for; `None` while unknown.
    pub replicas: Option<u32>,
    /// Its pods, one per replica; empty while unknown.
    pub selector: Selector,
    /// Why pods cannot be created.
    pub refused: Option<Box<str>>,
    /// What is wrong with it. What was known before stays.
    pub trouble: Option<TargetTrouble>,
}

/// What is wrong with a scale target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetTrouble {
    /// The cluster does not know its kind.
    NoKind,
    /// There is no such object.
    NotFound,
    /// The kind has no scale subresource.
    NotScalable,
    /// The scale subresource does not say which pods are its own.
    NoSelector,
    /// Anything else, in words.
    Unreadable(Box<str>),
}

/// The last answer of a scale subresource.
#[derive(Clone, Debug)]
struct Known {
    state: ScaleState,
    /// When it was asked for.
    at: Duration,
    /// What the object's status said of its pods then.
    hint: Option<Box<str>>,
}

/// Shared reader of all scale targets.
#[derive(Clone, Debug)]
pub struct Targets {
    known: Arc<RwLock<BTreeMap<TargetKey, Known>>>,
    kinds: Kinds,
}

impl Targets {
    /// Reads the targets of `models` as one of `tasks` until `shutdown` is stopped.
    pub fn start(
        client: Client,
        models: Models,
        kinds: Kinds,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Self {
        let targets = Self {
            known: Arc::default(),
            kinds,
        };
        let reader = Reader {
            client,
            models,
            targets: targets.clone(),
            clock,
        };
        tasks.spawn(async move {
            tokio::select! {
                () = reader.run() => {}
                () = shutdown.stopped() => {}
            }
        });
        targets
    }

    /// What is known of a target now.
    pub fn state(&self, key: &TargetKey) -> ScaleState {
        let mut state = self
            .known
            .read()
            .get(key)
            .map(|known| known.state.clone())
            .unwrap_or_default();
        match self.kinds.state(key.group(), key.kind()) {
            KindState::Absent => state.trouble = Some(TargetTrouble::NoKind),
            KindState::Unscalable => state.trouble = Some(TargetTrouble::NotScalable),
            KindState::Looking => {}
            KindState::Known { store, .. } => {
                match store.get(&object_key(key)) {
                    Some(workload) => {
                        state.replicas = workload.replicas.or(state.replicas);
                        state.refused = workload.refused.clone();
                    }
                    None if store.is_synced() => {
                        state = ScaleState {
                            trouble: Some(TargetTrouble::NotFound),
                            ..ScaleState::default()
                        };
                    }
                    None => {}
                };
            }
        }
        state
    }
}

fn object_key(key: &TargetKey) -> ObjectKey {
    ObjectKey::new(key.namespace(), key.name())
}

struct Reader {
    client: Client,
    models: Models,
    targets: Targets,
    clock: Clock,
}

impl Reader {
    async fn run(self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut models = self.models.changes();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = models.changed() => if changed.is_err() { return },
            }
            self.step().await;
        }
    }

    async fn step(&self) {
        let wanted = wanted(&self.models);
        let kinds = wanted.values();
        self.targets
            .kinds
            .want(kinds.map(|target| (&*target.api_version, &*target.kind)));
        self.targets
            .known
            .write()
            .retain(|key, _| wanted.contains_key(key));
        let now = self.clock.now();
        let due: Vec<_> = wanted
            .into_keys()
            .filter_map(|key| {
                let (resource, hint) = self.due(now, &key)?;
                Some((key, resource, hint))
            })
            .collect();
        futures::stream::iter(due)
            .for_each_concurrent(CONCURRENCY, |(key, resource, hint)| async move {
                let answer = self.ask(&key, &resource).await;
                let mut known = self.targets.known.write();
                let before = known.remove(&key).map(|known| known.state);
                let state = merged(before.unwrap_or_default(), answer);
                known.insert(
                    key,
                    Known {
                        state,
                        at: now,
                        hint,
                    },
                );
            })
            .await;
    }

    /// How to ask for a target that is due, and what its object says of its pods.
    fn due(&self, now: Duration, key: &TargetKey) -> Option<(ApiResource, Option<Box<str>>)> {
        let KindState::Known { resource, store } =
            self.targets.kinds.state(key.group(), key.kind())
        else {
            return None;
        };
        let workload = store.get(&object_key(key));
        if workload.is_none() && store.is_synced() {
            return None;
        }
        let hint = workload.as_ref().and_then(|one| one.selector.clone());
        let counted = workload.is_some_and(|one| one.replicas.is_some());
        let known = self.targets.known.read();
        is_due(now, known.get(key), &hint, counted).then_some((resource, hint))
    }

    async fn ask(&self, key: &TargetKey, resource: &ApiResource) -> Result<Scale, kube::Error> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), key.namespace(), resource);
        match tokio::time::timeout(TIMEOUT, api.get_scale(key.name())).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
        }
    }
}

/// The targets of all models, with a reference to each.
fn wanted(models: &Models) -> BTreeMap<TargetKey, ObjectRef> {
    let snapshot = models.snapshot();
    let mut wanted = BTreeMap::new();
    for spec in &snapshot.models {
        for variant in &spec.variants {
            let key = TargetKey::new(&spec.key.namespace, &variant.target);
            wanted.insert(key, variant.target.clone());
        }
    }
    wanted
}

/// Whether a scale subresource is to be read at `now`. `counted`: the object itself tells the count.
fn is_due(now: Duration, known: Option<&Known>, hint: &Option<Box<str>>, counted: bool) -> bool {
    let Some(known) = known else { return true };
    let wait = match (&known.state.trouble, counted) {
        (Some(_), _) => RETRY,
        (None, true) => REFRESH,
        (None, false) => REFRESH_COUNT,
    };
    *hint != known.hint || now.saturating_sub(known.at) >= wait
}

/// What an answer makes of what was known.
fn merged(before: ScaleState, answer: Result<Scale, kube::Error>) -> ScaleState {
    let scale = match answer {
        Ok(scale) => scale,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return ScaleState {
                trouble: Some(TargetTrouble::NotFound),
                ..ScaleState::default()
            };
        }
        Err(error) => {
            let why = error.to_string().into();
            return ScaleState {
                trouble: Some(TargetTrouble::Unreadable(why)),
                ..before
            };
        }
    };
    let text = scale
        .status
        .as_ref()
        .and_then(|status| status.selector.clone());
    let replicas = scale.spec.and_then(|spec| spec.replicas);
    let (selector, trouble) = match Selector::parse(text.as_deref().unwrap_or_default()) {
        Ok(selector) if selector.is_empty() => (selector, Some(TargetTrouble::NoSelector)),
        Ok(selector) => (selector, None),
        Err(error) => (
            before.selector,
            Some(TargetTrouble::Unreadable(error.to_string().into())),
        ),
    };
    ScaleState {
        replicas: Some(super::hpas::count(replicas.unwrap_or(0))),
        selector,
        refused: None,
        trouble,
    }
}

#[cfg(test)]
mod tests;

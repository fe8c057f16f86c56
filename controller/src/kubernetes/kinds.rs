//! The kinds of object that can be scaled: found through discovery, and followed from then on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{self, Scope};
use kube::{Api, Client};
use kubernetes::watch::{Selection, Store, TroubleKind, follow};
use parking_lot::Mutex;
use runtime::{Clock, Shutdown, Tasks};
use tokio::sync::watch;

use super::workloads::Workload;

/// Kinds that are followed whether or not a model names them: annotations on them are enough to ask for sizing.
const ALWAYS: [(&str, &str); 4] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    ("disaggregatedset.x-k8s.io/v1", "DisaggregatedSetRoleScaler"),
];
/// Most kinds that are followed; further ones are as good as unknown.
const MAX_KINDS: usize = 32;
/// A kind that the cluster does not have is looked for again after this long.
const RETRY: Duration = Duration::from_secs(30);
/// Discovery that did not answer is asked again after this long.
const SOON: Duration = Duration::from_secs(1);

/// What is known of a kind.
#[derive(Clone, Debug)]
pub enum KindState {
    /// Not looked for yet, or discovery does not answer.
    Looking,
    /// The cluster does not have it.
    Absent,
    /// It has no scale subresource, or no namespace.
    Unscalable,
    /// Followed.
    Known {
        /// How to ask for it.
        resource: ApiResource,
        /// Its objects.
        store: Store<Workload>,
    },
}

/// Group and kind; the version first asked for is the one used.
type GroupKind = (Box<str>, Box<str>);

/// All kinds that are scaled; clones share them.
#[derive(Clone)]
pub struct Kinds {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    namespace: Option<String>,
    clock: Clock,
    shutdown: Shutdown,
    tasks: Tasks,
    known: Mutex<BTreeMap<GroupKind, KindState>>,
    /// Grows when a kind or one of its objects changed.
    generation: watch::Sender<u64>,
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kinds")
            .field(&*self.shared.known.lock())
            .finish()
    }
}

impl Kinds {
    /// Follows the kinds that are always of interest, in one namespace or in all.
    pub fn start(
        client: Client,
        namespace: Option<String>,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Self {
        let kinds = Self {
            shared: Arc::new(Shared {
                client,
                namespace,
                clock,
                shutdown,
                tasks: tasks.clone(),
                known: Mutex::default(),
                generation: watch::Sender::new(0),
            }),
        };
        kinds.want(ALWAYS);
        kinds
    }

    /// Looks for these kinds (apiVersion and kind), and follows them once they are there.
    pub fn want<'a>(&self, kinds: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (api_version, kind) in kinds {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let key: GroupKind = (group.into(), kind.into());
            {
                let mut known = self.shared.known.lock();
                if known.contains_key(&key) || known.len() >= MAX_KINDS {
                    continue;
                }
                known.insert(key.clone(), KindState::Looking);
            }
            let (kinds, kind) = (self.clone(), GroupVersionKind::gvk(group, version, kind));
            self.shared.tasks.spawn(async move {
                let shutdown = kinds.shared.shutdown.clone();
                tokio::select! {
                    () = kinds.look(key, kind) => {}
                    () = shutdown.stopped() => {}
                }
            });
        }
    }

    /// What is known of a kind; `Looking` if nobody wanted it.
    pub fn state(&self, group: &str, kind: &str) -> KindState {
        let known = self.shared.known.lock();
        known
            .get(&(group.into(), kind.into()))
            .cloned()
            .unwrap_or(KindState::Looking)
    }

    /// Every object of every kind that is followed.
    pub fn workloads(&self) -> Vec<Arc<Workload>> {
        let stores: Vec<Store<Workload>> = self.stores().into_values().collect();
        let objects = stores.iter().map(Store::snapshot);
        objects
            .flat_map(|objects| objects.values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Whether the kinds that are always of interest have been seen whole, or cannot be.
    pub fn is_synced(&self) -> bool {
        ALWAYS.iter().all(|(api_version, kind)| {
            let group = api_version.split_once('/').map_or("", |parts| parts.0);
            match self.state(group, kind) {
                KindState::Looking => false,
                KindState::Absent | KindState::Unscalable => true,
                KindState::Known { store, .. } => settled(&store),
            }
        })
    }

    /// Follows the generation: it grows when a kind or one of its objects changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    fn stores(&self) -> BTreeMap<GroupKind, Store<Workload>> {
        let known = self.shared.known.lock();
        let stores = known.iter().filter_map(|(key, state)| match state {
            KindState::Known { store, .. } => Some((key.clone(), store.clone())),
            _ => None,
        });
        stores.collect()
    }

    /// Asks discovery until the kind is there, then passes its changes on.
    async fn look(self, key: GroupKind, kind: GroupVersionKind) {
        let mut told = String::new();
        let found = loop {
            let pause = match discovery::pinned_kind(&self.shared.client, &kind).await {
                Ok(found) => break found,
                Err(error) if absent(&error) => {
                    self.set(&key, KindState::Absent);
                    RETRY
                }
                // Nothing is decided before this is known.
                Err(error) => {
                    let error = error.to_string();
                    if error != told {
                        tracing::warn!(%error, kind = kind.kind, "discovery does not answer");
                    }
                    told = error;
                    SOON
                }
            };
            tokio::time::sleep(pause).await;
        };
        let (resource, capabilities) = found;
        let scalable = capabilities.scope == Scope::Namespaced
            && capabilities
                .subresources
                .iter()
                .any(|(subresource, _)| subresource.plural == "scale");
        if !scalable {
            self.set(&key, KindState::Unscalable);
            return;
        }
        let store = self.follow(&resource);
        let mut changes = store.changes();
        self.set(&key, KindState::Known { resource, store });
        while changes.changed().await.is_ok() {
            self.shared.generation.send_modify(|count| *count += 1);
        }
    }

    fn follow(&self, resource: &ApiResource) -> Store<Workload> {
        let Shared {
            client,
            namespace,
            clock,
            shutdown,
            tasks,
            ..
        } = &*self.shared;
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        let (api_version, kind) = (resource.api_version.clone(), resource.kind.clone());
        let trim = move |object| Workload::trim(&api_version, &kind, object);
        follow(api, Selection::all(), trim, *clock, shutdown.clone(), tasks)
    }

    fn set(&self, key: &GroupKind, state: KindState) {
        self.shared.known.lock().insert(key.clone(), state);
        self.shared.generation.send_modify(|count| *count += 1);
    }
}

/// Whether a store knows all that it will know for now: a list was read, or none may be.
pub(super) fn settled<T>(store: &Store<T>) -> bool {
    let health = store.health();
    let barred = |kind| matches!(kind, TroubleKind::Absent | TroubleKind::Forbidden);
    health.synced || health.trouble.is_some_and(|trouble| barred(trouble.kind))
}

/// Whether an error of discovery says that the group, the version or the kind is not there.
fn absent(error: &kube::Error) -> bool {
    match error {
        kube::Error::Discovery(_) => true,
        kube::Error::Api(status) => status.code == 404,
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Kinds of which exactly one is known.
    pub(crate) fn known(client: Client, resource: ApiResource, store: Store<Workload>) -> Kinds {
        let key: GroupKind = (
            resource.group.as_str().into(),
            resource.kind.as_str().into(),
        );
        let shared = Shared {
            client,
            namespace: None,
            clock: Clock::start(),
            shutdown: Shutdown::new(),
            tasks: Tasks::new(),
            known: Mutex::new(BTreeMap::from([(
                key,
                KindState::Known { resource, store },
            )])),
            generation: watch::Sender::new(0),
        };
        Kinds {
            shared: Arc::new(shared),
        }
    }
}

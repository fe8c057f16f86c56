//! Watches in, the picker's state out: the thin shell around [`super::discover`].

use super::discover::{self, Discovered, Known, Memory, PoolName, Verdict};
use super::objects::Moved;
use super::pods::{self, ServingPod};
use super::policy::{ObjectiveObject, RewriteObject};
use super::pool::{self, Members, PoolObject};
use super::problem::Problem;
use super::{COMPONENT, Cluster, Source, protocol, status};
use crate::extproc::hub::Hub;
use crds::{InferenceModelRewrite, InferenceObjective};
use crds::{inference_model_rewrite, inference_objective};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Resource};
use kubernetes::events::Recorder;
use kubernetes::lease::Leadership;
use kubernetes::watch::{self as objects, ObjectKey, Selection, Store};
use runtime::{Clock, Shutdown, Tasks};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Between two looks at what changed: a roll-out of a thousand pods is some looks, not a thousand.
const PACE: Duration = Duration::from_millis(50);

/// Starts to follow `cluster`'s pool as some of `tasks`, until `shutdown` is stopped; `synced` becomes true once
/// the pool, its pods and what goes with them are known. Conditions are written while `leadership` says so.
pub(crate) fn start(
    cluster: &Cluster,
    hub: Arc<Hub>,
    synced: watch::Sender<bool>,
    leadership: Option<watch::Receiver<Leadership>>,
    shutdown: &Shutdown,
    tasks: &Tasks,
) {
    let clock = hub.clock;
    let recorder = Recorder::start(
        cluster.client.clone(),
        COMPONENT,
        &cluster.identity.holder(),
        clock,
        shutdown.clone(),
        tasks,
    );
    let (verdicts, told) = watch::channel(Vec::new());
    if let Source::Pool { .. } = cluster.source {
        let writer = status::Writer::new(cluster, clock, leadership);
        let until = shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = writer.run(told) => {}
                () = until.stopped() => {}
            }
        });
    }
    let watches = Watches {
        cluster: cluster.clone(),
        clock,
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        changed: Arc::default(),
    };
    let follower = Follower::new(watches, hub, recorder, synced, verdicts);
    let until = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = follower.run() => {}
            () = until.stopped() => {}
        }
    });
}

/// Begins watches; whatever any of them sees rings one bell.
#[derive(Clone)]
struct Watches {
    cluster: Cluster,
    clock: Clock,
    shutdown: Shutdown,
    tasks: Tasks,
    changed: Arc<Notify>,
}

impl Watches {
    /// Follows objects until `shutdown` is stopped.
    fn follow<K, T>(
        &self,
        api: Api<K>,
        selection: Selection,
        trim: impl Fn(K) -> Option<T> + Send + Sync + 'static,
        shutdown: &Shutdown,
    ) -> Store<T>
    where
        K: Resource + serde::de::DeserializeOwned + Send + 'static,
        T: PartialEq + Send + Sync + 'static,
    {
        let store = objects::follow(
            api,
            selection,
            trim,
            self.clock,
            shutdown.clone(),
            &self.tasks,
        );
        let (mut changes, bell) = (store.changes(), Arc::clone(&self.changed));
        let until = shutdown.clone();
        self.tasks.spawn(async move {
            let ring = async {
                while changes.changed().await.is_ok() {
                    bell.notify_one();
                }
            };
            tokio::select! {
                () = ring => {}
                () = until.stopped() => {}
            }
        });
        store
    }

    /// Follows all objects of one kind in the pool's namespace.
    fn all<K, T>(&self) -> Store<T>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + Send
            + 'static,
        T: From<K> + PartialEq + Send + Sync + 'static,
    {
        let api = Api::<K>::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        self.follow(
            api,
            Selection::all(),
            |object| Some(T::from(object)),
            &self.shutdown,
        )
    }

    fn pool(&self, name: &str, resource: &ApiResource) -> Store<PoolObject> {
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.cluster.client.clone(),
            &self.cluster.namespace,
            resource,
        );
        self.follow(api, Selection::named(name), pool::read, &self.shutdown)
    }

    fn pods(&self, members: &Members) -> PodWatch {
        let shutdown = self.shutdown.child();
        let api = Api::<Pod>::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        let selection = Selection::labels(&members.selector);
        PodWatch {
            members: members.clone(),
            store: self.follow(api, selection, pods::serving, &shutdown),
            shutdown,
        }
    }
}

/// The pods of one selector, and the ports that they serve at: those of another selector serve at its own.
struct PodWatch {
    members: Members,
    store: Store<ServingPod>,
    shutdown: Shutdown,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

/// What is read besides pods where there is an InferencePool.
struct PoolWatch {
    group: String,
    name: String,
    resource: ApiResource,
    pool: Store<PoolObject>,
    /// The pool as last seen, so that it outlives its deletion.
    last: Option<Arc<PoolObject>>,
    objectives: Moved<ObjectiveObject>,
    rewrites: Moved<RewriteObject>,
}

impl PoolWatch {
    fn new(watches: &Watches, group: &str, name: &str) -> Self {
        let resource = pool::resource(group);
        let (old_objectives, old_rewrites) = (watches.clone(), watches.clone());
        let version = |version: std::borrow::Cow<'static, str>| version.into_owned();
        Self {
            group: group.to_owned(),
            name: name.to_owned(),
            pool: watches.pool(name, &resource),
            resource,
            last: None,
            objectives: Moved::new(
                version(InferenceObjective::api_version(&())),
                watches.all::<InferenceObjective, _>(),
                version(inference_objective::legacy::InferenceObjective::api_version(&())),
                move || old_objectives.all::<inference_objective::legacy::InferenceObjective, _>(),
            ),
            rewrites: Moved::new(
                version(InferenceModelRewrite::api_version(&())),
                watches.all::<InferenceModelRewrite, _>(),
                version(inference_model_rewrite::legacy::InferenceModelRewrite::api_version(&())),
                move || {
                    old_rewrites.all::<inference_model_rewrite::legacy::InferenceModelRewrite, _>()
                },
            ),
        }
    }

    fn key(&self, namespace: &str) -> ObjectKey {
        ObjectKey::new(namespace, &self.name)
    }

    fn name<'a>(&'a self, namespace: &'a str) -> PoolName<'a> {
        PoolName {
            group: &self.group,
            api_version: &self.resource.api_version,
            namespace,
            name: &self.name,
        }
    }
}

/// Keeps the hub as the cluster says.
struct Follower {
    watches: Watches,
    hub: Arc<Hub>,
    recorder: Recorder,
    synced: watch::Sender<bool>,
    verdicts: watch::Sender<Vec<Verdict>>,
    pool: Option<PoolWatch>,
    /// Members in force.
    members: Option<Members>,
    pods: Option<PodWatch>,
    /// Pods of the next selector, until all of them are known.
    next_pods: Option<PodWatch>,
    memory: Memory,
    last: Option<Discovered>,
    told: Vec<Problem>,
}

impl Follower {
    fn new(
        watches: Watches,
        hub: Arc<Hub>,
        recorder: Recorder,
        synced: watch::Sender<bool>,
        verdicts: watch::Sender<Vec<Verdict>>,
    ) -> Self {
        let (pool, members) = match &watches.cluster.source {
            Source::Pool { group, name } => (Some(PoolWatch::new(&watches, group, name)), None),
            Source::Pods { members, .. } => (None, Some(members.clone())),
        };
        Self {
            watches,
            hub,
            recorder,
            synced,
            verdicts,
            pool,
            members,
            pods: None,
            next_pods: None,
            memory: Memory::default(),
            last: None,
            told: Vec::new(),
        }
    }

    async fn run(mut self) {
        loop {
            self.look();
            tokio::time::sleep(PACE).await;
            self.watches.changed.notified().await;
        }
    }

    /// Puts in force what is known now, as far as it is enough.
    fn look(&mut self) {
        let mut problems = Vec::new();
        self.read_members(&mut problems);
        self.choose_pods();
        if let Some(mut discovered) = self.discover() {
            problems.append(&mut discovered.problems);
            self.apply(discovered);
            let ready = self.spoken(&mut problems);
            self.synced.send_replace(ready);
        }
        self.tell(problems);
    }

    /// What the pool says of its pods and ports.
    fn read_members(&mut self, problems: &mut Vec<Problem>) {
        let namespace = &self.watches.cluster.namespace;
        let Some(watch) = self.pool.as_mut().filter(|watch| watch.pool.is_synced()) else {
            return;
        };
        let object = watch.pool.get(&watch.key(namespace));
        if object.is_some() {
            watch.last.clone_from(&object);
        }
        let name = watch.name(namespace);
        self.members = discover::members(name, object.as_deref(), self.members.as_ref(), problems);
    }

    /// Follows the pods that the members name; those of the last selector serve until the new ones are known.
    fn choose_pods(&mut self) {
        let Some(members) = &self.members else { return };
        let selects = |watch: &Option<PodWatch>| {
            watch
                .as_ref()
                .is_some_and(|watch| watch.members.selector == members.selector)
        };
        if selects(&self.pods) {
            self.next_pods = None;
        } else if !selects(&self.next_pods) {
            self.next_pods = Some(self.watches.pods(members));
        }
        for watch in [&mut self.pods, &mut self.next_pods].into_iter().flatten() {
            if watch.members.selector == members.selector {
                watch.members.clone_from(members);
            }
        }
        let known = |watch: &mut PodWatch| watch.store.is_synced();
        if let Some(watch) = self.next_pods.take_if(known) {
            self.pods = Some(watch);
        }
    }

    /// What is known means; `None` = something that decides is not known yet.
    fn discover(&mut self) -> Option<Discovered> {
        let watched = self.pods.as_ref()?;
        let (members, pods) = (&watched.members, watched.store.snapshot());
        let Some(watch) = &mut self.pool else {
            let known = Known {
                pool: None,
                ports: &members.ports,
                pods: &pods,
                objectives: None,
                rewrites: None,
            };
            return Some(discover::discover(known, &mut self.memory));
        };
        let objectives = watch.objectives.known()?;
        let rewrites = watch.rewrites.known()?;
        let object = watch.last.as_deref()?;
        let known = Known {
            pool: Some((watch.name(&self.watches.cluster.namespace), object)),
            ports: &members.ports,
            pods: &pods,
            objectives: Some(objectives.kind()),
            rewrites: Some(rewrites.kind()),
        };
        Some(discover::discover(known, &mut self.memory))
    }

    /// Puts in force what differs from what is.
    fn apply(&mut self, discovered: Discovered) {
        let last = self.last.as_ref();
        let same = |of: fn(&Discovered, &Discovered) -> bool| {
            last.is_some_and(|last| of(last, &discovered))
        };
        if !same(|a, b| a.default_slo == b.default_slo && a.rewrites == b.rewrites) {
            self.hub
                .set_defaults(discovered.default_slo, discovered.rewrites.clone());
        }
        if !same(|a, b| a.endpoints == b.endpoints && a.objectives == b.objectives) {
            let endpoints = discovered.endpoints.len();
            tracing::info!(
                endpoints,
                objectives = discovered.objectives.iter().count(),
                "pool read"
            );
            self.hub
                .set_endpoints(discovered.endpoints.clone(), discovered.objectives.clone());
        }
        self.verdicts.send_if_modified(|verdicts| {
            let changed = *verdicts != discovered.verdicts;
            verdicts.clone_from(&discovered.verdicts);
            changed
        });
        self.last = Some(discovered);
    }

    /// Whether the pool's endpoints speak what this picker reads.
    fn spoken(&self, problems: &mut Vec<Problem>) -> bool {
        let Some(watch) = &self.pool else { return true };
        let Some(object) = watch.last.as_deref() else {
            return true;
        };
        let name = watch.name(&self.watches.cluster.namespace);
        protocol::spoken(name, object, &self.hub.parsers(), problems)
    }

    /// Makes Events of the problems that are new.
    fn tell(&mut self, problems: Vec<Problem>) {
        for problem in problems
            .iter()
            .filter(|problem| !self.told.contains(problem))
        {
            tracing::warn!(kind = problem.about.kind, name = %problem.about.name, reason = problem.reason, "{}", problem.message);
            self.recorder
                .remark(problem.about.reference(), problem.remark());
        }
        self.told = problems;
    }
}

//! Pods kept lean, found by selector, counted by what they can do.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use controller_core::signals::Replicas;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as FullPod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubernetes::watch::{Health, Store};
use parking_lot::Mutex;

use super::labels::{Labels, Selector};

/// Longest message kept of a pod that waits, bytes.
const LONGEST_MESSAGE: usize = 200;
/// What a container waits for that time alone does not bring.
const FAILING: [&str; 7] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// What is kept of a pod: about 600 bytes with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name, unique in the namespace at any one time.
    pub name: Box<str>,
    /// Labels.
    pub labels: Labels,
    /// Address, once it has one.
    pub ip: Option<IpAddr>,
    /// Node, once it is bound to one.
    pub node: Option<Box<str>>,
    /// What it can do.
    pub state: PodState,
    /// When it was created, unix seconds.
    pub created: i64,
    /// When it last became ready, unix seconds; `None` while it is not.
    pub ready_since: Option<i64>,
}

/// What a pod can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// Serving.
    Ready,
    /// On its way: bound or about to be, not ready yet.
    Starting,
    /// No capacity and none on its way, for this reason.
    Waiting(Waiting),
    /// Told to end.
    Draining,
    /// Ended; its controller replaces it.
    Over,
}

/// Why a pod is no capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The scheduler finds no node; its message.
    Unschedulable(Box<str>),
    /// A container cannot start; the reason as Kubernetes names it.
    Failing(Box<str>),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable(message) => write!(f, "cannot be scheduled: {message}"),
            Self::Failing(reason) => write!(f, "cannot start: {reason}"),
        }
    }
}

impl Pod {
    /// Keeps of a pod what matters here.
    pub fn trim(pod: FullPod) -> Option<Self> {
        let (metadata, status) = (pod.metadata, pod.status.unwrap_or_default());
        let state = if metadata.deletion_timestamp.is_some() {
            PodState::Draining
        } else {
            state(&status)
        };
        let ready = condition(&status, "Ready").filter(|ready| ready.status == "True");
        let labels = metadata.labels.unwrap_or_default();
        Some(Self {
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name?.into(),
            labels: Labels::new(labels.iter().map(|(key, value)| (&**key, &**value))),
            ip: status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()),
            node: pod.spec.and_then(|spec| spec.node_name).map(Into::into),
            state,
            created: metadata.creation_timestamp.as_ref().map_or(0, seconds),
            ready_since: ready
                .and_then(|ready| ready.last_transition_time.as_ref())
                .map(seconds),
        })
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.state == PodState::Ready
    }

    /// From its creation to its readiness; `None` while it is not ready. Kubernetes keeps whole seconds.
    pub fn startup(&self) -> Option<Duration> {
        let seconds = self.ready_since?.checked_sub(self.created)?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }
}

fn state(status: &PodStatus) -> PodState {
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return PodState::Over;
    }
    if condition(status, "Ready").is_some_and(|ready| ready.status == "True") {
        return PodState::Ready;
    }
    let unscheduled = condition(status, "PodScheduled").filter(|scheduled| {
        scheduled.status == "False"
            && matches!(
                scheduled.reason.as_deref(),
                Some("Unschedulable" | "SchedulingGated")
            )
    });
    if let Some(scheduled) = unscheduled {
        let message = scheduled.message.as_deref().unwrap_or("no node fits");
        return PodState::Waiting(Waiting::Unschedulable(shortened(message).into()));
    }
    let all = |list: &Option<Vec<ContainerStatus>>| list.clone().unwrap_or_default();
    let failing = all(&status.init_container_statuses)
        .into_iter()
        .chain(all(&status.container_statuses))
        .filter_map(|container| container.state?.waiting?.reason)
        .find(|reason| FAILING.contains(&reason.as_str()));
    match failing {
        Some(reason) => PodState::Waiting(Waiting::Failing(reason.into())),
        None => PodState::Starting,
    }
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind)
}

fn seconds(time: &Time) -> i64 {
    time.0.as_second()
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST_MESSAGE))
        .unwrap_or(text)
}

/// Pods found by their labels: for each `key=value` the pods that hold it.
#[derive(Debug, Default)]
pub struct PodIndex {
    pods: Vec<Arc<Pod>>,
    /// By hash of namespace and label line. A collision only makes a list longer: every pod is checked.
    holding: HashMap<u64, Vec<u32>, rustc_hash::FxBuildHasher>,
}

impl PodIndex {
    /// Indexes `pods`.
    pub fn new(pods: impl IntoIterator<Item = Arc<Pod>>) -> Self {
        let pods: Vec<Arc<Pod>> = pods.into_iter().collect();
        let mut holding: HashMap<u64, Vec<u32>, _> = HashMap::default();
        for (number, pod) in pods.iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            for line in pod.labels.lines() {
                holding
                    .entry(hashed(&pod.namespace, line))
                    .or_default()
                    .push(number);
            }
        }
        Self { pods, holding }
    }

    /// The pods of `namespace` that `selector` selects, by name. An empty selector selects none.
    pub fn select<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.candidates(namespace, selector)
            .filter(move |pod| *pod.namespace == *namespace && selector.matches(&pod.labels))
    }

    /// The shortest list that holds all selected pods.
    fn candidates<'a>(
        &'a self,
        namespace: &str,
        selector: &Selector,
    ) -> Box<dyn Iterator<Item = &'a Arc<Pod>> + 'a> {
        let lists = selector
            .lines()
            .map(|line| self.holding.get(&hashed(namespace, line)));
        let none: &[u32] = &[];
        match lists
            .map(|list| list.map_or(none, Vec::as_slice))
            .min_by_key(|list| list.len())
        {
            Some(list) => Box::new(
                list.iter()
                    .filter_map(|&number| self.pods.get(number as usize)),
            ),
            None => Box::new(self.pods.iter()),
        }
    }
}

fn hashed(namespace: &str, line: &str) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = rustc_hash::FxBuildHasher.build_hasher();
    hasher.write(namespace.as_bytes());
    hasher.write_u8(0);
    hasher.write(line.as_bytes());
    hasher.finish()
}

/// The replicas of one scale target: what its pods can do, and what is missing of the count it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// By state. Pods that wait are `pending`.
    pub replicas: Replicas,
    /// Why the first of those pending is.
    pub waiting: Option<Waiting>,
}

/// Counts `pods`, one replica each (of a group of pods the selector names the leader only).
pub fn count<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Counted {
    let mut counted = Counted::default();
    for pod in pods {
        let replicas = &mut counted.replicas;
        match &pod.state {
            PodState::Ready => replicas.ready += 1,
            PodState::Starting => replicas.starting += 1,
            PodState::Draining => replicas.draining += 1,
            PodState::Over => {}
            PodState::Waiting(why) => {
                replicas.pending += 1;
                counted.waiting.get_or_insert_with(|| why.clone());
            }
        }
    }
    counted
}

/// Which pods of one scale target have become ready, each told once: a pod that is ready again after it was not says
/// nothing about start-up times.
#[derive(Clone, Debug, Default)]
pub struct Starts {
    told: HashSet<(Box<str>, i64)>,
}

impl Starts {
    /// Start-up times of the pods that became ready since the last call (in the first: of all that are ready).
    pub fn became_ready<'a>(
        &mut self,
        pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    ) -> Vec<Duration> {
        let (mut still, mut fresh) = (HashSet::new(), Vec::new());
        for pod in pods {
            // A pod of a StatefulSet comes back under its name, with another time of creation.
            let mut known = self.told.take(&(pod.name.clone(), pod.created));
            if known.is_none() && pod.is_ready() {
                fresh.extend(pod.startup());
                known = Some((pod.name.clone(), pod.created));
            }
            still.extend(known);
        }
        self.told = still;
        fresh
    }
}

/// An index and the generation of the store that it was made from.
type Indexed = (u64, Arc<PodIndex>);

/// Every pod that is followed, with its index made anew only when something changed.
#[derive(Clone, Debug)]
pub struct Pods {
    store: Store<Pod>,
    indexed: Arc<Mutex<Option<Indexed>>>,
}

impl Pods {
    /// Over a store of [`Pod::trim`]med pods.
    pub fn new(store: Store<Pod>) -> Self {
        Self {
            store,
            indexed: Arc::default(),
        }
    }

    /// All pods as they are now.
    pub fn index(&self) -> Arc<PodIndex> {
        let mut indexed = self.indexed.lock();
        // Read before the objects: what changes in between is indexed, and indexed again next time.
        let generation = *self.store.changes().borrow();
        match &*indexed {
            Some((built, index)) if *built == generation => Arc::clone(index),
            _ => {
                let index = Arc::new(PodIndex::new(self.store.snapshot().values().cloned()));
                *indexed = Some((generation, Arc::clone(&index)));
                index
            }
        }
    }

    /// The pods themselves, for who wants to be told of changes.
    pub fn store(&self) -> &Store<Pod> {
        &self.store
    }

    /// How good the knowledge is.
    pub fn health(&self) -> Health {
        self.store.health()
    }

    /// Counts the pods of `namespace` that `selector` selects.
    pub fn replicas(&self, namespace: &str, selector: &Selector) -> Counted {
        count(self.index().select(namespace, selector))
    }
}

#[cfg(test)]
mod tests;

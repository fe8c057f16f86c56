//! The last known state of the objects followed, and how good that knowledge is.

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Objects that cannot be read and are remembered by name; further ones are only counted.
const MAX_BROKEN: usize = 64;

/// What tells one object of a kind from another. The namespace of cluster-scoped objects is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl ObjectKey {
    /// The object `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// All objects followed, by namespace and name.
pub type Objects<T> = BTreeMap<ObjectKey, Arc<T>>;

/// How good a store's knowledge is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// A whole list has been read once. It stays true: what is known is then old at worst.
    pub synced: bool,
    /// When the API server last answered or sent anything, on the process's clock.
    pub last_contact: Option<Duration>,
    /// What is wrong now; `None` = the watch stands.
    pub trouble: Option<Trouble>,
    /// Objects that cannot be decoded, with the reason; at most 64.
    pub broken: BTreeMap<ObjectKey, String>,
}

/// Why nothing new is heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// Whose fault it is.
    pub kind: TroubleKind,
    /// What the client or the API server said.
    pub message: String,
    /// Since when, on the process's clock.
    pub since: Duration,
}

/// What stands between a store and its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The API server does not know the resource: its CRD is not installed.
    Absent,
    /// Our account may not list or watch it.
    Forbidden,
    /// Anything else: the server is away, overloaded, or speaks nonsense.
    Unreachable,
}

/// Shared reader of the objects followed.
pub struct Store<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: RwLock<State<T>>,
    generation: watch::Sender<u64>,
}

struct State<T> {
    objects: Arc<Objects<T>>,
    health: Health,
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.read();
        f.debug_struct("Store")
            .field("objects", &state.objects.len())
            .field("health", &state.health)
            .finish()
    }
}

impl<T> Store<T> {
    /// A store that knows nothing yet.
    pub fn empty() -> Self {
        let state = State {
            objects: Arc::default(),
            health: Health::default(),
        };
        Self {
            shared: Arc::new(Shared {
                state: RwLock::new(state),
                generation: watch::Sender::new(0),
            }),
        }
    }

    /// A synced store of exactly `objects` that never changes: for tests, and for what is known beforehand.
    pub fn fixed(objects: impl IntoIterator<Item = (ObjectKey, T)>) -> Self {
        let store = Self::empty();
        {
            let mut state = store.shared.state.write();
            let objects = objects
                .into_iter()
                .map(|(key, object)| (key, Arc::new(object)));
            state.objects = Arc::new(objects.collect());
            state.health.synced = true;
        }
        store
    }

    /// Everything known now. Cheap; what changes later does not show in it.
    pub fn snapshot(&self) -> Arc<Objects<T>> {
        Arc::clone(&self.shared.state.read().objects)
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// How good the knowledge is.
    pub fn health(&self) -> Health {
        self.shared.state.read().health.clone()
    }

    /// Whether a whole list has been read once.
    pub fn is_synced(&self) -> bool {
        self.shared.state.read().health.synced
    }

    /// Follows the generation of the store: it grows whenever objects changed, the store became synced, or
    /// trouble or broken objects came or went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// Resolves once a whole list has been read.
    pub async fn synced(&self) {
        let mut changes = self.changes();
        while !self.is_synced() {
            // This store holds the sender, so waiting cannot fail.
            let _ = changes.changed().await;
        }
    }
}

impl<T: PartialEq> Store<T> {
    /// The API server was heard: whatever was wrong is over.
    pub(super) fn contact(&self, now: Duration) {
        self.change(|state| {
            state.health.last_contact = Some(now);
            state.health.trouble.take().is_some()
        });
    }

    /// Nothing is heard, for this reason. The time of the first trouble in a row stays.
    pub(super) fn trouble(&self, now: Duration, kind: TroubleKind, message: String) {
        self.change(|state| {
            let before = state.health.trouble.as_ref();
            let since = before.map_or(now, |trouble| trouble.since);
            let told = before.is_some_and(|trouble| trouble.kind == kind);
            state.health.trouble = Some(Trouble {
                kind,
                message,
                since,
            });
            !told
        });
    }

    /// A whole list: what is not in it is gone, except that what cannot be read stays as it was known.
    pub(super) fn replace(&self, mut listed: BTreeMap<ObjectKey, Read<T>>) {
        self.change(|state| {
            let mut objects = Objects::new();
            let mut broken = BTreeMap::new();
            let mut changed = !std::mem::replace(&mut state.health.synced, true);
            while let Some((key, read)) = listed.pop_first() {
                let known = state.objects.get(&key);
                let keep = match read {
                    Read::Object(object) => match known {
                        Some(known) if **known == object => Some(Arc::clone(known)),
                        _ => {
                            changed = true;
                            Some(Arc::new(object))
                        }
                    },
                    Read::Dropped => None,
                    Read::Broken(reason) => {
                        let known = known.cloned();
                        if broken.len() < MAX_BROKEN {
                            broken.insert(key.clone(), reason);
                        }
                        known
                    }
                };
                if let Some(object) = keep {
                    objects.insert(key, object);
                }
            }
            changed |= objects.len() != state.objects.len() || broken != state.health.broken;
            if changed {
                state.objects = Arc::new(objects);
                state.health.broken = broken;
            }
            changed
        });
    }

    /// One object was added or changed.
    pub(super) fn apply(&self, key: ObjectKey, read: Read<T>) {
        self.change(|state| {
            let healed = state.health.broken.remove(&key).is_some();
            match read {
                Read::Object(object) => {
                    let known = state.objects.get(&key);
                    if known.is_some_and(|known| **known == object) {
                        return healed;
                    }
                    Arc::make_mut(&mut state.objects).insert(key, Arc::new(object));
                    true
                }
                Read::Dropped => remove(state, &key) || healed,
                Read::Broken(reason) => {
                    if state.health.broken.len() < MAX_BROKEN {
                        state.health.broken.insert(key, reason);
                    }
                    !healed
                }
            }
        });
    }

    /// One object is gone.
    pub(super) fn delete(&self, key: &ObjectKey) {
        self.change(|state| state.health.broken.remove(key).is_some() | remove(state, key));
    }

    fn change(&self, change: impl FnOnce(&mut State<T>) -> bool) {
        let changed = change(&mut self.shared.state.write());
        if changed {
            self.shared
                .generation
                .send_modify(|generation| *generation += 1);
        }
    }
}

/// Takes an object out; a snapshot that somebody holds is copied, not edited.
fn remove<T>(state: &mut State<T>, key: &ObjectKey) -> bool {
    state.objects.contains_key(key) && Arc::make_mut(&mut state.objects).remove(key).is_some()
}

/// What became of an object's bytes.
#[derive(Debug, PartialEq)]
pub(super) enum Read<T> {
    /// What is kept of it.
    Object(T),
    /// Nothing of it is kept.
    Dropped,
    /// It cannot be decoded.
    Broken(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn readers_are_told_of_what_changed_and_of_nothing_else() {
        let store = Store::empty();
        let changes = store.changes();
        let told = || *changes.borrow();
        store.replace(BTreeMap::from([(key("a"), Read::Object(1))]));
        assert_eq!((store.is_synced(), told()), (true, 1));
        store.replace(BTreeMap::from([(key("a"), Read::Object(1))]));
        store.apply(key("a"), Read::Object(1));
        store.contact(Duration::ZERO);
        store.delete(&key("b"));
        assert_eq!(told(), 1);
        let before = store.snapshot();
        store.apply(key("a"), Read::Object(2));
        store.delete(&key("a"));
        assert_eq!((told(), store.snapshot().len()), (3, 0));
        assert_eq!(*before[&key("a")], 1, "a snapshot does not change");
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_was_known() {
        let store = Store::empty();
        store.replace(BTreeMap::from([
            (key("a"), Read::Object(1)),
            (key("b"), Read::Object(2)),
        ]));
        store.apply(key("a"), Read::Broken("spec.model: missing".into()));
        assert_eq!(store.get(&key("a")).as_deref(), Some(&1));
        assert_eq!(store.health().broken[&key("a")], "spec.model: missing");
        store.replace(BTreeMap::from([(key("a"), Read::Broken("still".into()))]));
        assert_eq!(store.snapshot().len(), 1);
        store.apply(key("a"), Read::Object(3));
        assert!(store.health().broken.is_empty());
        store.apply(key("a"), Read::Dropped);
        assert!(store.snapshot().is_empty());
    }

    #[test]
    fn trouble_counts_from_its_beginning_and_ends_with_a_contact() {
        let (store, second) = (Store::<u8>::empty(), Duration::from_secs(1));
        store.contact(second);
        for at in [2, 3] {
            store.trouble(
                at * second,
                TroubleKind::Unreachable,
                "connection refused".into(),
            );
        }
        let health = store.health();
        assert_eq!(health.trouble.unwrap().since, 2 * second);
        assert_eq!(health.last_contact, Some(second));
        assert_eq!(*store.changes().borrow(), 1, "told once");
        store.contact(4 * second);
        assert_eq!(store.health().trouble, None);
    }
}

//! Objects that moved from one API group to another: the old group is read where the new one is not installed.

use super::discover::Kind;
use kubernetes::watch::{Health, ObjectKey, Objects, Store, TroubleKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Objects of a kind that has two groups.
pub(super) struct Moved<T> {
    version: String,
    store: Store<T>,
    old_version: String,
    old: Option<Store<T>>,
    follow_old: Box<dyn Fn() -> Store<T> + Send>,
}

/// What is known of them at one instant.
pub(super) struct Known<T> {
    version: String,
    objects: Arc<Objects<T>>,
    broken: BTreeMap<ObjectKey, String>,
}

impl<T> Known<T> {
    pub(super) fn kind(&self) -> Kind<'_, T> {
        Kind {
            api_version: &self.version,
            objects: &self.objects,
            broken: &self.broken,
        }
    }
}

impl<T> Moved<T> {
    /// Objects of `version`; those of `old_version` are followed by `follow_old` once they are needed.
    pub(super) fn new(
        version: String,
        store: Store<T>,
        old_version: String,
        follow_old: impl Fn() -> Store<T> + Send + 'static,
    ) -> Self {
        Self {
            version,
            store,
            old_version,
            old: None,
            follow_old: Box::new(follow_old),
        }
    }

    /// What is known; `None` = not yet, though it soon may be.
    pub(super) fn known(&mut self) -> Option<Known<T>> {
        let health = self.store.health();
        if !health.synced && hindered(&health) == Some(TroubleKind::Absent) {
            let old = self.old.get_or_insert_with(&self.follow_old);
            return known(old, &self.old_version);
        }
        known(&self.store, &self.version)
    }
}

fn known<T>(store: &Store<T>, version: &str) -> Option<Known<T>> {
    let health = store.health();
    (health.synced || hindered(&health).is_some()).then(|| Known {
        version: version.to_owned(),
        objects: store.snapshot(),
        broken: health.broken,
    })
}

/// What will not pass by itself: there is no such resource, or no right to it.
fn hindered(health: &Health) -> Option<TroubleKind> {
    let kind = health.trouble.as_ref()?.kind;
    (kind != TroubleKind::Unreachable).then_some(kind)
}

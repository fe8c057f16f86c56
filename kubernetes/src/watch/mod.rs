//! Following objects of one kind: the last known state of all of them, kept through relists and outages.
//!
//! [`follow`] lists, then watches, and keeps a [`Store`]. It asks for nothing newer than Kubernetes 1.20:
//! paged lists and bookmarks. A `410 Gone` leads to a new list, during which the store goes on showing the
//! last state; so does an API server that is away. Objects are decoded one by one, so that one that cannot be
//! read stops no other, and trimmed before they are kept.

mod backoff;
mod reader;
mod store;
mod wire;

#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use store::{Health, ObjectKey, Objects, Store, Trouble, TroubleKind};

use kube::{Api, Resource};
use runtime::{Clock, Shutdown, Tasks};
use serde::de::DeserializeOwned;

/// Which objects are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A label selector in the API's syntax; `None` = all.
    pub labels: Option<String>,
    /// A field selector in the API's syntax; `None` = all.
    pub fields: Option<String>,
}

impl Selection {
    /// All of them.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those that a label selector selects.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self {
            labels: Some(selector.into()),
            fields: None,
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Self {
        Self {
            labels: None,
            fields: Some(format!("metadata.name={name}")),
        }
    }
}

/// Follows the objects of `api` that `selection` selects, as one of `tasks`, until `shutdown` is stopped (a
/// [`Shutdown::child`] ends this one alone). Of each object what `trim` returns is kept; `None` = it is not.
///
/// The store's readers are told of a change only when what is kept changed. An object that cannot be decoded
/// keeps what was last read of it and is listed in [`Health::broken`].
pub fn follow<K, T>(
    api: Api<K>,
    selection: Selection,
    trim: impl Fn(K) -> Option<T> + Send + Sync + 'static,
    clock: Clock,
    shutdown: Shutdown,
    tasks: &Tasks,
) -> Store<T>
where
    K: Resource + DeserializeOwned + Send + 'static,
    T: PartialEq + Send + Sync + 'static,
{
    let store = Store::empty();
    let reader = reader::Reader::new(api, selection, trim, clock, store.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = reader.run() => {}
            () = shutdown.stopped() => {}
        }
    });
    store
}

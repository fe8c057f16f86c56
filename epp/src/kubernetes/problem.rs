//! What is wrong with an object, and which one: becomes an Event.

use k8s_openapi::api::core::v1::ObjectReference;
use kubernetes::events::Remark;
use kubernetes::watch::ObjectKey;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct About {
    pub(super) api_version: String,
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl About {
    pub(super) fn pod(key: &ObjectKey, uid: &str) -> Self {
        Self::new("v1", "Pod", key, uid)
    }

    pub(super) fn new(api_version: &str, kind: &'static str, key: &ObjectKey, uid: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind,
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.to_owned(),
        }
    }

    pub(super) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.api_version.clone()),
            kind: Some(self.kind.to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) about: About,
    pub(super) reason: &'static str,
    /// Names the field, the value and what would be right.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(about: About, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            about,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn wrong_annotation(
        about: About,
        annotation: &str,
        value: &str,
        expected: &str,
    ) -> Self {
        let message = format!("annotation {annotation}: `{value}` is wrong, expected {expected}");
        Self::new(about, WRONG_ANNOTATION, message)
    }

    pub(super) fn remark(&self) -> Remark {
        Remark::warning(self.reason, "Discover", self.message.clone())
    }
}

/// An annotation's value cannot be used; the last good one stays in force.
pub(super) const WRONG_ANNOTATION: &str = "WrongAnnotation";
/// An object cannot be read; what was last read of it stays in force.
pub(super) const UNREADABLE: &str = "Unreadable";
/// A field's value cannot be used.
pub(super) const WRONG_VALUE: &str = "WrongValue";
/// The pool is not there.
pub(super) const POOL_GONE: &str = "PoolGone";
/// The pool was never there.
pub(super) const POOL_MISSING: &str = "PoolMissing";

//! What lists and watches carry, read just far enough: objects stay text until each is decoded alone.

use super::store::{ObjectKey, Read};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::Resource;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// Longest complaint that is kept of an object, bytes.
const LONGEST_REASON: usize = 300;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    /// An empty list may come as `null`.
    #[serde(default)]
    pub(super) items: Option<Vec<Box<RawValue>>>,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The part that every object has.
#[derive(Debug, Deserialize)]
struct Any {
    metadata: ObjectMeta,
}

/// What one line of a watch says.
#[derive(Debug)]
pub(super) enum Change<T> {
    /// An object was added or changed, at this resource version.
    Applied(ObjectKey, Read<T>, String),
    /// An object is gone (or no longer selected), at this resource version.
    Deleted(ObjectKey, String),
    /// Nothing up to this resource version.
    Bookmark(String),
    /// The watch is over.
    Error(Box<Status>),
}

/// Why a line cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("a line of the watch is not understood: {0}")]
pub(super) struct Nonsense(String);

/// Decodes one object; `None` = it has no name.
pub(super) fn read<K, T>(
    text: &RawValue,
    trim: &impl Fn(K) -> Option<T>,
) -> Option<(ObjectKey, Read<T>)>
where
    K: Resource + DeserializeOwned,
{
    match serde_json::from_str::<K>(text.get()) {
        Ok(object) => {
            let key = key(object.meta())?;
            Some((key, trim(object).map_or(Read::Dropped, Read::Object)))
        }
        Err(error) => {
            let any: Any = serde_json::from_str(text.get()).ok()?;
            let reason = error.to_string();
            let reason = crate::conditions::shortened(&reason, LONGEST_REASON);
            Some((key(&any.metadata)?, Read::Broken(reason.to_owned())))
        }
    }
}

/// Decodes one line of a watch.
pub(super) fn line<K, T>(text: &str, trim: &impl Fn(K) -> Option<T>) -> Result<Change<T>, Nonsense>
where
    K: Resource + DeserializeOwned,
{
    let nonsense = |error: serde_json::Error| Nonsense(error.to_string());
    let Line { kind, object } = serde_json::from_str(text).map_err(nonsense)?;
    if kind == "ERROR" {
        return serde_json::from_str(object.get())
            .map(Change::Error)
            .map_err(nonsense);
    }
    let Any { metadata } = serde_json::from_str(object.get()).map_err(nonsense)?;
    let version = metadata.resource_version.clone().unwrap_or_default();
    if version.is_empty() {
        return Err(Nonsense(format!("{kind} without a resourceVersion")));
    }
    match kind {
        "BOOKMARK" => Ok(Change::Bookmark(version)),
        "DELETED" => {
            let key = key(&metadata).ok_or_else(|| Nonsense("DELETED without a name".into()))?;
            Ok(Change::Deleted(key, version))
        }
        "ADDED" | "MODIFIED" => {
            let (key, read) =
                read(object, trim).ok_or_else(|| Nonsense(format!("{kind} without a name")))?;
            Ok(Change::Applied(key, read, version))
        }
        other => Err(Nonsense(format!("unknown type {other:?}"))),
    }
}

fn key(metadata: &ObjectMeta) -> Option<ObjectKey> {
    let name = metadata.name.as_deref()?;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    Some(ObjectKey::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn ip(pod: Pod) -> Option<String> {
        pod.status?.pod_ip
    }

    #[test]
    fn lines_are_told_apart() {
        let pod = r#"{"metadata":{"name":"a","namespace":"n","resourceVersion":"7"},"status":{"podIP":"10.0.0.1"}}"#;
        let line = |kind: &str, object: &str| {
            line(&format!(r#"{{"type":"{kind}","object":{object}}}"#), &ip)
        };
        assert!(matches!(
            line("ADDED", pod),
            Ok(Change::Applied(key, Read::Object(ip), version))
                if key == ObjectKey::new("n", "a") && ip == "10.0.0.1" && version == "7"
        ));
        assert!(matches!(
            line("DELETED", pod),
            Ok(Change::Deleted(_, version)) if version == "7"
        ));
        let bookmark = r#"{"metadata":{"resourceVersion":"9"}}"#;
        assert!(
            matches!(line("BOOKMARK", bookmark), Ok(Change::Bookmark(version)) if version == "9")
        );
        let gone = r#"{"kind":"Status","code":410,"message":"too old"}"#;
        assert!(matches!(line("ERROR", gone), Ok(Change::Error(status)) if status.code == 410));
        for (kind, object) in [
            ("ADDED", "{}"),
            ("NEWS", pod),
            ("BOOKMARK", r#"{"metadata":{}}"#),
        ] {
            assert!(line(kind, object).is_err(), "{kind} {object}");
        }
    }

    #[test]
    fn an_object_that_does_not_decode_is_still_known_by_name() {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        let broken = raw(r#"{"metadata":{"name":"a"},"spec":{"containers":7}}"#);
        assert!(matches!(
            read(&broken, &ip),
            Some((key, Read::Broken(reason))) if key == ObjectKey::new("", "a") && !reason.is_empty()
        ));
        assert!(matches!(
            read(&raw(r#"{"metadata":{"name":"a"}}"#), &ip),
            Some((_, Read::Dropped))
        ));
        assert_eq!(read(&raw("{}"), &ip), None);
    }
}

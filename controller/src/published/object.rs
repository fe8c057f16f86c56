//! References to Kubernetes objects, with the plural that URLs and metric requests name them by.

use serde::{Deserialize, Serialize};

use super::Labels;

/// A Kubernetes object in its model's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Group and version, such as `apps/v1`; the core group is `v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// The resource's plural, such as `deployments`, as discovery tells it.
    pub plural: String,
    /// Labels of the object, for requests that select objects by label; may be left empty.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl ObjectRef {
    /// A reference whose plural is guessed from the kind ([`plural_of`]): right for every kind that Headroom knows of.
    pub fn new(
        api_version: impl Into<String>,
        kind: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        let kind = kind.into();
        Self {
            api_version: api_version.into(),
            plural: plural_of(&kind),
            kind,
            name: name.into(),
            labels: Labels::new(),
        }
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _version)| group)
    }

    /// Plural and group as metric requests spell them: `deployments.apps`, `pods`.
    pub fn resource(&self) -> String {
        match self.group() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// The plural that Kubernetes itself guesses for a kind: lower case with `s`, `es` after `s`, `ies` for a final `y`.
pub fn plural_of(kind: &str) -> String {
    let singular = kind.to_ascii_lowercase();
    match singular.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if singular.ends_with('s') => format!("{singular}es"),
        None => format!("{singular}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_spelled_as_metric_requests_spell_them() {
        for (api_version, kind, resource) in [
            ("apps/v1", "Deployment", "deployments.apps"),
            (
                "leaderworkerset.x-k8s.io/v1",
                "LeaderWorkerSet",
                "leaderworkersets.leaderworkerset.x-k8s.io",
            ),
            (
                "inference.networking.k8s.io/v1",
                "InferencePool",
                "inferencepools.inference.networking.k8s.io",
            ),
            ("v1", "Pod", "pods"),
            ("example.com/v1", "Policy", "policies.example.com"),
            ("example.com/v1", "Chess", "chesses.example.com"),
        ] {
            assert_eq!(ObjectRef::new(api_version, kind, "x").resource(), resource);
        }
    }
}

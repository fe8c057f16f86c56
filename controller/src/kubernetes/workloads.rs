//! Objects with a scale subresource, of whichever kind, as the controller keeps them.

use crds::annotations::Read;
use kube::core::DynamicObject;
use serde_json::Value;

use super::hpas::{asked, source};
use super::models::Source;

/// Longest message kept of a failure, bytes.
const LONGEST_MESSAGE: usize = 300;

/// What is kept of a Deployment, LeaderWorkerSet or anything else that can be scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The object itself. Its generation is left out: it changes with the count.
    pub source: Source,
    /// What its annotations say of a model; `None` = nothing.
    pub asked: Option<Box<Read>>,
    /// Replicas that its spec asks for, where it keeps them in `spec.replicas` as nearly all kinds do.
    pub replicas: Option<u32>,
    /// Where its status names its pods: told apart from before, the scale subresource is asked again.
    pub selector: Option<Box<str>>,
    /// Why pods cannot be created, as its controller says: a quota, an admission webhook.
    pub refused: Option<Box<str>>,
}

impl Workload {
    /// Keeps of an object of `api_version` and `kind` what matters here.
    pub fn trim(api_version: &str, kind: &str, object: DynamicObject) -> Option<Self> {
        let DynamicObject { metadata, data, .. } = object;
        let annotations = metadata.annotations.clone().unwrap_or_default();
        let status = &data["status"];
        Some(Self {
            source: Source {
                generation: None,
                ..source(api_version, kind, metadata)?
            },
            asked: asked(&annotations),
            replicas: data["spec"]["replicas"]
                .as_u64()
                .and_then(|count| u32::try_from(count).ok()),
            selector: ["hpaPodSelector", "selector", "labelSelector"]
                .into_iter()
                .find_map(|field| status[field].as_str())
                .map(Into::into),
            refused: refused(status),
        })
    }
}

/// The message of a `ReplicaFailure` that holds.
fn refused(status: &Value) -> Option<Box<str>> {
    let holds =
        |condition: &&Value| condition["type"] == "ReplicaFailure" && condition["status"] == "True";
    let failure = status["conditions"].as_array()?.iter().find(holds)?;
    let message = failure["message"]
        .as_str()
        .unwrap_or("pods cannot be created");
    Some(message[..message.floor_char_boundary(LONGEST_MESSAGE)].into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(status: Value) -> Workload {
        let object = serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "llama", "namespace": "chat", "generation": 4, "annotations": {"headroom.dev/model": "llama"}},
            "spec": {"replicas": 3},
            "status": status,
        }));
        Workload::trim("apps/v1", "Deployment", object.unwrap()).unwrap()
    }

    #[test]
    fn counts_and_selectors_are_where_kinds_keep_them() {
        let plain = workload(json!({}));
        assert_eq!(
            (plain.replicas, &plain.selector, &plain.refused),
            (Some(3), &None, &None)
        );
        assert_eq!(plain.source.generation, None);
        assert_eq!(plain.asked.unwrap().facts.model.as_deref(), Some("llama"));
        let group = workload(json!({"hpaPodSelector": "worker-index=0"}));
        assert_eq!(group.selector.as_deref(), Some("worker-index=0"));
    }

    #[test]
    fn a_quota_that_refuses_pods_is_told() {
        let message = "pods \"llama-1\" is forbidden: exceeded quota: gpus";
        let failure = |status: &str| json!({"conditions": [{"type": "ReplicaFailure", "status": status, "reason": "FailedCreate", "message": message}]});
        assert_eq!(workload(failure("True")).refused.as_deref(), Some(message));
        assert_eq!(workload(failure("False")).refused, None);
    }
}

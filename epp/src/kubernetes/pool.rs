//! The InferencePool: which pods, which ports, which default targets.

use crds::inference_pool::InferencePoolSpec;
use epp_core::config::AppProtocol;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use names::annotation;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Group of the pool's first release, whose spec looked otherwise.
const OLD_GROUP: &str = "inference.networking.x-k8s.io";
/// Ports that a pool may have.
const MAX_PORTS: usize = 8;

/// Where a pool of API group `group` is found.
pub(super) fn resource(group: &str) -> ApiResource {
    let version = if group == OLD_GROUP { "v1alpha2" } else { "v1" };
    let kind = GroupVersionKind::gvk(group, version, super::POOL_KIND);
    ApiResource::from_gvk_with_plural(&kind, "inferencepools")
}

/// What is kept of an InferencePool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PoolObject {
    pub(super) uid: String,
    /// Those that may say something about a model.
    pub(super) annotations: BTreeMap<String, String>,
    /// What it says, or what is wrong with it.
    pub(super) members: Result<Members, String>,
    /// What its endpoints speak.
    pub(super) protocol: AppProtocol,
}

/// Which pods are endpoints, and on which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// A label selector in the API's syntax.
    pub selector: String,
    /// Target ports, 1 to 8, each once.
    pub ports: Vec<u16>,
}

/// What is kept of `object`.
pub(super) fn read(object: DynamicObject) -> Option<PoolObject> {
    let old = object
        .types
        .as_ref()
        .is_some_and(|types| types.api_version.starts_with(OLD_GROUP));
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let protocol = spec
        .get("appProtocol")
        .and_then(|protocol| AppProtocol::parse(protocol.as_str()?));
    let members = if old { old_spec(spec) } else { spec_v1(spec) };
    let ours = |name: &String| {
        name.starts_with(names::kubernetes::GROUP)
            || name == annotation::MANAGED
            || annotation::MODEL_ANNOTATIONS
                .iter()
                .any(|known| known.all().any(|known| known == name))
    };
    let mut annotations = object.metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| ours(name));
    Some(PoolObject {
        uid: object.metadata.uid.unwrap_or_default(),
        annotations,
        members,
        protocol: protocol.unwrap_or_default(),
    })
}

fn spec_v1(spec: serde_json::Value) -> Result<Members, String> {
    let spec: InferencePoolSpec =
        serde_json::from_value(spec).map_err(|error| format!("spec: {error}"))?;
    let ports = spec.target_ports.iter().map(|port| port.number).collect();
    members(&spec.selector.match_labels, ports)
}

/// The spec that the pool had in its first group.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldSpec {
    selector: BTreeMap<String, String>,
    target_port_number: u16,
}

fn old_spec(spec: serde_json::Value) -> Result<Members, String> {
    let spec: OldSpec = serde_json::from_value(spec).map_err(|error| format!("spec: {error}"))?;
    members(&spec.selector, vec![spec.target_port_number])
}

fn members(labels: &BTreeMap<String, String>, ports: Vec<u16>) -> Result<Members, String> {
    if labels.is_empty() {
        return Err("spec.selector: `{}` is empty: it would select every pod of the namespace; name at least one label".into());
    }
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Ok(Members {
        selector: labels.join(","),
        ports: check_ports(ports).map_err(|wrong| format!("spec.targetPorts: {wrong}"))?,
    })
}

/// `ports` if they can be a pool's.
pub(crate) fn check_ports(ports: Vec<u16>) -> Result<Vec<u16>, String> {
    if ports.is_empty() || ports.len() > MAX_PORTS {
        return Err(format!(
            "{} ports are given; give 1 to {MAX_PORTS}",
            ports.len()
        ));
    }
    if let Some(wrong) = ports.iter().enumerate().find_map(|(index, port)| {
        let again = ports.get(..index).unwrap_or_default().contains(port);
        (again || *port == 0).then_some(port)
    }) {
        return Err(format!(
            "`{wrong}` is wrong; give ports from 1 to 65535, each once"
        ));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pool(api_version: &str, spec: Value) -> PoolObject {
        let object = json!({
            "apiVersion": api_version, "kind": "InferencePool",
            "metadata": {"name": "pool", "uid": "u", "annotations": {
                "headroom.dev/slo-ttft-ms": "500", "kubectl.kubernetes.io/last-applied-configuration": "{}",
            }},
            "spec": spec,
        });
        read(serde_json::from_value(object).unwrap()).unwrap()
    }

    const V1: &str = "inference.networking.k8s.io/v1";

    #[test]
    fn both_generations_say_the_same() {
        let new = pool(
            V1,
            json!({
                "selector": {"matchLabels": {"app": "vllm", "model": "m"}},
                "targetPorts": [{"number": 8000}], "appProtocol": "http",
            }),
        );
        let old = pool(
            "inference.networking.x-k8s.io/v1alpha2",
            json!({
                "selector": {"app": "vllm", "model": "m"}, "targetPortNumber": 8000,
            }),
        );
        assert_eq!(new, old);
        let members = new.members.unwrap();
        assert_eq!(
            (members.selector.as_str(), members.ports.as_slice()),
            ("app=vllm,model=m", [8000].as_slice())
        );
        let h2c = json!({
            "selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": 8000}],
            "appProtocol": "kubernetes.io/h2c",
        });
        assert_eq!(
            (new.protocol, pool(V1, h2c).protocol),
            (AppProtocol::Http, AppProtocol::H2c)
        );
        assert_eq!(new.annotations.len(), 1, "what is not ours is not kept");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |spec: Value| pool(V1, spec).members.unwrap_err();
        let labels = json!({"matchLabels": {"a": "b"}});
        for (spec, named) in [
            (json!({"targetPorts": []}), "selector"),
            (
                json!({"selector": {"matchLabels": {}}, "targetPorts": [{"number": 1}]}),
                "every pod",
            ),
            (json!({"selector": labels, "targetPorts": []}), "0 ports"),
            (
                json!({"selector": labels, "targetPorts": [{"number": 7}, {"number": 7}]}),
                "`7` is wrong",
            ),
        ] {
            let message = wrong(spec);
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn groups_have_their_versions() {
        assert_eq!(resource("inference.networking.k8s.io").api_version, V1);
        let old = resource(OLD_GROUP);
        assert_eq!(
            (old.version.as_str(), old.plural.as_str()),
            ("v1alpha2", "inferencepools")
        );
    }
}

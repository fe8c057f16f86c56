//! Pods as endpoints: which ones serve, on which ports, under which names.

use super::problem::{About, Problem};
use epp_core::EndpointSpec;
use k8s_openapi::api::core::v1::Pod;
use kubernetes::watch::Objects;
use names::{annotation, label};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What is kept of a pod that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServingPod {
    pub(super) uid: String,
    pub(super) ip: IpAddr,
    pub(super) labels: BTreeMap<String, String>,
    /// What its annotation says of its ports.
    pub(super) active_ports: Option<String>,
}

/// What is kept of `pod`; `None` = it does not serve: it is not ready, is being deleted, or has no address.
pub(super) fn serving(pod: Pod) -> Option<ServingPod> {
    let status = pod.status?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if !ready || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let annotations = pod.metadata.annotations.unwrap_or_default();
    let active_ports = annotation::ACTIVE_PORTS
        .all()
        .find_map(|name| annotations.get(name).cloned());
    let mut labels = pod.metadata.labels.unwrap_or_default();
    // What a pod says of itself goes before what is known of its node.
    let node = pod.spec.and_then(|spec| spec.node_name);
    for (label, known) in [(label::HOST, node), (label::NODE_ADDRESS, status.host_ip)] {
        if let Some(value) = known {
            labels.entry(label.to_owned()).or_insert(value);
        }
    }
    Some(ServingPod {
        uid: pod.metadata.uid.unwrap_or_default(),
        ip: status.pod_ip?.parse().ok()?,
        labels,
        active_ports,
    })
}

/// One endpoint per pod and target port, named `<namespace>/<pod>-rank-<index of the port>`. Its address is part of
/// its identity, so that a pod that comes back under another one is another endpoint.
pub(super) fn endpoints(
    pods: &Objects<ServingPod>,
    ports: &[u16],
    problems: &mut Vec<Problem>,
) -> Vec<EndpointSpec> {
    let mut endpoints = Vec::with_capacity(pods.len() * ports.len());
    for (key, pod) in pods {
        let active = pod.active_ports.as_deref().map(|text| {
            let (active, wrong) = active_ports(text, ports);
            if let Some(wrong) = wrong {
                let about = About::pod(key, &pod.uid);
                problems.push(Problem::wrong_annotation(
                    about,
                    annotation::ACTIVE_PORTS.canonical,
                    &wrong,
                    &format!(
                        "a list of this pool's target ports ({}), separated by commas",
                        list(ports)
                    ),
                ));
            }
            active
        });
        for (rank, &port) in ports.iter().enumerate() {
            if active.as_ref().is_none_or(|active| active.contains(&port)) {
                endpoints.push(EndpointSpec {
                    name: format!("{key}-rank-{rank}"),
                    address: SocketAddr::new(pod.ip, port).to_string(),
                    labels: pod.labels.clone(),
                });
            }
        }
    }
    endpoints
}

/// The ports that `text` lists, and its first entry that is no target port. When nothing of it can be used it
/// restricts nothing.
fn active_ports(text: &str, ports: &[u16]) -> (Vec<u16>, Option<String>) {
    let (mut active, mut wrong) = (Vec::new(), None);
    for entry in text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        match entry.parse().ok().filter(|port| ports.contains(port)) {
            Some(port) => active.push(port),
            None => wrong = wrong.or_else(|| Some(entry.chars().take(64).collect())),
        }
    }
    if active.is_empty() && (wrong.is_some() || text.trim().is_empty()) {
        active = ports.to_vec();
    }
    (active, wrong)
}

fn list(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubernetes::watch::ObjectKey;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(value: Value) -> Option<ServingPod> {
        serving(serde_json::from_value(value).unwrap())
    }

    fn ready(ip: &str, annotations: Value) -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u", "labels": {"llm-d.ai/role": "decode"}, "annotations": annotations},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    #[test]
    fn only_ready_pods_that_stay_serve() {
        assert!(pod(ready("10.0.0.1", json!({}))).is_some());
        let mut deleting = ready("10.0.0.1", json!({}));
        deleting["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        assert_eq!(pod(deleting), None);
        let mut starting = ready("10.0.0.1", json!({}));
        starting["status"]["conditions"][0]["status"] = json!("False");
        assert_eq!(pod(starting), None);
        assert_eq!(pod(ready("", json!({}))), None);
        assert_eq!(pod(json!({"metadata": {"name": "p"}})), None);
    }

    #[test]
    fn a_pod_stands_on_a_node() {
        let mut on_node = ready("10.0.0.1", json!({}));
        on_node["spec"] = json!({"nodeName": "gpu-7", "containers": []});
        on_node["status"]["hostIP"] = json!("192.168.0.7");
        let labels = pod(on_node.clone()).unwrap().labels;
        assert_eq!(labels[label::HOST], "gpu-7");
        assert_eq!(labels[label::NODE_ADDRESS], "192.168.0.7");
        on_node["metadata"]["labels"][label::HOST] = json!("mine");
        assert_eq!(pod(on_node).unwrap().labels[label::HOST], "mine");
    }

    fn specs(annotations: Value, ip: &str) -> (Vec<(String, String)>, Vec<Problem>) {
        let pod = pod(ready(ip, annotations)).unwrap();
        let pods = Objects::from([(ObjectKey::new("ns", "p"), Arc::new(pod))]);
        let mut problems = Vec::new();
        let endpoints = endpoints(&pods, &[8000, 8001, 8002], &mut problems);
        assert!(
            endpoints
                .iter()
                .all(|endpoint| endpoint.labels["llm-d.ai/role"] == "decode")
        );
        let named = endpoints
            .into_iter()
            .map(|endpoint| (endpoint.name, endpoint.address));
        (named.collect(), problems)
    }

    #[test]
    fn every_target_port_is_an_endpoint_with_its_rank() {
        let (endpoints, problems) = specs(json!({}), "fd00::7");
        let wanted = [0, 1, 2].map(|rank| {
            (
                format!("ns/p-rank-{rank}"),
                format!("[fd00::7]:{}", 8000 + rank),
            )
        });
        assert_eq!((endpoints, problems), (wanted.to_vec(), vec![]));
    }

    #[test]
    fn active_ports_restrict_and_ranks_stay() {
        for name in [
            "llm-d.ai/active-ports",
            "inference.networking.k8s.io/active-ports",
        ] {
            let (endpoints, problems) = specs(json!({name: "8002, 8000"}), "10.0.0.1");
            let names: Vec<_> = endpoints.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(
                (names.as_slice(), problems.len()),
                (["ns/p-rank-0", "ns/p-rank-2"].as_slice(), 0)
            );
        }
    }

    #[test]
    fn wrong_active_ports_are_told_and_never_empty_a_pod() {
        for (text, left) in [("8001,9999", 1), ("x", 3), ("", 3), (" , ", 0)] {
            let (endpoints, problems) = specs(json!({"llm-d.ai/active-ports": text}), "10.0.0.1");
            assert_eq!(endpoints.len(), left, "{text:?}");
            let told = problems
                .iter()
                .any(|problem| problem.message.contains("llm-d.ai/active-ports"));
            assert_eq!(told, text.contains(['9', 'x']), "{text:?}: {problems:?}");
        }
    }
}

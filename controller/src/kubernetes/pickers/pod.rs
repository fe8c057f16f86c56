//! Endpoint picker pods, as little of them as polling needs.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use names::{admin, label};

/// Name of the container port that the admin pages are at; without it, [`admin::PORT`].
pub const ADMIN_PORT_NAME: &str = "admin";

/// One pod that picks endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickerPod {
    /// Unique over all time.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pool it picks for, by its label.
    pub pool: String,
    /// Where its admin pages are; `None` = it has no address yet.
    pub address: Option<SocketAddr>,
    /// Starts of its containers: each may have made itself a new certificate.
    pub restarts: u32,
}

impl PickerPod {
    /// What is kept of `pod`; `None` = it is no picker, or it has ended for good.
    pub fn trim(pod: Pod) -> Option<Self> {
        let metadata = pod.metadata;
        let status = pod.status.unwrap_or_default();
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let pool = metadata.labels?.remove(label::POOL)?;
        let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
        let mut ports = containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten());
        let named = ports.find(|port| port.name.as_deref() == Some(ADMIN_PORT_NAME));
        let port = named
            .and_then(|port| u16::try_from(port.container_port).ok())
            .unwrap_or(admin::PORT);
        let ip: Option<IpAddr> = status.pod_ip.and_then(|ip| ip.parse().ok());
        let starts = status.container_statuses.iter().flatten();
        Some(Self {
            uid: metadata.uid?,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name?,
            pool,
            address: ip.map(|ip| SocketAddr::new(ip, port)),
            restarts: starts
                .map(|container| u32::try_from(container.restart_count).unwrap_or(0))
                .sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Option<PickerPod> {
        PickerPod::trim(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_labelled_pod_is_a_picker() {
        let picker = pod(
            r#"{"metadata": {"name": "epp-0", "namespace": "ns", "uid": "u", "labels": {"headroom.dev/pool": "p"}},
                "spec": {"containers": [{"name": "epp", "ports": [{"containerPort": 9002}, {"name": "admin", "containerPort": 9999}]}]},
                "status": {"podIP": "127.1.2.3", "containerStatuses": [
                    {"name": "epp", "image": "", "imageID": "", "ready": true, "restartCount": 2}]}}"#,
        )
        .unwrap();
        assert_eq!(picker.address, "127.1.2.3:9999".parse().ok());
        assert_eq!((picker.pool.as_str(), picker.restarts), ("p", 2));
    }

    #[test]
    fn what_is_no_picker_or_has_ended_is_dropped() {
        assert_eq!(
            pod(r#"{"metadata": {"name": "a", "uid": "u", "labels": {"app": "x"}}}"#),
            None
        );
        let ended = r#"{"metadata": {"name": "a", "uid": "u", "labels": {"headroom.dev/pool": "p"}}, "status": {"phase": "Failed"}}"#;
        assert_eq!(pod(ended), None);
        let young =
            pod(r#"{"metadata": {"name": "a", "uid": "u", "labels": {"headroom.dev/pool": "p"}}}"#);
        assert_eq!(young.unwrap().address, None);
    }
}

//! A static Envoy configuration that routes through the picker, fails open, and keeps clients from
//! choosing addresses.
//!
//! Three traps shape it. A client's routing headers must go before the route is chosen, so they are
//! removed in the connection manager and not by a filter. `failure_mode_allow` alone does not fail open
//! in full-duplex streaming, because a body may already be on its way to a dead picker: an active health
//! check takes a dead picker out, and a panic threshold of zero keeps it out. And the message timeout must
//! exceed the longest time a request may be queued.

use epp_core::EndpointSpec;
use names::{header, health};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapOptions {
    /// Where clients connect.
    pub listener: SocketAddr,
    /// Envoy's own admin page.
    pub admin: SocketAddr,
    /// The picker's ext_proc address.
    pub picker: SocketAddr,
    /// The port of its gRPC health checks, at the same IP.
    pub picker_health_port: u16,
    /// File with the endpoints that are used while there is no picker, as [`render_eds`] writes it. Replace it
    /// by rename.
    pub fallback_eds: PathBuf,
    /// Longest time a request may be queued by the picker.
    pub longest_queueing: Duration,
    /// Longest answer, and longest silence within one.
    pub longest_answer: Duration,
    /// Time between health checks of the picker: for so long after a crash small requests still fail.
    pub health_interval: Duration,
}

impl Default for BootstrapOptions {
    /// Ports 8081 (clients), 19000 (admin), 9002 and 9003 (picker) on loopback.
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            listener: local(8081),
            admin: local(19000),
            picker: local(9002),
            picker_health_port: 9003,
            fallback_eds: PathBuf::from("fallback.yaml"),
            longest_queueing: Duration::from_secs(60),
            longest_answer: Duration::from_secs(600),
            health_interval: Duration::from_millis(500),
        }
    }
}

/// Added to the longest queueing: the message timeout must never strike first.
const QUEUEING_MARGIN: Duration = Duration::from_secs(30);
/// Requests at a time: far beyond what the picker admits, since Envoy's own default of 1,024 would refuse first.
const CIRCUIT_BREAKER: u32 = 40_000;

const TEMPLATE: &str = include_str!("../../deploy/envoy/bootstrap.yaml");

/// The configuration as YAML.
pub fn render(options: &BootstrapOptions) -> String {
    let mut removed = String::new();
    for name in header::ROUTING {
        let _ = write!(removed, "\n              - remove: {name}");
    }
    let directory = options
        .fallback_eds
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    [
        ("{{LISTENER}}", socket(options.listener)),
        ("{{ADMIN}}", socket(options.admin)),
        ("{{PICKER}}", socket(options.picker)),
        (
            "{{PICKER_HEALTH_PORT}}",
            options.picker_health_port.to_string(),
        ),
        ("{{REMOVED_HEADERS}}", removed),
        ("{{DESTINATION}}", header::DESTINATION.to_owned()),
        ("{{HEALTH_SERVICE}}", health::EXT_PROC.to_owned()),
        ("{{HEALTH_INTERVAL}}", seconds(options.health_interval)),
        (
            "{{MESSAGE_TIMEOUT}}",
            seconds(options.longest_queueing + QUEUEING_MARGIN),
        ),
        (
            "{{ANSWER_TIMEOUT}}",
            seconds(options.longest_answer + options.longest_queueing),
        ),
        ("{{CIRCUIT_BREAKER}}", CIRCUIT_BREAKER.to_string()),
        ("{{FALLBACK_EDS}}", quoted(&options.fallback_eds)),
        (
            "{{FALLBACK_DIRECTORY}}",
            quoted(directory.unwrap_or(Path::new("."))),
        ),
    ]
    .iter()
    .fold(TEMPLATE.to_owned(), |text, (hole, value)| {
        text.replace(hole, value)
    })
}

/// The endpoints that Envoy itself balances over while there is no picker.
pub fn render_eds(endpoints: &[EndpointSpec]) -> String {
    let mut text = String::from(concat!(
        "resources:\n",
        "- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n",
        "  cluster_name: fallback\n",
        "  endpoints:\n",
        "  - lb_endpoints:",
    ));
    let addresses: Vec<SocketAddr> = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.address.parse().ok())
        .collect();
    if addresses.is_empty() {
        text.push_str(" []");
    }
    for address in addresses {
        let _ = write!(text, "\n    - endpoint: {{address: {}}}", socket(address));
    }
    text.push('\n');
    text
}

fn socket(address: SocketAddr) -> String {
    format!(
        "{{socket_address: {{address: \"{}\", port_value: {}}}}}",
        address.ip(),
        address.port()
    )
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// A path as a YAML string; JSON strings are.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hole_is_filled_and_every_routing_header_removed() {
        let text = render(&BootstrapOptions::default());
        assert!(!text.contains("{{"), "{text}");
        for name in header::ROUTING {
            assert!(
                text.contains(&format!("- remove: {name}\n")),
                "{name}: {text}"
            );
        }
        assert!(text.contains("message_timeout: 90s"));
    }

    #[test]
    fn endpoints_of_both_families_are_listed() {
        let spec = |address: &str| EndpointSpec {
            name: "a".into(),
            address: address.into(),
            labels: Default::default(),
        };
        let text = render_eds(&[spec("10.0.0.1:8000"), spec("[::1]:8001")]);
        assert!(text.contains(
            r#"- endpoint: {address: {socket_address: {address: "10.0.0.1", port_value: 8000}}}"#
        ));
        assert!(text.contains(r#"address: "::1", port_value: 8001"#));
        assert!(render_eds(&[]).ends_with("lb_endpoints: []\n"));
    }
}

//! A static Envoy configuration that routes through the picker, fails open, and keeps clients from
//! choosing addresses.
//!
//! Three traps shape it. A client's routing headers must go before the route is chosen, so they are
//! removed in the connection manager and not by a filter. `failure_mode_allow` alone does not fail open
//! in full-duplex streaming, because a body may already be on its way to a dead picker: an active health
//! check takes a dead picker out, and a panic threshold of zero keeps it out. And the message timeout must
//! exceed the longest time a request may be queued.

use epp_core::config::AppProtocol;
use epp_core::{Config, EndpointSpec};
use names::{header, health, metadata};
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
    /// Time that a picker has to answer one: one that is busy is not dead.
    pub health_timeout: Duration,
    /// Endpoints that the picker names for a request, at least 1: its configuration's `maxNumOfEndpoints`. With more
    /// than one Envoy tries them in order, among the servers of `fallback_eds` only.
    pub endpoints_named: usize,
    /// What the model servers speak.
    pub server_protocol: ServerProtocol,
}

/// What Envoy speaks to model servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, as servers of gRPC alone want it.
    Http2,
    /// What the client spoke: gRPC by HTTP/2, and JSON beside it by either.
    AsClient,
}

impl ServerProtocol {
    /// The cluster's options, as far as they differ from Envoy's own.
    fn options(self) -> String {
        let choice = match self {
            Self::Http1 => return String::new(),
            Self::Http2 => "explicit_http_config: {http2_protocol_options: {}}",
            Self::AsClient => "use_downstream_protocol_config: {http2_protocol_options: {}}",
        };
        const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        format!(
            "\n    typed_extension_protocol_options:\n      {OPTIONS}:\n        \"@type\": type.googleapis.com/{OPTIONS}\n        {choice}"
        )
    }
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
            health_timeout: Duration::from_secs(2),
            endpoints_named: 1,
            server_protocol: ServerProtocol::Http1,
        }
    }
}

impl BootstrapOptions {
    /// What follows from the picker's configuration: how many endpoints it names, whether they speak gRPC, and how long
    /// a request may be queued.
    pub fn for_picker(config: &Config) -> Self {
        let defaults = Self::default();
        let mut parsers = config.parsers.iter();
        let server_protocol = if parsers.all(|parser| parser.serves(AppProtocol::Http)) {
            ServerProtocol::Http1
        } else {
            ServerProtocol::AsClient
        };
        let longest = config.longest_queueing().unwrap_or(UNLIMITED_QUEUEING);
        Self {
            longest_queueing: longest.max(defaults.longest_queueing),
            endpoints_named: config.profile.endpoints,
            server_protocol,
            ..defaults
        }
    }
}

/// How long the proxy waits for the picker where requests may be queued for ever.
const UNLIMITED_QUEUEING: Duration = Duration::from_secs(24 * 60 * 60);
/// Added to the longest queueing: the message timeout must never strike first.
const QUEUEING_MARGIN: Duration = Duration::from_secs(30);
/// Requests at a time: far beyond what the picker admits, since Envoy's own default of 1,024 would refuse first.
const CIRCUIT_BREAKER: u32 = 40_000;

const TEMPLATE: &str = include_str!("../../deploy/envoy/bootstrap.yaml");
const PICKED_ADDRESS: &str = include_str!("../../deploy/envoy/picked-address.yaml");
const PICKED_LIST: &str = include_str!("../../deploy/envoy/picked-list.yaml");

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
    let fallbacks = options.endpoints_named.saturating_sub(1);
    let (picked, next_in_list, tells_served, tells_attempts) = if fallbacks == 0 {
        (PICKED_ADDRESS, String::new(), String::new(), String::new())
    } else {
        // Only what has reached no server is sent to another one.
        let retry = format!(
            ", retry_policy: {{retry_on: \"connect-failure,refused-stream\", num_retries: {fallbacks}}}"
        );
        let told = format!(
            "\n              metadata_options: {{forwarding_namespaces: {{untyped: [{}]}}}}",
            metadata::LB
        );
        // Tells a server that could not be reached from one that is not in the list yet.
        let attempts = "\n              include_attempt_count_in_response: true".to_owned();
        (PICKED_LIST, retry, told, attempts)
    };
    [
        // First, since it has holes of its own.
        ("{{PICKED_CLUSTER}}", picked.trim_end().to_owned()),
        ("{{NEXT_IN_LIST}}", next_in_list),
        ("{{TELLS_SERVED}}", tells_served),
        ("{{TELLS_ATTEMPTS}}", tells_attempts),
        ("{{SERVER_PROTOCOL}}", options.server_protocol.options()),
        ("{{LB_METADATA}}", metadata::LB.to_owned()),
        (
            "{{DESTINATION_SERVED}}",
            header::DESTINATION_SERVED.to_owned(),
        ),
        ("{{HEALTH_TIMEOUT}}", seconds(options.health_timeout)),
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
    fn a_list_is_tried_in_order_and_one_address_is_all_there_is() {
        let one = render(&BootstrapOptions::default());
        assert!(one.contains("type: ORIGINAL_DST") && !one.contains("override_host"));
        assert!(!one.contains("retry_policy"), "{one}");
        let list = render(&BootstrapOptions {
            endpoints_named: 3,
            server_protocol: ServerProtocol::Http2,
            ..BootstrapOptions::default()
        });
        assert!(
            !list.contains("{{") && !list.contains("ORIGINAL_DST"),
            "{list}"
        );
        assert!(list.contains("num_retries: 2}") && list.contains("override_host"));
        let http2 = "\n        explicit_http_config: {http2_protocol_options: {}}\n";
        assert_eq!(
            list.matches(http2).count(),
            2,
            "picked and fallback: {list}"
        );
        assert_eq!(one.matches(http2).count(), 0);
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

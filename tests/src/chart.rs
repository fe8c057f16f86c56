//! The proxy's configuration as the chart renders it, on this machine.

use std::net::SocketAddr;
use std::path::Path;

use epp::bootstrap::BootstrapOptions;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::ports;

/// What `deploy/kustomize/proxy` gives Envoy, with this machine's addresses in place of a cluster's, and without TLS to
/// the picker. While there is no picker, `fallback` serves.
///
/// # Panics
/// When the file has no such part.
pub(crate) fn bootstrap(options: &BootstrapOptions, fallback: SocketAddr) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize/proxy/proxy.yaml");
    let text = std::fs::read_to_string(&file).expect("the rendered proxy");
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let bootstrap = documents
        .filter_map(|document| Value::deserialize(document).ok())
        .find_map(|object| Some(object.pointer("/data/envoy.yaml")?.as_str()?.to_owned()))
        .expect("Envoy's configuration");
    let mut bootstrap: Value = serde_yaml_ng::from_str(&bootstrap).expect("YAML");

    bootstrap["admin"]["address"] = address(options.admin);
    named(&mut bootstrap, "listeners", "llm")["address"] = address(options.listener);
    let ready = SocketAddr::new(options.admin.ip(), ports::free());
    named(&mut bootstrap, "listeners", "ready")["address"] = address(ready);
    for (name, at) in [("fallback", fallback), ("picker", options.picker)] {
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
        let cluster = named(&mut bootstrap, "clusters", name);
        cluster.pointer_mut(endpoint).expect("one endpoint")["address"] = address(at);
    }
    let picker = named(&mut bootstrap, "clusters", "picker");
    let picker = picker.as_object_mut().expect("a cluster");
    picker.remove("transport_socket").expect("TLS");
    let check = picker["health_checks"][0].as_object_mut().expect("a check");
    check.remove("tls_options").expect("TLS");
    let endpoint = "/endpoints/0/lb_endpoints/0/endpoint";
    let port = json!({"port_value": options.picker_health_port});
    picker["load_assignment"]
        .pointer_mut(endpoint)
        .expect("one endpoint")["health_check_config"] = port;
    bootstrap.to_string()
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

fn named<'v>(bootstrap: &'v mut Value, list: &str, name: &str) -> &'v mut Value {
    let list = bootstrap["static_resources"][list].as_array_mut();
    let found = list.into_iter().flatten().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

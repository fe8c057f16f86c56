//! What is here, told as Kubernetes API servers tell it. Nothing of this waits for anything: while these documents do
//! not come, `kubectl` complains and namespaces cannot be deleted.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::Resource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::path::{Group, NAMESPACES};
use crate::published::series::{Catalog, Metric};

/// The list of groups.
pub fn groups() -> Value {
    let groups: Vec<Value> = Group::ALL.into_iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// One group.
pub fn group(group: Group) -> Value {
    let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(document), Value::Object(entry)) = (&mut document, group_entry(group)) {
        document.extend(entry);
    }
    document
}

fn group_entry(group: Group) -> Value {
    let versions: Vec<Value> = group
        .versions()
        .iter()
        .map(|version| version_entry(group, version))
        .collect();
    json!({"name": group.name(), "versions": versions, "preferredVersion": versions.first()})
}

fn version_entry(group: Group, version: &str) -> Value {
    json!({"groupVersion": format!("{}/{version}", group.name()), "version": version})
}

/// What one version of a group serves. The kinds of objects are those that are there now and the usual ones, so that
/// the list is the same before the first decision.
pub fn resources(group: Group, version: &str, catalog: &Catalog) -> Value {
    let resources: Vec<Value> = match group {
        Group::External => Metric::names()
            .map(|metric| resource(metric.into(), true, "ExternalMetricValueList"))
            .collect(),
        Group::Custom => described(catalog)
            .into_iter()
            .flat_map(|(object, namespaced)| {
                Metric::names().map(move |metric| {
                    resource(format!("{object}/{metric}"), namespaced, "MetricValueList")
                })
            })
            .collect(),
    };
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{}/{version}", group.name()),
        "resources": resources,
    })
}

fn described(catalog: &Catalog) -> Vec<(String, bool)> {
    let usual = [
        resource_of::<Deployment>(),
        resource_of::<StatefulSet>(),
        format!("inferencepools.{}", names::kubernetes::INFERENCE_GROUP),
        format!("modelscalers.{}", names::kubernetes::GROUP),
    ];
    let mut objects: BTreeSet<String> = usual.into_iter().collect();
    objects.extend(catalog.resources().iter().cloned());
    objects
        .into_iter()
        .map(|object| (object, true))
        .chain([(NAMESPACES.to_owned(), false)])
        .collect()
}

fn resource_of<K: Resource<DynamicType = ()>>() -> String {
    format!("{}.{}", K::plural(&()), K::group(&()))
}

fn resource(name: String, namespaced: bool, kind: &str) -> Value {
    json!({
        "name": name,
        "singularName": "",
        "namespaced": namespaced,
        "kind": kind,
        "verbs": ["get"],
    })
}

/// The version of this server.
pub fn version() -> Value {
    let mut parts = env!("CARGO_PKG_VERSION").split('.');
    let mut part = || parts.next().unwrap_or("0");
    json!({
        "major": part(),
        "minor": part(),
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION"), "-headroom"),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// OpenAPI v2: valid, and nothing in it.
pub fn openapi_v2() -> Value {
    json!({"swagger": "2.0", "info": info(), "paths": {}})
}

/// The list of OpenAPI v3 documents. The address carries the document's checksum, which the aggregator caches by.
pub fn openapi_v3() -> Value {
    let document = openapi_v3_document().to_string();
    let hash = etag(document.as_bytes()).replace('"', "");
    let paths = Group::ALL.into_iter().flat_map(|group| {
        let hash = hash.clone();
        group.versions().iter().map(move |version| {
            let path = format!("apis/{}/{version}", group.name());
            let address = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": address}))
        })
    });
    json!({"paths": paths.collect::<serde_json::Map<_, _>>()})
}

/// The OpenAPI v3 document of any version of any group: valid, and nothing in it.
pub fn openapi_v3_document() -> Value {
    json!({"openapi": "3.0.0", "info": info(), "paths": {}})
}

fn info() -> Value {
    json!({"title": "Headroom metrics", "version": concat!("v", env!("CARGO_PKG_VERSION"))})
}

/// The entity tag of a document.
pub fn etag(document: &[u8]) -> String {
    let digest = Sha256::digest(document);
    let hex: String = digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02X}"))
        .collect();
    format!("\"{hex}\"")
}

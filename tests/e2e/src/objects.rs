//! Objects of any kind: applied from YAML as `kubectl apply --server-side` does, read as JSON.

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::discovery::{Discovery, Scope};
use kube::{Client, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::Value;

use crate::until;

/// Applies every document of `yaml`, in `namespace` where it names none, and returns them as the server has them.
///
/// # Panics
/// When the server refuses one, with its words.
pub async fn apply(client: &Client, namespace: &str, yaml: &str) -> Vec<DynamicObject> {
    let discovery = Discovery::new(client.clone())
        .run()
        .await
        .expect("discovery");
    let mut applied = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let value = Value::deserialize(document).expect("YAML");
        if value.is_null() {
            continue;
        }
        applied.push(apply_one(client, &discovery, namespace, value).await);
    }
    applied
}

async fn apply_one(
    client: &Client,
    discovery: &Discovery,
    namespace: &str,
    value: Value,
) -> DynamicObject {
    let object: DynamicObject = serde_json::from_value(value).expect("an object");
    let types = object.types.clone().expect("apiVersion and kind");
    let kind = GroupVersionKind::try_from(&types).expect("a kind");
    let (resource, capabilities) = discovery
        .resolve_gvk(&kind)
        .unwrap_or_else(|| panic!("the server does not know {kind:?}"));
    let api = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| namespace.to_owned());
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    let name = object.name_any();
    api.patch(
        &name,
        &PatchParams::apply("e2e").force(),
        &Patch::Apply(&object),
    )
    .await
    .unwrap_or_else(|error| panic!("{} {name}: {error}", types.kind))
}

/// Where objects of one kind are, by `apps/v1/Deployment` or `v1/Pod`.
///
/// # Panics
/// When the server does not know it.
pub async fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (version, kind) = kind.rsplit_once('/').expect("group/version/Kind");
    let types = TypeMeta {
        api_version: version.to_owned(),
        kind: kind.to_owned(),
    };
    let kind = GroupVersionKind::try_from(&types).expect("a kind");
    let (resource, _): (ApiResource, _) = kube::discovery::pinned_kind(client, &kind)
        .await
        .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// One object as JSON; `None` when it is not there.
pub async fn get(client: &Client, kind: &str, namespace: &str, name: &str) -> Option<Value> {
    let found = api(client, kind, namespace)
        .await
        .get_opt(name)
        .await
        .expect("an answer");
    found.map(|object| serde_json::to_value(object).expect("JSON"))
}

/// The same while the API server may be away.
pub async fn try_get(client: &Client, kind: &str, namespace: &str, name: &str) -> Option<Value> {
    let (version, kind) = kind.rsplit_once('/')?;
    let types = TypeMeta {
        api_version: version.to_owned(),
        kind: kind.to_owned(),
    };
    let kind = GroupVersionKind::try_from(&types).ok()?;
    let (resource, _) = kube::discovery::pinned_kind(client, &kind).await.ok()?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    serde_json::to_value(api.get_opt(name).await.ok()??).ok()
}

/// All objects with these labels, as JSON.
pub async fn list(client: &Client, kind: &str, namespace: &str, labels: &str) -> Vec<Value> {
    let found = api(client, kind, namespace)
        .await
        .list(&ListParams::default().labels(labels))
        .await
        .expect("an answer");
    let objects = found.items.into_iter();
    objects
        .map(|object| serde_json::to_value(object).expect("JSON"))
        .collect()
}

/// Deletes an object and waits until it is gone.
pub async fn delete(client: &Client, kind: &str, namespace: &str, name: &str) {
    let api = api(client, kind, namespace).await;
    api.delete(name, &DeleteParams::default())
        .await
        .expect("an answer");
    until(&format!("the end of {kind} {name}"), async || {
        api.get_opt(name).await.ok()?.is_none().then_some(())
    })
    .await;
}

/// Creates a namespace.
pub async fn namespace(client: &Client, name: &str) {
    let yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    apply(client, "", &yaml).await;
    // Pods can be created there once its default account exists.
    until("the default ServiceAccount", async || {
        get(client, "v1/ServiceAccount", name, "default").await
    })
    .await;
}

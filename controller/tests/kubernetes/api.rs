//! As much of an API server as the controller asks for: objects in memory, lists, watches, scales, leases.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) struct Api {
    address: SocketAddr,
    state: Mutex<Known>,
    version: watch::Sender<u64>,
    away: AtomicBool,
}

type Key = (String, String, String);

#[derive(Default)]
struct Known {
    objects: BTreeMap<Key, Value>,
    /// Every change: its version, what it is about, and the event of a watch.
    log: Vec<(u64, Key, Value)>,
}

/// Kinds that there are, beside those of the core group that are asked for by name only.
const PLURALS: [&str; 8] = [
    "pods",
    "deployments",
    "statefulsets",
    "horizontalpodautoscalers",
    "configmaps",
    "secrets",
    "leases",
    "events",
];

impl Api {
    pub(crate) async fn serve() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            state: Mutex::default(),
            version: watch::Sender::new(0),
            away: AtomicBool::new(false),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&api));
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether everything is refused.
    pub(crate) fn away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
        self.version.send_modify(|_| {});
    }

    pub(crate) fn put(&self, plural: &str, object: Value) {
        let key = key_of(plural, &object);
        self.write(key, Some(object));
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.write((plural.into(), namespace.into(), name.into()), None);
    }

    pub(crate) fn exists(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = (plural.into(), namespace.into(), name.into());
        self.state.lock().unwrap().objects.contains_key(&key)
    }

    /// Who holds a Lease of the controllers.
    pub(crate) fn holder(&self, lease: &str) -> String {
        let key = ("leases".into(), "headroom".into(), lease.into());
        let known = self.state.lock().unwrap();
        let holder = &known.objects[&key]["spec"]["holderIdentity"];
        holder.as_str().unwrap_or_default().to_owned()
    }

    fn write(&self, key: Key, object: Option<Value>) -> Value {
        let mut known = self.state.lock().unwrap();
        let version = *self.version.borrow() + 1;
        let before = known.objects.remove(&key);
        let (kind, shown) = match object {
            None => ("DELETED", before.unwrap_or(Value::Null)),
            Some(mut object) => {
                object["metadata"]["resourceVersion"] = version.to_string().into();
                known.objects.insert(key.clone(), object.clone());
                (
                    if before.is_some() {
                        "MODIFIED"
                    } else {
                        "ADDED"
                    },
                    object,
                )
            }
        };
        let event = json!({"type": kind, "object": shown});
        known.log.push((version, key, event));
        self.version.send_replace(version);
        shown
    }
}

fn key_of(plural: &str, object: &Value) -> Key {
    let text = |field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (plural.to_owned(), text("namespace"), text("name"))
}

fn refuse(code: StatusCode, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason});
    (code, axum::Json(status)).into_response()
}

async fn answer(State(api): State<Arc<Api>>, method: Method, uri: Uri, body: Bytes) -> Response {
    if api.away.load(Ordering::Relaxed) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
    }
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let rest = match parts.as_slice() {
        ["api", "v1", rest @ ..] => rest,
        ["apis", _, _, rest @ ..] => rest,
        _ => return refuse(StatusCode::NOT_FOUND, "NotFound"),
    };
    let query = uri.query().unwrap_or_default();
    match rest {
        [] if uri.path() == "/apis/apps/v1" => axum::Json(discovery()).into_response(),
        ["subjectaccessreviews"] if method == Method::POST => {
            axum::Json(json!({"metadata": {}, "spec": {}, "status": {"allowed": true}}))
                .into_response()
        }
        [plural] if PLURALS.contains(plural) => collection(&api, plural, "", query),
        ["namespaces", namespace, plural] if PLURALS.contains(plural) && method == Method::POST => {
            create(&api, plural, namespace, &body)
        }
        ["namespaces", namespace, plural] if PLURALS.contains(plural) => {
            collection(&api, plural, namespace, query)
        }
        ["namespaces", namespace, plural, name, sub @ ..] if PLURALS.contains(plural) => {
            let key = (
                (*plural).to_owned(),
                (*namespace).to_owned(),
                (*name).to_owned(),
            );
            one(&api, &method, key, sub, &body)
        }
        _ => refuse(StatusCode::NOT_FOUND, "NotFound"),
    }
}

fn discovery() -> Value {
    let resource = |name: &str, kind: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get", "list", "watch"]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "apps/v1", "resources": [
        resource("deployments", "Deployment"), resource("deployments/scale", "Scale"),
        resource("statefulsets", "StatefulSet"), resource("statefulsets/scale", "Scale"),
    ]})
}

fn create(api: &Api, plural: &str, namespace: &str, body: &[u8]) -> Response {
    let mut object: Value = serde_json::from_slice(body).unwrap();
    object["metadata"]["namespace"] = namespace.into();
    let key = key_of(plural, &object);
    if api.state.lock().unwrap().objects.contains_key(&key) {
        return refuse(StatusCode::CONFLICT, "AlreadyExists");
    }
    (
        StatusCode::CREATED,
        axum::Json(api.write(key, Some(object))),
    )
        .into_response()
}

fn one(api: &Api, method: &Method, key: Key, sub: &[&str], body: &[u8]) -> Response {
    let known = api.state.lock().unwrap().objects.get(&key).cloned();
    if *method == Method::PATCH {
        let object: Value = serde_json::from_slice(body).unwrap();
        return axum::Json(api.write(key, Some(object))).into_response();
    }
    let Some(known) = known else {
        return refuse(StatusCode::NOT_FOUND, "NotFound");
    };
    if *method == Method::PUT {
        let object: Value = serde_json::from_slice(body).unwrap();
        if object["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
            return refuse(StatusCode::CONFLICT, "Conflict");
        }
        return axum::Json(api.write(key, Some(object))).into_response();
    }
    match sub {
        [] => axum::Json(known).into_response(),
        ["scale"] => axum::Json(json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": key.2, "namespace": key.1},
            "spec": {"replicas": known["spec"]["replicas"]},
            "status": {"replicas": known["status"]["replicas"], "selector": format!("app={}", key.2)},
        }))
        .into_response(),
        _ => refuse(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// What a list or a watch is about.
#[derive(Clone)]
struct Selected {
    plural: String,
    namespace: String,
    label: Option<String>,
    name: Option<String>,
}

impl Selected {
    fn holds(&self, key: &Key, object: &Value) -> bool {
        let labelled = |label: &String| object["metadata"]["labels"].get(label).is_some();
        key.0 == self.plural
            && (self.namespace.is_empty() || key.1 == self.namespace)
            && self.label.as_ref().is_none_or(labelled)
            && self.name.as_ref().is_none_or(|name| key.2 == *name)
    }
}

fn collection(api: &Arc<Api>, plural: &str, namespace: &str, query: &str) -> Response {
    let parsed = reqwest::Url::parse(&format!("http://query/?{query}")).unwrap();
    let parameters: BTreeMap<String, String> = parsed.query_pairs().into_owned().collect();
    let field = parameters.get("fieldSelector");
    let selected = Selected {
        plural: plural.to_owned(),
        namespace: namespace.to_owned(),
        label: parameters.get("labelSelector").cloned(),
        name: field
            .and_then(|field| field.strip_prefix("metadata.name="))
            .map(str::to_owned),
    };
    if parameters
        .get("watch")
        .is_some_and(|value| value == "true" || value == "1")
    {
        let from = parameters
            .get("resourceVersion")
            .and_then(|text| text.parse().ok());
        return follow(Arc::clone(api), selected, from.unwrap_or(0));
    }
    let known = api.state.lock().unwrap();
    let items: Vec<&Value> = known
        .objects
        .iter()
        .filter(|(key, object)| selected.holds(key, object))
        .map(|(_, object)| object)
        .collect();
    let version = api.version.borrow().to_string();
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}))
        .into_response()
}

fn follow(api: Arc<Api>, selected: Selected, from: u64) -> Response {
    let changes = api.version.subscribe();
    let stream = unfold(
        (api, selected, from, changes),
        |(api, selected, from, mut changes)| async move {
            loop {
                if api.away.load(Ordering::Relaxed) {
                    return None;
                }
                let (reached, lines) = {
                    let known = api.state.lock().unwrap();
                    let news = known.log.iter().filter(|(version, key, event)| {
                        *version > from && selected.holds(key, &event["object"])
                    });
                    let lines: String = news.map(|(_, _, event)| format!("{event}\n")).collect();
                    (*api.version.borrow(), lines)
                };
                if !lines.is_empty() {
                    let chunk = Ok::<_, std::convert::Infallible>(lines);
                    return Some((chunk, (api, selected, reached, changes)));
                }
                changes.changed().await.ok()?;
            }
        },
    );
    Body::from_stream(stream).into_response()
}

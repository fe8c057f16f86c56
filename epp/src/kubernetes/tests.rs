use super::*;
use crate::extproc::hub::tests::hub;
use crate::extproc::hub::{Hub, Submitted};
use ::kubernetes::lease::Leadership;
use ::kubernetes::mock::{self, Exchange, Watch};
use epp_core::{Request, Verdict};
use parking_lot::Mutex;
use runtime::{Shutdown, Tasks};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const PODS: &str = "/api/v1/namespaces/ns/pods";
const POOLS: &str = "/apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools";
const OBJECTIVES: &str = "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferenceobjectives";
const REWRITES: &str = "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferencemodelrewrites";
const OLD_OBJECTIVES: &str =
    "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferenceobjectives";
const OLD_REWRITES: &str =
    "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferencemodelrewrites";
const EVENTS: &str = "POST /apis/events.k8s.io/v1/namespaces/ns/events";

/// An API server with lists that the test sets, and what is written to it.
#[derive(Clone, Default)]
struct Api {
    /// Objects by path; a path without any is not installed.
    lists: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    watches: Arc<Mutex<BTreeMap<String, Watch>>>,
    asked: Arc<Mutex<Vec<String>>>,
    away: Arc<AtomicBool>,
}

impl Api {
    fn set(&self, path: &str, objects: &[Value]) {
        self.lists.lock().insert(path.to_owned(), objects.to_vec());
    }

    /// Lets the watch of `path` tell of one change; the list changes as well.
    async fn modify(&self, path: &str, object: Value) {
        let watch = self.watches.lock().remove(path);
        let mut watch = watch.unwrap();
        watch.event("MODIFIED", &object).await;
        self.watches.lock().insert(path.to_owned(), watch);
    }

    /// Ends the watch of `path` with 410, so that the list is read anew.
    async fn expire(&self, path: &str) {
        let watch = self.watches.lock().remove(path);
        let gone =
            json!({"kind": "Status", "code": 410, "message": "too old", "reason": "Expired"});
        watch.unwrap().event("ERROR", &gone).await;
    }

    async fn answer(&self, exchange: Exchange, written: &mpsc::UnboundedSender<Exchange>) {
        if self.away.load(Ordering::Relaxed) {
            return;
        }
        let target = exchange.target();
        self.asked.lock().push(target.clone());
        let Some(path) = target.strip_prefix("GET ") else {
            written.send(exchange).unwrap();
            return;
        };
        if exchange.is_watch() {
            let watch = exchange.watch();
            self.watches.lock().insert(path.to_owned(), watch);
            return;
        }
        let objects = self.lists.lock().get(path).cloned();
        match objects {
            Some(items) => {
                let selected = |item: &Value| selects(exchange.query(), item);
                let items: Vec<_> = items.into_iter().filter(selected).collect();
                let list = json!({"metadata": {"resourceVersion": "5"}, "items": items});
                exchange.reply(&list).await;
            }
            None => exchange.fail(404, "NotFound").await,
        }
    }
}

/// Whether the label selector of `query` (one `key=value`) selects `item`.
fn selects(query: &str, item: &Value) -> bool {
    let selector = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("labelSelector="));
    let Some((key, value)) = selector.and_then(|selector| selector.split_once("%3D")) else {
        return true;
    };
    item["metadata"]["labels"][key] == value
}

struct Bench {
    hub: Arc<Hub>,
    synced: watch::Receiver<bool>,
    written: mpsc::UnboundedReceiver<Exchange>,
    shutdown: Shutdown,
}

fn start_with(api: &Api, source: Source, leader: Option<watch::Receiver<Leadership>>) -> Bench {
    start_on(api, source, leader, hub())
}

fn start_on(
    api: &Api,
    source: Source,
    leader: Option<watch::Receiver<Leadership>>,
    hub: Hub,
) -> Bench {
    let (client, mut server) = mock::server();
    let (sender, written) = mpsc::unbounded_channel();
    let serving = api.clone();
    tokio::spawn(async move {
        while let Some(exchange) = server.next().await {
            serving.answer(exchange, &sender).await;
        }
    });
    let cluster = Cluster {
        client,
        identity: Identity::default(),
        namespace: "ns".into(),
        source,
        leader_election: leader.is_some(),
    };
    let hub = Arc::new(hub);
    hub.set_endpoints(Vec::new(), Default::default());
    let (synced, shutdown) = (watch::Sender::new(false), Shutdown::new());
    let told = synced.subscribe();
    start(
        &cluster,
        Arc::clone(&hub),
        synced,
        leader,
        &shutdown,
        &Tasks::new(),
    );
    Bench {
        hub,
        synced: told,
        written,
        shutdown,
    }
}

fn the_pool() -> Source {
    Source::Pool {
        group: POOL_GROUP.into(),
        name: "pool".into(),
    }
}

fn start_pool(api: &Api) -> Bench {
    start_with(api, the_pool(), None)
}

impl Bench {
    async fn synced(&mut self) {
        self.synced.wait_for(|synced| *synced).await.unwrap();
    }

    /// Waits, in virtual time, until `holds`.
    async fn until(&self, holds: impl Fn(&Hub) -> bool) {
        let wait = async {
            while !holds(&self.hub) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), wait)
            .await
            .unwrap();
    }

    async fn shows(&self, addresses: &[&str]) {
        self.until(|hub| {
            let pool = hub.pool();
            let shown = pool.endpoints.iter().map(|endpoint| &*endpoint.address);
            shown.eq(addresses.iter().copied())
        })
        .await;
    }

    /// The next write of that kind.
    async fn written(&mut self, target: &str) -> Exchange {
        loop {
            let exchange = self.written.recv().await.unwrap();
            if exchange.target().starts_with(target) {
                return exchange;
            }
        }
    }
}

fn pool(annotations: Value, selector: &str) -> Value {
    json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "pool", "namespace": "ns", "uid": "p", "resourceVersion": "6", "annotations": annotations},
        "spec": {"selector": {"matchLabels": {"app": selector}}, "targetPorts": [{"number": 8000}]},
    })
}

fn pod(name: &str, app: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "6", "labels": {"app": app}},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn objective(name: &str, pool: &str, priority: i32) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 3, "resourceVersion": "7"},
        "spec": {"priority": priority, "poolRef": {"name": pool}},
    })
}

/// A cluster with a pool of one pod.
fn cluster() -> Api {
    let api = Api::default();
    let annotations = json!({"headroom.dev/slo-ttft-ms": "500", "headroom.dev/slo-tpot-ms": "50"});
    api.set(POOLS, &[pool(annotations, "a")]);
    api.set(
        PODS,
        &[pod("p0", "a", "10.0.0.1"), pod("x0", "b", "10.0.9.1")],
    );
    api.set(OBJECTIVES, &[]);
    api.set(REWRITES, &[]);
    api
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_everything_that_goes_with_it() {
    let api = cluster();
    let mine = [
        objective("gold", "pool", 7),
        objective("other", "elsewhere", 9),
    ];
    api.set(OBJECTIVES, &mine);
    let rules = json!([{"matches": [{"model": {"value": "chat"}}], "targets": [{"modelRewrite": "chat-v2"}]}]);
    api.set(
        REWRITES,
        &[json!({
            "metadata": {"name": "r", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"poolRef": {"name": "pool"}, "rules": rules},
        })],
    );
    let mut bench = start_pool(&api);
    bench.synced().await;
    bench.shows(&["10.0.0.1:8000"]).await;
    assert_eq!(&*bench.hub.pool().endpoints[0].name, "ns/p0-rank-0");
    let (rules, _) = bench.hub.begin();
    assert_eq!(rules.objectives.resolve(Some("gold")).priority, 7);
    assert_eq!(rules.objectives.resolve(Some("other")).priority, 0);
    assert_eq!(rules.rewrites.target("chat", 1), Some("chat-v2"));
    let slo = (rules.default_slo.ttft_ms, rules.default_slo.tpot_ms);
    assert_eq!(slo, (Some(500.0), Some(50.0)));
    bench.shutdown.stop();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_keeps_its_state_over_a_relist_and_loses_it_with_its_address() {
    let api = cluster();
    let mut bench = start_pool(&api);
    bench.synced().await;
    let before = Arc::clone(&bench.hub.pool().endpoints[0]);
    let submitted = bench.hub.submit(Duration::ZERO, Request::default());
    assert_eq!(before.load.snapshot().in_flight, 1);
    bench.until(|_| api.watches.lock().contains_key(PODS)).await;
    api.set(
        PODS,
        &[pod("p0", "a", "10.0.0.1"), pod("p1", "a", "10.0.0.2")],
    );
    api.expire(PODS).await;
    bench.shows(&["10.0.0.1:8000", "10.0.0.2:8000"]).await;
    assert!(Arc::ptr_eq(&before, &bench.hub.pool().endpoints[0]));
    bench.until(|_| api.watches.lock().contains_key(PODS)).await;
    api.modify(PODS, pod("p0", "a", "10.0.0.3")).await;
    bench.shows(&["10.0.0.3:8000", "10.0.0.2:8000"]).await;
    assert_eq!(bench.hub.pool().endpoints[0].load.snapshot().in_flight, 0);
    assert!(matches!(
        submitted,
        Submitted::Decided(Verdict::Dispatched(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_changes_nothing() {
    let api = cluster();
    let mut bench = start_pool(&api);
    bench.synced().await;
    bench.until(|_| api.watches.lock().len() == 4).await;
    api.away.store(true, Ordering::Relaxed);
    for (_, watch) in std::mem::take(&mut *api.watches.lock()) {
        watch.cut();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(*bench.synced.borrow());
    bench.shows(&["10.0.0.1:8000"]).await;
    api.away.store(false, Ordering::Relaxed);
    bench.until(|_| api.watches.lock().contains_key(PODS)).await;
    api.modify(PODS, pod("p1", "a", "10.0.0.2")).await;
    bench.shows(&["10.0.0.1:8000", "10.0.0.2:8000"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_old_group_is_read_only_where_the_new_one_is_not_installed() {
    let api = cluster();
    let mut bench = start_pool(&api);
    bench.synced().await;
    let asked = |path: &str| api.asked.lock().iter().any(|target| target.ends_with(path));
    assert!(asked(OBJECTIVES) && !asked(OLD_OBJECTIVES) && !asked(OLD_REWRITES));
    bench.shutdown.stop();
    api.lists.lock().remove(OBJECTIVES);
    api.lists.lock().remove(REWRITES);
    api.set(OLD_OBJECTIVES, &[objective("gold", "pool", 7)]);
    let mut bench = start_pool(&api);
    bench.synced().await;
    let (rules, _) = bench.hub.begin();
    assert_eq!(rules.objectives.resolve(Some("gold")).priority, 7);
    assert!(
        asked(OLD_REWRITES),
        "which is not installed either, and stops nobody"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_annotation_is_an_event_and_the_last_good_value_stays() {
    let api = cluster();
    let mut bench = start_pool(&api);
    bench.synced().await;
    bench
        .until(|_| api.watches.lock().contains_key(POOLS))
        .await;
    let wrong = json!({"headroom.dev/slo-ttft-ms": "fast", "headroom.dev/slo-tpot-ms": "20"});
    api.modify(POOLS, pool(wrong, "a")).await;
    let mut event = bench.written(EVENTS).await;
    let body = event.body().await;
    assert_eq!(body["regarding"]["kind"], "InferencePool");
    assert_eq!(
        (&body["reason"], &body["type"]),
        (&json!("WrongAnnotation"), &json!("Warning"))
    );
    let note = body["note"].as_str().unwrap();
    assert!(
        note.contains("headroom.dev/slo-ttft-ms") && note.contains("`fast`"),
        "{note}"
    );
    event.reply(&body).await;
    bench
        .until(|hub| hub.default_slo().tpot_ms == Some(20.0))
        .await;
    assert_eq!(bench.hub.default_slo().ttft_ms, Some(500.0));
}

#[tokio::test(start_paused = true)]
async fn pods_of_the_old_selector_serve_until_the_new_ones_are_known() {
    let api = cluster();
    let mut bench = start_pool(&api);
    bench.synced().await;
    bench.until(|_| api.watches.lock().len() == 4).await;
    let pods = api.lists.lock().remove(PODS).unwrap();
    let mut other = pool(json!({}), "b");
    other["spec"]["targetPorts"][0]["number"] = 9000.into();
    api.modify(POOLS, other.clone()).await;
    bench.until(|hub| hub.default_slo().ttft_ms.is_none()).await;
    // At their own port: the new one is the new pods'.
    bench.shows(&["10.0.0.1:8000"]).await;
    api.set(PODS, &pods);
    bench.shows(&["10.0.9.1:9000"]).await;
    // The port alone changes at once.
    other["spec"]["targetPorts"][0]["number"] = 9001.into();
    api.modify(POOLS, other).await;
    bench.shows(&["10.0.9.1:9001"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_deleted_leaves_its_endpoints() {
    let api = cluster();
    let mut bench = start_pool(&api);
    bench.synced().await;
    bench
        .until(|_| api.watches.lock().contains_key(POOLS))
        .await;
    api.set(POOLS, &[]);
    api.expire(POOLS).await;
    let body = bench.written(EVENTS).await.body().await;
    assert_eq!(body["reason"], "PoolGone");
    bench.shows(&["10.0.0.1:8000"]).await;
    assert!(bench.hub.default_slo().is_set());
}

#[tokio::test(start_paused = true)]
async fn pods_selected_by_a_flag_need_no_custom_resource() {
    let api = Api::default();
    api.set(PODS, &[pod("p0", "a", "10.0.0.1")]);
    let members = members("app=a", vec![8000, 8001]).unwrap();
    let source = Source::Pods {
        members,
        name: None,
    };
    assert_eq!(source.name(), "app-a");
    let mut bench = start_with(&api, source, None);
    bench.synced().await;
    bench.shows(&["10.0.0.1:8000", "10.0.0.1:8001"]).await;
    let asked = api.asked.lock().clone();
    assert!(
        asked.iter().all(|target| target.ends_with(PODS)),
        "{asked:?}"
    );
}

fn leadership(leader: bool) -> Leadership {
    Leadership {
        leader,
        ..Leadership::default()
    }
}

#[tokio::test(start_paused = true)]
async fn objectives_are_told_that_they_count_by_the_leader() {
    let api = cluster();
    api.set(OBJECTIVES, &[objective("gold", "pool", 7)]);
    let source = Source::Pool {
        group: POOL_GROUP.into(),
        name: "pool".into(),
    };
    let leads = watch::Sender::new(leadership(false));
    let mut bench = start_with(&api, source, Some(leads.subscribe()));
    bench.synced().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(
        bench.written.try_recv().is_err(),
        "a follower writes nothing"
    );
    leads.send_replace(leadership(true));
    let mut patch = bench.written("PATCH").await;
    assert_eq!(patch.target(), format!("PATCH {OBJECTIVES}/gold/status"));
    let body = patch.body().await;
    let condition = &body["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Accepted"), &json!("True"))
    );
    assert_eq!(condition["observedGeneration"], 3);
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    let mut accepted = objective("gold", "pool", 7);
    accepted["status"] = body["status"].clone();
    patch.reply(&accepted).await;
    api.modify(OBJECTIVES, accepted).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(
        bench.written.try_recv().is_err(),
        "what is written is not written again"
    );
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_it_no_condition_is_written() {
    let api = cluster();
    api.set(OBJECTIVES, &[objective("gold", "pool", 7)]);
    let mut bench = start_pool(&api);
    bench.written("PATCH").await.fail(403, "Forbidden").await;
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert!(bench.written.try_recv().is_err(), "not soon again");
    bench.written("PATCH").await;
}

#[test]
fn leases_are_named_as_llmds_picker_names_them() {
    let members = members("app in (a, b),tier!=x", vec![80]).unwrap();
    let mut source = Source::Pods {
        members,
        name: None,
    };
    assert_eq!(source.name(), "app-in--a--b--tier--x");
    if let Source::Pods { name, .. } = &mut source {
        *name = Some("mine".into());
    }
    assert_eq!(source.name(), "mine");
    assert!(
        super::members(" ", vec![80])
            .unwrap_err()
            .contains("every pod")
    );
    assert!(super::members("a=b", vec![0]).unwrap_err().contains("`0`"));
}

#[path = "readiness_tests.rs"]
mod readiness;

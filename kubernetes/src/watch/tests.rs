use super::*;
use crate::mock::{self, Exchange, Server};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::time::Duration;

/// A store of pod IPs, followed from a server that the test plays.
struct Bench {
    store: Store<String>,
    server: Server,
    clock: Clock,
    shutdown: Shutdown,
}

fn bench() -> Bench {
    let (client, server) = mock::server();
    let (clock, shutdown) = (Clock::start(), Shutdown::new());
    let store = follow(
        Api::<Pod>::namespaced(client, "ns"),
        Selection::labels("app=vllm"),
        |pod: Pod| pod.status?.pod_ip,
        clock,
        shutdown.clone(),
        &Tasks::new(),
    );
    Bench {
        store,
        server,
        clock,
        shutdown,
    }
}

impl Bench {
    async fn next(&mut self) -> Exchange {
        self.server.next().await.unwrap()
    }

    /// The next request, which must be a list.
    async fn listing(&mut self) -> Exchange {
        let exchange = self.next().await;
        assert!(!exchange.is_watch(), "{}", exchange.query());
        exchange
    }

    /// The next request, which must be a watch from that version.
    async fn watching(&mut self, version: &str) -> Exchange {
        let exchange = self.next().await;
        let from = format!("resourceVersion={version}");
        assert!(exchange.is_watch(), "{}", exchange.query());
        assert!(exchange.query().ends_with(&from), "{}", exchange.query());
        exchange
    }

    /// Waits until the store shows exactly these pods.
    async fn shows(&self, wanted: &[(&str, &str)]) {
        let mut changes = self.store.changes();
        loop {
            let objects = self.store.snapshot();
            let shown: Vec<_> = objects
                .iter()
                .map(|(key, ip)| (&*key.name, ip.as_str()))
                .collect();
            if shown == wanted {
                return;
            }
            changes.changed().await.unwrap();
        }
    }

    async fn until(&self, wanted: impl Fn(&Health) -> bool) -> Health {
        let mut changes = self.store.changes();
        loop {
            let health = self.store.health();
            if wanted(&health) {
                return health;
            }
            changes.changed().await.unwrap();
        }
    }
}

fn pod(name: &str, ip: &str, version: u32) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string()},
        "status": {"podIP": ip},
    })
}

fn list(version: &str, items: &[Value]) -> Value {
    json!({"kind": "PodList", "metadata": {"resourceVersion": version}, "items": items})
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_then_changes_as_they_come() {
    let mut bench = bench();
    let first = bench.listing().await;
    assert!(
        first.query().contains("labelSelector=app%3Dvllm"),
        "{}",
        first.query()
    );
    let mut page = list("", &[pod("a", "10.0.0.1", 1)]);
    page["metadata"]["continue"] = json!("more");
    first.reply(&page).await;
    let second = bench.listing().await;
    assert!(second.query().contains("continue=more"));
    assert!(!bench.store.is_synced(), "half a list is none");
    second.reply(&list("5", &[pod("b", "10.0.0.2", 2)])).await;
    bench.store.synced().await;
    let mut watch = bench.watching("5").await.watch();
    watch.event("ADDED", &pod("c", "10.0.0.3", 6)).await;
    watch.event("MODIFIED", &pod("b", "10.0.0.9", 7)).await;
    watch.event("DELETED", &pod("a", "10.0.0.1", 8)).await;
    bench.shows(&[("b", "10.0.0.9"), ("c", "10.0.0.3")]).await;
    let bookmark = json!({"metadata": {"resourceVersion": "20"}});
    watch.event("BOOKMARK", &bookmark).await;
    drop(watch);
    bench.watching("20").await;
}

#[tokio::test(start_paused = true)]
async fn gone_leads_to_a_list_while_the_last_state_stays() {
    let mut bench = bench();
    let pods = [pod("a", "10.0.0.1", 1), pod("b", "10.0.0.2", 2)];
    bench.listing().await.reply(&list("5", &pods)).await;
    let mut watch = bench.watching("5").await.watch();
    let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"});
    watch.event("ERROR", &gone).await;
    let relist = bench.listing().await;
    bench.shows(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
    assert_eq!(bench.store.health().trouble, None, "a relist is no trouble");
    relist.reply(&list("90", &[pod("b", "10.0.0.2", 2)])).await;
    bench.shows(&[("b", "10.0.0.2")]).await;
    bench.watching("90").await.fail(410, "Expired").await;
    let again = bench.listing().await;
    again.reply(&list("95", &[pod("c", "10.0.0.3", 3)])).await;
    bench.shows(&[("c", "10.0.0.3")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_is_resumed_where_it_was() {
    let mut bench = bench();
    bench.listing().await.reply(&list("5", &[])).await;
    let mut watch = bench.watching("5").await.watch();
    watch.event("ADDED", &pod("a", "10.0.0.1", 6)).await;
    bench.shows(&[("a", "10.0.0.1")]).await;
    watch.cut();
    let mut watch = bench.watching("6").await.watch();
    watch.event("ADDED", &pod("b", "10.0.0.2", 7)).await;
    bench.shows(&[("a", "10.0.0.1"), ("b", "10.0.0.2")]).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_changes_nothing_but_the_age_of_what_is_known() {
    let mut bench = bench();
    let pods = list("5", &[pod("a", "10.0.0.1", 1)]);
    bench.listing().await.reply(&pods).await;
    drop(bench.watching("5").await.watch());
    let outage = bench.clock.now();
    let mut attempts = 0;
    while bench.clock.now() < outage + Duration::from_secs(60) {
        drop(bench.watching("5").await);
        attempts += 1;
    }
    assert!((12..40).contains(&attempts), "{attempts} attempts in 60 s");
    let health = bench.until(|health| health.trouble.is_some()).await;
    let trouble = health.trouble.unwrap();
    assert_eq!(trouble.kind, TroubleKind::Unreachable);
    assert!(trouble.since < outage + Duration::from_secs(1));
    assert!(health.synced && health.last_contact.unwrap() <= outage);
    bench.shows(&[("a", "10.0.0.1")]).await;
    let _watch = bench.watching("5").await.watch();
    let health = bench.until(|health| health.trouble.is_none()).await;
    assert!(health.last_contact.unwrap() >= outage + Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_is_not_installed_is_found_once_it_is() {
    let mut bench = bench();
    bench.listing().await.fail(404, "NotFound").await;
    let health = bench.until(|health| health.trouble.is_some()).await;
    assert_eq!(health.trouble.unwrap().kind, TroubleKind::Absent);
    assert!(!health.synced);
    bench.listing().await.fail(403, "Forbidden").await;
    bench.listing().await.reply(&list("1", &[])).await;
    bench.store.synced().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop() {
    let mut bench = bench();
    bench.listing().await.reply(&list("5", &[])).await;
    let began = bench.clock.now();
    let mut watches = 0;
    while bench.clock.now() < began + Duration::from_secs(60) {
        drop(bench.watching("5").await.watch());
        watches += 1;
    }
    assert!(watches < 40, "{watches} watches in 60 s");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_begun_anew() {
    let mut bench = bench();
    bench.listing().await.reply(&list("5", &[])).await;
    let _silent = bench.watching("5").await.watch();
    let began = bench.clock.now();
    bench.watching("5").await;
    assert_eq!(bench.clock.now() - began, Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn one_object_that_cannot_be_read_stops_no_other() {
    let mut bench = bench();
    let broken =
        json!({"metadata": {"name": "x", "namespace": "ns", "resourceVersion": "1"}, "status": 7});
    let pods = [broken, pod("a", "10.0.0.1", 2)];
    bench.listing().await.reply(&list("5", &pods)).await;
    bench.shows(&[("a", "10.0.0.1")]).await;
    assert!(
        bench
            .store
            .health()
            .broken
            .contains_key(&ObjectKey::new("ns", "x"))
    );
    let mut watch = bench.watching("5").await.watch();
    watch.event("MODIFIED", &pod("x", "10.0.0.7", 6)).await;
    bench
        .until(|health| health.broken.is_empty() && bench.store.snapshot().len() == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_shutdown() {
    let mut bench = bench();
    let _hanging = bench.listing().await;
    bench.shutdown.stop();
    assert!(bench.server.next().await.is_none(), "the client is gone");
}

use kubernetes::watch::ObjectKey;
use serde_json::{Value, json};

use super::*;

fn full(name: &str, labels: Value, status: Value) -> FullPod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "chat", "labels": labels,
            "creationTimestamp": "2026-03-01T10:00:00Z",
        },
        "spec": {"nodeName": "node-1", "containers": []},
        "status": status,
    }))
    .unwrap()
}

fn ready_at(time: &str) -> Value {
    json!({"phase": "Running", "podIP": "10.0.0.7", "conditions": [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "True", "lastTransitionTime": time},
    ]})
}

fn pod(name: &str, labels: Value, status: Value) -> Arc<Pod> {
    Arc::new(Pod::trim(full(name, labels, status)).unwrap())
}

#[test]
fn a_ready_pod_keeps_its_address_and_start_up_time() {
    let pod = pod("a", json!({"app": "llm"}), ready_at("2026-03-01T10:01:30Z"));
    assert!(pod.is_ready());
    assert_eq!(pod.ip, "10.0.0.7".parse().ok());
    assert_eq!(pod.node.as_deref(), Some("node-1"));
    assert_eq!(pod.startup(), Some(Duration::from_secs(90)));
}

#[test]
fn states_follow_what_time_alone_will_bring() {
    let unready = json!({"type": "Ready", "status": "False"});
    let waiting = |reason: &str| json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": reason}}}]);
    let unschedulable = |reason: &str| json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]});
    let message: Box<str> = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.".into();
    for (status, expected) in [
        (json!({}), PodState::Starting),
        (json!({"phase": "Pending"}), PodState::Starting),
        (
            json!({"phase": "Running", "conditions": [unready]}),
            PodState::Starting,
        ),
        (
            unschedulable("Unschedulable"),
            PodState::Waiting(Waiting::Unschedulable(message.clone())),
        ),
        (
            unschedulable("SchedulingGated"),
            PodState::Waiting(Waiting::Unschedulable(message)),
        ),
        (unschedulable("SchedulerError"), PodState::Starting),
        (
            json!({"phase": "Running", "containerStatuses": waiting("CrashLoopBackOff")}),
            PodState::Waiting(Waiting::Failing("CrashLoopBackOff".into())),
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": waiting("ErrImagePull")}),
            PodState::Waiting(Waiting::Failing("ErrImagePull".into())),
        ),
        (
            json!({"phase": "Pending", "containerStatuses": waiting("ContainerCreating")}),
            PodState::Starting,
        ),
        (json!({"phase": "Failed"}), PodState::Over),
    ] {
        assert_eq!(
            pod("a", json!({}), status.clone()).state,
            expected,
            "{status}"
        );
    }
}

#[test]
fn a_deleted_pod_drains_even_while_it_is_ready() {
    let mut full = full("a", json!({}), ready_at("2026-03-01T10:01:30Z"));
    full.metadata.deletion_timestamp = full.metadata.creation_timestamp.clone();
    assert_eq!(Pod::trim(full).unwrap().state, PodState::Draining);
}

#[test]
fn counts_are_by_state_and_name_the_first_reason() {
    let pending = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
    let pods = [
        pod("a", json!({}), ready_at("2026-03-01T10:01:30Z")),
        pod("b", json!({}), json!({"phase": "Pending"})),
        pod("c", json!({}), pending),
        pod("d", json!({}), json!({"phase": "Succeeded"})),
    ];
    let counted = count(&pods);
    let replicas = Replicas {
        ready: 1,
        starting: 1,
        pending: 1,
        draining: 0,
    };
    assert_eq!(counted.replicas, replicas);
    assert_eq!(
        counted.waiting.unwrap().to_string(),
        "cannot be scheduled: no node fits"
    );
}

#[test]
fn the_index_finds_what_a_scan_would() {
    let pods: Vec<_> = (0..200)
        .map(|number| {
            let labels = json!({"app": format!("m{}", number % 7), "role": if number % 3 == 0 { "decode" } else { "prefill" }});
            pod(&format!("p{number}"), labels, json!({}))
        })
        .collect();
    let index = PodIndex::new(pods.iter().cloned());
    for text in [
        "app=m3",
        "app=m3,role=decode",
        "role!=decode",
        "app in (m1,m2),role=prefill",
        "app=none",
        "",
    ] {
        let selector = Selector::parse(text).unwrap();
        let found: Vec<_> = index
            .select("chat", &selector)
            .map(|pod| &pod.name)
            .collect();
        let scanned: Vec<_> = pods
            .iter()
            .filter(|pod| selector.matches(&pod.labels))
            .map(|pod| &pod.name)
            .collect();
        assert_eq!(found, scanned, "{text}");
        assert_eq!(index.select("other", &selector).count(), 0, "{text}");
    }
}

#[test]
fn a_start_is_told_once_and_not_again_when_readiness_comes_back() {
    let ready = pod("a", json!({}), ready_at("2026-03-01T10:00:40Z"));
    let unready = pod("a", json!({}), json!({"phase": "Running"}));
    let again = pod("a", json!({}), ready_at("2026-03-01T11:00:00Z"));
    let mut starts = Starts::default();
    assert_eq!(starts.became_ready([&unready]), [Duration::ZERO; 0]);
    assert_eq!(starts.became_ready([&ready]), [Duration::from_secs(40)]);
    assert_eq!(starts.became_ready([&unready]), [Duration::ZERO; 0]);
    assert_eq!(starts.became_ready([&again]), [Duration::ZERO; 0]);
    // Gone and created anew under the same name.
    assert_eq!(starts.became_ready([]), [Duration::ZERO; 0]);
    assert_eq!(starts.became_ready([&ready]), [Duration::from_secs(40)]);
}

#[test]
fn five_thousand_pods_take_a_few_megabytes() {
    let labels = |number: usize| {
        json!({
            "app.kubernetes.io/name": "vllm", "app.kubernetes.io/instance": format!("model-{}", number % 50),
            "llm-d.ai/role": "decode", "llm-d.ai/inference-serving": "true", "llm-d.ai/model": "meta-llama-3-1-70b-instruct",
            "headroom.dev/accelerator": "NVIDIA-H100-80GB-HBM3", "pod-template-hash": "6c9f7d8b54",
        })
    };
    let pods: Vec<_> = (0..5_000)
        .map(|number| {
            let name = format!("vllm-model-{}-6c9f7d8b54-{number:05}", number % 50);
            pod(&name, labels(number), ready_at("2026-03-01T10:01:30Z"))
        })
        .collect();
    let index = PodIndex::new(pods);
    let text = |text: &str| text.len() + 16;
    let held: usize = index
        .pods
        .iter()
        .map(|pod| {
            let node = pod.node.as_deref().map_or(0, text);
            let strings =
                text(&pod.namespace) + text(&pod.name) + node + pod.labels.heap_bytes() + 16;
            // The store keeps namespace and name once more, as its key.
            let key = text(&pod.namespace) + text(&pod.name) + size_of::<ObjectKey>() + 8;
            size_of::<Pod>() + 16 + strings + key
        })
        .sum();
    let listed: usize = index
        .holding
        .values()
        .map(|list| list.capacity() * 4 + 40)
        .sum();
    let megabytes = (held + listed) as f64 / 1e6;
    assert!(megabytes < 5.0, "{megabytes:.1} MB");
}

#[test]
fn the_shared_index_follows_the_store() {
    let key = |name: &str| ObjectKey::new("chat", name);
    let held = |name: &str| {
        let pod = pod(
            name,
            json!({"app": "llm"}),
            ready_at("2026-03-01T10:01:30Z"),
        );
        (key(name), Arc::unwrap_or_clone(pod))
    };
    let pods = Pods::new(Store::fixed([held("a"), held("b")]));
    let selector = Selector::parse("app=llm").unwrap();
    assert_eq!(pods.replicas("chat", &selector).replicas.ready, 2);
    assert!(Arc::ptr_eq(&pods.index(), &pods.index()), "indexed once");
}

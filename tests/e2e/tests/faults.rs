//! Faults under traffic: restarts lose nothing, kills are clear and short, an absent API server stops nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::time::Duration;

use e2e::load::{End, Outcome, lost};
use e2e::servers::Servers;
use e2e::stack::{MODEL, NAMESPACE, POOL};
use e2e::{Stack, cluster, install, objects, until, within};
use serde_json::Value;

/// Enough servers for the load of these tests.
async fn stack() -> Stack {
    Stack::start(cluster::Shape::default(), &[Servers::new(POOL, MODEL)], "").await
}

async fn rollout(stack: &Stack, deployment: &str) {
    let target = format!("deployment/{deployment}");
    stack
        .cluster
        .kubectl(&["-n", NAMESPACE, "rollout", "restart", &target]);
    install::available(&stack.cluster.client, NAMESPACE, deployment).await;
    // The old pods too are gone: a drain may outlast the new pods' start.
    until("the old pods to be gone", async || {
        let labels = "app.kubernetes.io/instance=headroom";
        let pods = objects::list(&stack.cluster.client, "v1/Pod", NAMESPACE, labels).await;
        let going = pods
            .iter()
            .any(|pod| pod.pointer("/metadata/deletionTimestamp").is_some());
        (!going).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_each_component_loses_no_request() {
    let stack = stack().await;
    stack.apply_example("hpa-external.yaml").await;
    stack.learn().await;
    stack.hpa_active(POOL).await;
    // Short answers, and some that take longer than a process needs to end.
    let (mut load, mut long) = (stack.load(200, 60).await, stack.load(200, 400).await);
    for deployment in ["llama-epp", "headroom-controller", POOL, "llama-proxy"] {
        let restart = rollout(&stack, deployment);
        tokio::pin!(restart);
        let mut restarted = false;
        let mut after = 0;
        while after < 3 {
            after += u32::from(restarted);
            let proxy = stack.proxy().await;
            load.send_to(proxy);
            long.send_to(proxy);
            long.send();
            tokio::select! {
                biased;
                () = load.at_rate(8.0, Duration::from_secs(1)) => {}
                () = &mut restart, if !restarted => restarted = true,
            }
        }
        eprintln!("{deployment} restarted at {:?}", load.elapsed());
    }
    let mut outcomes = load.finish().await;
    outcomes.extend(long.finish().await);
    assert!(
        lost(&outcomes).is_empty(),
        "{} sent: {:?}",
        outcomes.len(),
        lost(&outcomes)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_picker_ends_its_streams_at_once_and_the_other_takes_over() {
    let stack = stack().await;
    let mut load = stack.load(400, 100).await;
    // Until both pickers' models are trained and saved.
    load.at_rate(8.0, Duration::from_secs(75)).await;
    let pickers = stack.component("epp").await;
    assert_eq!(pickers.len(), 2, "{pickers:?}");
    let (name, address) = pickers[0].clone();
    let before = states(&address).await;
    stack.crash(&name).await;
    let killed = load.elapsed();
    load.at_rate(8.0, Duration::from_secs(10)).await;
    let outcomes = load.finish().await;
    let broken: Vec<&Outcome> = lost(&outcomes);
    eprintln!(
        "killed at {killed:?}; {} of {} not served: {broken:?}",
        broken.len(),
        outcomes.len()
    );
    for one in &broken {
        let ended = one.sent + one.took;
        assert!(
            one.sent < killed + Duration::from_secs(2),
            "lost after the takeover: {one:?}"
        );
        assert!(ended >= killed, "lost before the kill: {one:?}");
        assert!(
            ended <= one.sent.max(killed) + Duration::from_secs(1),
            "a slow error: {one:?}"
        );
        assert!(
            !matches!(&one.end, End::Refused(status, _) if *status < 500),
            "{one:?}"
        );
    }
    // The same pod, started again: what it had learned is there before any new label.
    let after = within(
        Duration::from_secs(30),
        "the picker to be back",
        async || {
            let after = states(&address).await;
            (!after.is_empty()).then_some(after)
        },
    )
    .await;
    eprintln!("states before {before:?}, after {after:?}");
    assert!(
        before.iter().any(|line| line.contains("trained")),
        "the model was never trained: {before:?}"
    );
    assert_eq!(before, after);
}

/// The lines of `headroom_predictor_state` that are 1.
async fn states(address: &str) -> Vec<String> {
    let url = format!("http://{address}:9090/metrics");
    let Ok(response) = reqwest::get(url).await else {
        return Vec::new();
    };
    let page = response.text().await.unwrap_or_default();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("headroom_predictor_state{") && line.ends_with(" 1.0"));
    lines.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_answers_without_a_gap_when_the_leader_is_killed() {
    let stack = stack().await;
    stack.apply_example("hpa-external.yaml").await;
    stack.learn().await;
    stack.hpa_active(POOL).await;
    let lease = stack
        .get("coordination.k8s.io/v1/Lease", "headroom-controller")
        .await
        .expect("a lease");
    let leader = lease
        .pointer("/spec/holderIdentity")
        .and_then(Value::as_str)
        .expect("a leader")
        .to_owned();
    let follower = stack
        .component("controller")
        .await
        .into_iter()
        .find(|(name, _)| !leader.contains(name.as_str()))
        .expect("a follower");
    let token = stack.cluster.token(NAMESPACE, "headroom-controller");
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .build()
        .expect("a client");
    let url = format!(
        "https://{}:6443/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/llm_desired_replicas",
        follower.1
    );
    stack.apply(&reader()).await;
    let ask = async || {
        client
            .get(&url)
            .bearer_auth(&token)
            .send()
            .await
            .expect("an answer")
            .status()
    };
    until("the follower to answer", async || {
        (ask().await == 200).then_some(())
    })
    .await;
    stack.crash(leader_pod(&leader)).await;
    let mut asked = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    within(Duration::from_secs(60), "another leader", async || {
        ticks.tick().await;
        asked += 1;
        assert_eq!(ask().await, 200, "a gap after {asked} answers");
        let lease = stack
            .get("coordination.k8s.io/v1/Lease", "headroom-controller")
            .await?;
        let now = lease
            .pointer("/spec/holderIdentity")
            .and_then(Value::as_str)?
            .to_owned();
        (now != leader).then_some(())
    })
    .await;
    for _ in 0..100 {
        ticks.tick().await;
        asked += 1;
        assert_eq!(ask().await, 200, "a gap after {asked} answers");
    }
    eprintln!("{asked} answers, all 200, over a change of leader");
}

fn leader_pod(holder: &str) -> &str {
    kubernetes::client::pod_of(holder)
}

/// Lets the controller's own account read the metrics, as the HPA may.
fn reader() -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: e2e-reader}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: headroom-controller-metrics-reader}}\n\
         subjects: [{{kind: ServiceAccount, name: headroom-controller, namespace: {NAMESPACE}}}]\n"
    )
}

/// Twenty seconds without `component`, under traffic: nothing is lost, no count changes, and scaling works afterwards.
async fn away(component: &str) {
    let stack = stack().await;
    stack.apply_example("hpa-external.yaml").await;
    stack.learn().await;
    stack.hpa_active(POOL).await;
    let mut load = stack.load(400, 60).await;
    load.at_rate(6.0, Duration::from_secs(5)).await;
    let before = stack.replicas(POOL).await;
    stack.cluster.run(&["stop", component, "--signal", "KILL"]);
    load.at_rate(6.0, Duration::from_secs(20)).await;
    stack.cluster.run(&["start", component]);
    let after = within(
        Duration::from_secs(60),
        "the API server to answer",
        async || {
            let found =
                objects::try_get(&stack.cluster.client, "apps/v1/Deployment", NAMESPACE, POOL)
                    .await?;
            found.pointer("/spec/replicas")?.as_i64()
        },
    )
    .await;
    assert_eq!(before, after, "the count changed because data was missing");
    load.at_rate(6.0, Duration::from_secs(10)).await;
    stack.hpa_active(POOL).await;
    let (rise, mut risen) = (load.elapsed(), after);
    while risen <= after && load.elapsed() < rise + Duration::from_secs(120) {
        load.at_rate(40.0, Duration::from_secs(1)).await;
        risen = stack.replicas(POOL).await;
    }
    let took = load.elapsed() - rise;
    let outcomes = load.finish().await;
    eprintln!(
        "{component} away: {before} -> {after} -> {risen} ({:.0?} after the rise), {} requests",
        took,
        outcomes.len()
    );
    assert!(lost(&outcomes).is_empty(), "{:?}", lost(&outcomes));
    assert!(risen > after, "scaling did not recover: {after} -> {risen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_and_counts_survive_an_api_server_that_is_away() {
    away("apiserver").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_and_counts_survive_etcd_away() {
    away("etcd").await;
}

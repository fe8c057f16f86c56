//! A load step through real Envoy makes the real HPA scale simulated servers, three ways.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::time::Duration;

use e2e::load::{attainment, lost};
use e2e::servers::Servers;
use e2e::stack::{POOL, watched};
use e2e::{Stack, cluster, within};
use serde_json::Value;

/// Time to first token that the pool's annotations ask for.
const TTFT: Duration = Duration::from_secs(2);

async fn one_server(values: &str) -> Stack {
    let mut servers = Servers::new(POOL, e2e::stack::MODEL);
    servers.replicas = 1;
    Stack::start(cluster::Shape::default(), &[servers], values).await
}

/// A step up and back: the count follows both ways, nothing is lost, the SLO share holds, and the explanation tells
/// the count that is there.
async fn step(stack: &Stack, example: &str, hpa: Option<&str>) {
    stack.learn().await;
    stack.apply_example(example).await;
    if let Some(hpa) = hpa {
        stack.hpa_active(hpa).await;
    }
    let mut load = stack.load(400, 60).await;
    let calm = watched(stack, &mut load, POOL, 6.0, Duration::from_secs(20)).await;
    let peak = watched(stack, &mut load, POOL, 30.0, Duration::from_secs(45)).await;
    // The HPA follows what is wanted within a few seconds.
    let explained = within(
        Duration::from_secs(60),
        "the count that is explained",
        async || {
            let explained = stack.explain();
            let wanted = explained["variants"][0]["wanted"].as_i64();
            (wanted == Some(stack.replicas(POOL).await)).then_some(explained)
        },
    )
    .await;
    let ebb = watched(stack, &mut load, POOL, 1.0, Duration::from_secs(10)).await;
    let outcomes = load.finish().await;
    let share = attainment(&outcomes, TTFT);
    eprintln!(
        "calm {calm:?}\npeak {peak:?}\nebb {ebb:?}\n{} requests, {:.1} % within the objective, {} not served\n{}",
        outcomes.len(),
        100.0 * share,
        lost(&outcomes).len(),
        told(&explained).join("\n"),
    );
    assert!(lost(&outcomes).is_empty(), "{:?}", lost(&outcomes));
    let (before, highest) = (calm[calm.len() - 1], *peak.iter().max().unwrap());
    assert!(highest > before, "{before} -> {highest}");
    assert!(share >= 0.9, "{share}");
    for made in peak.iter().filter(|count| **count != before) {
        let said = format!("→ {made}: ");
        let explains = told(&explained).iter().any(|change| change.contains(&said));
        assert!(explains, "{made} is not explained");
    }
    within(Duration::from_secs(180), "scale-down to one", async || {
        (stack.replicas(POOL).await == 1).then_some(())
    })
    .await;
}

/// What the explanation says of changes, a sentence each.
fn told(explained: &Value) -> Vec<&str> {
    let changes = explained["changes"].as_array().into_iter().flatten();
    let why = changes.flat_map(|change| change["why"].as_array().into_iter().flatten());
    why.filter_map(Value::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_external_metric() {
    let stack = one_server("").await;
    step(&stack, "hpa-external.yaml", Some(POOL)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_custom_metric_of_the_pool() {
    let stack = one_server("").await;
    step(&stack, "hpa-object.yaml", Some(POOL)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_controller_itself() {
    let stack = one_server("controller: {directMode: true}\n").await;
    step(&stack, "modelscaler-direct.yaml", None).await;
}

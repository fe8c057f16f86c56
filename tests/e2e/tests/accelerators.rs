//! Two accelerators, the cheaper one full: its pods stay pending, and the decision moves to the other and says why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::time::Duration;

use e2e::load::lost;
use e2e::servers::Servers;
use e2e::stack::{MODEL, POOL};
use e2e::{Stack, cluster, within};
use serde_json::Value;

/// Pods that find no room count as a full pool after half a minute; the rest is the time in which demand grows.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_accelerator_pool_moves_the_need_to_the_other() {
    let shape = cluster::Shape {
        nodes: vec![
            "cpu,cpu=256,memory=512Gi,pods=200".to_owned(),
            // Room for two replicas only.
            "l40s,product=L40S,gpu=2,cpu=64".to_owned(),
            "h100,product=H100,gpu=8,cpu=64".to_owned(),
        ],
        arguments: Vec::new(),
    };
    let variant = |name: &str, accelerator: &str, replicas| Servers {
        app: POOL.to_owned(),
        accelerator: Some(accelerator.to_owned()),
        replicas,
        ..Servers::new(name, MODEL)
    };
    let servers = [
        variant("llama-l40s", "L40S", 1),
        variant("llama-h100", "H100", 1),
    ];
    let stack = Stack::start(shape, &servers, "").await;
    stack.apply_example("two-accelerators.yaml").await;
    stack.learn().await;
    let idle = Duration::from_secs(120);
    within(idle, "the dearer variant to go to zero", async || {
        (stack.replicas("llama-h100").await == 0).then_some(())
    })
    .await;
    let mut load = stack.load(400, 60).await;
    let mut moved = false;
    while !moved && load.elapsed() < PATIENCE {
        load.at_rate(40.0, Duration::from_secs(1)).await;
        moved = stack.replicas("llama-h100").await > 0;
    }
    eprintln!("on both accelerators after {:.0?}", load.elapsed());
    assert!(moved, "all stays on the full accelerator");
    let explained = stack.explain();
    eprintln!("{explained:#}");
    let why = explained["variants"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|variant| variant["why"].as_array().cloned().unwrap_or_default());
    let told = why
        .map(|reason: Value| reason.to_string())
        .any(|reason| reason.contains("pending"));
    assert!(told, "no reason tells of the pending pods");
    let outcomes = load.finish().await;
    assert!(lost(&outcomes).is_empty(), "{:?}", lost(&outcomes));
}

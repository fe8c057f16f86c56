//! To zero and back by the requests that are held meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::time::Duration;

use e2e::load::lost;
use e2e::servers::Servers;
use e2e::stack::POOL;
use e2e::{Stack, cluster, until, within};

/// Start-up of a server; the HPA looks every two seconds.
const STARTUP: Duration = Duration::from_secs(2);
const SYNC: Duration = Duration::from_secs(2);
const RUNS: usize = 10;
/// As many servers as the example allows.
const MOST: i64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn held_requests_wake_the_pool_and_are_all_served() {
    let servers = Servers::new(POOL, e2e::stack::MODEL);
    let stack = Stack::start(cluster::Shape::default(), &[servers], "").await;
    assert_eq!(stack.replicas(POOL).await, 2);
    stack.apply_example("scale-to-zero.yaml").await;
    stack.learn().await;
    let mut waits = Vec::new();
    for run in 0..RUNS {
        within(
            Duration::from_secs(120),
            "the pool to be empty",
            async || {
                let empty = stack.get("apps/v1/Deployment", POOL).await?;
                let none = empty
                    .pointer("/status/replicas")
                    .and_then(serde_json::Value::as_i64);
                let gone = none.unwrap_or(0) == 0 && stack.replicas(POOL).await == 0;
                // A picker may hear of it a moment later than the Deployment's status says it.
                (gone && pickers_know_none(&stack).await?).then_some(())
            },
        )
        .await;
        let mut load = stack.load(400, 20).await;
        load.send();
        // Once to as many as there may be; that it wakes at all is seen sooner.
        let (rate, time, wanted) = if run == 0 {
            (40.0, 8, MOST)
        } else {
            (20.0, 3, 1)
        };
        load.at_rate(rate, Duration::from_secs(time)).await;
        let count = until("servers", async || {
            let count = stack.replicas(POOL).await;
            (count >= wanted).then_some(count)
        })
        .await;
        let outcomes = load.finish().await;
        assert!(
            lost(&outcomes).is_empty(),
            "run {run}: {:?}",
            lost(&outcomes)
        );
        let first = outcomes[0].first.expect("a first token");
        eprintln!(
            "run {run}: first token of the first held request after {first:?}, {count} replicas"
        );
        waits.push(first);
    }
    waits.sort();
    let p90 = waits[(RUNS * 9).div_ceil(10) - 1];
    let bound = STARTUP + 2 * SYNC + Duration::from_secs(3);
    eprintln!(
        "first token after p50 {:?}, p90 {p90:?}, bound {bound:?}",
        waits[RUNS / 2]
    );
    assert!(p90 <= bound, "{p90:?} > {bound:?}");
}

/// Whether every picker sees an empty pool; `None` = one does not say.
async fn pickers_know_none(stack: &Stack) -> Option<bool> {
    let series = format!("{}{{", names::metric::epp::READY_ENDPOINTS.canonical);
    for (_, address) in stack.component("epp").await {
        let page = reqwest::get(format!("http://{address}:9090/metrics")).await;
        let page = page.ok()?.text().await.ok()?;
        let known = page.lines().find(|line| line.starts_with(&series))?;
        let (_, count) = known.rsplit_once(' ')?;
        if count.parse() != Ok(0.0) {
            return Some(false);
        }
    }
    Some(true)
}

//! How long a change of demand takes to be seen by the HPA: `cargo bench -p controller --bench reaction`.
//!
//! A whole controller over real sockets and TLS, against a played API server, with 40 models of two played endpoint
//! pickers each. The requests that arrive at a model's pickers step from 10 to 300 per second; from that moment on the
//! metrics API is asked as the API server asks it. The steps are spread over the phases of pollers and cycle. Printed,
//! over all models, is the time until
//!
//! - `llm_offered_tokens_per_second` has risen by a fifth: polling, a cycle, publishing;
//! - `llm_desired_replicas` has risen: the same, where a fraction of the step suffices for another replica;
//! - nine tenths of the step are in `llm_offered_tokens_per_second`: the step fills the window that demand is measured
//!   over (three seconds for replicas that start in six).

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod aggregator;
#[path = "../tests/kubernetes/api.rs"]
#[allow(dead_code, reason = "the tests ask more of it")]
mod api;
#[path = "../tests/kubernetes/picker.rs"]
#[allow(dead_code, reason = "the tests ask more of it")]
mod picker;
#[path = "../tests/kubernetes/world.rs"]
#[allow(dead_code, reason = "the tests ask more of it")]
mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use controller::kubernetes::authority::authority;
use hdrhistogram::Histogram;
use hyper::client::conn::http2::SendRequest;
use kube::{Client, Config};
use names::kubernetes::{DESIRED_REPLICAS, OFFERED_TOKENS};
use runtime::Clock;
use runtime::tls::CertificateAuthority;

use crate::picker::Picker;
use crate::world::{World, until};

const MODELS: usize = 40;
/// Requests per second at each of a model's two pickers, before and after.
const BEFORE: f64 = 5.0;
const AFTER: f64 = 150.0;
/// Between two steps: coprime to the second of the cycle, so that every phase is met.
const BETWEEN: Duration = Duration::from_millis(730);
/// Demand is steady for so long before the first step.
const WARM_UP: Duration = Duration::from_secs(10);
/// How long a model is watched after its step at most, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(20);
/// What the HPA-visible value must take at most.
const BAR: Duration = Duration::from_secs(2);

/// What is read off a reaction.
type Part = fn(&Reaction) -> Duration;

/// Time from a step to what it changed.
struct Reaction {
    offered: Duration,
    desired: Duration,
    whole: Duration,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let world = World::new().await;
    let clock = Clock::start();
    let front_proxy = CertificateAuthority::generate("front-proxy-ca", clock.unix_ms())?;
    world.api.put("configmaps", aggregator::trust(&front_proxy));
    let mut pickers = Vec::new();
    for number in 0..MODELS {
        let model = format!("model-{number}");
        world.deploy(&model);
        let pair = [
            world.picker(&model, "a").await,
            world.picker(&model, "b").await,
        ];
        pair.iter().for_each(|picker| picker.rate(BEFORE));
        pickers.push((model, pair));
    }
    let replica = world.replica("c-0").await;
    let board = replica.running.board.clone();
    until("a decision on every model", || {
        let posted = board.latest();
        let models = &posted.published().models;
        let decided = |model: &&controller::published::PublishedModel| {
            posted.answer(model, board.clock().now()).is_ok()
        };
        models.iter().filter(decided).count() >= MODELS
    })
    .await;
    let client = Client::try_from(Config::new(world.api.url().parse()?))?;
    let roots = authority(client, "headroom", clock.unix_ms()).await?;
    let sender = aggregator::connect(
        replica.running.metrics_api,
        "headroom-controller.headroom.svc",
        &roots.bundle(),
        &front_proxy.issue_client(aggregator::FRONT_PROXY, clock.unix_ms())?,
    )
    .await?;
    tokio::time::sleep(WARM_UP).await;
    let mut reactions = tokio::task::JoinSet::new();
    for (model, pair) in pickers {
        reactions.spawn(react(sender.clone(), clock, model, pair));
        tokio::time::sleep(BETWEEN).await;
    }
    let mut all = Vec::new();
    while let Some(reaction) = reactions.join_next().await {
        all.push(reaction??);
    }
    replica.stop().await;
    report(&all)
}

/// Lets the demand of one model step, and watches what is said of it.
async fn react(
    sender: SendRequest<Body>,
    clock: Clock,
    model: String,
    pickers: [Arc<Picker>; 2],
) -> Result<Reaction> {
    let ask = |metric: &'static str| value(sender.clone(), metric, &model);
    let tokens = ask(OFFERED_TOKENS.canonical).await?;
    let replicas = ask(DESIRED_REPLICAS.canonical).await?;
    let all = tokens * (1.0 + 0.9 * (AFTER / BEFORE - 1.0));
    let (mut offered, mut desired, mut whole) = (None, None, None);
    pickers.iter().for_each(|picker| picker.rate(AFTER));
    let stepped = clock.now();
    let since = || clock.now().saturating_sub(stepped);
    while since() < PATIENCE && (desired.is_none() || whole.is_none()) {
        let seen = ask(OFFERED_TOKENS.canonical).await?;
        if seen > 1.2 * tokens {
            offered.get_or_insert_with(since);
        }
        if seen > all {
            whole.get_or_insert_with(since);
        }
        if ask(DESIRED_REPLICAS.canonical).await? > replicas {
            desired.get_or_insert_with(since);
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(Reaction {
        offered: offered.context("the demand did not rise")?,
        desired: desired.context("no replica more was wanted")?,
        whole: whole.context("the demand did not rise by the whole step")?,
    })
}

async fn value(sender: SendRequest<Body>, metric: &str, model: &str) -> Result<f64> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns/{metric}?labelSelector=model%3D{model}"
    );
    let item = aggregator::item(sender, &path).await?;
    let text = item["value"].as_str().context("a value")?;
    match text.strip_suffix('m') {
        Some(thousandths) => Ok(thousandths.parse::<f64>()? / 1e3),
        None => Ok(text.parse()?),
    }
}

fn report(reactions: &[Reaction]) -> Result<()> {
    println!(
        "demand of {} models steps from {} to {} requests/s; seconds until it is seen through the metrics API (bar: {} s):",
        reactions.len(),
        2.0 * BEFORE,
        2.0 * AFTER,
        BAR.as_secs()
    );
    let rows: [(&str, Part); 3] = [
        ("offered tokens up by a fifth", |one| one.offered),
        ("more replicas wanted", |one| one.desired),
        ("nine tenths of the step seen", |one| one.whole),
    ];
    for (what, of) in rows {
        let mut seconds = Histogram::<u64>::new(3)?;
        for one in reactions {
            seconds.record(u64::try_from(of(one).as_millis())?)?;
        }
        let at = |quantile: f64| seconds.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{what}: min {:.2}, p50 {:.2}, p90 {:.2}, max {:.2}",
            at(0.0),
            at(0.5),
            at(0.9),
            at(1.0)
        );
    }
    Ok(())
}

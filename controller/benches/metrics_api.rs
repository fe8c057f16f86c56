//! How long a metric's answer takes: GETs at 200 a second over one warm TLS connection on loopback, as the API server's
//! aggregator sends them, with 500 variants of 50 models that change every second.
//!
//! `cargo bench -p controller --bench metrics_api`. Latency runs from the moment a request was due to its last byte, so
//! that a request that waits for another counts in full. The server has one thread, the client another. The rights of
//! every user are asked for anew every ten seconds, as in a cluster.

mod aggregator;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use controller::metrics_api::MetricsApi;
use controller::published::{
    Answer, Board, Mode, ObjectRef, Published, PublishedModel, PublishedVariant, Role, label_value,
};
use hdrhistogram::Histogram;
use kubernetes::delegated::{Authenticator, Authorizer};
use kubernetes::mock::{self, Exchange};
use runtime::serve::{ServeOptions, https};
use runtime::tls::{CertificateAuthority, ClientAuth, Credentials, ServerTls, install_provider};
use runtime::{Clock, Shutdown, Tasks};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const PER_SECOND: u32 = 200;
const SECONDS: u32 = 20;
const WARM_UP_SECONDS: u32 = 3;
const MODELS: usize = 50;
const VARIANTS: usize = 10;
/// What the 99th percentile must stay under.
const BAR: Duration = Duration::from_millis(5);

fn main() -> Result<()> {
    install_provider();
    let clock = Clock::start();
    let authority = CertificateAuthority::generate("front-proxy-ca", clock.unix_ms())?;
    let (ready, server) = std::sync::mpsc::channel();
    let front_proxy = authority.clone();
    std::thread::spawn(move || {
        if let Err(error) = serve(&front_proxy, clock, &ready) {
            tracing::error!(%error, "the server ended");
        }
    });
    let (address, certificate) = server.recv().context("the server did not start")?;
    let own = authority.issue_client(aggregator::FRONT_PROXY, clock.unix_ms())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let latencies = runtime.block_on(load(address, &certificate, &own, clock))?;
    report(&latencies)
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn report(latencies: &Histogram<u64>) -> Result<()> {
    let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "metrics API, {} GETs at {PER_SECOND}/s over warm TLS, {} variants: p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms (bar: p99 < {} ms)",
        latencies.len(),
        MODELS * VARIANTS,
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        latencies.max() as f64 / 1e6,
        BAR.as_millis(),
    );
    ensure!(
        Duration::from_nanos(latencies.value_at_quantile(0.99)) < BAR,
        "the 99th percentile is over the bar"
    );
    Ok(())
}

type Ready = std::sync::mpsc::Sender<(SocketAddr, String)>;

/// One thread with the server, the API server that it asks, and the loop that publishes.
#[tokio::main(flavor = "current_thread")]
async fn serve(front_proxy: &CertificateAuthority, clock: Clock, ready: &Ready) -> Result<()> {
    let (client, mut server) = mock::server();
    let trust = aggregator::trust(front_proxy);
    tokio::spawn(async move {
        while let Some(exchange) = server.next().await {
            tokio::spawn(play(exchange, trust.clone()));
        }
    });
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let authenticator = Authenticator::start(client.clone(), clock, shutdown.clone(), &tasks);
    let board = Board::new(clock);
    board.publish(published(clock, 0));
    let api = MetricsApi::new(
        board.clone(),
        authenticator.clone(),
        Authorizer::new(client, clock),
        shutdown.clone(),
    );
    let tls = ServerTls::self_signed(&["localhost".into()], clock)?;
    let tls = tls.with_client_auth(ClientAuth::Asked)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let options = ServeOptions::default();
    https(
        listener,
        tls.clone(),
        api.router(),
        options,
        shutdown,
        &tasks,
    );
    authenticator.synced().await;
    ready.send((address, tls.certificate()))?;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for sequence in 1.. {
        seconds.tick().await;
        board.publish(published(clock, sequence));
    }
    Ok(())
}

fn published(clock: Clock, sequence: u64) -> Published {
    let at_ms = clock.unix_ms();
    let model = |number: usize| {
        let name = format!("organisation/model-{number}-Instruct");
        PublishedModel {
            namespace: format!("team-{}", number % 5),
            slug: label_value(&name),
            model: name,
            pool: Some(format!("pool-{number}")),
            source: Some(ObjectRef::new(
                "headroom.dev/v1alpha1",
                "ModelScaler",
                format!("scaler-{number}"),
            )),
            mode: Mode::Publish,
            decided_at_ms: at_ms,
            state: Answer::Fresh,
            slo_pressure: Some(0.7),
            offered_tokens_per_second: Some(12_345.0),
            queue_seconds: Some(0.3),
            variants: (0..VARIANTS)
                .map(|place| variant(number, place, sequence))
                .collect(),
        }
    };
    Published {
        at_ms,
        sequence,
        models: (0..MODELS).map(model).collect(),
    }
}

fn variant(model: usize, place: usize, sequence: u64) -> PublishedVariant {
    let name = format!("variant-{model}-{place}");
    PublishedVariant {
        role: Role::Both,
        accelerator: "NVIDIA-H100-80GB-HBM3".into(),
        target: ObjectRef::new("apps/v1", "Deployment", name.clone()),
        name,
        scaler: None,
        desired: (sequence % 7) as u32 + 1,
        current: 3,
        ready: Some(3),
        capacity: Some(2.5),
        lower: None,
        upper: None,
    }
}

/// The API server: whom to trust, and yes to every question.
async fn play(exchange: Exchange, trust: Value) {
    if exchange.target().contains("/configmaps") {
        if exchange.is_watch() {
            let _watch = exchange.watch();
            return std::future::pending().await;
        }
        let metadata = json!({"resourceVersion": "1"});
        let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": [trust]});
        return exchange.reply(&list).await;
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "metadata": {}, "spec": {}, "status": {"allowed": true},
    });
    exchange.reply(&review).await;
}

/// Sends requests when they are due, and measures each.
async fn load(
    address: SocketAddr,
    certificate: &str,
    own: &Credentials,
    clock: Clock,
) -> Result<Histogram<u64>> {
    let sender = aggregator::connect(address, "localhost", certificate, own).await?;
    let mut latencies = Histogram::<u64>::new(3)?;
    let between = Duration::from_secs(1) / PER_SECOND;
    let begin = clock.now();
    let mut answers = tokio::task::JoinSet::new();
    for number in 0..(WARM_UP_SECONDS + SECONDS) * PER_SECOND {
        let due = begin + between * number;
        tokio::time::sleep_until(clock.instant(due)).await;
        let (sender, path) = (sender.clone(), path(number as usize));
        answers.spawn(async move {
            aggregator::item(sender, &path).await?;
            Ok::<_, anyhow::Error>((number, clock.now().saturating_sub(due)))
        });
        while let Some(answer) = answers.try_join_next() {
            record(&mut latencies, answer??)?;
        }
    }
    while let Some(answer) = answers.join_next().await {
        record(&mut latencies, answer??)?;
    }
    Ok(latencies)
}

fn record(latencies: &mut Histogram<u64>, (number, took): (u32, Duration)) -> Result<()> {
    if number >= WARM_UP_SECONDS * PER_SECOND {
        latencies.record(u64::try_from(took.as_nanos())?)?;
    }
    Ok(())
}

/// Every second one is an external metric by selector, the others are custom metrics of an object.
fn path(number: usize) -> String {
    let (model, place) = (number % MODELS, number / MODELS % VARIANTS);
    let namespace = format!("team-{}", model % 5);
    if number.is_multiple_of(2) {
        format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/llm_desired_replicas?labelSelector=variant%3Dvariant-{model}-{place}%2Crole%20in%20%28both%29"
        )
    } else {
        format!(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/deployments.apps/variant-{model}-{place}/llm_desired_ratio"
        )
    }
}

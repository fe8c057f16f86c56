//! From the pool object to what the health service says.

use super::*;
use crate::extproc::hub::tests::hub_reading;
use crate::health::{Readiness, announce};
use epp_core::config::Parser;
use names::health;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::server::{HealthService, health_reporter};

fn speaking(protocol: &str) -> Value {
    let mut pool = pool(json!({}), "a");
    pool["spec"]["appProtocol"] = protocol.into();
    pool
}

/// What a proxy that checks `service` is told.
async fn told(health: &HealthService, service: &str) -> ServingStatus {
    let service = service.to_owned();
    let asked = tonic::Request::new(HealthCheckRequest { service });
    let answer = health.check(asked).await.unwrap();
    answer.into_inner().status()
}

/// Waits, in virtual time, until every service that stands for readiness says `status`.
async fn says(health: &HealthService, status: ServingStatus) {
    for service in [health::READINESS, health::EXT_PROC, ""] {
        let wait = async {
            while told(health, service).await != status {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(120), wait).await;
        assert!(in_time.is_ok(), "{service:?} never said {status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ready_before_the_pool_is_there() {
    let api = cluster();
    let pools = api
        .lists
        .lock()
        .insert(POOLS.to_owned(), Vec::new())
        .unwrap();
    let mut bench = start_pool(&api);
    let body = bench.written(EVENTS).await.body().await;
    assert_eq!(body["reason"], "PoolMissing");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!*bench.synced.borrow());
    api.modify(POOLS, pools[0].clone()).await;
    bench.synced().await;
}

#[tokio::test(start_paused = true)]
async fn a_picker_that_reads_grpc_serves_no_pool_that_does_not_speak_it() {
    let api = cluster();
    api.set(POOLS, &[speaking("http")]);
    let hub = hub_reading(&[Parser::OpenAi, Parser::VllmGrpc]);
    let mut bench = start_on(&api, the_pool(), None, hub);
    let (reporter, _) = health_reporter();
    let health = HealthService::from_health_reporter(reporter.clone());
    let readiness = Readiness {
        synced: bench.synced.clone(),
        leadership: None,
    };
    let announcing = tokio::spawn(announce(reporter, readiness, bench.shutdown.clone()));

    let event = bench.written(EVENTS).await.body().await;
    let note = event["note"].as_str().unwrap();
    assert!(note.starts_with("spec.appProtocol"), "{note}");
    bench.shows(&["10.0.0.1:8000"]).await;
    // The endpoints are known and requests that come all the same are served; but none should come.
    tokio::time::sleep(Duration::from_secs(60)).await;
    says(&health, ServingStatus::NotServing).await;
    let alive = told(&health, health::LIVENESS).await;
    assert_eq!(alive, ServingStatus::Serving);

    api.modify(POOLS, speaking("kubernetes.io/h2c")).await;
    says(&health, ServingStatus::Serving).await;
    api.modify(POOLS, speaking("http")).await;
    says(&health, ServingStatus::NotServing).await;
    bench.shutdown.stop();
    announcing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn parsers_of_json_serve_either() {
    for protocol in ["http", "kubernetes.io/h2c"] {
        let api = cluster();
        api.set(POOLS, &[speaking(protocol)]);
        let mut bench = start_on(&api, the_pool(), None, hub_reading(&Parser::AUTOMATIC));
        bench.synced().await;
    }
}

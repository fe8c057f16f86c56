//! Signals in, servers out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use controller_core::signals::{Backlog, Totals};
use controller_core::{Mix, SloTargets};
use predictor::LatencyModel;

use super::*;
use crate::fake_server::{self, PATIENCE};
use crate::publication::endpoints_document;

/// Signals in which only the number of queued requests changes.
fn observe(queued: &Arc<AtomicU64>) -> Observe {
    let queued = Arc::clone(queued);
    Box::new(move |now, replicas| Signals {
        now,
        demand: Totals::default(),
        mix: Mix::default(),
        queued: Backlog {
            requests: queued.load(Ordering::Acquire),
            ..Backlog::default()
        },
        in_flight: 4,
        replicas,
        kv_tokens: None,
        model: Arc::new(LatencyModel::prior()),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_starts_servers_and_the_decision_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("endpoints.yaml");
    let queued = Arc::new(AtomicU64::new(0));
    let slo = SloTargets {
        percentile: 0.9,
        ttft_ms: 2000.0,
        tpot_ms: 150.0,
    };
    let options = StandaloneOptions {
        policy: Policy::new("m", slo, 1, 2, Duration::from_secs(1)),
        server: fake_server::options(directory.path()),
        initial: 0,
        publication: Publication::new()
            .document(&file, endpoints_document(serde_json::Value::Null)),
        observe: observe(&queued),
        in_flight: Box::new(|_| 0),
        journal: Journal::new(),
    };
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let running =
        Standalone::start(options, Clock::start(), &Metrics::new(), &shutdown, &tasks).unwrap();
    let until = |count| {
        let actuator = running.actuator.clone();
        async move {
            tokio::time::timeout(
                PATIENCE,
                actuator.until(|view| view.replicas.ready == count),
            )
            .await
            .unwrap()
        }
    };
    assert!(until(1).await, "the minimum");
    queued.store(40, Ordering::Release);
    assert!(until(2).await, "the maximum");
    let raised = &running.journal.newest(1, true)[0];
    assert_eq!((raised.previous, raised.replicas), (1, 2));
    assert!(
        raised.to_string().contains("40 queued beside 4 in flight"),
        "{raised}"
    );
    let listed =
        epp_core::discovery_file::DiscoveryFile::parse(&std::fs::read_to_string(&file).unwrap())
            .unwrap();
    assert_eq!(listed.endpoints.len(), 2);
    shutdown.stop();
    tasks.join().await;
}

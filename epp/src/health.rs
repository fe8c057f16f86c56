//! gRPC health: alive is not ready, and ready ends before serving does.

use names::health;
use runtime::Shutdown;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Services that say whether requests should be sent here. The empty name is the server as a whole.
const READINESS: [&str; 3] = ["", health::READINESS, health::EXT_PROC];

/// Announces health until `shutdown` is stopped: not serving before the endpoints are known, and not from
/// the moment draining began, although requests are still answered.
pub(crate) async fn announce(
    reporter: HealthReporter,
    mut ready: watch::Receiver<bool>,
    shutdown: Shutdown,
) {
    reporter
        .set_service_status(health::LIVENESS, ServingStatus::Serving)
        .await;
    loop {
        let serving = *ready.borrow_and_update() && !shutdown.is_draining();
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in READINESS {
            reporter.set_service_status(service, status).await;
        }
        tokio::select! {
            changed = ready.changed() => if changed.is_err() {
                shutdown.draining().await;
            },
            () = shutdown.draining(), if serving => {}
            () = shutdown.stopped() => return,
        }
    }
}

//! gRPC health: alive is not ready, and ready ends before serving does.

use kubernetes::lease::Leadership;
use names::health;
use runtime::Shutdown;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Services that say whether requests should be sent here. The empty name is the server as a whole.
const READINESS: [&str; 3] = ["", health::READINESS, health::EXT_PROC];

/// Whether requests should be sent here.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// The endpoints are known.
    pub(crate) synced: watch::Receiver<bool>,
    /// Who leads the pickers of the pool; `None` = there is no election, and all of them serve.
    pub(crate) leadership: Option<watch::Receiver<Leadership>>,
}

impl Readiness {
    fn holds(&mut self) -> bool {
        let leads = self
            .leadership
            .as_mut()
            .is_none_or(|leadership| leadership.borrow_and_update().leader);
        *self.synced.borrow_and_update() && leads
    }

    /// Resolves when it may have changed; never once nothing can change it any more.
    async fn changed(&mut self) {
        let leadership = async {
            match &mut self.leadership {
                Some(leadership) => leadership.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = self.synced.changed() => changed.is_ok(),
            changed = leadership => changed,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }
}

/// Announces health until `shutdown` is stopped: not serving before the endpoints are known or while another picker
/// leads, and not from the moment draining began, although requests are still answered.
pub(crate) async fn announce(
    reporter: HealthReporter,
    mut readiness: Readiness,
    shutdown: Shutdown,
) {
    reporter
        .set_service_status(health::LIVENESS, ServingStatus::Serving)
        .await;
    loop {
        let draining = shutdown.is_draining();
        let status = if readiness.holds() && !draining {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in READINESS {
            reporter.set_service_status(service, status).await;
        }
        tokio::select! {
            () = readiness.changed() => {}
            () = shutdown.draining(), if !draining => {}
            () = shutdown.stopped() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health;
    use tonic_health::server::health_reporter;

    /// What a client that watches a service is told, in order.
    struct Watched<S>(S);

    impl<S> Watched<S>
    where
        S: tokio_stream::Stream<
                Item = Result<tonic_health::pb::HealthCheckResponse, tonic::Status>,
            > + Unpin,
    {
        /// The next status that differs from what was told before.
        async fn next(&mut self) -> bool {
            use tokio_stream::StreamExt;
            let told = self.0.next().await.unwrap().unwrap();
            told.status() == tonic_health::pb::health_check_response::ServingStatus::Serving
        }
    }

    #[tokio::test]
    async fn watchers_see_readiness_come_with_leadership_and_go_with_the_drain() {
        let (reporter, _) = health_reporter();
        let service = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
        let (synced, leads) = (
            watch::channel(false).0,
            watch::Sender::new(Leadership::default()),
        );
        let shutdown = Shutdown::new();
        let readiness = Readiness {
            synced: synced.subscribe(),
            leadership: Some(leads.subscribe()),
        };
        let announcing = tokio::spawn(announce(reporter, readiness, shutdown.clone()));
        let watch = |name: &str| {
            service.watch(Request::new(HealthCheckRequest {
                service: name.to_owned(),
            }))
        };
        let leader = || {
            leads.send_modify(|leadership| leadership.leader = !leadership.leader);
        };
        // The first service is announced last, so that all of them are known once it is.
        while !watch(health::EXT_PROC).await.is_ok_and(|_| true) {
            tokio::task::yield_now().await;
        }
        let mut watched = Watched(watch(health::EXT_PROC).await.unwrap().into_inner());
        while watched.next().await {}
        synced.send_replace(true);
        leader();
        while !watched.next().await {}
        leader();
        while watched.next().await {}
        leader();
        while !watched.next().await {}
        shutdown.begin_drain();
        while watched.next().await {}
        shutdown.stop();
        announcing.await.unwrap();
    }
}

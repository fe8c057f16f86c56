//! The admin server: `/metrics`, `/healthz`, and whatever routes a part adds.

use crate::listen::{ListenError, bind};
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::shutdown::{Shutdown, Tasks};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use std::net::SocketAddr;

/// What the admin server serves, and where.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// Where to listen; port 0 takes any free one.
    pub address: SocketAddr,
    /// The flag that sets the port, named in errors.
    pub flag: &'static str,
    /// Routes beside `/metrics` and `/healthz`.
    pub routes: Router,
}

/// Starts the admin server as one of `tasks`; it ends when `shutdown` is stopped.
/// Returns the address that it listens on.
///
/// # Errors
/// [`ListenError`] when the port cannot be had.
pub async fn serve(
    options: AdminOptions,
    metrics: Metrics,
    shutdown: Shutdown,
    tasks: &Tasks,
) -> Result<SocketAddr, ListenError> {
    serve_guarded(options, metrics, |pages| pages, shutdown, tasks).await
}

/// As [`serve`], with `guard` around every page but `/healthz`: a layer that asks who wants to read it.
///
/// # Errors
/// [`ListenError`] when the port cannot be had.
pub async fn serve_guarded(
    options: AdminOptions,
    metrics: Metrics,
    guard: impl FnOnce(Router) -> Router,
    shutdown: Shutdown,
    tasks: &Tasks,
) -> Result<SocketAddr, ListenError> {
    let AdminOptions {
        address,
        flag,
        routes,
    } = options;
    let listener = bind(address, "metrics and admin", flag).await?;
    let local = listener.local_addr().unwrap_or(address);
    let health = shutdown.clone();
    let pages = routes.route(
        "/metrics",
        get(move || async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode()) }),
    );
    let router = guard(pages).route("/healthz", get(move || async move { healthz(&health) }));
    tasks.spawn(async move {
        // Not axum's graceful shutdown: an idle keep-alive connection would hold the process up.
        tokio::select! {
            ended = axum::serve(listener, router) => if let Err(error) = ended {
                tracing::error!(%error, "admin server ended");
            },
            () = shutdown.stopped() => {}
        }
    });
    Ok(local)
}

fn healthz(shutdown: &Shutdown) -> (StatusCode, &'static str) {
    if shutdown.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    async fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let response = client
            .get(format!("http://{address}{path}").parse().unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn serves_metrics_health_and_added_routes() {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let options = AdminOptions {
            address: ([127, 0, 0, 1], 0).into(),
            flag: "--metrics-port",
            routes: Router::new().route("/decisions", get(|| async { "[]" })),
        };
        let address = serve(options, Metrics::new(), shutdown.clone(), &tasks)
            .await
            .unwrap();
        assert_eq!(fetch(address, "/metrics").await, (200, "# EOF\n".into()));
        assert_eq!(fetch(address, "/decisions").await, (200, "[]".into()));
        assert_eq!(fetch(address, "/healthz").await.0, 200);
        shutdown.begin_drain();
        assert_eq!(fetch(address, "/healthz").await.0, 503);
        shutdown.stop();
        tasks.join().await;
    }

    #[tokio::test]
    async fn a_guard_stands_before_every_page_but_health() {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let options = AdminOptions {
            address: ([127, 0, 0, 1], 0).into(),
            flag: "--metrics-port",
            routes: Router::new().route("/decisions", get(|| async { "[]" })),
        };
        let refuse = |_: Router| Router::new().fallback(|| async { StatusCode::UNAUTHORIZED });
        let address = serve_guarded(options, Metrics::new(), refuse, shutdown.clone(), &tasks)
            .await
            .unwrap();
        for (path, status) in [("/metrics", 401), ("/decisions", 401), ("/healthz", 200)] {
            assert_eq!(fetch(address, path).await.0, status, "{path}");
        }
        shutdown.stop();
        tasks.join().await;
    }
}

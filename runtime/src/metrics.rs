//! The process's metric registry and its text exposition.

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A shared registry. Handles are resolved when a part is wired, never on a request's path.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `register` with the registry, so that a part can add its metrics and collectors.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock())
    }

    /// The OpenMetrics text of everything registered.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry.lock()) {
            Ok(()) => text,
            Err(error) => {
                tracing::warn!(%error, "metrics could not be written");
                String::from("# EOF\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn registered_metrics_are_exposed() {
        let metrics = Metrics::new();
        let requests: Counter = Counter::default();
        metrics
            .register(|registry| registry.register("requests", "Requests seen", requests.clone()));
        requests.inc_by(3);
        assert!(metrics.encode().contains("requests_total 3\n"));
    }
}

//! The pool's endpoints: what they said, what is on them, what was decided for them.

use super::{Page, Row};
use crate::extproc::hub::Hub;
use crate::telemetry::PREFIX_INDEX;
use crate::telemetry::per_endpoint::{Attempts, Cell, OnEndpoint};
use epp_core::Scraped;
use names::Name;
use names::metric::picker;
use rustc_hash::FxHashSet;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a page is read for: mean, standard deviation, and what they are of.
type Told = (Name, Name, &'static str, fn(&Scraped) -> f32);

const TOLD: [Told; 3] = [
    (
        picker::AVERAGE_QUEUE,
        picker::STD_DEV_QUEUE,
        "the requests that engines hold back",
        |scraped| scraped.waiting,
    ),
    (
        picker::AVERAGE_RUNNING,
        picker::STD_DEV_RUNNING,
        "the requests in engines' batches",
        |scraped| scraped.running,
    ),
    (
        picker::AVERAGE_KV,
        picker::STD_DEV_KV,
        "the share of KV blocks in use, 0 to 1",
        |scraped| scraped.kv_utilization,
    ),
];

impl Page<'_, '_> {
    pub(super) fn endpoints(&mut self, hub: &Hub) -> Result<(), Error> {
        let pool = hub.pool();
        let name = self.pool;
        let one = move |value| std::iter::once((vec![("name", name.into())], value));
        let known = pool.endpoints.len() as f64;
        self.gauges(picker::READY_ENDPOINTS, "Endpoints known", one(known))?;
        let scraped: Vec<_> = pool
            .endpoints
            .iter()
            .filter_map(|one| one.scraped())
            .collect();
        for (mean, deviation, what, of) in TOLD {
            let values = scraped.iter().map(of).filter(|value| !value.is_nan());
            let (average, spread) = spread(values.map(f64::from));
            self.gauges(mean, &format!("Mean of {what}"), one(average))?;
            let help = format!("Standard deviation of {what}");
            self.gauges(deviation, &help, one(spread))?;
        }
        let queues = pool.endpoints.iter().filter_map(|endpoint| {
            let waiting = endpoint.scraped()?.waiting;
            let labels = vec![
                ("name", name.into()),
                ("model_server_endpoint", endpoint.name.as_ref().into()),
            ];
            (!waiting.is_nan()).then_some((labels, f64::from(waiting)))
        });
        let help = "Requests that one engine holds back";
        self.gauges(picker::ENDPOINT_QUEUE, help, queues)
    }

    /// What is on the endpoints, by flow and priority; an endpoint with nothing on it has one row of its own.
    pub(super) fn on_endpoints(&mut self, hub: &Hub) -> Result<(), Error> {
        let pool = hub.pool();
        hub.telemetry.on_endpoint.forget_idle();
        let cells = hub.telemetry.on_endpoint.cells();
        let busy: FxHashSet<(&str, &str)> = cells
            .iter()
            .map(|cell| (&*cell.endpoint, &*cell.address))
            .collect();
        let idle: Vec<_> = pool
            .endpoints
            .iter()
            .filter(|endpoint| !busy.contains(&(&*endpoint.name, &*endpoint.address)))
            .collect();
        let producer = Arc::clone(&hub.telemetry.configured().producers.load);
        let producer = &*producer;
        let rows = |of: fn(&OnEndpoint) -> i64| {
            let busy = cells.iter().map(move |cell| {
                let labels = on_endpoint(
                    producer,
                    &cell.endpoint,
                    &cell.label,
                    &cell.priority.to_string(),
                );
                (labels, of(&cell.value).max(0) as f64)
            });
            let idle = idle
                .iter()
                .map(|endpoint| (on_endpoint(producer, &endpoint.name, "", ""), 0.0));
            busy.chain(idle).collect::<Vec<_>>()
        };
        let requests = rows(|on| on.requests.load(Relaxed));
        let help = "Requests dispatched and not ended";
        self.gauges(picker::INFLIGHT_REQUESTS, help, requests.into_iter())?;
        let tokens = rows(|on| on.tokens.load(Relaxed));
        let help = "Uncached prompt tokens of requests that wait for their first token";
        self.gauges(picker::INFLIGHT_TOKENS, help, tokens.into_iter())?;
        let resident = pool.endpoints.iter().map(|endpoint| {
            let tokens = endpoint.load.own().resident_tokens;
            (
                vec![("endpoint_name", short(&endpoint.name).into())],
                tokens as f64,
            )
        });
        let help = "Context tokens of the requests past their first token";
        self.own_gauges("endpoint_resident_tokens", help, resident)
    }

    /// Decisions by where they led.
    pub(super) fn attempts(&mut self, hub: &Hub) -> Result<(), Error> {
        let telemetry = &hub.telemetry;
        telemetry.attempts.retain(&hub.pool());
        let cells = telemetry.attempts.cells();
        let reached = cells
            .iter()
            .map(|cell| (tried(cell), cell.value.load(Relaxed)));
        let failures = telemetry.failures.lock().clone();
        let nowhere = failures.iter().map(|(model, count)| {
            let empty = ["endpoint_name", "namespace", "port"].map(|label| (label, "".into()));
            let mut labels: Row = vec![
                ("status", "failure".into()),
                ("target_model_name", model.as_ref().into()),
            ];
            labels.extend(empty);
            (labels, *count)
        });
        let help = "Decisions, by where they led";
        let rows: Vec<_> = reached.chain(nowhere).collect();
        self.counters(picker::SCHEDULER_ATTEMPTS, help, rows.into_iter())
    }

    pub(super) fn prefixes(&mut self, hub: &Hub) -> Result<(), Error> {
        let Some(name) = hub.telemetry.configured().producers.prefix.clone() else {
            return Ok(());
        };
        let labels: Row = vec![
            ("plugin_name", name.to_string().into()),
            ("plugin_type", PREFIX_INDEX.into()),
        ];
        let blocks = hub.prefix_blocks() as f64;
        let help = "Blocks remembered in the prefix index, over all endpoints";
        self.gauges(picker::PREFIX_SIZE, help, std::iter::once((labels, blocks)))
    }
}

fn tried(cell: &Cell<Attempts>) -> Row<'_> {
    let port = cell.address.rsplit_once(':').map_or("", |(_, port)| port);
    vec![
        ("status", "success".into()),
        ("target_model_name", cell.label.as_ref().into()),
        ("endpoint_name", short(&cell.endpoint).into()),
        ("namespace", namespace(&cell.endpoint).into()),
        ("port", port.into()),
    ]
}

fn on_endpoint<'l>(producer: &str, endpoint: &str, flow: &str, priority: &str) -> Row<'l> {
    vec![
        ("endpoint_name", short(endpoint).to_owned().into()),
        ("namespace", namespace(endpoint).to_owned().into()),
        ("producer_name", producer.to_owned().into()),
        ("fairness_id", flow.to_owned().into()),
        ("priority", priority.to_owned().into()),
    ]
}

/// An endpoint's name without its namespace.
pub(super) fn short(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, short)| short)
}

fn namespace(name: &str) -> &str {
    name.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// Mean and standard deviation; NaN of nothing.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_and_how_far_values_lie_from_it() {
        assert_eq!(
            spread([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter()),
            (5.0, 2.0)
        );
        let (mean, deviation) = spread(std::iter::empty());
        assert!(mean.is_nan() && deviation.is_nan());
    }

    #[test]
    fn names_on_kubernetes_have_two_parts() {
        assert_eq!(
            (namespace("ns/pod-rank-0"), short("ns/pod-rank-0")),
            ("ns", "pod-rank-0")
        );
        assert_eq!((namespace("a"), short("a")), ("", "a"));
    }
}

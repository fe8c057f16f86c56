//! True demand, and the bodies that are arriving.

use super::{Labels, Page, headroom};
use crate::extproc::hub::Hub;
use epp_core::{Outcome, Totals};
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt::Error;

impl Page<'_, '_> {
    pub(super) fn bodies(&mut self, hub: &Hub) -> Result<(), Error> {
        let bodies = hub.bodies();
        let held = std::iter::once((Vec::new(), bodies.held() as f64));
        self.own_gauges(
            "arriving_body_bytes",
            "Bytes of request bodies that are arriving",
            held,
        )?;
        self.counter(
            "arriving_bodies_refused",
            "Requests refused because others left no room for their body",
            bodies.refused(),
        )
    }

    /// True demand: everything that arrived, and what became of it.
    pub(super) fn demand(&mut self, hub: &Hub) -> Result<(), Error> {
        type Unit = (&'static str, fn(&Totals) -> u64);
        const UNITS: [Unit; 3] = [
            ("prompt", |totals| totals.prompt_tokens),
            ("cached", |totals| totals.cached_tokens),
            ("output", |totals| totals.output_tokens),
        ];
        let totals = hub.demand().totals();
        let mut rows: Vec<(&str, String, &str, Totals)> = Vec::new();
        for band in &totals.bands {
            let sheddable = if band.sheddable { "true" } else { "false" };
            let priority = band.priority.to_string();
            rows.push(("Offered", priority.clone(), sheddable, band.offered));
            for outcome in Outcome::ALL {
                let ended = band.outcome(outcome);
                if ended.requests > 0 {
                    rows.push((outcome.name(), priority.clone(), sheddable, ended));
                }
            }
        }
        self.family(
            &headroom("demand_requests"),
            "Requests by what became of them; Offered = all",
            MetricType::Counter,
            |mut encoder| {
                for (outcome, priority, sheddable, totals) in &rows {
                    let labels: Labels = &[
                        ("outcome", outcome),
                        ("priority", priority),
                        ("sheddable", sheddable),
                    ];
                    ConstCounter::new(totals.requests).encode(encoder.encode_family(&labels)?)?;
                }
                Ok(())
            },
        )?;
        self.family(
            &headroom("demand_tokens"),
            "Their tokens",
            MetricType::Counter,
            |mut encoder| {
                for (outcome, priority, sheddable, totals) in &rows {
                    for (kind, count) in UNITS {
                        let labels: Labels = &[
                            ("outcome", outcome),
                            ("priority", priority),
                            ("sheddable", sheddable),
                            ("kind", kind),
                        ];
                        ConstCounter::new(count(totals)).encode(encoder.encode_family(&labels)?)?;
                    }
                }
                Ok(())
            },
        )?;
        let misses: u64 = totals.bands.iter().map(|band| band.expected_misses).sum();
        self.counter(
            "slo_expected_misses",
            "Requests dispatched although no endpoint was predicted to meet their SLO",
            misses,
        )
    }
}

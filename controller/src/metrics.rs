//! What the controller sees and wants, as metrics.

use std::sync::atomic::AtomicU64;

use controller_core::Decision;
use controller_core::decision::Basis;
use names::metric::HEADROOM_PREFIX;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Level = Gauge<f64, AtomicU64>;

/// Gauges of the last decision. What is unknown is NaN, never 0.
#[derive(Clone, Debug, Default)]
pub struct DecisionMetrics {
    desired: Gauge,
    replicas: Family<Phase, Gauge>,
    capacity: Level,
    demand: Level,
    demand_error: Level,
    forecast: Level,
    headroom: Level,
    predicted_ttft: Level,
    predicted_tpot: Level,
    basis: Family<BasisLabel, Gauge>,
    changes: Family<Direction, Counter>,
    decisions: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    state: PhaseName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "written as label values")]
enum PhaseName {
    ready,
    starting,
    draining,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BasisLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

impl DecisionMetrics {
    /// Registers the metrics under Headroom's prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.unknown();
        let registry = registry.sub_registry_with_prefix(HEADROOM_PREFIX);
        let own = |metric: &Level| metric.clone();
        registry.register(
            "desired_replicas",
            "Replicas wanted",
            metrics.desired.clone(),
        );
        registry.register(
            "replicas",
            "Replicas that exist, by state",
            metrics.replicas.clone(),
        );
        registry.register(
            "capacity_requests_per_second",
            "Requests per second that one replica serves within the objective",
            own(&metrics.capacity),
        );
        registry.register(
            "demand_requests_per_second",
            "Requests per second offered, whatever became of them",
            own(&metrics.demand),
        );
        registry.register(
            "demand_error_requests_per_second",
            "Standard error of the demand",
            own(&metrics.demand_error),
        );
        registry.register(
            "forecast_requests_per_second",
            "Requests per second that replicas are counted for",
            own(&metrics.forecast),
        );
        registry.register(
            "headroom_requests_per_second",
            "Requests per second that the ready replicas could take beyond the demand",
            own(&metrics.headroom),
        );
        registry.register(
            "predicted_ttft_seconds",
            "Time to first token predicted at the objective's percentile for a replica at capacity",
            own(&metrics.predicted_ttft),
        );
        registry.register("predicted_tpot_seconds", "Time per output token predicted at the objective's percentile for a replica at capacity", own(&metrics.predicted_tpot));
        registry.register(
            "decision_state",
            "1 for how the count came about: slo, utilization (objective infeasible) or held",
            metrics.basis.clone(),
        );
        registry.register(
            "replica_changes",
            "Decisions that changed the count",
            metrics.changes.clone(),
        );
        registry.register("decisions", "Decisions made", metrics.decisions.clone());
        metrics
    }

    /// Shows `decision`.
    pub fn record(&self, decision: &Decision) {
        self.unknown();
        self.decisions.inc();
        self.desired.set(i64::from(decision.replicas));
        let supply = decision.supply;
        for (state, count) in [
            (PhaseName::ready, supply.ready),
            (PhaseName::starting, supply.starting),
            (PhaseName::draining, supply.draining),
        ] {
            self.replicas
                .get_or_create(&Phase { state })
                .set(i64::from(count));
        }
        if let Some(demand) = &decision.demand {
            self.demand.set(demand.offered.requests);
            self.demand_error.set(demand.error);
        }
        if let Some(forecast) = &decision.forecast {
            self.forecast.set(forecast.upper);
        }
        if let Some(capacity) = &decision.capacity {
            self.capacity.set(capacity.requests_per_second);
            self.predicted_ttft.set(capacity.ttft_ms / 1000.0);
            self.predicted_tpot.set(capacity.tpot_ms / 1000.0);
        }
        self.headroom.set(decision.headroom.unwrap_or(f64::NAN));
        for basis in Basis::ALL {
            self.basis
                .get_or_create(&BasisLabel {
                    state: basis.name(),
                })
                .set(i64::from(basis == decision.basis));
        }
        if decision.changes() {
            let direction = if decision.replicas > decision.previous {
                "up"
            } else {
                "down"
            };
            self.changes.get_or_create(&Direction { direction }).inc();
        }
    }

    fn unknown(&self) {
        let levels = [
            &self.capacity,
            &self.demand,
            &self.demand_error,
            &self.forecast,
            &self.headroom,
            &self.predicted_ttft,
            &self.predicted_tpot,
        ];
        for level in levels {
            level.set(f64::NAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use controller_core::forecast::Forecast;
    use runtime::Metrics;

    use super::*;
    use crate::journal::tests::decision;

    #[test]
    fn a_decision_is_shown_and_the_unknown_is_not_zero() {
        let metrics = Metrics::new();
        let shown = metrics.register(DecisionMetrics::register);
        let mut made = (*decision(1, 3, 5)).clone();
        made.forecast = Some(Forecast {
            upper: 21.5,
            ..Forecast::default()
        });
        shown.record(&made);
        shown.record(&decision(2, 5, 4));
        shown.record(&made);
        let text = metrics.encode();
        for line in [
            "headroom_desired_replicas 5",
            "headroom_replicas{state=\"ready\"} 3",
            "headroom_forecast_requests_per_second 21.5",
            "headroom_capacity_requests_per_second NaN",
            "headroom_decision_state{state=\"held\"} 1",
            "headroom_decision_state{state=\"slo\"} 0",
            "headroom_replica_changes_total{direction=\"up\"} 2",
            "headroom_replica_changes_total{direction=\"down\"} 1",
            "headroom_decisions_total 3",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is not in\n{text}"
            );
        }
    }
}

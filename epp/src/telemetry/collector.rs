//! Metrics that are read when they are asked for: pool, queue, demand, predictor.

use crate::extproc::hub::Hub;
use epp_core::{BandDepth, Endpoint, Outcome, Totals};
use names::metric::HEADROOM_PREFIX;
use predictor::{State, Target, TargetReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;
use std::sync::{Arc, Weak};

type Labels<'l> = &'l [(&'l str, &'l str)];

/// Reads the hub on every exposition. It does not keep the hub alive.
#[derive(Debug)]
pub struct HubCollector {
    hub: Weak<Hub>,
    pool: String,
}

impl HubCollector {
    /// A collector for the pool named `pool`.
    pub fn new(hub: &Arc<Hub>, pool: &str) -> Self {
        Self {
            hub: Arc::downgrade(hub),
            pool: pool.to_owned(),
        }
    }
}

impl Collector for HubCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let Some(hub) = self.hub.upgrade() else {
            return Ok(());
        };
        let mut page = Page {
            encoder,
            pool: &self.pool,
        };
        page.endpoints(&hub)?;
        page.queue(&hub)?;
        page.bodies(&hub)?;
        page.demand(&hub)?;
        page.predictor(&hub)
    }
}

struct Page<'e, 'p> {
    encoder: DescriptorEncoder<'e>,
    pool: &'p str,
}

impl Page<'_, '_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        each: impl FnOnce(MetricEncoder) -> Result<(), Error>,
    ) -> Result<(), Error> {
        each(self.encoder.encode_descriptor(name, help, None, kind)?)
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Vec<(&'l str, &'l str)>, f64)>,
    ) -> Result<(), Error> {
        self.family(name, help, MetricType::Gauge, |mut encoder| {
            for (labels, value) in rows {
                let labels: Labels = &labels;
                ConstGauge::new(value).encode(encoder.encode_family(&labels)?)?;
            }
            Ok(())
        })
    }

    fn endpoints(&mut self, hub: &Hub) -> Result<(), Error> {
        let pool = hub.pool();
        let name = self.pool;
        let one = |value| std::iter::once((vec![("name", name)], value));
        self.gauges(
            &epp("ready_endpoints"),
            "Endpoints known",
            one(pool.endpoints.len() as f64),
        )?;
        let scraped: Vec<_> = pool
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.scraped())
            .collect();
        let mean = |of: fn(&epp_core::Scraped) -> f32| {
            let known = scraped.iter().map(of).filter(|value| !value.is_nan());
            let (sum, count) = known.fold((0.0, 0_u32), |(sum, count), value| {
                (sum + f64::from(value), count + 1)
            });
            if count == 0 {
                f64::NAN
            } else {
                sum / f64::from(count)
            }
        };
        self.gauges(
            &epp("average_queue_size"),
            "Mean of the requests that engines hold back",
            one(mean(|s| s.waiting)),
        )?;
        self.gauges(
            &epp("average_running_requests"),
            "Mean of the requests in engines' batches",
            one(mean(|s| s.running)),
        )?;
        self.gauges(
            &epp("average_kv_cache_utilization"),
            "Mean share of KV blocks in use, 0 to 1",
            one(mean(|s| s.kv_utilization)),
        )?;
        let per_endpoint = |value: fn(&Endpoint) -> f64| {
            pool.endpoints
                .iter()
                .map(move |endpoint| (vec![("endpoint_name", &*endpoint.name)], value(endpoint)))
        };
        self.gauges(
            &epp("inflight_requests"),
            "Requests dispatched and not ended",
            per_endpoint(|endpoint| f64::from(endpoint.load.snapshot().in_flight)),
        )?;
        self.gauges(
            &epp("inflight_tokens"),
            "Uncached prompt tokens waiting and context tokens running",
            per_endpoint(|endpoint| {
                let load = endpoint.load.snapshot();
                (load.waiting_tokens + load.resident_tokens) as f64
            }),
        )
    }

    fn queue(&mut self, hub: &Hub) -> Result<(), Error> {
        let queued = hub.queued();
        let pool = self.pool;
        let bands: Vec<_> = queued
            .bands
            .iter()
            .map(|band| (band.priority.to_string(), band))
            .collect();
        let rows = |value: fn(&BandDepth) -> u64| {
            bands.iter().map(move |(priority, band)| {
                (
                    vec![("priority", priority.as_str()), ("inference_pool", pool)],
                    value(band) as f64,
                )
            })
        };
        self.gauges(
            &epp("flow_control_queue_size"),
            "Requests queued",
            rows(|band| band.requests),
        )?;
        self.gauges(
            &epp("flow_control_queue_bytes"),
            "Bytes of request bodies queued",
            rows(|band| band.bytes),
        )?;
        let saturation = hub.saturation().unwrap_or(f64::NAN);
        let labels = vec![("inference_pool", pool), ("stage", "effective")];
        self.gauges(
            &epp("flow_control_pool_saturation"),
            "Share of the pool's room that is taken; may exceed 1, NaN = unknown",
            std::iter::once((labels, saturation)),
        )
    }

    fn bodies(&mut self, hub: &Hub) -> Result<(), Error> {
        let bodies = hub.bodies();
        let held = std::iter::once((Vec::new(), bodies.held() as f64));
        self.gauges(
            &headroom("arriving_body_bytes"),
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
    fn demand(&mut self, hub: &Hub) -> Result<(), Error> {
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

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.family(&headroom(name), help, MetricType::Counter, |encoder| {
            ConstCounter::new(value).encode(encoder)
        })
    }

    /// How the latency models do; `class` is told apart only where endpoints name one.
    fn predictor(&mut self, hub: &Hub) -> Result<(), Error> {
        let reports = hub.trainer.reports();
        let classed = reports.iter().any(|of| !of.class.is_empty());
        let labelled = |target: Target, class| {
            let mut labels = vec![("target", target.name())];
            labels.extend(classed.then_some(("class", class)));
            labels
        };
        let targets = || {
            reports.iter().flat_map(|of| {
                Target::ALL.map(|target| (labelled(target, &of.class), of.report.target(target)))
            })
        };
        let states = [State::Prior, State::Warming, State::Trained, State::Stale];
        let rows = targets().flat_map(|(labels, of)| {
            states.map(|state| {
                let mut labels = labels.clone();
                labels.insert(1, ("state", state.name()));
                (labels, f64::from(u8::from(of.state == state)))
            })
        });
        self.gauges(
            &headroom("predictor_state"),
            "1 for the state each target's model is in",
            rows,
        )?;
        for (name, help, score) in SCORES {
            self.gauges(
                &headroom(name),
                help,
                targets().map(|(labels, of)| (labels, score(of))),
            )?;
        }
        self.counter(
            "predictor_dropped_labels",
            "Labels dropped because the trainer was behind",
            reports.first().map_or(0, |of| of.report.dropped),
        )
    }
}

type Score = (&'static str, &'static str, fn(&TargetReport) -> f64);

const SCORES: [Score; 6] = [
    (
        "predictor_mape",
        "Mean absolute error of p50 over recent labels, percent",
        |of| of.mape.into(),
    ),
    (
        "predictor_median_ape",
        "Median absolute error of p50 over recent labels, percent",
        |of| of.median_ape.into(),
    ),
    (
        "predictor_log_bias",
        "Mean of ln(p50 / actual) over recent labels; negative is optimistic",
        |of| of.log_bias.into(),
    ),
    (
        "predictor_coverage_p90",
        "Share of recent labels at or below p90",
        |of| of.coverage_p90.into(),
    ),
    ("predictor_labels", "Labels learned from", |of| {
        of.labels as f64
    }),
    ("predictor_refits", "Refits put in force", |of| {
        of.refits as f64
    }),
];

fn epp(name: &str) -> String {
    format!("{}_{name}", names::metric::EPP_PREFIX)
}

fn headroom(name: &str) -> String {
    format!("{HEADROOM_PREFIX}_{name}")
}

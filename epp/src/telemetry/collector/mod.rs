//! Metrics that are read when they are asked for: pool, queue, demand, predictor.

mod demand;
mod flow;
mod health;
mod pool;
mod predictor;

pub(crate) use flow::Wait;

use super::registrar::all;
use crate::admin_port::debug::COMMIT;
use crate::extproc::hub::Hub;
use names::Name;
use names::metric::HEADROOM_PREFIX;
use names::metric::picker::{self, config};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::borrow::Cow;
use std::fmt::Error;
use std::sync::{Arc, Weak};

type Labels<'l> = &'l [(&'l str, &'l str)];
/// Labels of one row.
type Row<'l> = Vec<(&'static str, Cow<'l, str>)>;

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
            twins: hub.telemetry.twins,
        };
        page.info(&hub)?;
        page.endpoints(&hub)?;
        page.on_endpoints(&hub)?;
        page.attempts(&hub)?;
        page.prefixes(&hub)?;
        page.health(&hub)?;
        page.queue(&hub)?;
        page.bodies(&hub)?;
        page.demand(&hub)?;
        page.predictor(&hub)
    }
}

struct Page<'e, 'p> {
    encoder: DescriptorEncoder<'e>,
    pool: &'p str,
    /// Under the older names too.
    twins: bool,
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

    fn rows<'l, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        rows: &[(Row<'l>, M)],
    ) -> Result<(), Error> {
        let kind = match rows.first() {
            Some((_, metric)) => metric.metric_type(),
            None => return Ok(()),
        };
        self.family(name, help, kind, |mut encoder| {
            for (labels, metric) in rows {
                let labels: Vec<_> = labels
                    .iter()
                    .map(|(name, value)| (*name, &**value))
                    .collect();
                let labels: Labels = &labels;
                metric.encode(encoder.encode_family(&labels)?)?;
            }
            Ok(())
        })
    }

    /// A gauge of llm-d's.
    fn gauges<'l>(
        &mut self,
        name: Name,
        help: &str,
        rows: impl Iterator<Item = (Row<'l>, f64)>,
    ) -> Result<(), Error> {
        let rows: Vec<_> = rows
            .map(|(labels, value)| (labels, ConstGauge::new(value)))
            .collect();
        for name in all(name, self.twins) {
            self.rows(&name, help, &rows)?;
        }
        Ok(())
    }

    /// A counter of llm-d's.
    fn counters<'l>(
        &mut self,
        name: Name,
        help: &str,
        rows: impl Iterator<Item = (Row<'l>, u64)>,
    ) -> Result<(), Error> {
        let rows: Vec<_> = rows
            .map(|(labels, value)| (labels, ConstCounter::new(value)))
            .collect();
        for name in all(name, self.twins) {
            self.rows(&name, help, &rows)?;
        }
        Ok(())
    }

    /// A gauge of Headroom's own.
    fn own_gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Vec<(&'static str, Cow<'l, str>)>, f64)>,
    ) -> Result<(), Error> {
        let rows: Vec<_> = rows
            .map(|(labels, value)| (labels, ConstGauge::new(value)))
            .collect();
        self.rows(&headroom(name), help, &rows)
    }

    /// A counter of Headroom's own.
    fn own_counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Row<'l>, u64)>,
    ) -> Result<(), Error> {
        let rows: Vec<_> = rows
            .map(|(labels, value)| (labels, ConstCounter::new(value)))
            .collect();
        self.rows(&headroom(name), help, &rows)
    }

    /// A counter of Headroom's own, without labels.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.family(&headroom(name), help, MetricType::Counter, |encoder| {
            ConstCounter::new(value).encode(encoder)
        })
    }

    fn info(&mut self, hub: &Hub) -> Result<(), Error> {
        let one = |labels: Row<'static>| std::iter::once((labels, 1.0));
        let build = vec![
            ("commit", COMMIT.into()),
            ("build_ref", env!("CARGO_PKG_VERSION").into()),
        ];
        self.gauges(picker::INFO, "What was built", one(build))?;
        let configured = hub.telemetry.configured();
        let text = |text: &str| Cow::Owned(text.to_owned());
        let labels = vec![
            ("version", text(&configured.version)),
            ("hash", text(&configured.hash)),
        ];
        let help = "The configuration in force, by a hash of what it says and one of its text";
        self.own_gauges(config::INFO, help, one(labels))?;
        let help = "Plugins and parameters of it that something simpler stands in for";
        let (name, stand_ins) = (headroom(config::STAND_INS), configured.stand_ins as f64);
        self.family(&name, help, MetricType::Gauge, |encoder| {
            ConstGauge::new(stand_ins).encode(encoder)
        })
    }
}

fn headroom(name: &str) -> String {
    format!("{HEADROOM_PREFIX}_{name}")
}

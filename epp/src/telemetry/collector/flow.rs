//! The queue, how full the pool is, and what is taken back from it.

use super::{Page, Row};
use crate::extproc::hub::Hub;
use epp_core::director::CONFIRMATION_BOUNDS;
use epp_core::{CapacityUse, QueueGauges, Revocations, StageSaturation};
use names::metric::picker;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::time::Duration;

impl Page<'_, '_> {
    pub(super) fn queue(&mut self, hub: &Hub) -> Result<(), Error> {
        let configured = hub.telemetry.configured();
        self.saturation(hub.stages(), configured.detector)?;
        self.capacity(hub.queue())?;
        if configured.evicts {
            self.revocations(hub.revocations())?;
        }
        self.programs(hub)
    }

    fn saturation(&mut self, level: StageSaturation, detector: &str) -> Result<(), Error> {
        let stages = [
            ("prefill", level.prefill),
            ("decode", level.decode),
            ("effective", Some(level.effective.unwrap_or(f64::NAN))),
        ];
        let pool = self.pool;
        let row = |(stage, level): (&'static str, Option<f64>)| {
            let labels = vec![("inference_pool", pool.into()), ("stage", stage.into())];
            Some((labels, level?))
        };
        let help = "Share of the pool's room that is taken; may exceed 1, NaN = unknown";
        self.gauges(picker::SATURATION, help, stages.into_iter().filter_map(row))?;
        let stale = vec![("detector", detector.to_owned().into())];
        let help = "Endpoints that the detector knows nothing fresh of";
        let rows = std::iter::once((stale, level.unknown as f64));
        self.gauges(picker::STALE_ENDPOINTS, help, rows)
    }

    fn capacity(&mut self, gauges: &QueueGauges) -> Result<(), Error> {
        let (bands, total, pool) = (gauges.capacity(), gauges.total_capacity(), self.pool);
        let each = |of: fn(&CapacityUse) -> Option<f64>| {
            let used = bands.iter().filter_map(move |(priority, used)| {
                let labels: Row<'_> = vec![
                    ("priority", priority.to_string().into()),
                    ("inference_pool", pool.into()),
                ];
                Some((labels, of(used)?))
            });
            used.collect::<Vec<_>>()
        };
        let all = |used: Option<f64>| {
            let labels: Row<'_> = vec![("inference_pool", pool.into())];
            used.map(|used| (labels, used)).into_iter()
        };
        let help = "Queued requests of a band over the most that it holds";
        let rows = each(|used| used.requests);
        self.gauges(picker::BAND_REQUESTS_USED, help, rows.into_iter())?;
        let help = "Queued bytes of a band over the most that it holds";
        let rows = each(|used| used.bytes);
        self.gauges(picker::BAND_BYTES_USED, help, rows.into_iter())?;
        let help = "Queued requests over the most that the queue holds";
        self.gauges(picker::REQUESTS_USED, help, all(total.requests))?;
        let help = "Queued bytes over the most that the queue holds";
        self.gauges(picker::BYTES_USED, help, all(total.bytes))
    }

    fn revocations(&mut self, revocations: &Revocations) -> Result<(), Error> {
        let pool = self.pool;
        let issued = revocations.issued_by_priority();
        let issued = issued.into_iter().map(|(priority, count)| {
            let labels: Row<'_> = vec![
                ("priority", priority.to_string().into()),
                ("inference_pool", pool.into()),
            ];
            (labels, count)
        });
        let help = "Requests named to be taken off their endpoints";
        self.counters(picker::REVOCATIONS_ISSUED, help, issued)?;
        let outcomes = revocations.outcomes().into_iter().map(|(outcome, count)| {
            let labels: Row<'_> =
                vec![("outcome", outcome.into()), ("inference_pool", pool.into())];
            (labels, count)
        });
        let help = "What became of them: evicted, finished by themselves, overdue";
        self.counters(picker::REVOCATIONS, help, outcomes)?;
        let one =
            |value: u64| std::iter::once((vec![("inference_pool", pool.into())], value as f64));
        let help = "Requests that had to end when somebody was named last";
        self.gauges(picker::RECLAIM_TARGET, help, one(revocations.target()))?;
        let help = "Requests named that have not ended";
        self.gauges(picker::PENDING_RECLAIM, help, one(revocations.pending()))?;
        let told = revocations.confirmations();
        let bounds = CONFIRMATION_BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(told.counts.iter().copied()).collect();
        let count = told.counts.iter().sum();
        for name in super::all(picker::REVOCATION_CONFIRMATION, self.twins) {
            let help = "Time from naming a request to its end";
            self.family(&name, help, MetricType::Histogram, |mut encoder| {
                let labels: super::Labels<'_> = &[("inference_pool", pool)];
                let mut encoder = encoder.encode_family(&labels)?;
                encoder.encode_histogram::<NoLabelSet>(told.sum, count, &buckets, None)
            })?;
        }
        Ok(())
    }

    /// How programs are served, where fairness looks at them.
    fn programs(&mut self, hub: &Hub) -> Result<(), Error> {
        if !hub.telemetry.configured().programs {
            return Ok(());
        }
        let mut service = Vec::new();
        hub.with_director(|director, now: Duration| service = director.attained_service(now));
        if service.is_empty() {
            return Ok(());
        }
        let mut attained: BTreeMap<Arc<str>, f64> = BTreeMap::new();
        for (_, program, tokens) in service {
            *attained
                .entry(hub.telemetry.flows.label(&program))
                .or_default() += tokens;
        }
        let fairness = jain(attained.values().copied());
        let help = "Jain's index of the service that programs have had: 1 = all the same";
        let rows = std::iter::once((Vec::new(), fairness));
        self.gauges(picker::PROGRAM_FAIRNESS, help, rows)?;
        let row =
            |program: &Arc<str>, value| (vec![("program_id", program.to_string().into())], value);
        let rows = attained
            .iter()
            .map(|(program, tokens)| row(program, *tokens));
        let help = "Tokens that a program was served, the past fading";
        self.gauges(picker::PROGRAM_SERVICE, help, rows)?;
        let waits = hub.telemetry.waits.lock().clone();
        let mean = |(program, wait): (&Arc<str>, &Wait)| row(program, wait.mean_ms());
        let help = "Mean time that a program's requests waited for their decision";
        self.gauges(picker::PROGRAM_WAIT, help, waits.iter().map(mean))
    }
}

/// How long requests of one program waited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wait {
    requests: u64,
    seconds: f64,
}

impl Wait {
    pub(crate) fn add(&mut self, seconds: f64) {
        self.requests += 1;
        self.seconds += seconds;
    }

    fn mean_ms(&self) -> f64 {
        self.seconds / self.requests.max(1) as f64 * 1e3
    }
}

/// (Σx)² ÷ (n·Σx²): 1 = all the same, 1/n = one has all.
fn jain(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, squares, count) = values.fold((0.0, 0.0, 0.0), |(sum, squares, count), value| {
        (sum + value, squares + value * value, count + 1.0)
    });
    if squares > 0.0 {
        sum * sum / (count * squares)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_for_equals_and_small_for_one_who_has_all() {
        assert_eq!(jain([3.0, 3.0, 3.0].into_iter()), 1.0);
        assert_eq!(jain([5.0, 0.0, 0.0, 0.0].into_iter()), 0.25);
        assert_eq!(jain(std::iter::empty()), 1.0);
    }
}

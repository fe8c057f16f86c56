//! Request metrics by model, target model, flow and priority, with a cap on what clients can name.

mod families;

use super::capped::Capped;
use super::registrar::Registrar;
use families::{
    EnqueueLabels, ErrorLabels, Families, HISTOGRAMS, LastLabels, PredictionLabels, QueueLabels,
    StreamingLabels, ViolationLabels, WaitLabels,
};
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, OnceLock};

pub use families::{Latency, Of, RequestLabels};

/// Combinations of labels that are kept apart.
const DISTINCT_SERIES: usize = 4096;

/// One combination of labels; its handles are resolved when first used.
#[derive(Debug)]
pub struct Series {
    /// With models and flow capped.
    pub labels: RequestLabels,
    pool: Arc<str>,
    predictor: Arc<str>,
    families: Arc<Families>,
    /// Requests.
    pub requests: Counter,
    /// Requests on the endpoints.
    pub running: Gauge,
    /// Requests queued.
    pub queued: Gauge,
    /// Bytes queued.
    pub queued_bytes: Gauge,
    histograms: [OnceLock<Histogram>; HISTOGRAMS.len()],
    ttft: [OnceLock<Histogram>; 2],
    predicted: [OnceLock<Histogram>; 2],
    dispatched: OnceLock<Histogram>,
    taken_in: OnceLock<Histogram>,
}

/// The outcome of most requests.
const DISPATCHED: &str = "Dispatched";

impl Series {
    /// Adds one value to the histogram `of`.
    pub fn observe(&self, of: Of, value: f64) {
        let (cell, family) = (
            &self.histograms[of as usize],
            &self.families.histograms[of as usize],
        );
        cell.get_or_init(|| handle(family, &self.labels))
            .observe(value);
    }

    /// Adds a time to first token, in seconds.
    pub fn ttft(&self, seconds: f64, streaming: bool) {
        let labels = || StreamingLabels {
            request: self.labels.clone(),
            streaming: if streaming { "true" } else { "false" },
        };
        let cell = &self.ttft[usize::from(streaming)];
        let ttft = cell.get_or_init(|| handle(&self.families.ttft, &labels()));
        ttft.observe(seconds);
        self.last("ttft", seconds);
    }

    /// Adds what was predicted for the endpoint that was picked, in seconds.
    pub fn predicted(&self, latency: Latency, seconds: f64) {
        let at = latency as usize;
        let of = || handle(&self.families.predicted[at], &self.prediction());
        self.predicted[at].get_or_init(of).observe(seconds);
        self.last(["predicted_ttft", "predicted_tpot"][at], seconds);
    }

    /// Adds the time that a prediction took, in seconds. Both latencies are predicted at once.
    pub fn predicting(&self, seconds: f64) {
        for family in &self.families.prediction_durations {
            handle(family, &self.prediction()).observe(seconds);
        }
    }

    /// Sets the latency last seen, in seconds.
    pub fn last(&self, kind: &'static str, seconds: f64) {
        let labels = LastLabels {
            prediction: self.prediction(),
            r#type: kind,
        };
        self.families.last.get_or_create(&labels).set(seconds);
    }

    /// Adds the time from arrival to a decision, in seconds.
    pub fn waited(&self, outcome: &'static str, seconds: f64) {
        let of = || {
            let labels = WaitLabels {
                queue: self.queue(),
                outcome,
            };
            handle(&self.families.waits, &labels)
        };
        match outcome {
            DISPATCHED => self.dispatched.get_or_init(of).observe(seconds),
            _ => of().observe(seconds),
        }
    }

    /// Adds the time that taking the request in took, in seconds.
    pub fn taken_in(&self, outcome: &'static str, seconds: f64) {
        let of = || {
            let labels = EnqueueLabels {
                fairness_id: Arc::clone(&self.labels.fairness_id),
                priority: self.labels.priority,
                outcome,
            };
            handle(&self.families.enqueues, &labels)
        };
        match outcome {
            DISPATCHED => self.taken_in.get_or_init(of).observe(seconds),
            _ => of().observe(seconds),
        }
    }

    /// Counts a request that ended in `error_code`.
    pub fn error(&self, error_code: &'static str) {
        let labels = ErrorLabels {
            request: self.labels.clone(),
            error_code,
        };
        self.families.errors.get_or_create(&labels).inc();
    }

    /// Counts a missed target; `kind` is `ttft` or `tpot`.
    pub fn violation(&self, kind: &'static str) {
        let labels = ViolationLabels {
            request: self.labels.clone(),
            r#type: kind,
        };
        self.families.violations.get_or_create(&labels).inc();
    }

    fn prediction(&self) -> PredictionLabels {
        PredictionLabels {
            plugin: Arc::clone(&self.predictor),
            model: Arc::clone(&self.labels.target_model_name),
        }
    }

    fn queue(&self) -> QueueLabels {
        QueueLabels {
            request: self.labels.clone(),
            inference_pool: Arc::clone(&self.pool),
        }
    }
}

/// All combinations seen so far.
#[derive(Debug)]
pub struct SeriesTable {
    /// Keyed, so that no client can choose names that collide.
    hasher: RandomState,
    known: RwLock<FxHashMap<u64, Arc<Series>>>,
    models: Capped,
    flows: Capped,
    pool: Arc<str>,
    /// Name of the plugin that predicts.
    predictor: Arc<str>,
    families: Arc<Families>,
}

impl SeriesTable {
    /// Registered, without any series; of models and flows each `limit` are kept apart. The plugin called `predictor`
    /// predicts.
    pub(super) fn new(
        to: &mut Registrar<'_>,
        pool: &str,
        limit: usize,
        predictor: &Arc<str>,
    ) -> Self {
        let families = Families::new();
        families.register(to);
        Self {
            hasher: RandomState::new(),
            known: RwLock::default(),
            models: Capped::new(super::capped::DISTINCT_VALUES),
            flows: Capped::new(limit),
            pool: pool.into(),
            predictor: Arc::clone(predictor),
            families: Arc::new(families),
        }
    }

    /// The handles for a request to `model`, sent on as `target`, in `flow` at `priority`.
    pub fn series(&self, model: &str, target: &str, flow: &str, priority: i32) -> Arc<Series> {
        let key = self.hasher.hash_one((model, target, flow, priority));
        if let Some(series) = self.known.read().get(&key) {
            return Arc::clone(series);
        }
        let full = self.known.read().len() >= DISTINCT_SERIES;
        let capped = |values: &Capped, value| {
            if full {
                values.other()
            } else {
                values.label(value)
            }
        };
        let labels = RequestLabels {
            model_name: capped(&self.models, model),
            target_model_name: capped(&self.models, target),
            fairness_id: capped(&self.flows, flow),
            priority,
        };
        // Whatever was capped shares the handles of what it is counted as.
        let own = |label: &Arc<str>, value: &str| **label == *value;
        let kept = own(&labels.model_name, model)
            && own(&labels.target_model_name, target)
            && own(&labels.fairness_id, flow);
        let key = if kept {
            key
        } else {
            let RequestLabels {
                model_name,
                target_model_name,
                fairness_id,
                priority,
            } = &labels;
            let key = (
                &**model_name,
                &**target_model_name,
                &**fairness_id,
                *priority,
            );
            self.hasher.hash_one(key)
        };
        let mut known = self.known.write();
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let series = Arc::new(self.resolve(labels));
        if known.len() < DISTINCT_SERIES {
            known.insert(key, Arc::clone(&series));
        }
        series
    }

    /// Counts a request without a model that ended in `error_code`.
    pub fn error_unread(&self, error_code: &'static str) {
        let none: Arc<str> = Arc::from("");
        let request = RequestLabels {
            model_name: Arc::clone(&none),
            target_model_name: Arc::clone(&none),
            fairness_id: none,
            priority: 0,
        };
        let labels = ErrorLabels {
            request,
            error_code,
        };
        self.families.errors.get_or_create(&labels).inc();
    }

    /// Model names that the operator chose are kept apart however many clients name.
    pub fn exempt<'a>(&self, models: impl IntoIterator<Item = &'a str>) {
        self.models.exempt(models);
    }

    /// Requests by the model that clients named: the `most` models with the most.
    pub fn models(&self, most: usize) -> BTreeMap<String, u64> {
        let mut counts: FxHashMap<Arc<str>, u64> = FxHashMap::default();
        for series in self.known.read().values() {
            let count = counts
                .entry(Arc::clone(&series.labels.model_name))
                .or_default();
            *count += series.requests.get();
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let named = counts
            .into_iter()
            .map(|(name, count)| (name.to_string(), count));
        named.take(most).collect()
    }

    fn resolve(&self, labels: RequestLabels) -> Series {
        let families = &self.families;
        let queue = QueueLabels {
            request: labels.clone(),
            inference_pool: Arc::clone(&self.pool),
        };
        Series {
            requests: handle(&families.requests, &labels),
            running: handle(&families.running, &labels),
            queued: handle(&families.queue_size, &queue),
            queued_bytes: handle(&families.queue_bytes, &queue),
            histograms: Default::default(),
            ttft: Default::default(),
            predicted: Default::default(),
            dispatched: OnceLock::new(),
            taken_in: OnceLock::new(),
            pool: Arc::clone(&self.pool),
            predictor: Arc::clone(&self.predictor),
            families: Arc::clone(families),
            labels,
        }
    }
}

/// The metric behind `labels`. A function, because the table's lock must be let go before the next look.
fn handle<L, M, C>(family: &Family<L, M, C>, labels: &L) -> M
where
    L: Clone + Hash + Eq,
    M: Clone,
    C: MetricConstructor<M>,
{
    family.get_or_create(labels).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::capped::DISTINCT_VALUES;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    fn table(registry: &mut Registry, twins: bool) -> SeriesTable {
        SeriesTable::new(
            &mut Registrar::new(registry, twins),
            "pool",
            DISTINCT_VALUES,
            &Arc::from("latency-a"),
        )
    }

    fn page(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_hundred_thousand_flows_make_a_thousand_series() {
        let mut registry = Registry::default();
        let table = table(&mut registry, false);
        for id in 0..100_000 {
            let series = table.series("m", "m", &format!("tenant-{id}"), 0);
            series.requests.inc();
            series.observe(Of::Tpot, 0.01);
            series.waited("Dispatched", 0.001);
            series.taken_in("Dispatched", 0.001);
        }
        assert_eq!(table.known.read().len(), DISTINCT_VALUES + 1);
        let page = page(&registry);
        for family in [
            "llm_d_epp_request_total{",
            "llm_d_epp_request_streaming_tpot_seconds_count{",
            "llm_d_epp_flow_control_request_queue_duration_seconds_count{",
            "llm_d_epp_flow_control_request_enqueue_duration_seconds_count{",
            "llm_d_epp_flow_control_queue_size{",
        ] {
            let series = page.lines().filter(|line| line.starts_with(family)).count();
            assert_eq!(series, DISTINCT_VALUES + 1, "{family}");
        }
        assert!(page.contains(r#"llm_d_epp_request_total{model_name="m",target_model_name="m",fairness_id="other",priority="0"} 99000"#));
    }

    #[test]
    fn the_models_asked_for_most_are_counted_over_all_flows() {
        let table = table(&mut Registry::default(), false);
        for (model, flow, requests) in [("a", "x", 3), ("b", "x", 2), ("a", "y", 4), ("c", "x", 1)]
        {
            table.series(model, "t", flow, 0).requests.inc_by(requests);
        }
        let counted = table.models(2);
        assert_eq!(
            counted,
            BTreeMap::from([("a".to_owned(), 7), ("b".to_owned(), 2)])
        );
    }

    #[test]
    fn the_number_of_combinations_is_capped_too() {
        let table = table(&mut Registry::default(), false);
        for index in 0..2 * DISTINCT_SERIES {
            let (model, flow) = (format!("m{}", index % 900), format!("f{}", index / 900));
            table
                .series(&model, "t", &flow, index as i32)
                .requests
                .inc();
        }
        assert_eq!(table.known.read().len(), DISTINCT_SERIES);
    }

    #[test]
    fn the_same_labels_give_the_same_series() {
        let table = table(&mut Registry::default(), false);
        let first = table.series("m", "t", "f", -1);
        assert!(Arc::ptr_eq(&first, &table.series("m", "t", "f", -1)));
        assert!(!Arc::ptr_eq(&first, &table.series("m", "t", "f", 0)));
    }

    #[test]
    fn old_names_are_written_where_asked_for() {
        let lines = |twins| {
            let mut registry = Registry::default();
            let table = table(&mut registry, twins);
            let series = table.series("m", "t", "f", 0);
            series.requests.inc();
            series.observe(Of::Ntpot, 0.1);
            series.running.inc();
            page(&registry)
        };
        let labels = r#"{model_name="m",target_model_name="t",fairness_id="f",priority="0"}"#;
        let old = [
            "inference_objective_request_total",
            "inference_objective_running_requests",
            "inference_objective_normalized_time_per_output_token_seconds_count",
            "llm_d_router_epp_request_total",
        ];
        let (with, without) = (lines(true), lines(false));
        for name in old {
            assert!(
                with.contains(&format!("\n{name}{labels} 1\n")),
                "{name}: {with}"
            );
            assert!(!without.contains(name), "{name}");
        }
        let today = without.lines().filter(|line| !line.starts_with('#'));
        for line in today {
            assert!(with.contains(line), "{line}");
        }
    }
}

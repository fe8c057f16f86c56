//! Request metrics by model, target model, flow and priority, with a cap on what clients can name.

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Distinct values of one label that are kept apart; further ones count as [`OTHER`].
pub const DISTINCT_VALUES: usize = 1000;
/// Combinations of labels that are kept apart.
const DISTINCT_SERIES: usize = 4096;
/// What everything beyond the cap is called.
pub const OTHER: &str = "other";

/// Labels of every request metric.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// Model the client named.
    pub model_name: String,
    /// Model the request was sent on under.
    pub target_model_name: String,
    /// Flow.
    pub fairness_id: String,
    /// Band.
    pub priority: i32,
}

/// [`RequestLabels`] and what went wrong.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ErrorLabels {
    model_name: String,
    target_model_name: String,
    fairness_id: String,
    priority: i32,
    error_code: &'static str,
}

/// [`RequestLabels`] and which target was missed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ViolationLabels {
    model_name: String,
    target_model_name: String,
    fairness_id: String,
    priority: i32,
    r#type: &'static str,
}

/// [`RequestLabels`] and whether the answer was streamed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StreamingLabels {
    model_name: String,
    target_model_name: String,
    fairness_id: String,
    priority: i32,
    streaming: &'static str,
}

/// Labels of predictions.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PredictionLabels {
    plugin: &'static str,
    model: String,
}

/// Handles of one combination of labels, resolved once.
#[derive(Debug)]
pub struct Series {
    /// With models and flow capped.
    pub labels: RequestLabels,
    /// Requests.
    pub requests: Counter,
    /// Arrival to the end of the answer.
    pub duration: Histogram,
    /// Arrival to the first token of a streamed answer, queueing included.
    pub ttft_streaming: Histogram,
    /// Arrival to the end of an answer that is one document.
    pub ttft_document: Histogram,
    /// Time per output token after the first.
    pub tpot: Histogram,
    /// Prompt tokens.
    pub input_tokens: Histogram,
    /// Output tokens.
    pub output_tokens: Histogram,
    /// Predicted service time to first token of the endpoint that was picked.
    pub predicted_ttft: Histogram,
    /// Predicted time per output token of the endpoint that was picked.
    pub predicted_tpot: Histogram,
    errors: Family<ErrorLabels, Counter>,
    violations: Family<ViolationLabels, Counter>,
}

impl Series {
    /// Counts a request that ended in `error_code`.
    pub fn error(&self, error_code: &'static str) {
        let RequestLabels {
            model_name,
            target_model_name,
            fairness_id,
            priority,
        } = self.labels.clone();
        let labels = ErrorLabels {
            model_name,
            target_model_name,
            fairness_id,
            priority,
            error_code,
        };
        self.errors.get_or_create(&labels).inc();
    }

    /// Counts a missed target; `kind` is `ttft` or `tpot`.
    pub fn violation(&self, kind: &'static str) {
        let RequestLabels {
            model_name,
            target_model_name,
            fairness_id,
            priority,
        } = self.labels.clone();
        let labels = ViolationLabels {
            model_name,
            target_model_name,
            fairness_id,
            priority,
            r#type: kind,
        };
        self.violations.get_or_create(&labels).inc();
    }
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All combinations seen so far.
#[derive(Debug)]
pub struct SeriesTable {
    /// Keyed, so that no client can choose names that collide.
    hasher: RandomState,
    known: RwLock<FxHashMap<u64, Arc<Series>>>,
    models: Mutex<FxHashSet<String>>,
    flows: Mutex<FxHashSet<String>>,
    requests: Family<RequestLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    violations: Family<ViolationLabels, Counter>,
    duration: Histograms<RequestLabels>,
    ttft: Histograms<StreamingLabels>,
    tpot: Histograms<RequestLabels>,
    input_tokens: Histograms<RequestLabels>,
    output_tokens: Histograms<RequestLabels>,
    predicted_ttft: Histograms<PredictionLabels>,
    predicted_tpot: Histograms<PredictionLabels>,
}

impl SeriesTable {
    /// Registered, without any series.
    pub fn new(registry: &mut Registry) -> Self {
        let table = Self {
            hasher: RandomState::new(),
            known: RwLock::default(),
            models: Mutex::default(),
            flows: Mutex::default(),
            requests: Family::default(),
            errors: Family::default(),
            violations: Family::default(),
            duration: Family::new_with_constructor(duration_buckets),
            ttft: Family::new_with_constructor(ttft_buckets),
            tpot: Family::new_with_constructor(tpot_buckets),
            input_tokens: Family::new_with_constructor(input_buckets),
            output_tokens: Family::new_with_constructor(output_buckets),
            predicted_ttft: Family::new_with_constructor(ttft_buckets),
            predicted_tpot: Family::new_with_constructor(tpot_buckets),
        };
        registry.register("request", "Requests", table.requests.clone());
        registry.register(
            "request_error",
            "Requests that ended in an error",
            table.errors.clone(),
        );
        registry.register(
            "request_slo_violation",
            "Requests whose latency missed its target",
            table.violations.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Arrival to the end of the answer",
            table.duration.clone(),
        );
        registry.register(
            "request_ttft_seconds",
            "Arrival to the first token, queueing included",
            table.ttft.clone(),
        );
        registry.register(
            "request_streaming_tpot_seconds",
            "Time per output token after the first",
            table.tpot.clone(),
        );
        registry.register(
            "request_input_tokens",
            "Prompt tokens",
            table.input_tokens.clone(),
        );
        registry.register(
            "request_output_tokens",
            "Output tokens",
            table.output_tokens.clone(),
        );
        registry.register(
            "request_predicted_ttft_seconds",
            "Predicted service time to first token",
            table.predicted_ttft.clone(),
        );
        registry.register(
            "request_predicted_tpot_seconds",
            "Predicted time per output token",
            table.predicted_tpot.clone(),
        );
        table
    }

    /// The handles for a request to `model`, sent on as `target`, in `flow` at `priority`.
    pub fn series(&self, model: &str, target: &str, flow: &str, priority: i32) -> Arc<Series> {
        let key = self.hasher.hash_one((model, target, flow, priority));
        if let Some(series) = self.known.read().get(&key) {
            return Arc::clone(series);
        }
        let full = self.known.read().len() >= DISTINCT_SERIES;
        let labels = RequestLabels {
            model_name: capped(&self.models, model, full),
            target_model_name: capped(&self.models, target, full),
            fairness_id: capped(&self.flows, flow, full),
            priority,
        };
        let series = Arc::new(self.resolve(labels));
        if !full {
            self.known.write().insert(key, Arc::clone(&series));
        }
        series
    }

    /// Requests by the model that clients named: the `most` models with the most.
    pub fn models(&self, most: usize) -> BTreeMap<String, u64> {
        let mut counts: FxHashMap<String, u64> = FxHashMap::default();
        for series in self.known.read().values() {
            let count = counts.entry(series.labels.model_name.clone()).or_default();
            *count += series.requests.get();
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts.into_iter().take(most).collect()
    }

    fn resolve(&self, labels: RequestLabels) -> Series {
        let streaming = |streaming| {
            let RequestLabels {
                model_name,
                target_model_name,
                fairness_id,
                priority,
            } = labels.clone();
            StreamingLabels {
                model_name,
                target_model_name,
                fairness_id,
                priority,
                streaming,
            }
        };
        let prediction = PredictionLabels {
            plugin: "predicted-latency-producer",
            model: labels.target_model_name.clone(),
        };
        Series {
            requests: handle(&self.requests, &labels),
            duration: handle(&self.duration, &labels),
            ttft_streaming: handle(&self.ttft, &streaming("true")),
            ttft_document: handle(&self.ttft, &streaming("false")),
            tpot: handle(&self.tpot, &labels),
            input_tokens: handle(&self.input_tokens, &labels),
            output_tokens: handle(&self.output_tokens, &labels),
            predicted_ttft: handle(&self.predicted_ttft, &prediction),
            predicted_tpot: handle(&self.predicted_tpot, &prediction),
            errors: self.errors.clone(),
            violations: self.violations.clone(),
            labels,
        }
    }
}

/// The metric behind `labels`. A function, because the table's lock must be let go before the next look.
fn handle<L, M, C>(family: &Family<L, M, C>, labels: &L) -> M
where
    L: Clone + std::hash::Hash + Eq,
    M: Clone,
    C: MetricConstructor<M>,
{
    family.get_or_create(labels).clone()
}

/// `value`, or [`OTHER`] once there are too many.
fn capped(values: &Mutex<FxHashSet<String>>, value: &str, full: bool) -> String {
    let mut values = values.lock();
    if values.contains(value) && !full {
        return value.to_owned();
    }
    if full || values.len() >= DISTINCT_VALUES {
        return OTHER.to_owned();
    }
    values.insert(value.to_owned());
    value.to_owned()
}

fn duration_buckets() -> Histogram {
    Histogram::new([
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
        10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
        1200.0, 1800.0, 2700.0, 3600.0,
    ])
}

fn ttft_buckets() -> Histogram {
    Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0,
        7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0,
    ])
}

fn tpot_buckets() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2,
        0.3, 0.5, 1.0, 2.0,
    ])
}

/// 1, then powers of two from 8 to 1,048,576.
fn input_buckets() -> Histogram {
    Histogram::new(std::iter::once(1.0).chain((3..=20).map(|power| f64::from(1_u32 << power))))
}

/// 1, then powers of two from 8 to 8,192.
fn output_buckets() -> Histogram {
    Histogram::new(std::iter::once(1.0).chain((3..=13).map(|power| f64::from(1_u32 << power))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn what_clients_name_is_capped() {
        let mut registry = Registry::default();
        let table = SeriesTable::new(&mut registry);
        for index in 0..DISTINCT_VALUES + 50 {
            table
                .series("m", "m", &format!("tenant-{index}"), 0)
                .requests
                .inc();
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let series = text
            .lines()
            .filter(|line| line.starts_with("request_total"))
            .count();
        assert_eq!(series, DISTINCT_VALUES + 1);
        assert!(text.contains(r#"request_total{model_name="m",target_model_name="m",fairness_id="other",priority="0"} 50"#));
    }

    #[test]
    fn the_models_asked_for_most_are_counted_over_all_flows() {
        let table = SeriesTable::new(&mut Registry::default());
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
        let table = SeriesTable::new(&mut Registry::default());
        for index in 0..2 * DISTINCT_SERIES {
            table
                .series(
                    &format!("m{}", index % 900),
                    "t",
                    &format!("f{}", index / 900),
                    index as i32,
                )
                .requests
                .inc();
        }
        assert_eq!(table.known.read().len(), DISTINCT_SERIES);
    }

    #[test]
    fn the_same_labels_give_the_same_series() {
        let table = SeriesTable::new(&mut Registry::default());
        let first = table.series("m", "t", "f", -1);
        assert!(Arc::ptr_eq(&first, &table.series("m", "t", "f", -1)));
        assert!(!Arc::ptr_eq(&first, &table.series("m", "t", "f", 0)));
    }
}

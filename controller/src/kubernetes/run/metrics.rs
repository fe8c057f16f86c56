//! What the controller sees and wants, as metrics.
//!
//! What belongs to a model is read from the last cycle when it is asked for, so that a model that is gone leaves no
//! series behind. What is unknown has no series: it is not zero.

use std::fmt::Error;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use controller_core::model::{Evidence, ModelDecision, VariantDecision};
use names::metric::{HEADROOM_PREFIX, controller as name};
use predictor::Target;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::kubernetes::demand::Source;
use crate::kubernetes::models_from_pickers::InUse;
use crate::published::Board;

/// Variants shown; models beyond are counted.
const MAX_VARIANTS: usize = 5_000;

/// One model as its metrics show it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its decision.
    pub decision: Arc<ModelDecision>,
    /// Who told the demand.
    pub source: Source,
    /// The latency models in use.
    pub models: Vec<InUse>,
    /// Replicas that each variant's target asks for, in the decision's order.
    pub current: Vec<u32>,
    /// Pickers that are heard.
    pub heard: usize,
}

/// The controller's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    shown: Arc<ArcSwap<Vec<Shown>>>,
    leader: Gauge,
    models: Gauge,
    cycle_seconds: Histogram,
    computations: Counter,
    pickers_left_out: Gauge,
    state_writes: Family<Outcome, Counter>,
    answers: Family<Code, Counter>,
    answer_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

impl ControllerMetrics {
    /// Registers the metrics under Headroom's prefix.
    pub fn register(registry: &mut Registry, board: &Board) -> Self {
        let metrics = Self {
            shown: Arc::default(),
            leader: Gauge::default(),
            models: Gauge::default(),
            cycle_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 13)),
            computations: Counter::default(),
            pickers_left_out: Gauge::default(),
            state_writes: Family::default(),
            answers: Family::default(),
            answer_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 14)),
        };
        let own = registry.sub_registry_with_prefix(HEADROOM_PREFIX);
        own.register(
            name::LEADER,
            "1 while this replica leads",
            metrics.leader.clone(),
        );
        own.register(
            name::MODELS,
            "Models that are asked for",
            metrics.models.clone(),
        );
        own.register(
            name::CYCLE_SECONDS,
            "Time to decide on all models",
            metrics.cycle_seconds.clone(),
        );
        own.register(
            name::COMPUTATIONS,
            "Capacities computed",
            metrics.computations.clone(),
        );
        own.register(
            name::PICKERS_LEFT_OUT,
            "Endpoint pickers beyond the most that are polled",
            metrics.pickers_left_out.clone(),
        );
        own.register(
            name::STATE_WRITES,
            "Writes of what decisions remember, by outcome",
            metrics.state_writes.clone(),
        );
        own.register(
            name::ANSWERS,
            "Answers of the metrics APIs, by HTTP status",
            metrics.answers.clone(),
        );
        own.register(
            name::ANSWER_SECONDS,
            "Time to an answer of the metrics APIs",
            metrics.answer_seconds.clone(),
        );
        own.register_collector(Box::new(ModelCollector {
            shown: Arc::clone(&metrics.shown),
            board: board.clone(),
        }));
        metrics
    }

    /// Shows the decisions of a cycle that took `length`.
    pub fn cycle(&self, shown: Vec<Shown>, models: usize, length: Duration, computed: usize) {
        self.leader.set(1);
        self.models.set(count(models));
        self.cycle_seconds.observe(length.as_secs_f64());
        self.computations.inc_by(computed as u64);
        self.shown.store(Arc::new(shown));
    }

    /// Shows that this replica does not lead, and what it holds of the leader's.
    pub fn follows(&self, models: usize) {
        self.leader.set(0);
        self.models.set(count(models));
        self.shown.store(Arc::default());
    }

    /// Pickers that are too many.
    pub fn crowded(&self, pickers: u64) {
        self.pickers_left_out
            .set(i64::try_from(pickers).unwrap_or(i64::MAX));
    }

    /// State was written, or not.
    pub fn state_written(&self, done: bool) {
        let outcome = if done { "written" } else { "failed" };
        self.state_writes.get_or_create(&Outcome { outcome }).inc();
    }

    /// A metrics API answered.
    pub fn answered(&self, code: u16, length: Duration) {
        self.answers.get_or_create(&Code { code }).inc();
        self.answer_seconds.observe(length.as_secs_f64());
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct ModelCollector {
    shown: Arc<ArcSwap<Vec<Shown>>>,
    board: Board,
}

type Row<'a> = (Vec<(&'a str, &'a str)>, f64);

impl Collector for ModelCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let shown = self.shown.load();
        let mut variants = 0;
        let fits = shown.iter().take_while(|model| {
            variants += model.decision.variants.len();
            variants <= MAX_VARIANTS
        });
        let models: Vec<&Shown> = fits.collect();
        let left_out = shown.len() - models.len();
        let mut page = Page { encoder };
        page.one(
            name::MODELS_LEFT_OUT,
            "Models beyond the most that have metrics",
            left_out as f64,
        )?;
        let posted = self.board.latest();
        let now = self.board.clock().now();
        let ages = posted.published().models.iter();
        let oldest = ages.filter_map(|model| posted.age(model, now)).max();
        if let Some(age) = oldest {
            let help = "Age of the oldest decision that this replica answers with";
            page.one(name::DECISION_AGE, help, age.as_secs_f64())?;
        }
        page.of_variants(&models)?;
        page.of_models(&models)?;
        page.of_sources(&models)
    }
}

struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_> {
    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = Row<'l>>,
    ) -> Result<(), Error> {
        let mut rows = rows.filter(|(_, value)| value.is_finite()).peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let kind = MetricType::Gauge;
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in rows {
            let labels: &[(&str, &str)] = &labels;
            ConstGauge::<f64>::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn one(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        self.gauges(name, help, std::iter::once((Vec::new(), value)))
    }

    fn of_variants(&mut self, models: &[&Shown]) -> Result<(), Error> {
        type Value = fn(&VariantDecision) -> Option<f64>;
        let families: [(&str, &str, Value); 6] = [
            (name::DESIRED, "Replicas wanted", |one| {
                Some(f64::from(one.replicas))
            }),
            (
                name::LOWER,
                "Replicas that the present demand alone needs",
                |one| Some(f64::from(one.lower)),
            ),
            (
                name::UPPER,
                "Replicas that the cautious forecast with all slack needs",
                |one| Some(f64::from(one.upper)),
            ),
            (
                name::CAPACITY,
                "Requests per second of the present mix that one replica serves within the objectives",
                |one| one.requests_per_second,
            ),
            (
                name::CAPACITY_AGE,
                "Age of the oldest capacity counted by",
                |one| {
                    let ages = one.capacities.iter().map(|class| class.age);
                    ages.max().map(|age| age.as_secs_f64())
                },
            ),
            (
                name::VARIANT_HEADROOM,
                "Requests per second that the ready replicas could take beyond their share",
                |one| one.headroom,
            ),
        ];
        for (name, help, value) in families {
            let rows = variants(models)
                .filter_map(|(model, one)| Some((of_variant(model, one), value(one)?)));
            self.gauges(name, help, rows)?;
        }
        let current = models.iter().flat_map(|model| {
            let each = model.decision.variants.iter().zip(&model.current);
            each.map(|(one, &count)| (of_variant(&model.decision, one), f64::from(count)))
        });
        self.gauges(
            name::CURRENT,
            "Replicas that the scale target asks for",
            current,
        )?;
        let by_state = variants(models).flat_map(|(model, one)| {
            let supply = one.supply;
            let states = [
                ("ready", supply.ready),
                ("starting", supply.starting),
                ("pending", supply.pending),
                ("draining", supply.draining),
            ];
            states.map(|(state, count)| {
                let mut labels = of_variant(model, one);
                labels.push(("state", state));
                (labels, f64::from(count))
            })
        });
        self.gauges(name::REPLICAS, "Replicas that exist, by state", by_state)
    }

    fn of_models(&mut self, models: &[&Shown]) -> Result<(), Error> {
        type Value = fn(&ModelDecision) -> Option<f64>;
        let families: [(&str, &str, Value); 6] = [
            (
                name::QUEUED,
                "Requests waiting in front of the replicas",
                |one| Some(one.queued() as f64),
            ),
            (name::IN_FLIGHT, "Requests on the replicas", |one| {
                Some(one.in_flight as f64)
            }),
            (
                name::HEADROOM,
                "Requests per second that the ready replicas could take beyond the offered ones",
                |one| one.headroom,
            ),
            (
                name::PRESSURE,
                "Predicted latency at the objective's percentile over its target, the worst",
                |one| one.pressure,
            ),
            (
                name::OFFERED_TOKENS,
                "Prompt and output tokens offered per second",
                |one| one.offered_tokens_per_second,
            ),
            (
                name::QUEUE_SECONDS,
                "Time that the queue is worth at capacity",
                |one| one.queue_seconds,
            ),
        ];
        for (name, help, value) in families {
            let rows = models.iter().filter_map(|model| {
                let decision = &*model.decision;
                Some((of_model(decision), value(decision)?))
            });
            self.gauges(name, help, rows)?;
        }
        let demand = models.iter().flat_map(|model| {
            let decision = &*model.decision;
            decision.classes.iter().filter_map(move |class| {
                let mut labels = of_model(decision);
                labels.push(("class", &class.name));
                Some((labels, class.demand.as_ref()?.offered.requests))
            })
        });
        let help = "Requests per second offered, whatever became of them";
        self.gauges(name::DEMAND, help, demand)?;
        let states = models.iter().flat_map(|model| {
            let decision = &*model.decision;
            let is = match decision.evidence {
                Evidence::Fresh => "fresh",
                Evidence::Cold { .. } => "cold",
                Evidence::Stale { .. } => "stale",
            };
            one_of(decision, "state", &["fresh", "cold", "stale"], is)
        });
        let help = "1 for what the decision is: fresh, cold (nothing to rest on yet) or stale";
        self.gauges(name::STATE, help, states)
    }

    fn of_sources(&mut self, models: &[&Shown]) -> Result<(), Error> {
        let all = Source::ALL.map(Source::name);
        let sources = models.iter().flat_map(|model| {
            let source = model.source.name();
            one_of(&model.decision, "source", &all, source)
        });
        self.gauges(name::SOURCE, "1 for who tells the demand", sources)?;
        let pickers = models.iter().flat_map(|model| {
            let decision = &*model.decision;
            let states = [("heard", model.heard), ("silent", decision.silent.len())];
            states.map(|(state, count)| {
                let mut labels = of_model(decision);
                labels.push(("state", state));
                (labels, count as f64)
            })
        });
        self.gauges(
            name::PICKERS,
            "Endpoint pickers by whether they are heard",
            pickers,
        )?;
        let labels = models.iter().flat_map(|model| {
            model.models.iter().flat_map(move |used| {
                let each = Target::ALL.iter().zip(used.labels);
                each.map(move |(target, learned)| {
                    let mut labels = of_model(&model.decision);
                    let target = match target {
                        Target::Ttft => "ttft",
                        Target::Tpot => "tpot",
                    };
                    labels.extend([("accelerator", used.class.as_str()), ("target", target)]);
                    (labels, learned as f64)
                })
            })
        });
        let help = "Labels that the latency model in use has learned from";
        self.gauges(name::SNAPSHOT_LABELS, help, labels)?;
        let versions = models.iter().flat_map(|model| {
            model.models.iter().map(|used| {
                let mut labels = of_model(&model.decision);
                labels.extend([("accelerator", used.class.as_str()), ("from", &used.from)]);
                (labels, used.version as f64)
            })
        });
        let help = "Refits of the latency model in use, and the picker that it is from";
        self.gauges(name::SNAPSHOT_VERSION, help, versions)
    }
}

fn variants<'a>(
    models: &'a [&'a Shown],
) -> impl Iterator<Item = (&'a ModelDecision, &'a VariantDecision)> {
    models.iter().flat_map(|model| {
        let decision = &*model.decision;
        decision.variants.iter().map(move |one| (decision, one))
    })
}

fn of_model(decision: &ModelDecision) -> Vec<(&str, &str)> {
    vec![
        ("namespace", &decision.model.namespace),
        ("model", &decision.model.model),
    ]
}

fn of_variant<'a>(model: &'a ModelDecision, one: &'a VariantDecision) -> Vec<(&'a str, &'a str)> {
    let mut labels = of_model(model);
    labels.extend([("variant", one.name.as_str()), ("role", one.role.as_str())]);
    labels
}

/// A row per state that there is, 1 for the one that it is.
fn one_of<'a>(
    decision: &'a ModelDecision,
    label: &'a str,
    states: &[&'a str],
    is: &str,
) -> Vec<Row<'a>> {
    let row = |&state: &&'a str| {
        let mut labels = of_model(decision);
        labels.push((label, state));
        (labels, f64::from(u8::from(state == is)))
    };
    states.iter().map(row).collect()
}

//! What a controller holds in memory: `cargo run --release -p controller --example memory`.
//!
//! Prints the resident set of a process that holds what the controller holds of 50 models (10 variants each, 5,000 pods)
//! and of 500 (2 variants each, 5,000 pods), after a minute of cycles: two endpoint pickers per model with a full mix,
//! a latency model of production size per pool (forests trained on 20,000 rows) as it came over the wire, decisions,
//! what is published and its series, metrics, what is handed to followers, and the pods. Clients, watches and servers
//! are not in it; they are as large for one model as for many.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use controller::kubernetes::demand::{Gathering, Known, Wanted};
use controller::kubernetes::labels::Labels;
use controller::kubernetes::pickers::PickerPod;
use controller::kubernetes::pods::{Pod, PodIndex, PodState};
use controller::kubernetes::run::metrics::{ControllerMetrics, Shown};
use controller::kubernetes::state::{Kept, States, chunk};
use controller::published::{
    Answer, Board, Mode, ObjectRef, Published, PublishedModel, PublishedVariant, Role, label_value,
};
use controller_core::model::{
    ModelDecision, ModelKey, ModelPolicy, ModelSignals, SloClass, Startup, VariantPolicy,
    VariantSignals,
};
use controller_core::policy::SloTargets;
use controller_core::roster::Roster;
use controller_core::signals::Replicas;
use epp_core::demand::{BandTotals, DemandTotals, Totals};
use epp_core::report::{ClassReport, DemandReport, PoolName, SCHEMA, TargetReport};
use epp_core::{MixSample, Outcome, QueueDepth, Slo};
use predictor::snapshot::{ClassModel, ModelSet, decode, encode};
use predictor::{Features, Learner, LearnerConfig, Observation, Target};
use runtime::{Clock, Metrics};

const PODS: usize = 5_000;
const ROWS: usize = 20_000;
/// Seconds of cycles before the resident set is read.
const SECONDS: u64 = 60;
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

fn main() {
    let count: usize = std::env::args()
        .nth(1)
        .map_or(0, |text| text.parse().unwrap());
    if count == 0 {
        // Each in a process of its own: what one held would be counted with the next.
        for models in ["50", "500"] {
            let this = std::env::current_exe().unwrap();
            let done = std::process::Command::new(this)
                .arg(models)
                .status()
                .unwrap();
            assert!(done.success());
        }
        return;
    }
    let learned = learned();
    println!(
        "{count} models: encoded latency model {} KiB",
        learned.0.len() >> 10
    );
    let begun = resident();
    let held = Held::fill(count, &learned);
    let full = resident();
    println!(
        "{count} models: resident set {} MB, of which {} MB are of the models ({} KB each)",
        full >> 20,
        (full - begun) >> 20,
        ((full - begun) / count as u64) >> 10
    );
    drop(held);
}

/// Bytes in memory now.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    kilobytes * 1024
}

/// Everything that stays.
struct Held {
    _gathering: Gathering,
    _roster: Roster,
    _board: Board,
    _metrics: (Metrics, ControllerMetrics),
    _states: States,
    _pods: PodIndex,
    _known: BTreeMap<ModelKey, Known>,
}

impl Held {
    fn fill(count: usize, learned: &(Vec<u8>, ClassReport)) -> Self {
        let variants = 500 / count.min(250);
        let clock = Clock::start();
        let keys: Vec<ModelKey> = (0..count).map(key).collect();
        let wanted: Vec<Wanted> = keys
            .iter()
            .map(|key| Wanted {
                key: key.clone(),
                pool: Some(key.model.clone()),
            })
            .collect();
        let pickers: Vec<PickerPod> = keys.iter().flat_map(pickers).collect();
        let mut gathering = Gathering::new();
        gathering.expect(EPOCH, &wanted, &pickers);
        let mut roster = Roster::new(56);
        for key in &keys {
            roster.set(policy(key, variants));
        }
        let board = Board::new(clock);
        let metrics = Metrics::new();
        let shown = metrics.register(|registry| ControllerMetrics::register(registry, &board));
        let (mut known, mut states) = (BTreeMap::new(), States::new());
        for second in 1..=SECONDS {
            let now = EPOCH + Duration::from_secs(second);
            for picker in &pickers {
                let report = report(picker, second, &learned.1);
                gathering.heard(now, &picker.uid, &report).unwrap();
                if gathering.asks_for_models(now, &picker.uid) {
                    gathering.fetched(now, &picker.uid, decode(&learned.0).unwrap().classes);
                }
            }
            known = gathering.known(now);
            let signals = known
                .iter()
                .map(|(key, known)| (key.clone(), signals(now, known, variants)));
            let decisions = roster.cycle(signals.collect()).decisions;
            board.publish(published(now, &decisions));
            let rows = decisions.into_iter().map(|decision| row(decision, &known));
            shown.cycle(rows.collect(), count, Duration::ZERO, 0);
            let kept = |key: &ModelKey| Kept {
                decisions: roster.save(key, now).unwrap(),
                counts: gathering.save(now, key, &known[key]),
            };
            states = keys.iter().map(|key| (key.clone(), kept(key))).collect();
        }
        let (chunks, left_out) = chunk(&states).unwrap();
        let bytes: usize = chunks.values().map(|chunk| chunk.0.len()).sum();
        println!(
            "{count} models: kept state {} KB compressed, {left_out} models left out",
            bytes >> 10
        );
        println!(
            "{count} models: metrics page {} KB",
            metrics.encode().len() >> 10
        );
        Self {
            _gathering: gathering,
            _roster: roster,
            _board: board,
            _metrics: (metrics, shown),
            _states: states,
            _pods: PodIndex::new((0..PODS).map(pod)),
            _known: known,
        }
    }
}

fn key(number: usize) -> ModelKey {
    ModelKey {
        namespace: format!("team-{:02}", number % 20),
        model: format!("meta-llama/Llama-3.1-70B-Instruct-{number:03}"),
    }
}

fn policy(key: &ModelKey, variants: usize) -> ModelPolicy {
    let class = |name: &str, ttft_ms| SloClass {
        name: name.into(),
        slo: SloTargets {
            percentile: 0.9,
            ttft_ms,
            tpot_ms: 60.0,
        },
        priority: None,
        weight: 1.0,
    };
    let startup = Startup::Fixed(Duration::from_secs(90));
    let variant = |number: usize| VariantPolicy {
        cost_per_hour: 1.0 + number as f64,
        ..VariantPolicy::new(format!("variant-{number}"), 1, 40, startup)
    };
    let classes = vec![class("interactive", 1_500.0), class("batch", 10_000.0)];
    ModelPolicy::new(key.clone(), classes, (0..variants).map(variant).collect())
}

fn pickers(key: &ModelKey) -> [PickerPod; 2] {
    [0, 1].map(|number| PickerPod {
        uid: format!("uid-{key}-{number}"),
        namespace: key.namespace.clone(),
        name: format!("epp-{number}"),
        pool: key.model.clone(),
        address: Some(([10, 0, 0, 1], 9443).into()),
        restarts: 0,
    })
}

fn report(picker: &PickerPod, second: u64, class: &ClassReport) -> DemandReport {
    const RATE: u64 = 100;
    let requests = RATE * second;
    let served = Totals {
        requests,
        prompt_tokens: 800 * requests,
        cached_tokens: 200 * requests,
        output_tokens: 150 * requests,
    };
    let mut outcomes = vec![Totals::default(); Outcome::ALL.len()];
    outcomes[Outcome::Served as usize] = served;
    let from = requests - RATE;
    let shape = |number: u64| MixSample {
        at: Duration::from_secs(second),
        input_tokens: 200 + (number * 37 % 3_000) as u32,
        cached_tokens: 100,
        output_tokens: 20 + (number * 13 % 500) as u32,
        priority: 0,
        slo: Slo::NONE,
    };
    DemandReport {
        schema: SCHEMA,
        epp: picker.name.clone(),
        incarnation: 1,
        at_ms: 0,
        uptime_ms: second * 1_000 - 500,
        ready: true,
        pool: PoolName {
            namespace: picker.namespace.clone(),
            name: picker.pool.clone(),
        },
        totals: DemandTotals {
            bands: vec![BandTotals {
                priority: 0,
                sheddable: false,
                offered: served,
                outcomes,
                slo_offered: 0,
                slo_met: 0,
                expected_misses: 0,
            }],
        },
        queued: QueueDepth::default(),
        in_flight: 20,
        endpoints: Vec::new(),
        mix_from: from,
        mix: (from..requests).map(shape).collect(),
        models: vec![class.clone()],
        default_slo: Slo::NONE,
        model_names: BTreeMap::new(),
        flows: Vec::new(),
    }
}

fn signals(now: Duration, known: &Known, variants: usize) -> ModelSignals {
    let used = known.models.values().next();
    let variant = |_| VariantSignals {
        replicas: Replicas {
            ready: 5,
            ..Replicas::default()
        },
        kv_tokens: Some(400_000.0),
        model: used.map(|used| used.latency()),
        ..VariantSignals::default()
    };
    ModelSignals {
        now,
        demand: known.demand.clone(),
        variants: (0..variants).map(variant).collect(),
    }
}

fn published(now: Duration, decisions: &[ModelDecision]) -> Published {
    let at_ms = now.as_millis() as u64;
    let variant = |one: &controller_core::model::VariantDecision| PublishedVariant {
        name: one.name.clone(),
        role: Role::Both,
        accelerator: "H100".into(),
        target: ObjectRef::new("apps/v1", "Deployment", &one.name),
        scaler: Some(ObjectRef::new(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            &one.name,
        )),
        desired: one.replicas,
        current: one.previous,
        ready: Some(one.previous),
        capacity: one.requests_per_second,
        lower: Some(one.lower),
        upper: Some(one.upper),
    };
    let model = |decision: &ModelDecision| PublishedModel {
        namespace: decision.model.namespace.clone(),
        model: decision.model.model.clone(),
        slug: label_value(&decision.model.model),
        pool: Some("pool".into()),
        source: None,
        mode: Mode::Publish,
        decided_at_ms: at_ms,
        state: Answer::Fresh,
        slo_pressure: decision.pressure,
        offered_tokens_per_second: decision.offered_tokens_per_second,
        queue_seconds: decision.queue_seconds,
        variants: decision.variants.iter().map(variant).collect(),
    };
    Published {
        at_ms,
        sequence: 1,
        models: decisions.iter().map(model).collect(),
    }
}

fn row(decision: ModelDecision, known: &BTreeMap<ModelKey, Known>) -> Shown {
    let known = &known[&decision.model];
    Shown {
        source: known.source,
        models: known.models.values().cloned().collect(),
        current: vec![5; decision.variants.len()],
        heard: known.demand.heard,
        decision: Arc::new(decision),
    }
}

fn pod(number: usize) -> Arc<Pod> {
    let (hash, unique) = (format!("{:x}", number * 7_919), number.to_string());
    let labels = [
        ("app", "vllm"),
        ("pod-template-hash", hash.as_str()),
        ("llm-d.ai/role", "both"),
        ("headroom.dev/accelerator", "H100"),
        ("statefulset.kubernetes.io/pod-name", unique.as_str()),
    ];
    Arc::new(Pod {
        namespace: format!("team-{:02}", number % 20).into(),
        name: format!("llama-{hash}-{number}").into(),
        labels: Labels::new(labels),
        ip: Some([10, 1, (number >> 8) as u8, number as u8].into()),
        node: Some(format!("node-{:03}", number % 600).into()),
        state: PodState::Ready,
        created: 1_800_000_000,
        ready_since: Some(1_800_000_090),
    })
}

/// A latency model of production size, as it comes over the wire, and what its picker reports of it.
fn learned() -> (Vec<u8>, ClassReport) {
    let mut learner = Learner::new(LearnerConfig::default());
    let mut state = 1_u32;
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for row in 0..ROWS {
        let (waiting, running) = (random(8) as f32, random(128) as f32);
        let features = Features {
            input_tokens: (50 + random(8_000)) as f32,
            cached_tokens: 0.0,
            waiting,
            waiting_tokens: waiting * random(4_000) as f32,
            running,
            resident_tokens: running * (200 + random(6_000)) as f32,
            kv_utilization: random(1_000) as f32 / 1_000.0,
        };
        let noise = 0.8 + 0.4 * (random(1_000) as f32 / 1_000.0);
        let ttft =
            20.0 + 0.07 * (features.uncached_tokens() + features.waiting_tokens) + 0.4 * running;
        let tpot = 15.0 + 0.1 * running + 4e-5 * features.resident_tokens;
        for (target, actual_ms) in [(Target::Ttft, ttft * noise), (Target::Tpot, tpot * noise)] {
            learner.observe(Observation {
                target,
                features,
                actual_ms,
                at: Duration::from_millis(20 * row as u64),
                predicted: None,
            });
        }
    }
    let now = Duration::from_millis(20 * ROWS as u64);
    let candidate = learner.fit(now);
    assert!(learner.install(candidate, now), "the forests are accepted");
    let report = learner.report(now);
    let class = ClassModel {
        class: "".into(),
        model: learner.model(now),
        labels: [report.ttft.labels, report.tpot.labels],
        fresh_labels: [report.ttft.fresh_labels, report.tpot.fresh_labels],
        fitted_at_ms: 1_800_000_000_000,
    };
    let target = |target: Target| TargetReport {
        state: class.model.state(target),
        labels: ROWS as u64,
        labels_last_minute: 100,
        fresh_labels: 5_000.0,
        mape: None,
        coverage_p90: None,
    };
    let told = ClassReport {
        class: String::new(),
        version: class.model.version(),
        checksum: class.checksum(),
        ttft: target(Target::Ttft),
        tpot: target(Target::Tpot),
    };
    let set = ModelSet {
        classes: vec![class],
    };
    (encode(&set).unwrap(), told)
}

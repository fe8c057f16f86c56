//! What one cycle of a controller costs on one core.
//!
//! `cargo bench -p controller-core --bench cycle` decides on 500 variants of 50 models with 2 service levels each, for
//! 5,000 pods, every model with latency models of production size (forests trained on 20,000 rows), and prints:
//!
//! - one capacity: the mean time to compute one;
//! - a steady cycle: requests like those before arrive for every model, and a twentieth of the variants changes, four
//!   fifths of them with their model's mix, the others with their latency model;
//! - all changed: every model has another mix and another latency model at once. Cycles go on until every capacity is
//!   computed; the longest, their number and the age of the oldest capacity counted by meanwhile are printed;
//! - memory: what the controller keeps of one model, and what its latency models take, as the growth of the resident set.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use controller_core::capacity::{Terms, capacity};
use controller_core::mix::Sample;
use controller_core::model::Priorities;
use controller_core::shares::{Band, Samples, Shape};
use controller_core::signals::{Replicas, Totals, Volume};
use controller_core::{
    Behavior, Latency, MergedDemand, ModelDecision, ModelKey, ModelPolicy, ModelSignals, Roster,
    SloClass, SloTargets, Startup, VariantPolicy, VariantSignals,
};
use predictor::{
    Features, LatencyModel, Learner, LearnerConfig, Observation, Prediction, State, Target,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MODELS: usize = 50;
const VARIANTS: usize = 10;
const PODS: u32 = 5_000;
const ROWS: usize = 20_000;
/// Capacities that one cycle may compute: what `headroom controller` allows itself.
const COMPUTATIONS: usize = 56;
/// Requests that arrive for one model per cycle, and requests that a mix is made of.
const ARRIVALS: usize = 60;
const WINDOW: usize = 4_096;
/// Cycles until everything is computed and has been looked at again.
const SETTLING: usize = 45;
/// Latency models trained; the models of the roster take turns in using them.
const TRAINED: usize = 4;

fn features(random: &mut StdRng) -> Features {
    let waiting = random.random_range(0..8_u32);
    let running = random.random_range(0..128_u32);
    let input = random.random_range(50..8_000_u32);
    Features {
        input_tokens: input as f32,
        cached_tokens: random.random_range(0..2_000_u32).min(input) as f32,
        waiting: waiting as f32,
        waiting_tokens: (waiting * random.random_range(100..4_000)) as f32,
        running: running as f32,
        resident_tokens: (running * random.random_range(200..6_000)) as f32,
        kv_utilization: random.random(),
    }
}

fn learner(seed: u64) -> Learner {
    let mut random = StdRng::seed_from_u64(seed);
    let mut learner = Learner::new(LearnerConfig::default());
    let speed = 1.0 + seed as f32 / 10.0;
    for row in 0..ROWS {
        let at = Duration::from_millis(20 * row as u64);
        let features = features(&mut random);
        let noise = speed * (0.8 + 0.4 * random.random::<f32>());
        let ttft = 20.0
            + 0.07 * (features.uncached_tokens() + features.waiting_tokens)
            + 0.4 * features.running;
        let tpot = 15.0 + 0.1 * features.running + 4e-5 * features.resident_tokens;
        for (target, actual_ms) in [(Target::Ttft, ttft * noise), (Target::Tpot, tpot * noise)] {
            learner.observe(Observation {
                target,
                features,
                actual_ms,
                at,
                predicted: None,
            });
        }
    }
    let now = Duration::from_millis(20 * ROWS as u64);
    let candidate = learner.fit(now);
    assert!(learner.install(candidate, now), "the forests are accepted");
    learner
}

fn slo(ttft_ms: f64, tpot_ms: f64) -> SloTargets {
    SloTargets {
        percentile: 0.9,
        ttft_ms,
        tpot_ms,
    }
}

fn policy(model: usize) -> ModelPolicy {
    let key = ModelKey {
        namespace: "bench".into(),
        model: format!("model-{model:02}"),
    };
    let class = |name: &str, slo, priority| SloClass {
        name: name.into(),
        slo,
        priority,
        weight: 1.0,
    };
    let interactive = Some(Priorities { min: 1, max: 9 });
    let classes = vec![
        class("interactive", slo(1_500.0, 60.0), interactive),
        class("batch", slo(10_000.0, 150.0), None),
    ];
    let startup = Startup::Fixed(Duration::from_secs(90));
    let variant = |index: usize| VariantPolicy {
        cost_per_hour: 1.0 + index as f64,
        ..VariantPolicy::new(format!("v{index}"), 1, 40, startup)
    };
    ModelPolicy::new(key, classes, (0..VARIANTS).map(variant).collect())
}

/// A latency model with a version of its own, as one that is told from others by its checksum has.
struct Versioned(LatencyModel, u64);

impl Latency for Versioned {
    fn predict(&self, rows: &[Features], out: &mut Vec<Prediction>) {
        Latency::predict(&self.0, rows, out);
    }
    fn state(&self) -> State {
        Latency::state(&self.0)
    }
    fn extrapolates(&self, row: &Features) -> bool {
        Latency::extrapolates(&self.0, row)
    }
    fn version(&self) -> u64 {
        self.1
    }
}

/// Requests of one model: `scale` makes prompts and answers longer.
fn shapes(random: &mut StdRng, scale: f32, count: usize) -> impl Iterator<Item = Shape> {
    let shape = move |_| {
        let input = scale * random.random_range(100.0..6_000.0_f32);
        Shape {
            priority: random.random_range(0..2),
            sample: Sample {
                input,
                cached: input * random.random_range(0.0..0.8_f32),
                output: Some(scale * random.random_range(20.0..600.0_f32)),
            },
        }
    };
    (0..count).map(shape)
}

/// What one model's endpoint pickers tell.
struct Traffic {
    random: StdRng,
    scale: f32,
    samples: Samples,
}

impl Traffic {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let samples = shapes(&mut random, 1.0, WINDOW).collect();
        Self {
            random,
            scale: 1.0,
            samples,
        }
    }

    fn arrive(&mut self, count: usize) {
        let arrived = shapes(&mut self.random, self.scale, count);
        arrived.for_each(|shape| self.samples.push(shape));
    }

    /// Everything that counts is of another mix.
    fn change(&mut self, scale: f32) {
        self.scale = scale;
        self.arrive(WINDOW);
    }
}

/// The cluster as the roster sees it.
struct Cluster {
    now: u64,
    /// By model: its latency models, one per variant, and what arrives.
    models: Vec<Vec<Arc<Versioned>>>,
    traffic: Vec<Traffic>,
}

impl Cluster {
    fn signals(&self, policies: &[ModelPolicy]) -> BTreeMap<ModelKey, ModelSignals> {
        let each = policies.iter().enumerate().map(|(model, policy)| {
            let band = |priority: i32, rate: u64| Band {
                priority,
                totals: Totals {
                    offered: Volume {
                        requests: rate * self.now,
                        prompt_tokens: 2_000 * rate * self.now,
                    },
                    served: rate * self.now,
                    ..Totals::default()
                },
                ..Band::default()
            };
            let variant = |variant: usize| VariantSignals {
                replicas: Replicas {
                    ready: PODS / (MODELS * VARIANTS) as u32,
                    ..Replicas::default()
                },
                // No two variants are alike, so that none can be counted by another's capacity.
                kv_tokens: Some(400_000.0 + 1_000.0 * variant as f64),
                model: Some(Arc::clone(&self.models[model][variant]) as _),
                ..VariantSignals::default()
            };
            let signals = ModelSignals {
                now: Duration::from_secs(self.now),
                demand: MergedDemand {
                    ledger: 0,
                    bands: vec![band(1, 40), band(0, 20)],
                    heard: 2,
                    samples: Arc::new(self.traffic[model].samples.clone()),
                    ..MergedDemand::default()
                },
                variants: (0..VARIANTS).map(variant).collect(),
            };
            (policy.key.clone(), signals)
        });
        each.collect()
    }
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1024.0
}

fn oldest(decisions: &[ModelDecision]) -> Duration {
    let ages = decisions.iter().filter_map(ModelDecision::oldest_due);
    ages.max().unwrap_or_default()
}

fn main() {
    let learners: Vec<Learner> = (0..TRAINED as u64).map(learner).collect();
    let trained = Duration::from_millis(20 * ROWS as u64);
    let model = |index: usize| {
        Arc::new(Versioned(
            learners[index % TRAINED].model(trained),
            index as u64,
        ))
    };

    let mix = Traffic::new(1).samples.mix(|priority| priority == 1);
    let terms = Terms::new(slo(1_500.0, 60.0), &Behavior::default());
    const REPEATS: u32 = 50;
    let (one, begun) = (model(0), Instant::now());
    for _ in 0..REPEATS {
        std::hint::black_box(capacity(&*one, &mix, &terms, Some(400_000.0)).unwrap());
    }
    println!(
        "one capacity: {:.2} ms",
        begun.elapsed().as_secs_f64() * 1e3 / f64::from(REPEATS)
    );

    let before = resident_mb();
    let mut cluster = Cluster {
        now: 1,
        models: (0..MODELS)
            .map(|m| (0..VARIANTS).map(|v| model(m + v)).collect())
            .collect(),
        traffic: (0..MODELS as u64).map(Traffic::new).collect(),
    };
    let inputs = resident_mb();
    let policies: Vec<ModelPolicy> = (0..MODELS).map(policy).collect();
    let mut roster = Roster::new(COMPUTATIONS);
    policies
        .iter()
        .for_each(|policy| roster.set(policy.clone()));
    let mut cycle = |cluster: &mut Cluster| {
        cluster.now += 1;
        let traffic = cluster.traffic.iter_mut();
        traffic.for_each(|traffic| traffic.arrive(ARRIVALS));
        let signals = cluster.signals(&policies);
        let begun = Instant::now();
        let cycle = roster.cycle(signals);
        (begun.elapsed(), cycle)
    };

    // From a cold start until everything is computed and has been looked at again.
    for _ in 0..SETTLING {
        cycle(&mut cluster);
    }
    let kept = (resident_mb() - inputs) / MODELS as f64;
    println!(
        "memory: {kept:.2} MB kept per model ({VARIANTS} variants, 2 classes); inputs of the bench {:.0} MB",
        inputs - before
    );

    // Versions that no latency model has had yet.
    let mut version = MODELS + VARIANTS;
    let mut steady = Vec::new();
    for round in 0..60 {
        // Far apart in the order of the roster, so that no cycle finds the changes of several.
        for changed in 0..MODELS / 25 {
            let scale = 1.0 + 0.2 * ((round % 4) as f32);
            cluster.traffic[(2 * round + changed) * 21 % MODELS].change(scale);
        }
        let refitted = &mut cluster.models[(2 * round + 11) * 21 % MODELS];
        for latency in refitted.iter_mut().take(VARIANTS / 2) {
            *latency = model(version);
            version += 1;
        }
        let (took, cycle) = cycle(&mut cluster);
        steady.push((took, cycle.computed, oldest(&cycle.decisions)));
    }
    steady.sort();
    let at = |share: f64| steady[((steady.len() - 1) as f64 * share) as usize];
    let most = steady
        .iter()
        .map(|(_, computed, _)| computed)
        .max()
        .unwrap();
    println!(
        "steady cycle, a twentieth changed: p50 {:.0} ms ({} capacities computed), p90 {:.0} ms, worst {:.0} ms (at most {most} computed), oldest counted by {:.0} s",
        at(0.5).0.as_secs_f64() * 1e3,
        at(0.5).1,
        at(0.9).0.as_secs_f64() * 1e3,
        at(1.0).0.as_secs_f64() * 1e3,
        steady
            .iter()
            .map(|(_, _, age)| age)
            .max()
            .unwrap()
            .as_secs_f64(),
    );

    for _ in 0..SETTLING {
        cycle(&mut cluster);
    }
    for (models, traffic) in cluster.models.iter_mut().zip(&mut cluster.traffic) {
        traffic.change(0.6);
        for latency in models {
            *latency = model(version);
            version += 1;
        }
    }
    let (mut worst, mut cycles, mut age, mut computed) = (Duration::ZERO, 0, Duration::ZERO, 0);
    loop {
        let (took, cycle) = cycle(&mut cluster);
        let due = oldest(&cycle.decisions);
        (worst, age, computed) = (worst.max(took), age.max(due), computed + cycle.computed);
        cycles += 1;
        if (cycle.computed == 0 && due.is_zero()) || cycles == 120 {
            break;
        }
    }
    println!(
        "all changed: worst cycle {:.0} ms, {computed} capacities over {cycles} cycles, oldest counted by meanwhile {:.0} s",
        worst.as_secs_f64() * 1e3,
        age.as_secs_f64(),
    );
}

//! What one cycle of a controller costs on one core.
//!
//! `cargo bench -p controller-core --bench cycle` decides on 500 variants of 50 models with 2 service levels each, for
//! 5,000 pods, every model with latency models of production size (forests trained on 20,000 rows), and prints:
//!
//! - one capacity: the mean time to compute one;
//! - a steady cycle: one in which a twentieth of the models has another mix than before;
//! - all changed: every model has another mix and another latency model at once. Cycles go on until every capacity is
//!   computed; the longest, their number and the oldest capacity counted by meanwhile are printed;
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
const COMPUTATIONS: usize = 250;
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
fn samples(seed: u64, scale: f32) -> Arc<Samples> {
    let mut random = StdRng::seed_from_u64(seed);
    let shape = |_| {
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
    Arc::new((0..4_096).map(shape).collect())
}

/// The cluster as the roster sees it.
struct Cluster {
    now: u64,
    /// By model: its latency models, one per variant, and its requests.
    models: Vec<Vec<Arc<Versioned>>>,
    samples: Vec<Arc<Samples>>,
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
                    bands: vec![band(1, 40), band(0, 20)],
                    heard: 2,
                    samples: Arc::clone(&self.samples[model]),
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

    let mix = samples(1, 1.0).mix(|priority| priority == 1);
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
        samples: (0..MODELS as u64).map(|seed| samples(seed, 1.0)).collect(),
    };
    let inputs = resident_mb();
    let policies: Vec<ModelPolicy> = (0..MODELS).map(policy).collect();
    let mut roster = Roster::new(COMPUTATIONS);
    policies
        .iter()
        .for_each(|policy| roster.set(policy.clone()));
    let mut cycle = |cluster: &mut Cluster| {
        cluster.now += 1;
        let signals = cluster.signals(&policies);
        let begun = Instant::now();
        let cycle = roster.cycle(signals);
        (begun.elapsed(), cycle)
    };

    // From a cold start until everything is computed and has been looked at again.
    for _ in 0..30 {
        cycle(&mut cluster);
    }
    let kept = (resident_mb() - inputs) / MODELS as f64;
    println!(
        "memory: {kept:.2} MB kept per model ({VARIANTS} variants, 2 classes); inputs of the bench {:.0} MB",
        inputs - before
    );

    let mut steady = Vec::new();
    for round in 0..40_u64 {
        // A twentieth of the models, and so of the variants, per cycle.
        for changed in 0..(MODELS as u64).div_ceil(20) {
            let model = (round * 3 + changed) % MODELS as u64;
            let scale = 1.0 + 0.2 * ((round % 5) as f32);
            cluster.samples[model as usize] = samples(round * 100 + model, scale);
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
        "steady cycle, a twentieth changed: p50 {:.0} ms, worst {:.0} ms (at most {most} capacities computed)",
        at(0.5).0.as_secs_f64() * 1e3,
        at(1.0).0.as_secs_f64() * 1e3,
    );

    for _ in 0..30 {
        cycle(&mut cluster);
    }
    let renewed = |index: usize| model(index + 1_001);
    for model in 0..MODELS {
        cluster.samples[model] = samples(9_000 + model as u64, 0.6);
        for (variant, latency) in cluster.models[model].iter_mut().enumerate() {
            *latency = renewed(model + variant);
        }
    }
    let (mut worst, mut cycles, mut age, mut computed) = (Duration::ZERO, 0, Duration::ZERO, 0);
    loop {
        let (took, cycle) = cycle(&mut cluster);
        let due = oldest(&cycle.decisions);
        (worst, age, computed) = (worst.max(took), age.max(due), computed + cycle.computed);
        cycles += 1;
        if (cycle.computed == 0 && due.is_zero()) || cycles == 60 {
            break;
        }
    }
    println!(
        "all changed: worst cycle {:.0} ms, {computed} capacities over {cycles} cycles, oldest counted by meanwhile {:.0} s",
        worst.as_secs_f64() * 1e3,
        age.as_secs_f64(),
    );
}

//! One model on a small cluster in closed form: what people ask for, and what went wrong elsewhere.

use std::sync::Arc;

use predictor::State;
use proptest::prelude::*;

use super::super::{
    Evidence, ModelKey, Priorities, Role, SloClass, VariantDecision, VariantPolicy,
};
use super::*;
use crate::closed_form::{ENGINE, Engine};
use crate::decision::Basis;
use crate::hpa::{Tolerance, desired};
use crate::mix::Sample;
use crate::policy::SloTargets;
use crate::shares::{Band, Samples, Shape};
use crate::signals::{Replicas, Volume};

mod demand;
mod placement;
mod zero;

const STARTUP: u64 = 6;
const GUARD: u64 = 10;

const SLO: SloTargets = SloTargets {
    percentile: 0.9,
    ttft_ms: 2000.0,
    tpot_ms: 150.0,
};

pub(in crate::model) fn class(name: &str, priorities: Option<(i32, i32)>) -> SloClass {
    SloClass {
        name: name.into(),
        slo: SLO,
        priority: priorities.map(|(min, max)| Priorities { min, max }),
        weight: 1.0,
    }
}

pub(in crate::model) fn variant(name: &str, cost: f64, min: u32, max: u32) -> VariantPolicy {
    VariantPolicy {
        cost_per_hour: cost,
        ..VariantPolicy::new(name, min, max, Startup::Fixed(Duration::from_secs(STARTUP)))
    }
}

pub(in crate::model) fn policy(variants: Vec<VariantPolicy>) -> ModelPolicy {
    let key = ModelKey {
        namespace: "chat".into(),
        model: "llama".into(),
    };
    let mut policy = ModelPolicy::new(key, vec![class("all", None)], variants);
    policy.behavior.scale_down_guard = Duration::from_secs(GUARD);
    policy.idle = Duration::from_secs(60);
    assert_eq!(policy.validate(), Ok(()));
    policy
}

/// One variant's share of the cluster.
#[derive(Clone, Debug)]
pub(in crate::model) struct Pool {
    pub(in crate::model) engine: Option<Engine>,
    pub(in crate::model) room: u32,
    pub(in crate::model) quota: bool,
    pub(in crate::model) ready: u32,
    starting: Vec<u64>,
    pub(in crate::model) pending: u32,
    started: Vec<Duration>,
}

/// Replicas start where there is room; requests are counted, not served.
#[derive(Clone, Debug)]
pub(in crate::model) struct Cluster {
    pub(in crate::model) controller: ModelController,
    pub(in crate::model) now: u64,
    pub(in crate::model) pools: Vec<Pool>,
    offered: std::collections::BTreeMap<i32, u64>,
    pub(in crate::model) queued: u64,
    pub(in crate::model) in_flight: u64,
    pub(in crate::model) heard: usize,
    pub(in crate::model) silent: Vec<Silent>,
    samples: Arc<Samples>,
    pub(in crate::model) decisions: Vec<ModelDecision>,
}

impl Cluster {
    pub(in crate::model) fn new(policy: ModelPolicy, ready: &[u32]) -> Self {
        let pool = |&ready: &u32| Pool {
            engine: Some(ENGINE),
            room: 1000,
            quota: false,
            ready,
            starting: vec![],
            pending: 0,
            started: vec![],
        };
        let shape = |row: u32| Shape {
            priority: (row % 3) as i32 - 1,
            sample: Sample {
                input: 500.0 + 50.0 * row as f32,
                cached: 400.0,
                output: Some(100.0),
            },
        };
        Self {
            controller: ModelController::new(policy),
            now: 0,
            pools: ready.iter().map(pool).collect(),
            offered: [(0, 0)].into(),
            queued: 0,
            in_flight: 0,
            heard: 1,
            silent: vec![],
            samples: Arc::new((0..42).map(shape).collect()),
            decisions: vec![],
        }
    }

    pub(in crate::model) fn signals(&self) -> ModelSignals {
        let band = |(&priority, &requests): (&i32, &u64)| Band {
            priority,
            totals: Totals {
                offered: Volume {
                    requests,
                    prompt_tokens: 1500 * requests,
                },
                served: requests,
                ..Totals::default()
            },
            queued: Backlog {
                requests: if priority == 0 { self.queued } else { 0 },
                ..Backlog::default()
            },
        };
        let variant = |pool: &Pool| VariantSignals {
            replicas: Replicas {
                ready: pool.ready,
                starting: pool.starting.len() as u32,
                draining: 0,
                pending: pool.pending,
            },
            quota_refused: pool.quota && pool.pending > 0,
            kv_tokens: None,
            model: pool.engine.map(|engine| Arc::new(engine) as _),
            became_ready: pool.started.clone(),
        };
        ModelSignals {
            now: Duration::from_secs(self.now),
            demand: MergedDemand {
                ledger: 0,
                bands: self.offered.iter().rev().map(band).collect(),
                in_flight: self.in_flight,
                heard: self.heard,
                silent: self.silent.clone(),
                arrears: vec![],
                samples: Arc::clone(&self.samples),
            },
            variants: self.pools.iter().map(variant).collect(),
        }
    }

    /// A second passes with `arrivals` of priority 0 and is decided on; nothing is carried out.
    pub(in crate::model) fn look(&mut self, arrivals: u64) -> ModelDecision {
        self.now += 1;
        *self.offered.entry(0).or_default() += arrivals;
        for pool in &mut self.pools {
            let now = self.now;
            let ready = pool.starting.extract_if(.., |at| *at <= now).count();
            pool.ready += ready as u32;
            pool.started = vec![Duration::from_secs(STARTUP); ready];
            pool.schedule(self.now);
        }
        let decision = self.controller.tick(self.signals());
        self.decisions.push(decision.clone());
        decision
    }

    /// The same, carried out.
    pub(in crate::model) fn second(&mut self, arrivals: u64) -> ModelDecision {
        let decision = self.look(arrivals);
        for (pool, decided) in self.pools.iter_mut().zip(&decision.variants) {
            pool.resize(decided.replicas, self.now);
        }
        decision
    }

    pub(in crate::model) fn seconds(&mut self, seconds: u64, arrivals: u64) -> ModelDecision {
        (0..seconds).for_each(|_| {
            self.second(arrivals);
        });
        self.decisions[self.decisions.len() - 1].clone()
    }

    /// One second with arrivals of several priorities.
    pub(in crate::model) fn classes(&mut self, arrivals: &[(i32, u64)]) -> ModelDecision {
        for &(priority, count) in arrivals {
            *self.offered.entry(priority).or_default() += count;
        }
        self.second(0)
    }

    /// Counts of the variants, over time.
    pub(in crate::model) fn counts(&self) -> Vec<Vec<u32>> {
        self.decisions.iter().map(counts).collect()
    }
}

impl Pool {
    fn existing(&self) -> u32 {
        self.ready + self.starting.len() as u32 + self.pending
    }

    fn schedule(&mut self, now: u64) {
        while self.pending > 0 && self.ready + (self.starting.len() as u32) < self.room {
            self.pending -= 1;
            self.starting.push(now + STARTUP);
        }
    }

    fn resize(&mut self, wanted: u32, now: u64) {
        self.pending += wanted.saturating_sub(self.existing());
        while self.existing() > wanted {
            if self.pending > 0 {
                self.pending -= 1;
            } else if self.starting.pop().is_none() {
                self.ready -= 1;
            }
        }
        self.schedule(now);
    }
}

pub(in crate::model) fn counts(decision: &ModelDecision) -> Vec<u32> {
    decision
        .variants
        .iter()
        .map(|variant| variant.replicas)
        .collect()
}

/// Times the count of a variant changes its direction.
fn turns(counts: &[Vec<u32>], variant: usize) -> usize {
    let steps: Vec<bool> = counts
        .windows(2)
        .map(|pair| (pair[0][variant], pair[1][variant]))
        .filter(|(before, after)| before != after)
        .map(|(before, after)| after > before)
        .collect();
    steps.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

fn rate(variant: &VariantDecision) -> f64 {
    variant.requests_per_second.unwrap()
}

proptest! {
    // A case is a minute or two of ticks.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_cluster_is_survived_within_bounds_and_budgets(
        ticks in prop::collection::vec(
            (0..100_u64, 0..200_u64, 0..9_u32, 0..9_u32, 0..5_u32, any::<bool>(), 0..4_usize, 0..2_usize), 1..60),
        min in 0..3_u32, gpus in prop::option::of(6..40_u32), split in any::<bool>(),
    ) {
        let states = [State::Prior, State::Warming, State::Trained, State::Stale];
        let mut variants = vec![variant("a", 1.0, min, 9), variant("b", 3.0, 0, 7)];
        if split {
            (variants[0].role, variants[1].role) = (Role::Prefill, Role::Decode);
        }
        let mut policy = policy(variants);
        policy.gpu_budget = gpus;
        let run = || {
            let mut cluster = Cluster::new(policy.clone(), &[1, 0]);
            for &(arrivals, queued, ready, starting, pending, quota, state, heard) in &ticks {
                (cluster.queued, cluster.in_flight, cluster.heard) = (queued, u64::from(ready), heard);
                for pool in &mut cluster.pools {
                    (pool.ready, pool.pending, pool.quota) = (ready, pending, quota);
                    pool.starting = vec![1_000_000; starting as usize];
                    pool.room = 0;
                    pool.engine = Some(Engine { state: states[state], ..ENGINE });
                }
                cluster.look(arrivals);
            }
            cluster.decisions
        };
        let decisions = run();
        for decision in &decisions {
            let [a, b] = [&decision.variants[0], &decision.variants[1]];
            prop_assert!((min..=9).contains(&a.replicas) && b.replicas <= 7, "{decision}");
            prop_assert!(gpus.is_none_or(|most| a.replicas + b.replicas <= most), "{decision}");
            prop_assert!(a.lower <= a.upper && b.lower <= b.upper, "{decision}");
            prop_assert!(!decision.to_string().contains("NaN"));
        }
        prop_assert_eq!(decisions, run());
    }
}

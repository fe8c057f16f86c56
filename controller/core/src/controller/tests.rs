//! The whole controller on a virtual clock, over a fleet in closed form.

use std::sync::Arc;
use std::time::Duration;

use predictor::State;
use proptest::prelude::*;

use super::*;
use crate::Reason;
use crate::closed_form::{ENGINE, Engine};
use crate::guard::Guarded;
use crate::mix::{Mix, Sample};
use crate::policy::SloTargets;
use crate::signals::{Backlog, Replicas, Totals, Volume};

const STARTUP: u64 = 6;
const GUARD: u64 = 10;

fn policy() -> Policy {
    let slo = SloTargets {
        percentile: 0.9,
        ttft_ms: 2000.0,
        tpot_ms: 150.0,
    };
    let mut policy = Policy::new("m", slo, 1, 10, Duration::from_secs(STARTUP));
    policy.scale_down_guard = Duration::from_secs(GUARD);
    policy
}

fn mix() -> Mix {
    Mix::from_samples((0..40).map(|row| Sample {
        input: 500.0 + 50.0 * row as f32,
        cached: 400.0,
        output: Some(100.0),
    }))
}

/// A fleet under test: replicas become ready after the start-up time; requests are counted, not served.
struct Fleet {
    controller: Controller,
    engine: Engine,
    now: u64,
    offered: u64,
    queued: u64,
    in_flight: u64,
    ready: u32,
    starting: Vec<u64>,
    decisions: Vec<Decision>,
}

impl Fleet {
    fn new(policy: Policy, ready: u32) -> Self {
        let controller = Controller::new(policy);
        Self {
            controller,
            engine: ENGINE,
            now: 0,
            offered: 0,
            queued: 0,
            in_flight: 0,
            ready,
            starting: vec![],
            decisions: vec![],
        }
    }

    fn signals(&self) -> Signals {
        let offered = Volume {
            requests: self.offered,
            prompt_tokens: 1500 * self.offered,
        };
        Signals {
            now: Duration::from_secs(self.now),
            demand: Totals {
                offered,
                served: self.offered,
                ..Totals::default()
            },
            mix: mix(),
            queued: Backlog {
                requests: self.queued,
                sheddable: 0,
                prompt_tokens: 0,
            },
            in_flight: self.in_flight,
            replicas: Replicas {
                ready: self.ready,
                starting: self.starting.len() as u32,
                draining: 0,
                pending: 0,
            },
            kv_tokens: None,
            model: Arc::new(self.engine),
        }
    }

    /// One second with `arrivals`, then a decision that is carried out.
    fn second(&mut self, arrivals: u64) -> &Decision {
        self.now += 1;
        self.offered += arrivals;
        let now = self.now;
        let ready = self.starting.extract_if(.., |at| *at <= now).count() as u32;
        self.ready += ready;
        let decision = self.controller.tick(self.signals());
        while self.ready + (self.starting.len() as u32) < decision.replicas {
            self.starting.push(self.now + STARTUP);
        }
        while self.ready + (self.starting.len() as u32) > decision.replicas {
            if self.starting.pop().is_none() {
                self.ready -= 1;
            }
        }
        self.decisions.push(decision);
        &self.decisions[self.decisions.len() - 1]
    }

    fn counts(&self) -> Vec<u32> {
        self.decisions
            .iter()
            .map(|decision| decision.replicas)
            .collect()
    }

    fn per_replica(&self) -> f64 {
        self.decisions
            .iter()
            .rev()
            .find_map(|decision| decision.capacity)
            .unwrap()
            .requests_per_second
    }
}

/// Times the count changes its direction.
fn turns(counts: &[u32]) -> usize {
    let steps: Vec<bool> = counts
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .map(|pair| pair[1] > pair[0])
        .collect();
    steps.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Poisson arrivals per second from a fixed sequence (Knuth), so that a failure can be replayed.
struct Poisson(u64);

impl Poisson {
    fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn draw(&mut self, mean: f64) -> u64 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            count += 1;
        }
        count
    }
}

#[test]
fn a_step_is_answered_at_once_and_taken_back_after_the_guard_time() {
    let mut fleet = Fleet::new(policy(), 1);
    for rate in [vec![4; 40], vec![24; 40], vec![4; 60]].concat() {
        fleet.second(rate);
    }
    let counts = fleet.counts();
    let needed = |rate: f64| (rate / fleet.per_replica()).ceil() as u32;
    assert!(
        needed(24.0) > needed(4.0) + 1,
        "the step must matter: {}",
        fleet.per_replica()
    );
    // From the step at second 40, three seconds are the fast window.
    assert!(counts[43] >= needed(24.0), "{counts:?}");
    assert!(
        counts[50..89].iter().all(|count| *count >= needed(24.0)),
        "{counts:?}"
    );
    assert_eq!(counts[139], counts[30], "back to where it was: {counts:?}");
    assert_eq!(turns(&counts), 1, "up and down once: {counts:?}");
    let down = counts
        .windows(2)
        .position(|pair| pair[1] < pair[0])
        .unwrap();
    assert!(
        down >= 80 + GUARD as usize,
        "not before the guard time: {down}"
    );
    let held_back = fleet.decisions[81..down]
        .iter()
        .filter(|decision| matches!(decision.guarded, Some(Guarded::ScaleDown { .. })));
    assert!(held_back.count() > 0, "the guard says so");
}

#[test]
fn a_ramp_is_met_before_it_hurts() {
    let mut policy = policy();
    policy.max = 40;
    let mut fleet = Fleet::new(policy, 4);
    for _ in 0..30 {
        fleet.second(8);
    }
    for second in 0..120_u64 {
        let rate = 8 + second / 4;
        let ready = fleet.ready;
        fleet.second(rate);
        // The margin is there to be used while the next replica starts.
        let capacity = fleet.per_replica() / 0.9;
        assert!(
            f64::from(ready) * capacity >= rate as f64,
            "second {second}: {ready} replicas for {rate} req/s"
        );
    }
    assert_eq!(turns(&fleet.counts()[30..]), 0, "{:?}", fleet.counts());
}

#[test]
fn steady_poisson_traffic_does_not_flap() {
    for seed in 1..=5 {
        let mut policy = policy();
        policy.scale_down_guard = Duration::from_secs(60);
        let mut fleet = Fleet::new(policy, 3);
        let mut arrivals = Poisson(seed);
        for _ in 0..900 {
            let drawn = arrivals.draw(13.0);
            fleet.second(drawn);
        }
        let counts = &fleet.counts()[60..];
        assert!(
            turns(counts) <= 3,
            "seed {seed}: {} turns in 14 minutes: {counts:?}",
            turns(counts)
        );
        let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / counts.len() as f64;
        let least = 13.0 / fleet.per_replica();
        assert!(
            mean >= least && mean <= least + 2.0,
            "seed {seed}: {mean} for {least}"
        );
    }
}

#[test]
fn without_a_trusted_model_only_the_backlog_raises_the_count() {
    for state in [State::Prior, State::Stale] {
        let mut fleet = Fleet::new(policy(), 2);
        fleet.engine.state = state;
        for _ in 0..20 {
            fleet.second(50);
        }
        assert_eq!(fleet.counts(), vec![2; 20], "{state:?}");
        assert!(
            fleet.decisions[19]
                .reasons
                .iter()
                .any(|reason| matches!(reason, Reason::Held { .. }))
        );
        (fleet.queued, fleet.in_flight) = (40, 32);
        let raised = fleet.second(50);
        assert_eq!(
            (raised.replicas, raised.basis, raised.capacity),
            (5, Basis::Held, None)
        );
        assert!(
            raised.to_string().contains("40 queued beside 32 in flight"),
            "{raised}"
        );
        assert_eq!(fleet.second(50).replicas, 5, "those starting are counted");
        (fleet.queued, fleet.in_flight) = (0, 0);
        for _ in 0..60 {
            fleet.second(0);
        }
        assert_eq!(fleet.counts().last(), Some(&5), "held, not lowered");
    }
}

#[test]
fn an_infeasible_slo_is_told_and_sized_for_utilisation_within_bounds() {
    let mut policy = policy();
    policy.slo.ttft_ms = 50.0;
    let mut fleet = Fleet::new(policy, 1);
    for _ in 0..60 {
        fleet.second(20);
    }
    let last = &fleet.decisions[59];
    assert_eq!(last.basis, Basis::Utilization);
    assert!(
        last.replicas < 10 && last.to_string().contains("infeasible"),
        "{last}"
    );
}

#[test]
fn without_demand_the_minimum_remains() {
    let mut fleet = Fleet::new(policy(), 6);
    for _ in 0..60 {
        fleet.second(0);
    }
    assert_eq!(fleet.counts()[59], 1);
    assert!(fleet.decisions[59].headroom.unwrap() > 0.0);
}

#[test]
fn a_backlog_adds_to_the_forecast() {
    let settled = |queued| {
        let mut fleet = Fleet::new(policy(), 3);
        fleet.queued = queued;
        for _ in 0..40 {
            fleet.second(13);
        }
        fleet.decisions[39].clone()
    };
    let (without, with) = (settled(0), settled(100));
    assert!(with.replicas > without.replicas);
    assert!(
        with.to_string()
            .contains("100 queued add 10.0 req/s to be worked off in 10 s"),
        "{with}"
    );
}

proptest! {
    // A case is a minute or two of ticks.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn decisions_stay_within_bounds_and_repeat(
        ticks in prop::collection::vec((0..200_u64, 0..500_u64, 0..100_u64, 0..12_u32, 0..12_u32, 0..4_usize), 1..60),
        max in 1..12_u32, base in prop_oneof![Just(f64::NAN), Just(0.0), 1.0..1e4_f64], ttft in 1.0..1e5_f64,
    ) {
        let mut policy = policy();
        (policy.max, policy.slo.ttft_ms) = (max, ttft);
        let states = [State::Prior, State::Warming, State::Trained, State::Stale];
        let run = || {
            let mut controller = Controller::new(policy.clone());
            let mut fleet = Fleet::new(policy.clone(), 1);
            ticks.iter().map(|&(arrivals, queued, in_flight, ready, starting, state)| {
                fleet.now += 1;
                fleet.offered += arrivals;
                (fleet.queued, fleet.in_flight, fleet.ready) = (queued, in_flight, ready);
                fleet.starting = vec![0; starting as usize];
                fleet.engine = Engine { base, state: states[state], ..ENGINE };
                controller.tick(fleet.signals())
            }).collect::<Vec<_>>()
        };
        let decisions = run();
        for decision in &decisions {
            prop_assert!((1..=max).contains(&decision.replicas), "{decision}");
            prop_assert!(!decision.reasons.is_empty());
        }
        prop_assert_eq!(decisions, run());
    }

    #[test]
    fn the_same_signals_keep_the_same_count(rate in 0..60_u64, ready in 1..10_u32) {
        let mut fleet = Fleet::new(policy(), ready);
        for _ in 0..120 {
            fleet.second(rate);
        }
        let counts = fleet.counts();
        prop_assert!(counts[80..].iter().all(|count| *count == counts[119]), "{:?}", counts);
    }
}

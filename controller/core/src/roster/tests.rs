//! Many models, of which none may wait for ever or spoil another's day.

use std::sync::Arc;

use super::*;
use crate::closed_form::{ENGINE, Engine};
use crate::mix::Sample;
use crate::model::{SloClass, Startup, VariantPolicy, VariantSignals};
use crate::policy::SloTargets;
use crate::shares::{Band, MergedDemand, Shape};
use crate::signals::{Replicas, Totals, Volume};

fn key(namespace: &str, model: &str) -> ModelKey {
    ModelKey {
        namespace: namespace.into(),
        model: model.into(),
    }
}

fn policy(key: ModelKey) -> ModelPolicy {
    let class = SloClass {
        name: "all".into(),
        slo: SloTargets {
            percentile: 0.9,
            ttft_ms: 2000.0,
            tpot_ms: 150.0,
        },
        priority: None,
        weight: 1.0,
    };
    let startup = Startup::Fixed(Duration::from_secs(6));
    ModelPolicy::new(
        key,
        vec![class],
        vec![VariantPolicy::new("a", 1, 20, startup)],
    )
}

/// `rate` requests/s of `input` tokens each until `now`, on `ready` replicas of `engine`.
fn signals(now: u64, rate: u64, input: f32, ready: u32, engine: Engine) -> ModelSignals {
    let requests = rate * now;
    let offered = Volume {
        requests,
        prompt_tokens: 0,
    };
    let band = Band {
        totals: Totals {
            offered,
            ..Totals::default()
        },
        ..Band::default()
    };
    let shape = Shape {
        priority: 0,
        sample: Sample {
            input,
            cached: 0.0,
            output: Some(100.0),
        },
    };
    // As many shapes as seconds, so that each second's samples are new.
    let samples = (0..now + 1).map(|_| shape).collect();
    ModelSignals {
        now: Duration::from_secs(now),
        demand: MergedDemand {
            ledger: 0,
            bands: vec![band],
            heard: 1,
            samples: Arc::new(samples),
            ..MergedDemand::default()
        },
        variants: vec![VariantSignals {
            replicas: Replicas {
                ready,
                ..Replicas::default()
            },
            model: Some(Arc::new(engine)),
            ..VariantSignals::default()
        }],
    }
}

fn roster(models: usize, computations: usize) -> (Roster, Vec<ModelKey>) {
    let mut roster = Roster::new(computations);
    let keys: Vec<ModelKey> = (0..models)
        .map(|n| key("ns", &format!("m{n:02}")))
        .collect();
    keys.iter().for_each(|key| roster.set(policy(key.clone())));
    (roster, keys)
}

#[test]
fn computations_are_spread_and_every_model_has_its_turn() {
    let run = |computations: usize, changes: u64, end: u64| -> Vec<Cycle> {
        let (mut roster, keys) = roster(10, computations);
        let cycle = |now: u64| {
            let input = if now < changes { 500.0 } else { 1500.0 };
            let each = keys
                .iter()
                .map(|key| (key.clone(), signals(now, 8, input, 3, ENGINE)));
            roster.cycle(each.collect())
        };
        (1..end).map(cycle).collect()
    };
    let computed: Vec<usize> = run(3, 99, 8).iter().map(|cycle| cycle.computed).collect();
    assert_eq!(
        computed,
        [0, 3, 3, 3, 1, 0, 0],
        "demand is known from the second on"
    );

    let cycles = run(1, 40, 60);
    assert!(cycles.iter().all(|cycle| cycle.computed <= 1));
    assert_eq!(cycles.iter().map(|cycle| cycle.computed).sum::<usize>(), 20);
    let oldest = |cycle: &Cycle| {
        cycle
            .decisions
            .iter()
            .filter_map(ModelDecision::oldest_due)
            .max()
    };
    let ages: Vec<Option<Duration>> = cycles.iter().skip(40).map(oldest).collect();
    assert!(
        ages.iter()
            .any(|age| age.is_some_and(|age| age > Duration::from_secs(30))),
        "{ages:?}"
    );
    assert_eq!(ages.last(), Some(&None), "all are done: {ages:?}");
}

#[test]
fn a_mix_that_wobbles_is_not_computed_anew_and_one_that_moves_is() {
    let (mut roster, keys) = roster(1, 100);
    let mut computed = |now: u64, input: f32| {
        let signals = signals(now, 8, input, 3, ENGINE);
        roster.cycle([(keys[0].clone(), signals)].into()).computed
    };
    let warm: usize = (1..10).map(|now| computed(now, 1000.0)).sum();
    assert_eq!(warm, 1);
    let wobble: usize = (10..50)
        .map(|now| computed(now, 1000.0 + 20.0 * (now % 2) as f32))
        .sum();
    assert_eq!(wobble, 0);
    let moved: usize = (50..60).map(|now| computed(now, 1200.0)).sum();
    assert_eq!(moved, 1);
    let minutes: usize = (60..240)
        .map(|now| computed(now, 1200.0 + 20.0 * (now % 2) as f32))
        .sum();
    assert!(
        (2..=4).contains(&minutes),
        "once a minute all the same: {minutes}"
    );
}

#[test]
fn a_model_that_cannot_be_computed_spoils_no_other() {
    let mut roster = Roster::new(100);
    let (bad, good) = (key("a", "bad"), key("b", "good"));
    roster.set(policy(bad.clone()));
    roster.set(policy(good.clone()));
    let broken = Engine {
        base: f64::NAN,
        ..ENGINE
    };
    let mut last = None;
    for now in 1..30 {
        let signals = [
            (bad.clone(), signals(now, 30, 500.0, 1, broken)),
            (good.clone(), signals(now, 30, 500.0, 1, ENGINE)),
        ];
        last = Some(roster.cycle(signals.into()));
    }
    let decisions = last.unwrap().decisions;
    assert!(!decisions[0].evidence.is_fresh(), "{}", decisions[0]);
    assert_eq!(decisions[0].variants[0].replicas, 1);
    assert!(
        decisions[1].evidence.is_fresh() && decisions[1].variants[0].replicas > 1,
        "{}",
        decisions[1]
    );
}

#[test]
fn the_same_name_in_two_namespaces_is_two_models() {
    let mut roster = Roster::new(100);
    let (one, two) = (key("one", "llama"), key("two", "llama"));
    roster.set(policy(one.clone()));
    roster.set(policy(two.clone()));
    let mut decided = Vec::new();
    for now in 1..30 {
        let signals = [
            (one.clone(), signals(now, 40, 500.0, 1, ENGINE)),
            (two.clone(), signals(now, 1, 500.0, 1, ENGINE)),
        ];
        decided = roster.cycle(signals.into()).decisions;
    }
    assert!(decided[0].variants[0].replicas > decided[1].variants[0].replicas);
    assert_eq!(decided[1].model.to_string(), "two/llama");
    roster.remove(&one);
    assert_eq!(roster.keys().collect::<Vec<_>>(), [&two]);
    assert!(roster.save(&one, Duration::from_secs(30)).is_none());
}

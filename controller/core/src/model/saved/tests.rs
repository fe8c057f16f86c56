//! A restart is not seen in the decisions.

use proptest::prelude::*;

use super::super::controller::tests::{Cluster, policy, variant};
use super::super::{SloClass, VariantPolicy};
use super::*;

fn cluster() -> Cluster {
    let variants = vec![variant("h100", 4.0, 0, 10), variant("l40s", 1.0, 0, 4)];
    Cluster::new(policy(variants), &[0, 1])
}

fn through_json(saved: &SavedState) -> SavedState {
    serde_json::from_str(&serde_json::to_string(saved).unwrap()).unwrap()
}

proptest! {
    // A case is some minutes of ticks.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn decisions_after_a_restart_are_those_without_it(
        before in prop::collection::vec((1..20_u64, 0..60_u64), 1..8),
        after in prop::collection::vec((1..20_u64, 0..60_u64), 1..6),
        room in 0..6_u32, queued in 0..50_u64,
    ) {
        let mut there = cluster();
        there.pools[1].room = room;
        there.queued = queued;
        for &(seconds, arrivals) in &before {
            there.seconds(seconds, arrivals);
        }
        let now = Duration::from_secs(there.now);
        let saved = through_json(&there.controller.save(now));
        let mut moved = there.clone();
        moved.controller = ModelController::new(there.controller.policy().clone());
        moved.controller.restore(saved, now).unwrap();
        for &(seconds, arrivals) in &after {
            for _ in 0..seconds {
                let (stayed, moved) = (there.second(arrivals), moved.second(arrivals));
                let counts = |decision: &super::super::ModelDecision| -> Vec<(u32, u32)> {
                    decision.variants.iter().map(|variant| (variant.previous, variant.replicas)).collect()
                };
                prop_assert_eq!(counts(&stayed), counts(&moved), "{}\n{}", stayed, moved);
                prop_assert_eq!(stayed.evidence, moved.evidence);
            }
        }
    }
}

#[test]
fn a_cold_restart_holds_instead_of_flapping() {
    let mut cluster = cluster();
    cluster.seconds(120, 20);
    let now = Duration::from_secs(cluster.now);
    let saved = cluster.controller.save(now);
    let before = cluster.counts().pop();
    cluster.controller = ModelController::new(cluster.controller.policy().clone());
    cluster.controller.restore(saved, now).unwrap();
    // Neither pickers nor models have been heard of yet.
    cluster.heard = 0;
    cluster.pools.iter_mut().for_each(|pool| pool.engine = None);
    cluster.seconds(5, 20);
    assert_eq!(cluster.counts().pop(), before);
    assert!(
        cluster.decisions[124].evidence.is_fresh(),
        "what it rested on is seconds old"
    );
}

#[test]
fn a_state_is_small() {
    let mut cluster = cluster();
    cluster.seconds(600, 20);
    let saved = cluster.controller.save(Duration::from_secs(cluster.now));
    let bytes = serde_json::to_vec(&saved).unwrap().len();
    assert!(
        bytes < 20_000,
        "{bytes} bytes for one class and two variants"
    );
}

#[test]
fn names_decide_what_is_taken_over() {
    let mut cluster = cluster();
    cluster.seconds(60, 12);
    let now = Duration::from_secs(cluster.now);
    let saved = cluster.controller.save(now);
    let mut policy = cluster.controller.policy().clone();
    policy.variants = vec![
        VariantPolicy {
            name: "b200".into(),
            ..policy.variants[0].clone()
        },
        policy.variants[1].clone(),
    ];
    policy.classes.push(SloClass {
        name: "batch".into(),
        ..policy.classes[0].clone()
    });
    let mut other = ModelController::new(policy);
    other.restore(saved, now).unwrap();
    let wanted: Vec<Option<u32>> = other.variants.iter().map(|state| state.wanted).collect();
    assert_eq!(wanted, [None, cluster.controller.variants[1].wanted]);
    assert_eq!(other.classes[0].meter, cluster.controller.classes[0].meter);
    assert_ne!(other.classes[1].meter, cluster.controller.classes[0].meter);
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut cluster = cluster();
    cluster.seconds(60, 12);
    let now = Duration::from_secs(cluster.now);
    let saved = serde_json::to_value(cluster.controller.save(now)).unwrap();
    let controller = &mut cluster.controller;
    let mut refused = |path: &str, value: serde_json::Value, now| {
        let mut saved = saved.clone();
        *saved.pointer_mut(path).unwrap() = value;
        let before = controller.save(now);
        let error = controller
            .restore(serde_json::from_value(saved).unwrap(), now)
            .unwrap_err();
        assert_eq!(controller.save(now), before);
        error.to_string()
    };
    let later = now + Duration::from_secs(1);
    assert!(refused("/schema", 7.into(), later).contains("schema: `7` is not 1"));
    assert!(refused("/at", (u64::MAX / 2).into(), later).contains("at"));
    assert!(refused("/at", 0.into(), Duration::from_secs(9_000)).contains("an hour"));
    assert!(refused("/variants/1/wanted", 2_000_000.into(), later).contains("wanted: `l40s`"));
    assert!(
        refused(
            "/variants/1/guard/needed/begun",
            (u64::MAX / 2).into(),
            later
        )
        .contains("guard")
    );
    assert!(refused("/variants/1/books", serde_json::json!([]), later).contains("capacities"));
    assert!(refused("/classes/0/meter/fast", 1.into(), later).contains("meter: `all`"));
    assert!(refused("/activity/last", (u64::MAX / 2).into(), later).contains("activity"));
}

//! Demand of several classes, of several pickers, and of none that can be heard.

use super::*;

fn silent(seconds: u64) -> Vec<Silent> {
    vec![Silent {
        id: "epp-1".into(),
        unheard: Duration::from_secs(seconds),
    }]
}

fn one(min: u32, ready: u32) -> Cluster {
    Cluster::new(policy(vec![variant("a", 1.0, min, 40)]), &[ready])
}

#[test]
fn replicas_add_up_over_the_classes_each_by_its_own_target() {
    let mut both = policy(vec![variant("a", 1.0, 1, 40)]);
    both.classes = vec![class("interactive", Some((1, 1))), class("batch", None)];
    both.classes[0].slo.ttft_ms = 400.0;
    let settled = |interactive: u64, batch: u64| {
        let mut cluster = Cluster::new(both.clone(), &[1]);
        let decisions = (0..90).map(|_| cluster.classes(&[(1, interactive), (-1, batch)]));
        decisions.last().unwrap()
    };
    let decision = settled(12, 12);
    let needed: f64 = decision.variants[0]
        .capacities
        .iter()
        .map(|known| 12.0 / known.capacity.requests_per_second)
        .sum();
    let capacities: Vec<f64> = decision.variants[0]
        .capacities
        .iter()
        .map(|known| known.capacity.requests_per_second)
        .collect();
    assert!(capacities[0] < capacities[1], "{capacities:?}");
    let replicas = f64::from(decision.variants[0].replicas);
    assert!(
        (needed..needed * 1.4 + 1.0).contains(&replicas),
        "{needed}: {decision}"
    );
    assert!(
        decision.to_string().contains("interactive: forecast"),
        "{decision}"
    );
    assert!(
        decision.to_string().contains("batch: forecast"),
        "{decision}"
    );
    assert!(settled(20, 4).variants[0].replicas > settled(4, 20).variants[0].replicas);
}

#[test]
fn nothing_is_removed_while_a_picker_is_silent_and_what_the_others_see_still_counts() {
    let mut cluster = one(1, 4);
    cluster.seconds(60, 12);
    let before = cluster.pools[0].existing();
    // One of two pickers falls silent: only half of the demand is seen.
    cluster.silent = silent(6);
    let decision = cluster.seconds(60, 4);
    assert_eq!(decision.variants[0].replicas, before, "{decision}");
    assert!(
        decision
            .to_string()
            .contains("1 endpoint picker silent for 6 s"),
        "{decision}"
    );
    assert!(decision.evidence.is_fresh(), "growth must be acted upon");
    let decision = cluster.seconds(20, 40);
    assert!(decision.variants[0].replicas > before, "{decision}");
    // Its pod is gone.
    cluster.silent.clear();
    let decision = cluster.seconds(90, 4);
    assert!(decision.variants[0].replicas < before, "{decision}");
}

#[test]
fn a_count_that_nobody_supports_ages_and_does_not_renew_itself() {
    let mut cluster = one(1, 2);
    let sized = cluster.seconds(60, 12);
    assert_eq!(sized.evidence, Evidence::Fresh);
    cluster.heard = 0;
    let held = cluster.seconds(9, 0);
    assert_eq!(
        (counts(&held), held.evidence),
        (counts(&sized), Evidence::Fresh),
        "a hiccup"
    );
    let held = cluster.seconds(600, 0);
    assert_eq!(
        counts(&held),
        counts(&sized),
        "held, whatever the silence looks like"
    );
    let reason = "held for 609 s: no endpoint picker tells of demand".to_owned();
    assert_eq!(held.evidence, Evidence::Stale { reason });
    cluster.heard = 1;
    assert!(cluster.seconds(10, 12).evidence.is_fresh());
}

#[test]
fn a_cold_model_is_told_as_cold_and_only_a_backlog_is_acted_upon() {
    let mut cluster = one(1, 2);
    cluster.pools[0].engine = Some(Engine {
        state: State::Prior,
        ..ENGINE
    });
    let decision = cluster.seconds(20, 12);
    let reason = "the latency model has seen too few answers".to_owned();
    assert_eq!(
        (counts(&decision), decision.evidence),
        (vec![2], Evidence::Cold { reason })
    );
    (cluster.queued, cluster.in_flight) = (40, 32);
    // Not carried out yet: the autoscaler looks only now and then.
    for _ in 0..20 {
        let decision = cluster.look(12);
        assert_eq!(
            (counts(&decision), decision.evidence),
            (vec![5], Evidence::Fresh)
        );
    }
    cluster.queued = 0;
    let decision = cluster.seconds(30, 12);
    assert!(
        matches!(decision.evidence, Evidence::Stale { .. }),
        "{:?}",
        decision.evidence
    );
    assert_eq!(counts(&decision), [5], "held");
}

#[test]
fn late_counts_are_no_burst() {
    let mut cluster = one(1, 4);
    cluster.seconds(60, 12);
    let before = cluster.pools[0].existing();
    for _ in 0..20 {
        cluster.second(0);
    }
    // Twenty seconds' worth at once, told as such.
    let mut signals = {
        cluster.now += 1;
        *cluster.offered.get_mut(&0).unwrap() += 21 * 12;
        cluster.signals()
    };
    let totals = Totals {
        offered: Volume {
            requests: 21 * 12,
            prompt_tokens: 0,
        },
        ..Totals::default()
    };
    signals.demand.arrears = vec![crate::shares::Arrears {
        since: Duration::from_secs(60),
        priority: 0,
        totals,
    }];
    let decision = cluster.controller.tick(signals);
    let demand = decision.classes[0].demand.unwrap();
    assert!((demand.offered.requests - 12.0).abs() < 1.0, "{demand:?}");
    assert!(decision.variants[0].replicas <= before, "{decision}");
}

#[test]
fn another_source_of_demand_is_no_burst() {
    let mut cluster = one(1, 4);
    cluster.seconds(60, 12);
    let before = cluster.pools[0].existing();
    let mut most = 0;
    for second in 0..60 {
        cluster.now += 1;
        *cluster.offered.get_mut(&0).unwrap() += 12;
        let mut signals = cluster.signals();
        signals.demand.ledger = 1;
        for band in &mut signals.demand.bands {
            // It has counted since long before the first one did.
            band.totals.offered.requests += 1_000_000;
        }
        let decision = cluster.controller.tick(signals);
        let offered = decision.classes[0]
            .demand
            .map(|demand| demand.offered.requests);
        assert!(
            offered.is_none_or(|rate| rate < 15.0),
            "second {second}: {decision}"
        );
        most = most.max(decision.variants[0].replicas);
    }
    assert_eq!(most, before);
}

#[test]
fn replicas_changed_by_hand_neither_stop_nor_mislead_it() {
    let mut cluster = one(1, 3);
    let settled = counts(&cluster.seconds(60, 12));
    for by_hand in [9, 1] {
        cluster.pools[0].ready = by_hand;
        let decision = cluster.look(12);
        assert_eq!(counts(&decision), settled, "{decision}");
    }
    cluster.pools[0].ready = settled[0];
    let decision = cluster.seconds(60, 4);
    assert!(decision.variants[0].replicas < settled[0], "{decision}");
}

#[test]
fn an_absent_objective_or_model_never_scales_up_by_itself() {
    let mut cluster = one(1, 2);
    cluster.pools[0].engine = None;
    cluster.seconds(120, 0);
    assert!(cluster.counts().iter().all(|counts| counts == &[2]));
    assert!(!cluster.decisions[119].evidence.is_fresh());
}

#[test]
fn an_unready_pod_and_a_crashed_one_do_not_block_the_others() {
    let mut cluster = one(1, 3);
    let before = counts(&cluster.seconds(60, 12));
    cluster.pools[0].pending = 1;
    cluster.pools[0].room = 0;
    let decision = cluster.seconds(60, 30);
    assert!(counts(&decision) > before, "{decision}");
}

#[test]
fn a_colder_model_after_scaling_up_does_not_drive_the_count_on() {
    // Newly joined replicas make the refitted model see less capacity for a moment.
    let mut cluster = one(1, 3);
    cluster.seconds(90, 12);
    let before = cluster.pools[0].existing();
    cluster.pools[0].engine = Some(Engine {
        base: ENGINE.base * 3.0,
        slope: ENGINE.slope * 3.0,
        ..ENGINE
    });
    cluster.seconds(8, 12);
    cluster.pools[0].engine = Some(ENGINE);
    cluster.seconds(60, 12);
    let most = cluster
        .counts()
        .iter()
        .skip(60)
        .map(|counts| counts[0])
        .max();
    assert_eq!(most, Some(before), "{:?}", cluster.counts());
}

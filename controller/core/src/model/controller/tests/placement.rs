//! Which variant takes what.

use super::*;

fn two(l40s: u32, h100: u32) -> Cluster {
    let variants = vec![variant("h100", 4.0, 0, 10), variant("l40s", 1.0, 0, 10)];
    Cluster::new(policy(variants), &[h100, l40s])
}

const H100: usize = 0;
const L40S: usize = 1;

#[test]
fn the_cheapest_is_filled_first_whatever_the_policys_order() {
    let mut cluster = two(1, 0);
    let decision = cluster.seconds(60, 20);
    let needed = (20.0 / rate(&decision.variants[L40S])).ceil() as u32;
    assert!(needed > 1);
    assert!(decision.variants[L40S].replicas >= needed, "{decision}");
    assert_eq!(decision.variants[H100].replicas, 0, "{decision}");
}

#[test]
fn cheap_is_cost_per_unit_of_capacity_where_capacity_is_known() {
    let mut cluster = two(1, 1);
    // Eight times as fast at four times the cost.
    let fast = Engine {
        base: ENGINE.base / 8.0,
        prefill: ENGINE.prefill / 8.0,
        slope: ENGINE.slope / 8.0,
        ..ENGINE
    };
    cluster.pools[H100].engine = Some(fast);
    let decision = cluster.seconds(80, 20);
    assert_eq!(decision.variants[L40S].replicas, 0, "{decision}");
    assert!(decision.variants[H100].replicas >= 1, "{decision}");
    assert_eq!(turns(&cluster.counts(), H100), 0, "{:?}", cluster.counts());
}

#[test]
fn what_the_cheapest_cannot_take_goes_to_the_next_and_leaves_it_first() {
    let mut cluster = two(1, 0);
    cluster.controller.policy.variants[L40S].max = 3;
    let decision = cluster.seconds(60, 30);
    let per = rate(&decision.variants[L40S]);
    let (cheap, dear) = (
        decision.variants[L40S].replicas,
        decision.variants[H100].replicas,
    );
    assert_eq!(cheap, 3);
    assert!(f64::from(cheap + dear) * per >= 30.0, "{decision}");
    assert!(
        decision.to_string().contains("cheaper variants leave"),
        "{decision}"
    );
    // Less demand: the costly ones go, the cheap ones stay.
    let decision = cluster.seconds(60, 12);
    assert_eq!(counts(&decision), [0, 3], "{decision}");
    let went: Vec<_> = cluster.counts().into_iter().skip(60).collect();
    assert!(went.iter().all(|counts| counts[L40S] == 3), "{went:?}");
}

#[test]
fn a_full_accelerator_hands_over_says_why_and_takes_back_without_flapping() {
    let mut cluster = two(2, 0);
    cluster.pools[L40S].room = 2;
    cluster.seconds(60, 8);
    let before = cluster.decisions.len();
    let decision = cluster.seconds(20, 24);
    assert!(
        cluster.pools[L40S].pending > 0,
        "pods stay pending: {decision}"
    );
    assert_eq!(
        decision.variants[H100].replicas, 0,
        "they are waited for at first: {decision}"
    );
    let decision = cluster.seconds(30, 24);
    let pods = cluster.pools[L40S].pending;
    let more = decision.variants[H100].replicas;
    assert!(more > 0 && pods > 0, "{decision}");
    let words = format!("l40s: {pods} pods pending: no room; {more} more on h100");
    assert!(decision.to_string().contains(&words), "{decision}");
    let carrying = f64::from(2 + more) * rate(&decision.variants[H100]);
    assert!(carrying >= 24.0, "pending ones carry nothing: {decision}");
    // Nothing more is asked of the full one, and nothing less while it is full.
    let decision = cluster.seconds(60, 24);
    assert_eq!(cluster.pools[L40S].pending, pods);
    assert_eq!(decision.variants[H100].replicas, more);

    cluster.pools[L40S].room = 100;
    cluster.second(24);
    assert_eq!(
        cluster.decisions[cluster.decisions.len() - 1].variants[H100].replicas,
        more,
        "not before they are ready"
    );
    let decision = cluster.seconds(90, 24);
    assert_eq!(decision.variants[H100].replicas, 0, "{decision}");
    let moves = &cluster.counts()[before..];
    assert_eq!(
        (turns(moves, H100), turns(moves, L40S)),
        (1, 0),
        "{moves:?}"
    );
    for pair in moves.windows(2) {
        let serving = |counts: &Vec<u32>| counts[H100] + counts[L40S].min(2);
        assert!(
            pair[1][H100] >= pair[0][H100] || serving(&pair[0]) > 2,
            "{moves:?}"
        );
    }
}

#[test]
fn a_quota_is_not_waited_for() {
    let mut cluster = two(2, 0);
    (cluster.pools[L40S].room, cluster.pools[L40S].quota) = (2, true);
    cluster.seconds(60, 8);
    let decision = cluster.seconds(8, 24);
    assert!(decision.variants[H100].replicas > 0, "{decision}");
    assert!(
        decision.to_string().contains("refused by a quota;"),
        "{decision}"
    );
}

#[test]
fn pending_pods_of_one_role_neither_stall_the_other_nor_stop_scaling_down() {
    let mut cluster = split(10);
    cluster.pools[1].room = 1;
    cluster.seconds(60, 5);
    let decision = cluster.seconds(60, 30);
    assert!(cluster.pools[1].pending > 0, "{decision}");
    let high = decision.variants[0].replicas;
    assert!(high > 1, "prefill grows: {decision}");
    let decision = cluster.seconds(120, 1);
    assert_eq!(counts(&decision), [1, 1], "{decision}");
    assert_eq!(cluster.pools[1].pending, 0);
}

fn split(max: u32) -> Cluster {
    let mut variants = vec![
        variant("prefill", 1.0, 0, max),
        variant("decode", 1.0, 0, max),
    ];
    (variants[0].role, variants[1].role) = (Role::Prefill, Role::Decode);
    Cluster::new(policy(variants), &[1, 1])
}

#[test]
fn each_role_is_sized_by_its_own_target() {
    let settled = |ttft_ms, tpot_ms| {
        let mut cluster = split(30);
        let slo = &mut cluster.controller.policy.classes[0].slo;
        (slo.ttft_ms, slo.tpot_ms) = (ttft_ms, tpot_ms);
        let decision = cluster.seconds(90, 20);
        let binding = |index: usize| decision.variants[index].capacities[0].capacity.binding;
        (counts(&decision), binding(0), binding(1))
    };
    let (usual, ..) = settled(2000.0, 150.0);
    let (tight_first, binds, _) = settled(250.0, 150.0);
    assert!(
        tight_first[0] > usual[0] && tight_first[1] == usual[1],
        "{usual:?} {tight_first:?}"
    );
    assert_eq!(binds, crate::Binding::Ttft);
    let (tight_each, _, binds) = settled(2000.0, 26.0);
    assert!(
        tight_each[1] > usual[1] && tight_each[0] == usual[0],
        "{usual:?} {tight_each:?}"
    );
    assert_eq!(binds, crate::Binding::Tpot);
}

#[test]
fn no_role_is_at_zero_alone() {
    let mut cluster = split(10);
    for counts in (0..200).map(|second| counts(&cluster.second(u64::from(second % 50 == 0)))) {
        assert_eq!(counts[0] == 0, counts[1] == 0, "{counts:?}");
    }
    // A minimum of one role keeps one of the other.
    let mut cluster = split(10);
    cluster.controller.policy.variants[1].min = 1;
    let decision = cluster.seconds(200, 0);
    assert_eq!(counts(&decision), [1, 1], "{decision}");
    assert!(
        decision
            .to_string()
            .contains("one at least beside the other role"),
        "{decision}"
    );
}

#[test]
fn budgets_cap_and_say_so_and_both_roles_give_way_alike() {
    let mut cluster = split(50);
    cluster.controller.policy.variants[0].gpus_per_replica = 2;
    let all = cluster.seconds(60, 60);
    let gpus = |decision: &ModelDecision| {
        2 * decision.variants[0].replicas + decision.variants[1].replicas
    };
    let most = gpus(&all) / 2;
    cluster.controller.policy.gpu_budget = Some(most);
    let capped = cluster.seconds(60, 60);
    assert!(
        gpus(&capped) <= most && gpus(&capped) + 2 > most,
        "{capped}"
    );
    for (free, capped) in all.variants.iter().zip(&capped.variants) {
        let share = f64::from(capped.replicas) / f64::from(free.replicas);
        assert!((0.3..0.8).contains(&share), "{all}\n{capped}");
    }
    assert!(
        capped
            .to_string()
            .contains(&format!("the budget is {most} GPUs")),
        "{capped}"
    );
}

#[test]
fn a_cost_budget_holds_while_replicas_move_between_variants() {
    let mut cluster = two(2, 0);
    cluster.controller.policy.cost_budget = Some(14.0);
    cluster.pools[L40S].room = 2;
    cluster.seconds(120, 24);
    cluster.pools[L40S].room = 100;
    cluster.seconds(120, 24);
    for counts in cluster.counts() {
        assert!(counts[H100] * 4 + counts[L40S] <= 14, "{counts:?}");
    }
    assert!(cluster.counts().iter().any(|counts| counts[H100] > 0));
}

#[test]
fn a_variant_without_replicas_keeps_the_capacity_and_the_place_it_had() {
    let mut cluster = two(4, 0);
    cluster.seconds(60, 12);
    cluster.pools[L40S].engine = Some(Engine {
        state: State::Stale,
        ..ENGINE
    });
    cluster.pools[H100].engine = Some(ENGINE);
    let decision = cluster.seconds(30, 12);
    let cheap = &decision.variants[L40S];
    assert_eq!(cheap.capacities.len(), 1, "{decision}");
    assert!(cheap.capacities[0].due && cheap.capacities[0].age > Duration::from_secs(5));
    assert_eq!(decision.variants[H100].replicas, 0, "{decision}");
    assert!(
        decision.to_string().contains("its capacity is that of"),
        "{decision}"
    );
}

#[test]
fn a_variant_that_never_served_is_counted_like_the_others() {
    let mut cluster = two(2, 0);
    cluster.pools[H100].engine = None;
    cluster.controller.policy.variants[L40S].max = 2;
    let decision = cluster.seconds(60, 24);
    let per = rate(&decision.variants[L40S]);
    assert!(
        f64::from(decision.variants[H100].replicas + 2) * per >= 24.0,
        "{decision}"
    );
    assert!(
        decision.to_string().contains("counted like l40s"),
        "{decision}"
    );
}

#[test]
fn a_step_is_told_so_that_the_autoscaler_does_not_ignore_it() {
    let variant = VariantPolicy {
        quantise: Some(Tolerance::DEFAULT),
        ..variant("a", 1.0, 1, 100)
    };
    let mut cluster = Cluster::new(policy(vec![variant]), &[1]);
    let per = {
        let decision = cluster.seconds(30, 4);
        rate(&decision.variants[0])
    };
    for second in 0..240_u64 {
        let current = cluster.pools[0].existing();
        let decision = cluster.second((per * (3.0 + second as f64 / 12.0)) as u64);
        let told = decision.variants[0].replicas;
        let executed = desired(f64::from(told), 1.0, current, Tolerance::DEFAULT, 1, 100);
        assert_eq!(executed, told, "{current} → {told}");
    }
    assert!(cluster.pools[0].existing() > 20);
    let words = cluster.decisions.iter().any(|d| {
        d.to_string()
            .contains("the autoscaler ignores so small a step")
    });
    assert!(words);
}

#[test]
fn start_up_times_are_learned_and_looked_ahead_by() {
    let mut policy = policy(vec![variant("a", 1.0, 1, 40)]);
    let fallback = Duration::from_secs(120);
    policy.variants[0].startup = Startup::Auto { fallback };
    let mut cluster = Cluster::new(policy, &[1]);
    let decision = cluster.seconds(10, 4);
    assert_eq!(decision.variants[0].startup, fallback);
    let decision = cluster.seconds(240, 30);
    assert_eq!(decision.variants[0].startup.as_secs(), STARTUP);
    assert_eq!(
        decision.classes[0].forecast.unwrap().horizon.as_secs(),
        STARTUP
    );
}

#[test]
fn a_replaced_policy_keeps_what_was_learned_by_name() {
    let mut cluster = two(3, 0);
    let before = cluster.seconds(60, 12);
    let mut policy = cluster.controller.policy.clone();
    policy.variants.swap(0, 1);
    policy.variants.push(variant("b200", 9.0, 0, 5));
    cluster.controller.replace_policy(policy);
    cluster.pools.swap(0, 1);
    let new = Pool {
        engine: None,
        ..cluster.pools[1].clone()
    };
    cluster.pools.push(new);
    let after = cluster.second(12);
    assert_eq!(
        counts(&after),
        [before.variants[1].replicas, before.variants[0].replicas, 0],
        "{after}"
    );
    assert!(
        !after.changes() && after.variants[0].basis == Basis::Slo,
        "{after}"
    );
    assert_eq!(
        after.classes[0].demand.unwrap().window,
        before.classes[0].demand.unwrap().window
    );
}

#[test]
fn pressure_is_above_one_when_what_is_ready_does_not_do() {
    let mut cluster = two(4, 0);
    let decision = cluster.seconds(60, 8);
    assert!(decision.pressure.unwrap() < 1.0, "{:?}", decision.pressure);
    let per = rate(&decision.variants[L40S]);
    let ready = f64::from(cluster.pools[L40S].ready);
    let calm = decision.pressure.unwrap();
    let decision = cluster.seconds(4, (2.0 * per * ready) as u64);
    assert!(
        decision.pressure.unwrap() > 1.0 && decision.headroom.unwrap() < 0.0,
        "{:?} after {calm}",
        decision.pressure
    );
}

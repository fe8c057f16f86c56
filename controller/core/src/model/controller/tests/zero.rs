//! To zero, and from it.

use super::*;

fn zeroable(ready: u32) -> Cluster {
    Cluster::new(policy(vec![variant("a", 1.0, 0, 10)]), &[ready])
}

#[test]
fn nothing_is_left_after_the_idle_time_and_not_before() {
    let mut cluster = zeroable(2);
    cluster.seconds(30, 8);
    cluster.seconds(59, 0);
    assert!(
        cluster.counts()[30..].iter().all(|counts| counts[0] >= 1),
        "{:?}",
        cluster.counts()
    );
    let kept = cluster.decisions[80].to_string();
    assert!(
        kept.contains("no demand; none is needed after another"),
        "{kept}"
    );
    let decision = cluster.seconds(2, 0);
    assert_eq!(counts(&decision), [0], "{decision}");
    assert!(
        decision.to_string().contains("no demand for 60 s")
            || decision.to_string().contains("no demand for 61 s"),
        "{decision}"
    );
    let decision = cluster.seconds(300, 0);
    assert_eq!(
        (counts(&decision), decision.evidence),
        (vec![0], Evidence::Fresh)
    );
}

#[test]
fn a_long_answer_or_a_queue_keeps_it_alive_though_nothing_completes() {
    for (queued, in_flight) in [(0, 1), (1, 0)] {
        let mut cluster = zeroable(1);
        cluster.seconds(10, 4);
        (cluster.queued, cluster.in_flight) = (queued, in_flight);
        cluster.seconds(600, 0);
        assert!(cluster.counts().iter().all(|counts| counts[0] >= 1));
    }
}

#[test]
fn a_refused_request_or_a_held_one_wakes_it_at_once() {
    for model in [Some(ENGINE), None] {
        let mut cluster = zeroable(1);
        cluster.seconds(10, 4);
        cluster.seconds(80, 0);
        assert_eq!(cluster.pools[0].existing(), 0);
        cluster.pools[0].engine = model;
        let mut refused = cluster.clone();
        let decision = refused.second(1);
        assert_eq!(counts(&decision), [1], "{decision}");
        assert!(
            decision.evidence.is_fresh(),
            "the autoscaler must see it: {:?}",
            decision.evidence
        );
        cluster.queued = 1;
        let decision = cluster.look(1);
        assert_eq!(counts(&decision), [1], "{decision}");
        // It stays while the autoscaler, which looks only now and then, has not seen it.
        for _ in 0..20 {
            let decision = cluster.look(0);
            assert_eq!(
                (counts(&decision), decision.evidence.is_fresh()),
                (vec![1], true)
            );
        }
    }
}

#[test]
fn a_backlog_wakes_as_many_as_it_is_worth() {
    let mut cluster = zeroable(1);
    cluster.seconds(60, 8);
    cluster.seconds(80, 0);
    cluster.queued = 150;
    let decision = cluster.second(150);
    assert!(decision.variants[0].replicas > 1, "{decision}");
}

#[test]
fn only_the_cheapest_wakes_and_the_next_if_that_has_no_room() {
    let variants = vec![variant("h100", 4.0, 0, 10), variant("l40s", 1.0, 0, 10)];
    for model in [Some(ENGINE), None] {
        let mut cluster = Cluster::new(policy(variants.clone()), &[0, 0]);
        cluster
            .pools
            .iter_mut()
            .for_each(|pool| pool.engine = model);
        cluster.pools[1].room = 0;
        cluster.second(0);
        cluster.queued = 1;
        let decision = cluster.second(1);
        assert_eq!(counts(&decision), [0, 1], "{decision}");
        let decision = cluster.seconds(34, 0);
        assert_eq!(
            counts(&decision),
            [1, 1],
            "pending for too long: {decision}"
        );
    }
}

#[test]
fn nothing_goes_to_zero_or_wakes_on_what_is_not_known() {
    let mut cluster = zeroable(1);
    cluster.seconds(10, 4);
    cluster.silent = vec![Silent {
        id: "epp-1".into(),
        unheard: Duration::from_secs(9),
    }];
    let decision = cluster.seconds(300, 0);
    assert_eq!(
        counts(&decision),
        [1],
        "a silent picker may have requests: {decision}"
    );
    cluster.silent.clear();
    cluster.heard = 0;
    let decision = cluster.seconds(300, 0);
    assert_eq!(counts(&decision), [1], "{decision}");

    let mut asleep = zeroable(0);
    asleep.heard = 0;
    let decision = asleep.seconds(60, 0);
    assert_eq!(counts(&decision), [0], "{decision}");
    assert!(!decision.evidence.is_fresh());
}

#[test]
fn a_controller_that_has_just_started_leaves_a_sleeping_model_asleep() {
    let mut cluster = zeroable(0);
    let decision = cluster.second(1_000_000);
    assert_eq!(
        counts(&decision),
        [0],
        "what came before it is no arrival: {decision}"
    );
    assert!(decision.evidence.is_fresh());
    assert_eq!(counts(&cluster.seconds(100, 0)), [0]);
}

#[test]
fn it_does_not_flap_between_zero_and_one_on_sparse_traffic() {
    let mut cluster = zeroable(1);
    for second in 0..600 {
        cluster.second(u64::from(second % 50 == 0));
    }
    assert_eq!(
        turns(&cluster.counts(), 0),
        0,
        "every 50 s, with 60 s to zero"
    );
    assert!(cluster.counts().iter().all(|counts| counts[0] == 1));
}

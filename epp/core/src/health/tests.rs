//! One endpoint among others, on a virtual clock.

use super::*;
use crate::config::HealthRules;

const BASE: f64 = 10.0;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn watch() -> Watch {
    Watch::new(HealthRules::default())
}

fn answer(watch: &Watch, health: &Health, now: f64, status: u16) {
    let now = seconds(now);
    let mut visit = watch.dispatched(health, now);
    let fate = Fate::Answered(status);
    watch.ended(health, now, &mut visit, fate, None);
}

fn first_token(watch: &Watch, health: &Health, now: f64, times_p99: Option<f64>) {
    let now = seconds(now);
    let mut visit = watch.dispatched(health, now);
    watch.first_token(health, now, &mut visit, times_p99);
    let fate = Fate::Answered(200);
    watch.ended(health, now, &mut visit, fate, None);
}

fn standing(health: &Health, now: f64) -> Standing {
    health.standing(seconds(now), seconds(30.0))
}

fn ejected(until: f64) -> Standing {
    Standing::Ejected {
        until: seconds(until),
    }
}

#[test]
fn connections_that_fail_in_a_row_eject_and_each_time_for_longer() {
    let (watch, health) = (watch(), Health::default());
    (0..10).for_each(|_| answer(&watch, &health, 1.0, 200));
    answer(&watch, &health, 1.0, 503);
    answer(&watch, &health, 1.0, 502);
    answer(&watch, &health, 1.0, 200);
    answer(&watch, &health, 1.0, 504);
    answer(&watch, &health, 1.0, 503);
    assert_eq!(standing(&health, 1.0), Standing::Serving, "not in a row");
    answer(&watch, &health, 1.0, 503);
    assert_eq!(standing(&health, 1.0), ejected(1.0 + BASE));
    // A trial that fails doubles it, one that cannot tell leaves it to the next.
    answer(&watch, &health, 11.0, 503);
    assert_eq!(standing(&health, 11.0), ejected(11.0 + 2.0 * BASE));
    let mut visit = watch.dispatched(&health, seconds(31.0));
    assert_eq!(standing(&health, 31.0), Standing::Probing);
    watch.ended(&health, seconds(32.0), &mut visit, Fate::Left(None), None);
    assert_eq!(standing(&health, 32.0), Standing::HalfOpen);
    answer(&watch, &health, 32.0, 500);
    assert_eq!(standing(&health, 32.0), ejected(32.0 + 4.0 * BASE));
    let mut now = 32.0 + 4.0 * BASE;
    for _ in 0..20 {
        answer(&watch, &health, now, 503);
        let Standing::Ejected { until } = standing(&health, now) else {
            panic!("not ejected")
        };
        assert!(until <= seconds(now + 300.0));
        now = until.as_secs_f64();
    }
    assert_eq!(health.view(seconds(now)).ejections, [22, 1, 0, 0]);
}

#[test]
fn whoever_keeps_well_begins_again_at_the_base() {
    let (watch, health) = (watch(), Health::default());
    let fail = |now: f64| (0..3).for_each(|_| answer(&watch, &health, now, 503));
    fail(1.0);
    answer(&watch, &health, 11.0, 200);
    assert_eq!(
        standing(&health, 26.0),
        Standing::Ramping { share: 0.5 },
        "half of the slow start"
    );
    fail(40.0);
    assert_eq!(standing(&health, 40.0), ejected(60.0), "too soon");
    answer(&watch, &health, 60.0, 200);
    assert_eq!(standing(&health, 90.0), Standing::Serving);
    fail(121.0);
    assert_eq!(standing(&health, 121.0), ejected(131.0));
}

#[test]
fn errors_count_by_their_share_and_against_the_others() {
    let (watch, one, other) = (watch(), Health::default(), Health::default());
    for _ in 0..4 {
        answer(&watch, &one, 1.0, 500);
    }
    assert_eq!(standing(&one, 1.0), Standing::Serving, "too few");
    for _ in 0..6 {
        answer(&watch, &other, 1.0, 500);
    }
    answer(&watch, &one, 2.0, 500);
    assert_eq!(
        standing(&one, 2.0),
        Standing::Serving,
        "the same everywhere"
    );
    for _ in 0..14 {
        answer(&watch, &other, 3.0, 200);
    }
    answer(&watch, &one, 3.0, 500);
    assert_eq!(standing(&one, 3.0), ejected(13.0), "6 of 6 against 6 of 20");
    assert_eq!(standing(&other, 3.0), Standing::Serving);
    // Client errors are the client's.
    for _ in 0..50 {
        answer(&watch, &other, 4.0, 404);
    }
    assert_eq!(standing(&other, 4.0), Standing::Serving);
}

/// Engines say 503 as well when they have too much to do: that happens to all of them.
#[test]
fn connections_that_fail_everywhere_are_nobodys_fault() {
    let (watch, pool) = (watch(), [(); 4].map(|()| Health::default()));
    for round in 0..20 {
        for health in &pool {
            answer(&watch, health, 1.0 + 0.1 * f64::from(round), 503);
        }
    }
    for health in &pool {
        assert_eq!(standing(health, 3.0), Standing::Serving);
    }
}

#[test]
fn a_trial_that_fails_as_the_others_do_decides_nothing() {
    let (watch, one) = (watch(), Health::default());
    let others = [Health::default(), Health::default()];
    (0..3).for_each(|_| answer(&watch, &one, 1.0, 503));
    assert_eq!(standing(&one, 1.0), ejected(1.0 + BASE));
    // Meanwhile the rest has too much to do.
    for status in [503, 200].repeat(10) {
        for other in &others {
            answer(&watch, other, 5.0, status);
        }
    }
    answer(&watch, &one, 11.0, 503);
    assert_eq!(standing(&one, 11.0), Standing::HalfOpen, "not for longer");
    answer(&watch, &one, 11.0, 200);
    assert!(matches!(standing(&one, 11.0), Standing::Ramping { .. }));
}

#[test]
fn failures_an_hour_apart_are_not_in_a_row() {
    let (watch, health) = (watch(), Health::default());
    answer(&watch, &health, 1.0, 503);
    answer(&watch, &health, 2.0, 503);
    answer(&watch, &health, 3_600.0, 503);
    assert_eq!(standing(&health, 3_600.0), Standing::Serving);
}

/// Failures before an ejection are its own, not those of the others that it is compared with afterwards.
#[test]
fn an_endpoint_is_not_measured_by_its_own_past() {
    let (watch, one, other) = (watch(), Health::default(), Health::default());
    (0..5).for_each(|_| answer(&watch, &other, 1.0, 200));
    let cut = |now: f64| {
        let mut visit = watch.dispatched(&one, seconds(now));
        watch.ended(&one, seconds(now), &mut visit, Fate::Cut, None);
    };
    (0..5).for_each(|_| cut(1.0));
    assert_eq!(standing(&one, 1.0), ejected(11.0));
    answer(&watch, &one, 11.0, 200);
    (0..5).for_each(|_| cut(12.0));
    assert_eq!(standing(&one, 12.0), ejected(32.0));
}

#[test]
fn whoever_is_back_is_seen_to_ramp() {
    let (watch, health) = (watch(), Health::default());
    (0..3).for_each(|_| answer(&watch, &health, 1.0, 503));
    answer(&watch, &health, 11.0, 200);
    assert_eq!(
        health.view(seconds(26.0)).standing,
        Standing::Ramping { share: 0.5 }
    );
    assert_eq!(health.view(seconds(41.0)).standing, Standing::Serving);
}

#[test]
fn old_errors_are_forgotten() {
    let (watch, health) = (watch(), Health::default());
    for at in [1.0, 2.0, 3.0, 4.0] {
        answer(&watch, &health, at, 500);
    }
    answer(&watch, &health, 40.0, 500);
    assert_eq!(standing(&health, 40.0), Standing::Serving);
}

#[test]
fn first_tokens_far_beyond_the_prediction_eject() {
    let (watch, one, other) = (watch(), Health::default(), Health::default());
    for _ in 0..10 {
        first_token(&watch, &other, 1.0, Some(0.5));
    }
    for _ in 0..20 {
        first_token(&watch, &one, 1.0, None);
        first_token(&watch, &one, 1.0, Some(3.0));
    }
    assert_eq!(
        standing(&one, 1.0),
        Standing::Serving,
        "late, not an outlier"
    );
    for _ in 0..19 {
        first_token(&watch, &one, 2.0, Some(3.1));
    }
    assert_eq!(standing(&one, 2.0), Standing::Serving, "19 of 39");
    first_token(&watch, &one, 2.0, Some(3.1));
    assert_eq!(standing(&one, 2.0), ejected(12.0));
    assert_eq!(one.view(seconds(2.0)).ejections, [0, 0, 1, 0]);
}

#[test]
fn a_client_that_gave_up_far_beyond_the_prediction_counts_too() {
    let (watch, health) = (watch(), Health::default());
    let leave = |times| {
        let now = seconds(1.0);
        let mut visit = watch.dispatched(&health, now);
        watch.ended(&health, now, &mut visit, Fate::Left(times), None);
    };
    (0..20).for_each(|_| leave(Some(2.0)));
    (0..4).for_each(|_| leave(Some(9.0)));
    assert_eq!(standing(&health, 1.0), Standing::Serving);
    leave(Some(9.0));
    assert_eq!(standing(&health, 1.0), ejected(11.0), "5 of 5");
}

#[test]
fn streams_that_stand_still_eject() {
    let (watch, health) = (watch(), Health::default());
    let mut first = watch.dispatched(&health, seconds(0.0));
    assert!(
        !watch.check_stall(&health, seconds(100.0)),
        "nothing is told"
    );
    watch.progress(&health, seconds(100.0), &mut first);
    let mut second = watch.dispatched(&health, seconds(100.0));
    watch.progress(&health, seconds(110.0), &mut second);
    assert!(!watch.check_stall(&health, seconds(124.9)), "one moves");
    assert!(watch.check_stall(&health, seconds(125.0)));
    assert_eq!(standing(&health, 125.0), ejected(135.0));
    assert!(!watch.check_stall(&health, seconds(130.0)), "once");
    // Back in, those still hanging do not count any more, whenever they end.
    answer(&watch, &health, 135.0, 200);
    assert!(!watch.check_stall(&health, seconds(500.0)));
    let mut more = [(); 2].map(|()| watch.dispatched(&health, seconds(500.0)));
    for visit in &mut more {
        watch.progress(&health, seconds(500.0), visit);
    }
    for visit in [&mut first, &mut second] {
        watch.progress(&health, seconds(501.0), visit);
        watch.ended(&health, seconds(501.0), visit, Fate::Cut, None);
    }
    assert!(watch.check_stall(&health, seconds(516.0)), "the new ones");
    assert_eq!(health.view(seconds(516.0)).ejections, [0, 0, 0, 2]);
}

/// Its chunks stop to come as well when its client stops to read.
#[test]
fn one_stream_that_stands_still_is_no_witness() {
    let (watch, health) = (watch(), Health::default());
    let mut one = watch.dispatched(&health, seconds(0.0));
    watch.progress(&health, seconds(0.0), &mut one);
    assert!(!watch.check_stall(&health, seconds(100.0)));
    assert_eq!(standing(&health, 100.0), Standing::Serving);
}

#[test]
fn a_slow_engine_may_be_silent_for_longer() {
    let (watch, health) = (watch(), Health::default());
    let mut visit = watch.dispatched(&health, seconds(0.0));
    let fate = Fate::Answered(200);
    watch.ended(&health, seconds(0.0), &mut visit, fate, Some(300.0));
    for _ in 0..2 {
        let mut visit = watch.dispatched(&health, seconds(0.0));
        watch.progress(&health, seconds(1.0), &mut visit);
    }
    assert!(!watch.check_stall(&health, seconds(30.9)), "100 · 300 ms");
    assert!(watch.check_stall(&health, seconds(31.1)));
}

#[test]
fn a_visit_ends_once() {
    let (watch, health) = (watch(), Health::default());
    let mut visit = watch.dispatched(&health, seconds(1.0));
    for _ in 0..9 {
        let fate = Fate::Answered(503);
        watch.ended(&health, seconds(1.0), &mut visit, fate, None);
    }
    assert_eq!(standing(&health, 1.0), Standing::Serving);
}

#[test]
fn standings_fit_one_word() {
    for mark in [
        Mark::Serving,
        Mark::Ejected(0),
        Mark::Ejected(Mark::TIME),
        Mark::Probing,
        Mark::Ramping(1_234),
    ] {
        assert_eq!(Mark::decode(mark.encode()), mark);
    }
}

/// Answers that broke off, one after the other; how many of them are held against the endpoint.
fn broken(watch: &Watch, health: &Health, now: f64, count: usize) -> usize {
    let now = seconds(now);
    let visits: Vec<_> = (0..count).map(|_| watch.dispatched(health, now)).collect();
    let blamed = visits.into_iter().filter_map(|mut visit| {
        let fate = Fate::Broken(None);
        watch
            .ended(health, now, &mut visit, fate, None)
            .then_some(())
    });
    blamed.count()
}

#[test]
fn answers_that_break_off_eject_where_those_of_others_do_not() {
    let (watch, one, other) = (watch(), Health::default(), Health::default());
    assert_eq!(broken(&watch, &one, 1.0, 50), 0, "nothing to compare with");
    assert_eq!(standing(&one, 1.0), Standing::Serving);
    // Clients leave everywhere.
    assert_eq!(broken(&watch, &other, 1.0, 50), 0);
    assert_eq!(standing(&other, 1.0), Standing::Serving);
    // One server dies with all that is on it.
    for _ in 0..20 {
        answer(&watch, &one, 60.0, 200);
        answer(&watch, &other, 60.0, 200);
    }
    assert_eq!(broken(&watch, &other, 60.0, 2), 0);
    assert_eq!(
        broken(&watch, &one, 60.0, 30),
        11,
        "the 20th of 40, and all after it"
    );
    assert_eq!(standing(&one, 60.0), ejected(70.0));
    assert_eq!(one.view(seconds(60.0)).ejections, [0, 1, 0, 0]);
    assert_eq!(standing(&other, 60.0), Standing::Serving);
}

#[test]
fn a_trial_whose_answer_breaks_off_is_left_to_the_next() {
    let (watch, health) = (watch(), Health::default());
    (0..3).for_each(|_| answer(&watch, &health, 1.0, 503));
    assert_eq!(broken(&watch, &health, 11.0, 1), 0);
    assert_eq!(standing(&health, 11.0), Standing::HalfOpen);
}

#[test]
fn a_client_that_gives_up_on_its_first_token_breaks_nothing_off() {
    let (watch, health, other) = (watch(), Health::default(), Health::default());
    (0..9).for_each(|_| answer(&watch, &other, 1.0, 200));
    for _ in 0..5 {
        let mut visit = watch.dispatched(&health, seconds(1.0));
        let fate = Fate::Broken(Some(9.0));
        assert!(!watch.ended(&health, seconds(1.0), &mut visit, fate, None));
    }
    assert_eq!(health.view(seconds(1.0)).ejections, [0, 0, 1, 0]);
}

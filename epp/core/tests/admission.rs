//! SLO admission and prediction-led picks, with a trained model.

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::{Config, Director, Outcome, Pool, Request};
use support::{
    complete, dispatched, pool, refused, request, seconds, trained_model, updated, warm, with_slo,
};

fn headroom(pool: &Arc<Pool>, concurrency: u32) -> Director {
    let mut director = Director::new(
        Config::headroom_default().with_max_concurrency(concurrency),
        1,
    );
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director
}

#[test]
fn sheddable_requests_are_refused_when_no_endpoint_can_serve_in_time() {
    let pool = pool(2);
    warm(&pool);
    let mut director = headroom(&pool, 4);
    director.set_model(trained_model());
    // About 50 + 0.5·100 = 100 ms on an idle endpoint.
    director.submit(Duration::ZERO, with_slo(-1, 30.0));
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.status, refusal.reason),
        (429, "rejected-slo-unattainable")
    );
    assert_eq!(refusal.retry_after, Some(seconds(1.0)));
    director.submit(
        Duration::ZERO,
        Request {
            shed: true,
            ..with_slo(3, 30.0)
        },
    );
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedSlo);
    director.submit(Duration::ZERO, with_slo(-1, 400.0));
    assert!(!dispatched(&mut director).decision.expected_miss);
    // Not sheddable: dispatched, and counted as an expected miss.
    director.submit(Duration::ZERO, with_slo(0, 30.0));
    let dispatch = dispatched(&mut director);
    assert!(dispatch.decision.expected_miss && dispatch.decision.trusted);
    director.submit(Duration::ZERO, request(-1));
    assert!(
        !dispatched(&mut director).decision.expected_miss,
        "no SLO, no refusal"
    );
    let totals = director.demand().totals();
    assert_eq!(
        totals
            .bands
            .iter()
            .map(|band| band.expected_misses)
            .sum::<u64>(),
        1
    );
    assert_eq!(totals.outcome(Outcome::RejectedSlo).requests, 2);
}

#[test]
fn an_untrained_model_or_a_cold_endpoint_admits() {
    let first = pool(1);
    let mut director = headroom(&first, 4);
    director.submit(Duration::ZERO, with_slo(-1, 1.0));
    assert!(!dispatched(&mut director).decision.trusted, "prior");
    director.set_model(trained_model());
    director.submit(Duration::ZERO, with_slo(-1, 1.0));
    dispatched(&mut director);
    warm(&first);
    director.submit(Duration::ZERO, with_slo(-1, 1.0));
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedSlo);
    director.set_pool(Duration::ZERO, updated(&first, 0..2));
    director.submit(Duration::ZERO, with_slo(-1, 1.0));
    dispatched(&mut director);
}

#[test]
fn the_expected_wait_is_checked_on_arrival_and_the_real_one_at_dispatch() {
    let pool = pool(1);
    warm(&pool);
    let mut director = headroom(&pool, 1);
    director.set_model(trained_model());
    director.submit(Duration::ZERO, request(0));
    let mut running = dispatched(&mut director);
    for _ in 0..6 {
        director.submit(Duration::ZERO, request(0));
    }
    // One leaves each second: after three, three wait at one per second (less what one dispatch is added).
    for second in 1..=3 {
        running
            .in_flight
            .finish(seconds(f64::from(second)), complete(5));
        director.advance(seconds(f64::from(second)));
        running = dispatched(&mut director);
    }
    assert_eq!(director.queued().total().requests, 3);
    director.submit(seconds(3.0), with_slo(-1, 1_000.0));
    let refusal = refused(&mut director);
    assert_eq!(
        refusal.outcome,
        Outcome::RejectedSlo,
        "three ahead cannot leave within a second"
    );
    assert!(refusal.retry_after >= Some(seconds(2.0)), "{refusal:?}");
    let patient = director.submit(seconds(3.0), with_slo(-1, 8_000.0));
    assert!(director.poll().is_none(), "eight seconds may do");
    // The three ahead leave, but only much later: at dispatch the wait has eaten the SLO.
    for _ in 0..3 {
        running.in_flight.finish(seconds(12.0), complete(5));
        director.advance(seconds(12.0));
        running = dispatched(&mut director);
    }
    running.in_flight.finish(seconds(12.0), complete(5));
    director.advance(seconds(12.0));
    let Some((ticket, epp_core::Verdict::Refused(refusal))) = director.poll() else {
        panic!("not refused")
    };
    assert_eq!((ticket, refusal.outcome), (patient, Outcome::RejectedSlo));
}

#[test]
fn headroom_prefers_the_shortest_predicted_time_to_first_token() {
    let pool = pool(2);
    warm(&pool);
    let mut director = headroom(&pool, 8);
    director.set_model(trained_model());
    let long = Request {
        prompt_tokens: 1_500,
        ..request(0)
    };
    director.submit(Duration::ZERO, long);
    let busy = dispatched(&mut director);
    for _ in 0..2 {
        director.submit(Duration::ZERO, with_slo(1, 5_000.0));
        let dispatch = dispatched(&mut director);
        assert_ne!(
            dispatch.endpoint.name, busy.endpoint.name,
            "a long prefill is ahead there"
        );
        let prediction = dispatch.decision.prediction.unwrap();
        assert!(prediction.ttft.p50 < 400.0, "{prediction:?}");
        assert!(dispatch.decision.trusted);
    }
}

#[test]
fn without_flow_control_the_slo_is_checked_all_the_same() {
    let pool = pool(1);
    warm(&pool);
    let config = Config {
        flow: None,
        ..Config::headroom_default()
    };
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    director.set_model(trained_model());
    director.submit(Duration::ZERO, with_slo(-1, 30.0));
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedSlo);
    director.submit(Duration::ZERO, with_slo(-1, 400.0));
    dispatched(&mut director);
}

#[test]
fn without_the_admitter_nothing_is_refused_for_its_slo() {
    let pool = pool(1);
    warm(&pool);
    let config = Config {
        slo_admitter: None,
        ..Config::headroom_default()
    };
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    director.set_model(trained_model());
    director.submit(Duration::ZERO, with_slo(-1, 30.0));
    assert!(dispatched(&mut director).decision.expected_miss);
}

#[test]
fn time_without_an_endpoint_says_nothing_about_how_fast_the_queue_drains() {
    let mut director = Director::new(Config::headroom_default().with_max_concurrency(1), 1);
    let pool = pool(1);
    warm(&pool);
    director.set_model(trained_model());
    for _ in 0..3 {
        director.submit(seconds(10.0), request(0));
    }
    director.set_pool(seconds(19.5), pool);
    let running = dispatched(&mut director);
    director.submit(seconds(19.51), with_slo(-1, 5_000.0));
    assert!(
        director.poll().is_none(),
        "shed for a wait in which there was no server"
    );
    drop(running);
}

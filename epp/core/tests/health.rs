//! Passive health and fall-backs, as a request through the director meets them.

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::{Config, Director, End, EndpointSpec, Outcome, Pool, Request, Slo, Standing};
use support::{complete, dispatched, pool, request, seconds};

fn director(config: Config, pool: &Arc<Pool>) -> Director {
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director
}

fn with_tpot(priority: i32, tpot_ms: f64) -> Request {
    Request {
        slo: Slo {
            ttft_ms: None,
            tpot_ms: Some(tpot_ms),
        },
        ..request(priority)
    }
}

fn answered(status: u16) -> End {
    End::Complete {
        status,
        streaming: true,
        prompt_tokens: None,
        cached_tokens: None,
        output_tokens: None,
    }
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_left_alone() {
    let pool = pool(3);
    let mut director = director(Config::headroom_default(), &pool);
    let mut failures = 0;
    for _ in 0..60 {
        director.submit(seconds(1.0), request(0));
        let dispatch = dispatched(&mut director);
        let broken = &*dispatch.endpoint.name == "e1";
        failures += u32::from(broken);
        let end = if broken { answered(503) } else { complete(2) };
        dispatch.in_flight.finish(seconds(1.0), end);
        director.advance(seconds(1.0));
    }
    assert_eq!(failures, 3);
    let view = pool.endpoints[1].load.health.view(seconds(1.0));
    assert_eq!(
        view.standing,
        Standing::Ejected {
            until: seconds(11.0)
        }
    );
    assert_eq!(view.ejections, [1, 0, 0, 0]);
    // The pool is updated: it is still the same endpoint.
    let specs = ["e0", "e1", "e2", "e3"]
        .iter()
        .enumerate()
        .map(|(number, name)| EndpointSpec {
            name: (*name).into(),
            address: format!("10.0.0.{}:8000", number + 1),
            labels: [("x".to_owned(), "y".to_owned())].into(),
        });
    director.set_pool(seconds(2.0), Arc::new(pool.updated(specs.collect())));
    for _ in 0..30 {
        director.submit(seconds(2.0), request(0));
        assert_ne!(&*dispatched(&mut director).endpoint.name, "e1");
    }
}

#[test]
fn nothing_is_ejected_unless_it_is_asked_for() {
    let pool = pool(2);
    let mut director = director(Config::llmd_default(), &pool);
    for _ in 0..20 {
        director.submit(seconds(1.0), request(0));
        let dispatch = dispatched(&mut director);
        dispatch.in_flight.finish(seconds(1.0), answered(503));
    }
    for endpoint in &pool.endpoints {
        let view = endpoint.load.health.view(seconds(1.0));
        assert_eq!((view.standing, view.ejections), (Standing::Serving, [0; 4]));
    }
}

#[test]
fn fallbacks_are_ordered_and_the_booking_follows_who_served() {
    let pool = pool(3);
    let mut fallbacks = Config::headroom_default();
    fallbacks.profile.endpoints = 3;
    let mut director = director(fallbacks, &pool);
    director.submit(Duration::ZERO, with_tpot(0, 900.0));
    let mut dispatch = dispatched(&mut director);
    assert_eq!(dispatch.fallbacks.len(), 2);
    let (picked, served) = (
        Arc::clone(&dispatch.endpoint),
        Arc::clone(&dispatch.fallbacks[0]),
    );
    dispatch
        .in_flight
        .served_by(seconds(0.1), Arc::clone(&picked), true);
    assert_eq!(picked.load.snapshot().in_flight, 1, "nothing moved");
    dispatch
        .in_flight
        .served_by(seconds(0.1), Arc::clone(&served), true);
    let (left, now) = (picked.load.snapshot(), served.load.snapshot());
    assert_eq!(
        (left.in_flight, left.waiting_tokens, left.tightest_tpot_ms),
        (0, 0, None)
    );
    assert_eq!(
        (now.in_flight, now.waiting_tokens, now.tightest_tpot_ms),
        (1, 100, Some(900))
    );
    assert_eq!(
        dispatch.in_flight.first_token(seconds(0.2)),
        None,
        "teaches nothing"
    );
    dispatch.in_flight.emitted(5);
    assert_eq!(served.load.snapshot().resident_tokens, 105);
    let completion = dispatch.in_flight.finish(seconds(0.5), complete(6));
    assert_eq!(completion.outcome, Outcome::Served);
    assert!(completion.observations.is_empty());
    let after = served.load.snapshot();
    assert_eq!(
        (
            after.in_flight,
            after.resident_tokens,
            after.tightest_tpot_ms
        ),
        (0, 0, None)
    );
    // Later still, with tokens already there, everything moves as well.
    director.submit(seconds(1.0), request(0));
    let mut dispatch = dispatched(&mut director);
    let (picked, served) = (
        Arc::clone(&dispatch.endpoint),
        Arc::clone(&dispatch.fallbacks[1]),
    );
    dispatch.in_flight.first_token(seconds(1.1));
    dispatch.in_flight.emitted(7);
    dispatch
        .in_flight
        .served_by(seconds(1.2), Arc::clone(&served), true);
    assert_eq!(served.load.snapshot().resident_tokens, 107);
    drop(dispatch);
    for endpoint in [picked, served] {
        let load = endpoint.load.snapshot();
        assert_eq!(
            (load.in_flight, load.resident_tokens, load.waiting_tokens),
            (0, 0, 0)
        );
    }
}

#[test]
fn who_could_not_be_reached_three_times_is_ejected_and_who_was_not_tried_is_not() {
    for (tried, ejected) in [(true, [1, 0, 0, 0]), (false, [0; 4])] {
        assert_eq!(passed_over(tried), (ejected, [0; 4]));
    }
}

/// Ejections by fault of the two endpoints, after the proxy passed over the first whenever it was picked.
fn passed_over(tried: bool) -> ([u64; 4], [u64; 4]) {
    let pool = pool(2);
    let mut fallbacks = Config::headroom_default();
    fallbacks.profile.endpoints = 2;
    let mut director = director(fallbacks, &pool);
    for _ in 0..60 {
        director.submit(seconds(1.0), request(0));
        let mut dispatch = dispatched(&mut director);
        if &*dispatch.endpoint.name == "e0" {
            let other = Arc::clone(&pool.endpoints[1]);
            dispatch.in_flight.served_by(seconds(1.0), other, tried);
        }
        dispatch.in_flight.finish(seconds(1.0), complete(2));
        director.advance(seconds(1.0));
    }
    let ejections = |slot: usize| {
        pool.endpoints[slot]
            .load
            .health
            .view(seconds(1.0))
            .ejections
    };
    (ejections(0), ejections(1))
}

/// An answer that does not stream shows no first token, so nothing can be late about it.
#[test]
fn who_waits_for_a_whole_answer_tells_nothing_by_leaving() {
    for (streams, evicted, ejections) in [(true, false, 1), (true, true, 0), (false, false, 0)] {
        let pool = pool(2);
        support::warm(&pool);
        let mut director = director(Config::headroom_default(), &pool);
        director.set_model(support::trained_model());
        for number in 0..12 {
            let now = seconds(0.1 * f64::from(number));
            let request = Request {
                streams,
                ..request(0)
            };
            director.submit(now, request);
            let dispatch = dispatched(&mut director);
            assert!(dispatch.decision.trusted);
            let there = &*dispatch.endpoint.name == "e0";
            let end = match (there, evicted) {
                (true, true) => End::Evicted,
                (true, false) => End::ClientGone,
                _ => complete(2),
            };
            dispatch.in_flight.finish(now + seconds(60.0), end);
        }
        let view = pool.endpoints[0].load.health.view(seconds(61.2));
        let seen: u64 = view.ejections.iter().sum();
        assert_eq!(seen, ejections, "streams: {streams}, evicted: {evicted}");
    }
}

//! Another configuration while requests wait and run, and the time for which the first ones after a pause wait for fresh
//! readings.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use epp_core::config::{
    BandConfig, Fairness, Ordering, Picker, Scorer, SessionAffinity, SessionIdSource,
    SessionStrategy, WeightedScorer,
};
use epp_core::{Config, Director, Outcome, Request, Scraped, Ticket, Verdict};
use support::{complete, dispatched, pool, refused, request, seconds};

/// Round robin with a queue, one request per endpoint.
fn queueing() -> Config {
    Config::round_robin().with_max_concurrency(1)
}

fn director(config: Config, endpoints: usize) -> Director {
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, pool(endpoints));
    director
}

fn of_flow(flow: &str, priority: i32) -> Request {
    Request {
        flow: flow.into(),
        ..request(priority)
    }
}

/// Serves everything that waits, one request after the other, and tells the order.
fn served(director: &mut Director, now: Duration) -> Vec<Ticket> {
    let mut order = Vec::new();
    while let Some((ticket, verdict)) = director.poll() {
        let Verdict::Dispatched(dispatch) = verdict else {
            panic!("refused: {verdict:?}");
        };
        dispatch.in_flight.finish(now, complete(1));
        director.advance(now);
        order.push(ticket);
    }
    order
}

/// One scorer that prefers a short queue, or one that prefers an empty KV cache.
fn preferring(scorer: Scorer) -> Config {
    let mut config = Config::default();
    config.profile.scorers = vec![WeightedScorer {
        name: "only".into(),
        weight: 1.0,
        scorer,
    }];
    config.prefix = None;
    config
}

#[test]
fn the_next_pick_goes_by_the_new_weights() {
    let mut director = director(preferring(Scorer::Queue), 2);
    let scraped = |waiting, kv_utilization| Scraped {
        at: Duration::ZERO,
        waiting,
        running: 0.0,
        kv_utilization,
        block_tokens: None,
        kv_blocks: None,
    };
    let endpoints = director.pool().endpoints.clone();
    endpoints[0].set_scraped(scraped(1.0, 0.1));
    endpoints[1].set_scraped(scraped(0.0, 0.6));
    let picked = |director: &mut Director| {
        director.submit(Duration::ZERO, request(0));
        let name = dispatched(director).endpoint.name.to_string();
        // What is sent since a scrape would count into the queue.
        endpoints[0].set_scraped(scraped(1.0, 0.1));
        endpoints[1].set_scraped(scraped(0.0, 0.6));
        name
    };
    assert_eq!(picked(&mut director), "e1");
    director.set_config(Duration::ZERO, preferring(Scorer::KvUtilization));
    assert_eq!(picked(&mut director), "e0");
}

#[test]
fn who_waits_keeps_ticket_place_and_deadline() {
    let mut config = queueing();
    let flow = config.flow.as_mut().unwrap();
    flow.bands.insert(5, BandConfig::default());
    flow.request_ttl = Some(seconds(60.0));
    let mut director = director(config.clone(), 1);
    director.submit(seconds(0.0), request(0));
    let running = dispatched(&mut director);
    let first = director.submit(seconds(1.0), request(0));
    let high = director.submit(seconds(2.0), request(5));
    let flow = config.flow.as_mut().unwrap();
    flow.bands.clear();
    flow.default_band.ordering = Ordering::Edf;
    flow.default_band.fairness = Fairness::RoundRobin;
    flow.default_band.max_requests = 1;
    flow.request_ttl = Some(seconds(2.0));
    director.set_config(seconds(3.0), config);
    assert!(director.poll().is_none(), "nobody is turned out");
    assert_eq!(director.queued().total().requests, 2);
    director.submit(seconds(3.0), request(0));
    let refusal = refused(&mut director);
    assert_eq!(refusal.outcome, Outcome::RejectedCapacity, "the new limit");
    director.advance(seconds(59.0));
    assert!(director.poll().is_none(), "the old time to live");
    running.in_flight.finish(seconds(59.0), complete(1));
    director.advance(seconds(59.0));
    assert_eq!(served(&mut director, seconds(59.0)), [high, first]);
    let bands = director.queued().bands;
    assert_eq!(bands.len(), 2, "it is forgotten when it was idle for long");
}

#[test]
fn another_order_or_fairness_is_for_those_who_come_later() {
    let mut config = queueing();
    let mut director = director(config.clone(), 1);
    director.submit(seconds(0.0), request(0));
    let running = dispatched(&mut director);
    let patient = Request {
        ttl: Some(seconds(50.0)),
        ..of_flow("a", 0)
    };
    let hasty = Request {
        ttl: Some(seconds(20.0)),
        ..of_flow("a", 0)
    };
    let before = [patient.clone(), hasty.clone()].map(|one| director.submit(seconds(1.0), one));
    let band = &mut config.flow.as_mut().unwrap().default_band;
    (band.ordering, band.fairness) = (Ordering::Edf, Fairness::RoundRobin);
    director.set_config(seconds(2.0), config.clone());
    let after = [patient, hasty].map(|one| director.submit(seconds(3.0), one));
    let other = director.submit(seconds(3.0), of_flow("b", 0));
    running.in_flight.finish(seconds(4.0), complete(1));
    director.advance(seconds(4.0));
    let order = served(&mut director, seconds(4.0));
    assert_eq!(order, [before[0], other, before[1], after[1], after[0]]);
}

#[test]
fn more_room_is_used_at_once() {
    let mut director = director(queueing(), 1);
    for _ in 0..3 {
        director.submit(seconds(0.0), request(0));
    }
    let _running = dispatched(&mut director);
    director.set_config(seconds(1.0), queueing().with_max_concurrency(2));
    assert_eq!(dispatched(&mut director).waited, seconds(1.0));
    assert!(director.poll().is_none());
}

#[test]
fn sessions_are_remembered_as_long_as_their_part_is_the_same() {
    let affinity = || SessionAffinity {
        strategy: SessionStrategy::SessionId,
        sources: vec![SessionIdSource::Name("x-session".into())],
        ..SessionAffinity::default()
    };
    let config = |weight, picker| {
        let mut config = Config::round_robin();
        config.profile.scorers = vec![WeightedScorer {
            name: "session".into(),
            weight,
            scorer: Scorer::Session(affinity()),
        }];
        config.profile.picker = picker;
        config
    };
    let mut director = director(config(1.0, Picker::MaxScore), 8);
    let of_session = || Request {
        headers: vec![("x-session".into(), "s".to_owned())],
        ..request(0)
    };
    let picked = |director: &mut Director| {
        director.submit(Duration::ZERO, of_session());
        dispatched(director).endpoint.name.to_string()
    };
    let bound = picked(&mut director);
    director.set_config(Duration::ZERO, config(7.0, Picker::MaxScore));
    for _ in 0..20 {
        assert_eq!(picked(&mut director), bound);
    }
}

#[test]
fn the_first_after_a_pause_waits_for_readings_at_most_as_long_as_it_may() {
    let ms = Duration::from_millis;
    let mut director = director(Config::default(), 2);
    director.await_readings(ms(1_000), ms(1_100));
    let first = director.submit(ms(1_000), request(0));
    let second = director.submit(ms(1_020), request(-1));
    assert!(director.poll().is_none());
    assert_eq!(
        (director.held(), director.next_wakeup()),
        (2, Some(ms(1_100)))
    );
    director.readings_came(ms(1_030));
    let verdicts: Vec<_> = std::iter::from_fn(|| director.poll()).collect();
    let order: Vec<_> = verdicts.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(order, [first, second]);
    let Verdict::Dispatched(dispatch) = &verdicts[0].1 else {
        panic!("there is room")
    };
    assert_eq!(dispatch.waited, ms(30));
    assert_eq!(director.next_wakeup(), None);

    director.await_readings(ms(9_000), ms(9_100));
    director.submit(ms(9_010), request(0));
    director.advance(ms(9_099));
    assert!(director.poll().is_none());
    director.advance(ms(9_100));
    assert_eq!(dispatched(&mut director).waited, ms(90));
    director.submit(ms(9_100), request(0));
    assert_eq!(dispatched(&mut director).waited, Duration::ZERO);
}

#[test]
fn nobody_is_held_beyond_their_own_time_to_live() {
    let ms = Duration::from_millis;
    let mut director = director(queueing(), 2);
    director.await_readings(ms(0), ms(1_000));
    director.submit(ms(0), request(0));
    let hurried = Request {
        ttl: Some(ms(50)),
        ..request(0)
    };
    director.submit(ms(10), hurried);
    assert_eq!(director.next_wakeup(), Some(ms(60)));
    director.advance(ms(60));
    let waits = [dispatched(&mut director), dispatched(&mut director)].map(|it| it.waited);
    assert_eq!(waits, [ms(60), ms(50)]);
}

#[test]
fn who_is_held_can_leave_and_is_refused_at_the_end() {
    let ms = Duration::from_millis;
    let mut director = director(queueing(), 2);
    director.await_readings(ms(0), ms(100));
    let leaving = director.submit(ms(0), request(0));
    director.submit(ms(1), request(0));
    director.cancel(ms(2), leaving);
    assert_eq!(
        refused(&mut director).outcome,
        Outcome::EvictedContextCancelled
    );
    assert_eq!(director.held(), 1);
    director.drain(ms(3));
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedOther);
    assert_eq!(director.held(), 0);
}

#[test]
fn many_at_once_are_not_held() {
    let ms = Duration::from_millis;
    let mut director = director(Config::default(), 2);
    director.await_readings(ms(0), ms(100));
    for _ in 0..256 {
        director.submit(ms(1), request(0));
    }
    assert!(director.poll().is_none());
    director.submit(ms(2), request(0));
    assert_eq!(director.held(), 0);
    assert_eq!(std::iter::from_fn(|| director.poll()).count(), 257);
}

//! Requests in flight that make room for others: who, when, how many, and what is counted.

mod support;

use std::time::Duration;

use epp_core::config::FlowConfig;
use epp_core::{Config, Director, Dispatch, End, Outcome, Ticket};
use support::{complete, dispatched, pool, request, seconds};

/// Round robin over one endpoint that takes `concurrency`, eviction on.
fn evicting(concurrency: u32) -> Director {
    let flow = FlowConfig {
        eviction: true,
        ..FlowConfig::default()
    };
    let config = Config {
        flow: Some(flow),
        ..Config::round_robin().with_max_concurrency(concurrency)
    };
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, pool(1));
    director
}

fn running(director: &mut Director, priorities: &[i32]) -> Vec<(Ticket, Dispatch)> {
    let one = |&priority: &i32| {
        let ticket = director.submit(Duration::ZERO, request(priority));
        (ticket, *dispatched(director))
    };
    priorities.iter().map(one).collect()
}

fn named(director: &mut Director) -> Vec<Ticket> {
    std::iter::from_fn(|| director.poll_eviction())
        .map(|(ticket, reason)| {
            assert_eq!(reason, "evicted-priority");
            ticket
        })
        .collect()
}

#[test]
fn a_waiting_request_takes_the_place_of_the_lowest_and_newest() {
    let mut director = evicting(4);
    let mut held = running(&mut director, &[-1, -3, -3, 0]);
    assert_eq!(
        held.iter()
            .map(|(_, it)| it.in_flight.evictable().is_some())
            .collect::<Vec<_>>(),
        [true, true, true, false]
    );
    let waits = director.submit(seconds(1.0), request(2));
    assert!(director.poll().is_none());
    assert_eq!(named(&mut director), [held[2].0]);
    // Nothing more happens before that one has ended.
    director.submit(seconds(1.0), request(2));
    director.advance(seconds(2.0));
    assert!(named(&mut director).is_empty());
    let (_, evicted) = held.remove(2);
    let completion = evicted.in_flight.finish(seconds(2.5), End::Evicted);
    assert_eq!(completion.outcome, Outcome::Evicted);
    director.advance(seconds(2.5));
    let (ticket, _runs) = director.poll().unwrap();
    assert_eq!(ticket, waits);
    // The other waits for the grace, then the next goes.
    let due = director.next_wakeup().unwrap();
    assert_eq!(due, seconds(2.51));
    director.advance(due);
    assert_eq!(named(&mut director), [held[1].0]);
    let counts = director.revocations();
    assert_eq!(
        (counts.pending(), counts.outcomes()[0]),
        (1, ("evicted", 1))
    );
    assert!((counts.confirmations().sum - 1.5).abs() < 1e-9);
    let flows = director.demand().flows();
    let evicted = flows
        .iter()
        .map(|flow| flow.evicted().requests)
        .sum::<u64>();
    assert_eq!(evicted, 1);
}

#[test]
fn nobody_is_evicted_for_an_equal_or_without_anybody_waiting() {
    let mut director = evicting(2);
    let held = running(&mut director, &[-1, -1]);
    director.submit(seconds(1.0), request(-1));
    director.submit(seconds(1.0), request(-4));
    director.advance(seconds(1.0));
    assert!(named(&mut director).is_empty());
    director.submit(seconds(2.0), request(0));
    assert_eq!(named(&mut director), [held[1].0]);
}

#[test]
fn one_that_ends_by_itself_counts_as_finished() {
    let mut director = evicting(1);
    let mut held = running(&mut director, &[-1]);
    director.submit(seconds(1.0), request(0));
    assert_eq!(named(&mut director).len(), 1);
    let (_, ended) = held.remove(0);
    ended.in_flight.finish(seconds(1.0), complete(3));
    director.advance(seconds(1.0));
    dispatched(&mut director);
    assert_eq!(director.revocations().outcomes()[1], ("finished", 1));
    assert_eq!(
        director
            .demand()
            .totals()
            .outcome(Outcome::Evicted)
            .requests,
        0
    );
}

#[test]
fn a_pool_that_shrank_gives_up_two_at_a_time() {
    let mut director = evicting(2);
    let both = pool(2);
    director.set_pool(Duration::ZERO, both.clone());
    let held = running(&mut director, &[-1, -1, -1, -1]);
    let last = epp_core::Pool {
        endpoints: vec![both.endpoints[0].clone()],
    };
    director.set_pool(Duration::ZERO, last.into());
    director.submit(seconds(1.0), request(1));
    // Two run on the endpoint that is left and fill it: one must go.
    assert_eq!(named(&mut director), [held[3].0]);
}

#[test]
fn nothing_is_evicted_unless_it_is_on() {
    let mut director = evicting(1);
    let config = Config::round_robin().with_max_concurrency(1);
    let mut off = Director::new(config, 1);
    off.set_pool(Duration::ZERO, pool(1));
    for director in [&mut director, &mut off] {
        director.submit(Duration::ZERO, request(-1));
    }
    let (on, without) = (dispatched(&mut director), dispatched(&mut off));
    assert!(on.in_flight.evictable().is_some() && without.in_flight.evictable().is_none());
    off.submit(seconds(1.0), request(9));
    off.advance(seconds(5.0));
    assert!(off.poll_eviction().is_none());
}

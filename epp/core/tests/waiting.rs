//! Who waits for room, and who looks when it comes about.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::peers::{Exchange, SILENCE};
use epp_core::{
    Config, Director, End, EndpointSpec, Outcome, Pool, Request, Scraped, Ticket, Verdict,
};
use support::{
    complete, dispatched, pool, refused, request, seconds, trained_model, warm, with_slo,
};

fn config(lines: &str) -> Config {
    let head =
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\n";
    Config::from_yaml(&format!("{head}{lines}")).unwrap()
}

fn director(config: Config, pool: &Arc<Pool>) -> Director {
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director
}

fn scraped(at: f64, waiting: f32, kv_utilization: f32) -> Scraped {
    Scraped {
        at: seconds(at),
        waiting,
        running: 0.0,
        kv_utilization,
        block_tokens: None,
        kv_blocks: None,
    }
}

fn with_ranges(ranges: &[&str]) -> Arc<Pool> {
    let spec = |(number, range): (usize, &&str)| EndpointSpec {
        name: format!("e{number}"),
        address: format!("10.0.0.{}:8000", number + 1),
        labels: [(
            "llm-d.ai/context-length-range".to_owned(),
            (*range).to_owned(),
        )]
        .into(),
    };
    let specs = ranges.iter().enumerate().map(spec);
    Arc::new(Pool::default().updated(specs.collect()))
}

/// Whether `ticket` is dispatched within the time, if the director is only woken when it wants to be.
fn dispatched_by_itself(director: &mut Director, ticket: Ticket, until: Duration) -> bool {
    while let Some(now) = director.next_wakeup().filter(|at| *at <= until) {
        director.advance(now);
        while let Some((told, verdict)) = director.poll() {
            if told == ticket {
                return matches!(verdict, Verdict::Dispatched(_));
            }
        }
    }
    false
}

/// One picker has filled the pool and is killed: what it held is room for the other.
#[test]
fn a_peer_that_dies_leaves_room_to_the_survivor() {
    let config = Config::round_robin().with_max_concurrency(1);
    let (pool_a, pool_b) = (pool(1), pool(1));
    let mut a = director(config.clone(), &pool_a);
    let mut b = director(config, &pool_b);
    let mut sides = [(1, &pool_a), (2, &pool_b)].map(|(incarnation, pool)| {
        let mut exchange = Exchange::new(format!("p{incarnation}").into(), incarnation);
        exchange.set_pool(Arc::clone(pool));
        exchange
    });
    let [told, heard] = &mut sides;
    a.submit(Duration::ZERO, request(0));
    let _held = dispatched(&mut a);
    let now = seconds(0.1);
    let delta = told.tick(now, now, Vec::new(), Vec::new()).unwrap();
    heard.apply(now, &delta).unwrap();
    b.learn_elsewhere(now, &[]);
    b.submit(now, request(0));
    assert!(b.poll().is_none(), "the other has it all");
    let later = now + SILENCE + seconds(0.1);
    heard.tick(later, later, Vec::new(), Vec::new());
    b.advance(later);
    assert!(b.poll().is_none(), "nobody told of the room");
    assert!(heard.lost_peer());
    b.learn_elsewhere(later, &[]);
    let running = dispatched(&mut b);
    heard.tick(later, later, Vec::new(), Vec::new());
    assert!(!heard.lost_peer(), "once");
    drop(running);
}

/// The queue's detector counts requests and sees room, a filter of the profile reads metrics and sees none, until
/// they say otherwise.
#[test]
fn room_that_shows_in_metrics_is_seen_whatever_the_detector() {
    let lines = "plugins:
- {type: concurrency-detector, parameters: {maxConcurrency: 8}}
- {type: utilization-detector}
- {type: queue-scorer}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: utilization-detector}, {pluginRef: queue-scorer}]
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}";
    let pool = pool(1);
    let mut director = director(config(lines), &pool);
    pool.endpoints[0].set_scraped(scraped(0.0, 0.0, 0.9));
    let ticket = director.submit(Duration::ZERO, request(0));
    assert!(director.poll().is_none());
    pool.endpoints[0].set_scraped(scraped(0.1, 0.0, 0.0));
    assert!(dispatched_by_itself(&mut director, ticket, seconds(1.0)));
}

/// Endpoints that take one prompt at a time, of the lengths that they are for.
const BY_LENGTH: &str = "plugins:
- {type: concurrency-detector, parameters: {maxConcurrency: 1}}
- {type: context-length-aware, parameters: {enableFiltering: true}}
- {type: queue-scorer}
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}";

/// One endpoint is for long prompts and full; those for short ones are idle.
#[test]
fn a_prompt_that_only_a_full_endpoint_is_for_is_looked_past() {
    let pool = with_ranges(&["0-999", "0-999", "1000-9999"]);
    let mut director = director(config(BY_LENGTH), &pool);
    let long = || Request {
        prompt_tokens: 5_000,
        ..request(0)
    };
    director.submit(Duration::ZERO, long());
    let running = dispatched(&mut director);
    director.submit(Duration::ZERO, long());
    assert!(director.poll().is_none());
    let short = director.submit(Duration::ZERO, request(0));
    let Some((told, Verdict::Dispatched(other))) = director.poll() else {
        panic!("two endpoints are idle")
    };
    assert_eq!(told, short);
    let _last = director.submit(Duration::ZERO, request(-1));
    dispatched(&mut director);
    // It is refused at once that no endpoint is for, however full the pool.
    drop((other, director.submit(Duration::ZERO, request(0))));
    let endless = Request {
        prompt_tokens: 50_000,
        ..request(0)
    };
    director.submit(Duration::ZERO, endless);
    let refusals: Vec<_> = std::iter::from_fn(|| director.poll())
        .filter_map(|(_, verdict)| match verdict {
            Verdict::Refused(refusal) => Some(refusal.outcome),
            Verdict::Dispatched(_) => None,
        })
        .collect();
    assert_eq!(refusals, [Outcome::RejectedCapacity]);
    drop(running);
}

#[test]
fn a_prompt_that_no_endpoint_is_for_does_not_wait_for_a_full_pool() {
    let pool = with_ranges(&["0-999"]);
    let mut director = director(config(BY_LENGTH), &pool);
    director.submit(Duration::ZERO, request(0));
    let _running = dispatched(&mut director);
    director.submit(Duration::ZERO, request(0));
    assert!(director.poll().is_none(), "full");
    let endless = Request {
        prompt_tokens: 50_000,
        ..request(0)
    };
    director.submit(Duration::ZERO, endless);
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedCapacity);
}

/// The endpoint that would do is full just now, and the one with room would be too late: that is no reason to refuse.
#[test]
fn a_sheddable_request_waits_for_the_endpoint_that_meets_its_target() {
    let pool = pool(2);
    warm(&pool);
    let config = Config::headroom_default().with_max_concurrency(2);
    let mut director = director(config, &pool);
    director.set_model(trained_model());
    let hashing = director.prefix_hashing();
    let mut hasher = hashing.hasher();
    hasher.update("x".repeat(4 * 1_600).as_bytes());
    let (prompt_tokens, prefix) = hasher.finish("m", "");
    let long = |base: Request| Request {
        prompt_tokens,
        prefix: Arc::clone(&prefix),
        prefix_block_tokens: hashing.block_tokens,
        ..base
    };
    // About 50 + 0.5 · 1,600 = 850 ms where nothing of it is known, 50 where all of it is.
    director.submit(Duration::ZERO, long(request(0)));
    let first = dispatched(&mut director);
    let home = Arc::clone(&first.endpoint);
    first.in_flight.finish(seconds(1.0), complete(2));
    let subset = |base: Request| Request {
        subset: Some(vec![home.address.to_string()]),
        ..base
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        director.submit(seconds(1.0), subset(request(0)));
        held.extend(std::iter::from_fn(|| match director.poll() {
            Some((_, Verdict::Dispatched(dispatch))) => Some(dispatch),
            _ => None,
        }));
    }
    for running in &mut held {
        running.in_flight.first_token(seconds(1.0));
    }
    let asked = director.submit(seconds(1.0), long(with_slo(-1, 500.0)));
    assert!(
        director.poll().is_none(),
        "neither refused nor sent to the other"
    );
    // Others take the room that it does not want.
    let other = director.submit(seconds(1.0), request(-1));
    let Some((told, Verdict::Dispatched(_other))) = director.poll() else {
        panic!("the other endpoint is idle")
    };
    assert_eq!(told, other);
    for running in held {
        running.in_flight.finish(seconds(1.2), complete(2));
    }
    director.advance(seconds(1.2));
    let sent: Vec<_> = std::iter::from_fn(|| director.poll()).collect();
    let found = sent.iter().find(|(ticket, _)| *ticket == asked);
    let Some((_, Verdict::Dispatched(dispatch))) = found else {
        panic!("{sent:?}")
    };
    assert_eq!(dispatch.endpoint.name, home.name);
}

/// A metrics port that died while its endpoint was full says nothing of now.
#[test]
fn no_request_is_refused_by_chance_for_what_metrics_said_long_ago() {
    let lines = "plugins: [{type: probabilistic-admitter}, {type: queue-scorer}]";
    let pool = pool(4);
    let mut director = director(config(lines), &pool);
    pool.endpoints[0].set_scraped(scraped(0.0, 100.0, 0.99));
    for endpoint in &pool.endpoints[1..] {
        endpoint.set_scraped(scraped(600.0, 0.0, 0.0));
    }
    for _ in 0..20 {
        director.submit(seconds(600.0), request(-1));
        drop(dispatched(&mut director));
    }
}

/// Short requests that have ended since the scrape are in nobody's queue.
#[test]
fn a_scrape_does_not_cap_the_rate() {
    let lines = "plugins: [{type: utilization-detector}, {type: queue-scorer}]
flowControl: {saturationDetector: {pluginRef: utilization-detector}}";
    let pool = pool(1);
    let mut director = director(config(lines), &pool);
    pool.endpoints[0].set_scraped(scraped(1.0, 0.0, 0.0));
    for _ in 0..50 {
        director.submit(seconds(1.0), request(0));
        let dispatch = dispatched(&mut director);
        dispatch.in_flight.finish(seconds(1.0), complete(1));
        director.advance(seconds(1.0));
    }
}

/// Nobody streams (embeddings): the endpoint's limit is found all the same.
#[test]
fn limits_are_learned_from_whole_answers_and_for_a_filter() {
    let parameters = "{type: adaptive-concurrency-detector, parameters: {initial: 4, window: 1s}}";
    let as_detector = format!(
        "plugins: [{parameters}, {{type: queue-scorer}}]
flowControl: {{saturationDetector: {{pluginRef: adaptive-concurrency-detector}}}}"
    );
    let as_filter = format!(
        "plugins: [{parameters}, {{type: concurrency-detector}}, {{type: queue-scorer}}]
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: adaptive-concurrency-detector}}, {{pluginRef: queue-scorer}}]
flowControl: {{saturationDetector: {{pluginRef: concurrency-detector}}}}"
    );
    for lines in [as_detector, as_filter] {
        let pool = pool(1);
        let mut director = director(config(&lines), &pool);
        let mut running = Vec::new();
        for tenth in 0..200 {
            let now = seconds(0.1 * f64::from(tenth));
            for dispatch in std::mem::take(&mut running) {
                let dispatch: Box<epp_core::Dispatch> = dispatch;
                let end = End::Complete {
                    status: 200,
                    streaming: false,
                    prompt_tokens: Some(100),
                    cached_tokens: None,
                    output_tokens: None,
                };
                dispatch.in_flight.finish(now, end);
            }
            for _ in 0..32 {
                director.submit(now, request(0));
            }
            while let Some((_, verdict)) = director.poll() {
                if let Verdict::Dispatched(dispatch) = verdict {
                    running.push(dispatch);
                }
            }
        }
        let limit = pool.endpoints[0].load.snapshot().limit;
        assert!(limit.is_some_and(|limit| limit > 8), "{limit:?}: {lines}");
    }
}

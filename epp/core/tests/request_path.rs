//! One director, driven by hand: queueing, room, time to live, SLO admission, refusals.

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::config::BandConfig;
use epp_core::{Config, Director, Outcome, Pool, Request, Scraped, Slo, Verdict};
use support::{complete, dispatched, pool, refused, request, seconds};

/// Round robin behind the queue, `concurrency` per endpoint.
fn queued(pool: &Arc<Pool>, concurrency: u32) -> Director {
    let mut director = Director::new(Config::round_robin().with_max_concurrency(concurrency), 1);
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director
}

#[test]
fn room_is_reserved_at_dispatch_and_never_exceeded() {
    let pool = pool(2);
    let mut director = queued(&pool, 2);
    for _ in 0..7 {
        director.submit(Duration::ZERO, request(0));
    }
    let mut held: Vec<_> = (0..4).map(|_| dispatched(&mut director)).collect();
    assert!(director.poll().is_none(), "four places, four dispatches");
    assert!(
        pool.endpoints
            .iter()
            .all(|endpoint| endpoint.load.snapshot().in_flight == 2)
    );
    assert_eq!(director.queued().total().requests, 3);
    assert_eq!(director.saturation(Duration::ZERO), Some(1.0));
    // Room appears on one endpoint: the next goes there, and all the room is used at once.
    for dispatch in held.drain(..2) {
        dispatch.in_flight.finish(seconds(1.0), complete(5));
    }
    director.advance(seconds(1.0));
    for _ in 0..2 {
        assert_eq!(dispatched(&mut director).waited, seconds(1.0));
    }
}

#[test]
fn the_higher_band_goes_first_and_nobody_passes_its_head() {
    let pool = pool(1);
    let mut director = queued(&pool, 1);
    director.submit(Duration::ZERO, request(0));
    let first = dispatched(&mut director);
    let order: Vec<_> = [-1, 0, 7, 0, 7]
        .iter()
        .map(|&band| director.submit(seconds(1.0), request(band)))
        .collect();
    assert!(director.poll().is_none());
    first.in_flight.finish(seconds(2.0), complete(5));
    let mut seen = Vec::new();
    loop {
        director.advance(seconds(2.0));
        let Some((ticket, Verdict::Dispatched(dispatch))) = director.poll() else {
            break;
        };
        seen.push(ticket);
        dispatch.in_flight.finish(seconds(2.0), complete(5));
    }
    assert_eq!(seen, [order[2], order[4], order[1], order[3], order[0]]);
}

#[test]
fn a_full_subset_does_not_hold_up_the_others() {
    let pool = pool(2);
    let mut director = queued(&pool, 1);
    let only_first = || Request {
        subset: Some(vec!["10.0.0.1:9999".into()]),
        ..request(5)
    };
    director.submit(Duration::ZERO, only_first());
    let first = dispatched(&mut director);
    assert_eq!(&*first.endpoint.name, "e0", "only the IP part counts");
    director.submit(Duration::ZERO, only_first());
    assert!(director.poll().is_none(), "its one endpoint is full");
    director.submit(Duration::ZERO, request(0));
    assert_eq!(&*dispatched(&mut director).endpoint.name, "e1");
    drop(first);
    director.advance(seconds(1.0));
    assert_eq!(&*dispatched(&mut director).endpoint.name, "e0");
}

#[test]
fn a_subset_without_endpoints_is_503_even_when_the_pool_is_full() {
    let pool = pool(1);
    let mut director = queued(&pool, 1);
    director.submit(Duration::ZERO, request(0));
    let _held = dispatched(&mut director);
    for subset in [
        vec![],
        vec!["10.9.9.9:8000".to_owned()],
        vec!["not an address".to_owned()],
    ] {
        director.submit(
            Duration::ZERO,
            Request {
                subset: Some(subset),
                ..request(0)
            },
        );
        let refusal = refused(&mut director);
        assert_eq!(
            (refusal.status, refusal.reason),
            (503, "rejected-no-endpoints")
        );
    }
    assert_eq!(director.queued().total().requests, 0);
}

#[test]
fn time_to_live_is_429_with_endpoints_and_503_without() {
    let pool = pool(1);
    let mut director = queued(&pool, 1);
    director.submit(Duration::ZERO, request(0));
    let _held = dispatched(&mut director);
    director.submit(seconds(1.0), request(0));
    director.submit(
        seconds(1.0),
        Request {
            ttl: Some(seconds(2.0)),
            ..request(0)
        },
    );
    assert_eq!(director.next_wakeup(), Some(seconds(3.0)));
    director.advance(seconds(3.0));
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.status, refusal.reason),
        (429, "rejected-ttl-expired")
    );
    assert!(refusal.retry_after.is_some());
    // The pool empties: the other request gets a new budget of 60 s from then.
    director.set_pool(seconds(50.0), Arc::default());
    director.advance(seconds(109.0));
    assert!(director.poll().is_none());
    director.advance(seconds(110.0));
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.outcome, refusal.status),
        (Outcome::EvictedNoEndpoints, 503)
    );
    assert_eq!(refusal.retry_after, None);
}

#[test]
fn an_empty_pool_holds_requests_until_an_endpoint_comes() {
    let mut director = queued(&Arc::default(), 4);
    director.submit(Duration::ZERO, request(0));
    assert!(director.poll().is_none());
    director.set_pool(seconds(30.0), pool(1));
    assert_eq!(dispatched(&mut director).waited, seconds(30.0));
}

#[test]
fn without_flow_control_requests_are_held_only_while_there_is_no_endpoint() {
    let mut config = Config::default();
    config.hold_while_empty(seconds(300.0));
    let mut director = Director::new(config, 1);
    for (at, priority) in [(0.0, 0), (1.0, 5), (2.0, 0), (3.0, -1)] {
        director.submit(seconds(at), request(priority));
    }
    assert!(director.poll().is_none());
    let depth = director.queued().total();
    assert_eq!((depth.requests, depth.prompt_tokens), (4, 400));
    assert_eq!(director.demand().totals().offered().requests, 4);
    director.set_pool(seconds(10.0), pool(1));
    let mut served = Vec::new();
    while let Some((ticket, verdict)) = director.poll() {
        let Verdict::Dispatched(dispatch) = verdict else {
            panic!("{verdict:?}")
        };
        served.push((ticket.number(), dispatch.waited));
    }
    let after = [(1, 9.0), (0, 10.0), (2, 8.0), (3, 7.0)];
    assert_eq!(served, after.map(|(number, at)| (number, seconds(at))));
    assert_eq!(director.queued().total().requests, 0);
    director.submit(seconds(11.0), request(0));
    assert_eq!(dispatched(&mut director).waited, Duration::ZERO);
    director.set_pool(seconds(12.0), Arc::default());
    director.submit(seconds(13.0), request(0));
    assert_eq!(director.next_wakeup(), Some(seconds(313.0)));
    director.advance(seconds(313.0));
    assert_eq!(refused(&mut director).outcome, Outcome::EvictedNoEndpoints);
}

#[test]
fn what_is_held_without_flow_control_is_bounded() {
    let mut config = Config::default();
    config.hold_while_empty(seconds(300.0));
    let mut director = Director::new(config, 1);
    for number in 0..5_001 {
        director.submit(Duration::ZERO, request(number % 3));
    }
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.outcome, refusal.status),
        (Outcome::RejectedNoEndpoints, 503)
    );
    assert!(director.poll().is_none(), "only the last is one too many");
}

#[test]
fn nothing_is_held_unless_somebody_said_so() {
    let mut at_once = Config::llmd_default();
    at_once.hold_while_empty(Duration::ZERO);
    let without = [
        (Config::default(), Outcome::RejectedNoEndpoints),
        (at_once, Outcome::EvictedNoEndpoints),
    ];
    for (config, outcome) in without {
        let mut director = Director::new(config, 1);
        director.submit(seconds(1.0), request(0));
        assert_eq!(refused(&mut director).outcome, outcome);
    }
}

#[test]
fn caps_refuse_with_429_or_503() {
    let mut config = Config::round_robin().with_max_concurrency(1);
    if let Some(flow) = &mut config.flow {
        flow.default_band = BandConfig {
            max_requests: 1,
            ..BandConfig::default()
        };
    }
    let mut director = Director::new(config, 1);
    director.submit(Duration::ZERO, request(0));
    director.submit(Duration::ZERO, request(0));
    assert_eq!(
        refused(&mut director).status,
        503,
        "no endpoint is behind this queue"
    );
    director.set_pool(Duration::ZERO, pool(1));
    let _held = dispatched(&mut director);
    director.submit(Duration::ZERO, request(0));
    director.submit(Duration::ZERO, request(0));
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.status, refusal.reason),
        (429, "rejected-saturated")
    );
    assert!(
        refusal.message.contains("1 requests"),
        "{}",
        refusal.message
    );
    director.submit(Duration::ZERO, request(3));
    assert!(director.poll().is_none(), "another band has its own cap");
}

#[test]
fn cancel_and_drain_end_what_is_queued() {
    let pool = pool(1);
    let mut director = queued(&pool, 1);
    director.submit(Duration::ZERO, request(0));
    let held = dispatched(&mut director);
    let gone = director.submit(Duration::ZERO, request(0));
    director.submit(Duration::ZERO, request(-1));
    director.cancel(seconds(1.0), gone);
    assert_eq!(refused(&mut director).reason, "rejected-context-cancelled");
    director.cancel(seconds(1.0), gone);
    assert!(director.poll().is_none());
    director.drain(seconds(2.0));
    assert_eq!(refused(&mut director).reason, "rejected-shutting-down");
    director.submit(seconds(2.0), request(0));
    assert_eq!(refused(&mut director).status, 503);
    held.in_flight.finish(seconds(3.0), complete(3));
    let totals = director.demand().totals();
    assert_eq!((totals.offered().requests, totals.ended().requests), (4, 4));
    assert_eq!(totals.outcome(Outcome::Served).output_tokens, 3);
}

#[test]
fn without_flow_control_only_sheddable_requests_are_refused_when_full() {
    let mut director = Director::new(
        Config {
            flow: None,
            ..Config::round_robin().with_max_concurrency(1)
        },
        1,
    );
    director.submit(Duration::ZERO, request(0));
    assert_eq!(refused(&mut director).status, 503, "no endpoint");
    let pool = pool(1);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    let mut held = Vec::new();
    for _ in 0..3 {
        director.submit(Duration::ZERO, request(0));
        held.push(dispatched(&mut director));
    }
    director.submit(Duration::ZERO, request(-1));
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.status, refusal.outcome),
        (429, Outcome::RejectedCapacity)
    );
    assert!(director.next_wakeup().is_none());
}

#[test]
fn stale_metrics_do_not_stop_a_pool_and_fresh_full_ones_do() {
    let config = Config {
        flow: Config::llmd_default().flow,
        ..Config::default()
    };
    let mut director = Director::new(config, 1);
    let pool = pool(1);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    let scraped = |at: f64, waiting: f32| Scraped {
        at: seconds(at),
        waiting,
        running: 0.0,
        kv_utilization: 0.1,
        block_tokens: None,
        kv_blocks: None,
    };
    pool.endpoints[0].set_scraped(scraped(1.0, 9.0));
    director.submit(seconds(1.1), request(0));
    assert!(director.poll().is_none(), "full");
    assert_eq!(
        director.next_wakeup(),
        Some(seconds(1.15)),
        "room shows only in scrapes"
    );
    director.advance(seconds(1.3));
    drop(dispatched(&mut director));
    // A fresh scrape below the threshold admits as many as it leaves room for, not the whole queue.
    pool.endpoints[0].set_scraped(scraped(2.0, 9.0));
    for _ in 0..8 {
        director.submit(seconds(2.0), request(0));
    }
    pool.endpoints[0].set_scraped(scraped(2.05, 2.0));
    director.advance(seconds(2.05));
    let admitted = std::iter::from_fn(|| director.poll()).count();
    assert_eq!(admitted, 3, "threshold 5, two waiting");
}

#[test]
fn the_prefix_decides_and_the_decision_says_so() {
    let pool = pool(4);
    let mut director = Director::new(Config::llmd_default(), 9);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    let hashing = director.prefix_hashing();
    assert_eq!(hashing.block_tokens, 64);
    let turn = |text: &str| {
        let mut hasher = hashing.hasher();
        hasher.update(text.as_bytes());
        let (prompt_tokens, prefix) = hasher.finish("m", "");
        Request {
            prompt_tokens,
            prefix,
            prefix_block_tokens: hashing.block_tokens,
            ..Request::default()
        }
    };
    let opening = "x".repeat(4 * 64 * 3);
    director.submit(Duration::ZERO, turn(&opening));
    let first = dispatched(&mut director);
    let home = Arc::clone(&first.endpoint);
    assert_eq!(first.decision.cached_tokens, 0);
    first.in_flight.finish(seconds(1.0), complete(5));
    director.submit(seconds(2.0), turn(&(opening + &"y".repeat(4 * 64))));
    let second = dispatched(&mut director);
    assert_eq!(second.endpoint.name, home.name);
    assert_eq!(second.decision.cached_tokens, 192);
    assert_eq!(
        home.load.snapshot().waiting_tokens,
        64,
        "only uncached tokens wait"
    );
    let explained = second.decision.explain();
    assert_eq!(
        (&explained.picked, explained.bound_by),
        (&home.name, "highest weighted score")
    );
    let best = &explained.candidates[0];
    assert_eq!(
        best.scores
            .iter()
            .map(|score| (score.weight, score.score))
            .next_back(),
        Some((3.0, 0.75))
    );
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["candidates"].as_array().map(Vec::len), Some(4));
    assert_eq!(json["prediction"], serde_json::Value::Null);
    assert_eq!(second.decision.totals().count(), 4);
}

#[test]
fn equal_seeds_give_equal_picks() {
    let picks = |seed| {
        let mut director = Director::new(Config::llmd_default(), seed);
        director.set_pool(Duration::ZERO, pool(8));
        let mut held = Vec::new();
        for _ in 0..32 {
            director.submit(Duration::ZERO, request(0));
            held.push(dispatched(&mut director));
        }
        held.iter()
            .map(|dispatch| dispatch.endpoint.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(picks(1), picks(1));
    assert_ne!(picks(1), picks(2));
    let slo = Slo {
        ttft_ms: Some(f64::MAX),
        tpot_ms: None,
    };
    assert!(slo.met(1e300, None));
}

#[test]
fn filters_of_the_profile_hold_without_flow_control() {
    let text = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: concurrency-detector, parameters: {maxConcurrency: 1, headroom: 0}}
- {type: max-score-picker}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: concurrency-detector}
  - {pluginRef: max-score-picker}
";
    let mut director = Director::new(Config::from_yaml(text).unwrap(), 1);
    director.set_pool(Duration::ZERO, pool(1));
    director.submit(Duration::ZERO, request(0));
    let running = dispatched(&mut director);
    director.submit(Duration::ZERO, request(0));
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedCapacity);
    drop(running);
    director.submit(Duration::ZERO, request(0));
    dispatched(&mut director);
}

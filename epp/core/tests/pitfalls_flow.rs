//! Mistakes that others made in flow control, each kept from coming back. Numbers are those of the collected list.

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::config::Detector;
use epp_core::{Config, Director, Outcome, Pool, Request, Scraped, Slo, Verdict};
use support::{complete, dispatched, pool, refused, request, seconds, updated};

fn queued(pool: &Arc<Pool>, concurrency: u32) -> Director {
    let mut director = Director::new(Config::round_robin().with_max_concurrency(concurrency), 1);
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director
}

/// An endpoint leaves and comes back while a stream runs: the stream's end takes from the counters it added to.
#[test]
fn pitfall_04_counters_belong_to_the_life_of_an_endpoint() {
    let before = pool(1);
    let mut director = queued(&before, 2);
    director.submit(Duration::ZERO, request(0));
    let old = dispatched(&mut director);
    director.set_pool(seconds(1.0), Arc::default());
    let after = updated(&Pool::default(), 0..1);
    director.set_pool(seconds(2.0), Arc::clone(&after));
    director.submit(seconds(3.0), request(0));
    let new = dispatched(&mut director);
    old.in_flight.finish(seconds(4.0), complete(1));
    director.advance(seconds(4.0));
    assert_eq!(before.endpoints[0].load.snapshot().in_flight, 0);
    assert_eq!(after.endpoints[0].load.snapshot().in_flight, 1);
    assert_eq!(director.saturation(seconds(4.0)), Some(0.5));
    drop(new);
}

/// No sweep, however late, gives back the room of a stream that still runs.
#[test]
fn pitfall_05_room_is_held_exactly_as_long_as_the_stream() {
    let pool = pool(1);
    let mut director = queued(&pool, 1);
    director.submit(Duration::ZERO, request(0));
    let long = dispatched(&mut director);
    for hour in 1..48 {
        let now = Duration::from_secs(hour * 3_600);
        director.advance(now);
        director.submit(now, request(0));
        assert!(director.poll().is_none(), "hour {hour}");
        director.advance(now + seconds(60.0));
        assert_eq!(refused(&mut director).outcome, Outcome::EvictedTtl);
    }
    let flows = director.demand().flows();
    let sent: u64 = flows.iter().map(|flow| flow.dispatched.requests).sum();
    assert_eq!(sent, 1, "the flow of a running request is remembered");
    drop(long);
    director.submit(Duration::from_secs(48 * 3_600), request(0));
    dispatched(&mut director);
}

/// Streams move the counters that saturation reads, not a copy of them.
#[test]
fn pitfall_06_saturation_reads_live_counters() {
    let pool = pool(2);
    let mut director = queued(&pool, 2);
    let mut held = Vec::new();
    for number in 1..=4_u32 {
        director.submit(Duration::ZERO, request(0));
        held.push(dispatched(&mut director));
        let wanted = Some(f64::from(number) / 4.0);
        assert_eq!(director.saturation(Duration::ZERO), wanted);
        assert_eq!(director.stage_saturation(Duration::ZERO).effective, wanted);
    }
    held.pop();
    assert_eq!(director.saturation(Duration::ZERO), Some(0.75));
    assert_eq!(director.stage_saturation(Duration::ZERO).decode, Some(0.75));
}

/// One scrape that shows room for three lets three through, not the whole queue.
#[test]
fn pitfall_07_a_dispatch_counts_when_it_is_made() {
    let config = Config {
        flow: Config::llmd_default().flow,
        detector: Detector::utilization_default(),
        ..Config::round_robin()
    };
    let pool = pool(1);
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    let scrape = |at: f64, waiting: f32| {
        pool.endpoints[0].set_scraped(Scraped {
            at: seconds(at),
            waiting,
            running: 0.0,
            kv_utilization: 0.1,
            block_tokens: None,
            kv_blocks: None,
        });
    };
    scrape(1.0, 9.0);
    for _ in 0..50 {
        director.submit(seconds(1.0), request(0));
    }
    assert!(director.poll().is_none());
    scrape(1.1, 2.0);
    director.advance(seconds(1.1));
    assert_eq!(std::iter::from_fn(|| director.poll()).count(), 3);
}

/// Metrics of all endpoints are old: that is unknown, and requests go through.
#[test]
fn pitfall_08_unknown_is_not_full() {
    let config = Config {
        flow: Config::llmd_default().flow,
        ..Config::default()
    };
    let pool = pool(3);
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    for endpoint in &pool.endpoints {
        endpoint.set_scraped(Scraped {
            at: seconds(1.0),
            waiting: 1_000.0,
            running: 1_000.0,
            kv_utilization: 1.0,
            block_tokens: None,
            kv_blocks: None,
        });
    }
    director.submit(seconds(1.0), request(0));
    assert!(director.poll().is_none(), "fresh and full");
    director.advance(seconds(2.0));
    dispatched(&mut director);
    assert_eq!(director.saturation(seconds(2.0)), None);
    assert_eq!(director.stage_saturation(seconds(2.0)).unknown, 3);
}

/// A client that invents fairness ids grows nothing without bound, and its requests go on being counted.
#[test]
fn pitfall_09_invented_flows_are_bounded() {
    let pool = pool(1);
    let mut director = queued(&pool, 1);
    let invented = |number: u32| Request {
        flow: number.to_string().into(),
        ttl: Some(Duration::ZERO),
        ..request(0)
    };
    for number in 0..20_000 {
        director.submit(Duration::ZERO, invented(number));
        while director.poll().is_some() {}
    }
    let flows = director.demand().flows();
    assert!(flows.len() <= epp_core::flow::MAX_FLOWS_PER_BAND + 1);
    let offered: u64 = flows.iter().map(|flow| flow.offered.requests).sum();
    assert_eq!(offered, 20_000);
    assert!(
        flows
            .iter()
            .any(|flow| &*flow.flow == epp_core::flow::OTHER_FLOW)
    );
    let top = director.demand().top_flows(10);
    assert_eq!(top.len(), 10, "`other` is among those with the most");
    let offered: u64 = top.iter().map(|flow| flow.offered.requests).sum();
    assert!(offered <= 20_000);
    // Ten minutes later there is room for new ones.
    director.advance(seconds(600.0));
    director.submit(seconds(600.0), invented(1));
    assert_eq!(director.demand().flows().len(), 1);
}

/// Absurd targets and times of clients end up far in the future, not before everybody else.
#[test]
fn pitfall_10_deadlines_of_clients_saturate() {
    let mut config = Config::round_robin().with_max_concurrency(1);
    if let Some(flow) = &mut config.flow {
        flow.default_band.ordering = epp_core::config::Ordering::SloDeadline;
    }
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, pool(1));
    director.submit(Duration::ZERO, request(0));
    let running = dispatched(&mut director);
    let absurd = [1e300, f64::INFINITY, -1.0, f64::NAN].map(|ttft_ms| Request {
        slo: Slo {
            ttft_ms: Some(ttft_ms),
            tpot_ms: None,
        },
        ttl: Some(Duration::MAX),
        ..request(0)
    });
    for request in absurd {
        director.submit(seconds(1.0), request);
    }
    let sensible = director.submit(seconds(2.0), support::with_slo(0, 60_000.0));
    drop(running);
    director.advance(seconds(3.0));
    let Some((first, Verdict::Dispatched(_))) = director.poll() else {
        panic!("there is room")
    };
    assert_eq!(first, sensible);
}

/// A band that an objective names is there, however long nobody uses it.
#[test]
fn pitfall_11_bands_of_objectives_are_kept() {
    let mut director = queued(&pool(1), 1);
    director.pin_priorities(Duration::ZERO, [7, -7]);
    director.submit(Duration::ZERO, request(3));
    drop(dispatched(&mut director));
    director.advance(seconds(7_200.0));
    let depth = director.queued();
    let bands: Vec<_> = depth.bands.iter().map(|band| band.priority).collect();
    assert_eq!(bands, [7, 0, -7], "3 came only with a request");
}

/// The same refusals say 429 while there are endpoints and 503 while there is none.
#[test]
fn pitfall_12_an_empty_pool_is_503_a_full_one_429() {
    let mut config = Config::round_robin().with_max_concurrency(1);
    if let Some(flow) = &mut config.flow {
        flow.default_band.max_requests = 1;
    }
    for (endpoints, capacity, expired) in [
        (0, Outcome::RejectedNoEndpoints, Outcome::EvictedNoEndpoints),
        (1, Outcome::RejectedCapacity, Outcome::EvictedTtl),
    ] {
        let mut director = Director::new(config.clone(), 1);
        director.set_pool(Duration::ZERO, pool(endpoints));
        let _running = (endpoints > 0).then(|| {
            director.submit(Duration::ZERO, request(0));
            dispatched(&mut director)
        });
        director.submit(Duration::ZERO, request(0));
        director.submit(Duration::ZERO, request(0));
        let (full, status) = (
            refused(&mut director),
            if endpoints > 0 { 429 } else { 503 },
        );
        assert_eq!((full.outcome, full.status), (capacity, status));
        director.advance(seconds(60.0));
        let late = refused(&mut director);
        assert_eq!((late.outcome, late.status), (expired, status));
    }
}

/// Every refusal names its reason.
#[test]
fn pitfall_20_refusals_before_dispatch_have_a_reason() {
    for outcome in Outcome::ALL {
        let after_dispatch = matches!(
            outcome,
            Outcome::Served | Outcome::Failed | Outcome::ClientGone | Outcome::UpstreamCut
        );
        let refusal = outcome.refusal();
        assert_eq!(refusal.is_none(), after_dispatch, "{outcome:?}");
        assert!(
            refusal.is_none_or(|(status, reason)| matches!(status, 429 | 503)
                && (reason.starts_with("rejected-") || reason.starts_with("evicted")))
        );
    }
}

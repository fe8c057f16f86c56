//! Streams that wait, are told, and leave, around a real director.

use super::*;
use epp_core::Config;
use predictor::{LearnerConfig, Learners};
use prometheus_client::registry::Registry;

/// A hub with one endpoint that takes one request at a time.
pub(crate) fn hub() -> Hub {
    hub_of(Config::llmd_default())
}

pub(crate) fn hub_of(config: Config) -> Hub {
    hub_around(Director::new(config.with_max_concurrency(1), 1))
}

fn hub_around(director: Director) -> Hub {
    let clock = Clock::start();
    let rules = Rules {
        objectives: Objectives::default(),
        default_slo: Slo::NONE,
        rewrites: Arc::default(),
        hashing: director.prefix_hashing(),
        max_request_bytes: 1000,
        bodies: Arc::new(Budget::new(1000)),
        inject_usage: true,
        emit_scores: false,
        subsets: true,
        dialects: Arc::default(),
        parsers: Arc::default(),
        wanted: Arc::default(),
    };
    let learners = Learners::new(LearnerConfig::default());
    let trainer = Trainer::spawn(learners, 0.1, Box::new(move || clock.now()));
    let telemetry = Telemetry::new(&mut Registry::default(), "test");
    let hub = Hub::new(director, rules, Arc::new(trainer), telemetry, clock, 0);
    let endpoint = EndpointSpec {
        name: "a".into(),
        address: "127.0.0.1:1".into(),
        labels: Default::default(),
    };
    hub.set_endpoints(vec![endpoint], Objectives::default());
    hub
}

fn queued(submitted: Submitted) -> (Ticket, oneshot::Receiver<Verdict>) {
    match submitted {
        Submitted::Queued(ticket, verdict) => (ticket, verdict),
        Submitted::Decided(verdict) => panic!("decided at once: {verdict:?}"),
    }
}

#[test]
fn room_reserved_by_a_verdict_that_nobody_reads_goes_to_the_next() {
    let hub = hub();
    let submit = || hub.submit(hub.clock.now(), Request::default());
    let Submitted::Decided(running) = submit() else {
        panic!("there is room for one")
    };
    let ((leaving, unread), (_, mut next)) = (queued(submit()), queued(submit()));
    drop(running);
    hub.pump();
    assert!(next.try_recv().is_err(), "the room went to who came first");
    drop(unread);
    hub.withdraw(leaving);
    assert!(matches!(next.try_recv(), Ok(Verdict::Dispatched(_))));
}

#[test]
fn who_is_to_end_is_told_whether_it_listens_already_or_only_later() {
    let mut config = Config::llmd_default();
    if let Some(flow) = &mut config.flow {
        flow.eviction = true;
    }
    for listens_first in [true, false] {
        let hub = hub_of(config.clone());
        let submit = |priority| {
            let request = Request {
                priority,
                ..Request::default()
            };
            hub.submit(hub.clock.now(), request)
        };
        let Submitted::Decided(Verdict::Dispatched(running)) = submit(-1) else {
            panic!("there is room for one")
        };
        let ticket = running.in_flight.evictable().unwrap();
        let early = listens_first.then(|| hub.follow_eviction(ticket));
        let (_, mut next) = queued(submit(0));
        let mut told = early.unwrap_or_else(|| hub.follow_eviction(ticket));
        assert_eq!(told.try_recv(), Ok("evicted-priority"));
        running
            .in_flight
            .finish(hub.clock.now(), epp_core::End::Evicted);
        hub.forget_eviction(ticket);
        hub.pump();
        assert!(matches!(next.try_recv(), Ok(Verdict::Dispatched(_))));
        assert_eq!(hub.revocations().outcomes()[0].1, 1);
    }
}

#[test]
fn a_scrape_that_shows_room_lets_in_who_waits() {
    let director = Director::new(
        Config {
            flow: Config::llmd_default().flow,
            ..Config::default()
        },
        1,
    );
    let hub = hub_around(director);
    let endpoint = Arc::clone(&hub.pool().endpoints[0]);
    let scraped = |waiting: f32| epp_core::Scraped {
        at: hub.clock.now(),
        waiting,
        running: 0.0,
        kv_utilization: 0.0,
        block_tokens: None,
        kv_blocks: None,
    };
    endpoint.set_scraped(scraped(100.0));
    let (_, mut waits) = queued(hub.submit(hub.clock.now(), Request::default()));
    assert!(hub.stages().decode.is_some_and(|level| level > 1.0));
    endpoint.set_scraped(scraped(0.0));
    assert!(waits.try_recv().is_err(), "nobody looked");
    hub.scraped_ms.store(u64::MAX, Ordering::Relaxed);
    hub.scraped();
    assert!(matches!(waits.try_recv(), Ok(Verdict::Dispatched(_))));
    assert_eq!(hub.queue().depth().total().requests, 0);
}

#[test]
fn any_endpoint_is_among_the_subset_and_in_turn() {
    let hub = hub();
    let spec = |name: &str, address: &str| EndpointSpec {
        name: name.into(),
        address: address.into(),
        labels: Default::default(),
    };
    hub.set_endpoints(
        vec![spec("a", "10.0.0.1:80"), spec("b", "[::2]:80")],
        Objectives::default(),
    );
    let any = |subset: Option<&[&str]>| {
        let subset =
            subset.map(|subset| subset.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        hub.any_endpoint(subset.as_deref())
            .map(|address| address.to_string())
    };
    assert_ne!(any(None), any(None));
    assert_eq!(
        any(Some(&["10.0.0.1:9999"])).as_deref(),
        Some("10.0.0.1:80"),
        "only the IP counts"
    );
    assert_eq!(any(Some(&["::2"])).as_deref(), Some("[::2]:80"));
    assert_eq!(any(Some(&[])), None);
}

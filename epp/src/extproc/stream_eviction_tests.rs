//! Requests that are taken off their server, and what clients are told of the queue.

use super::bench::*;
use super::*;
use epp_core::{Config, Outcome};

fn evicting() -> Bench {
    let mut config = Config::llmd_default().with_max_concurrency(1);
    if let Some(flow) = &mut config.flow {
        flow.eviction = true;
        flow.advisory_headers = true;
    }
    let mut rules = rules();
    let batch = epp_core::Objective {
        priority: -1,
        ..Default::default()
    };
    rules.objectives.insert("batch".into(), batch);
    let mut bench = Bench::with(config, 1, rules);
    bench.on(request_headers(
        &[("x-llm-d-inference-objective", "batch")],
        false,
    ));
    bench.on(request_body(STREAMED, true));
    assert_eq!(bench.in_flight(), 1);
    bench.replies.clear();
    bench
}

#[test]
fn an_eviction_before_the_answer_is_429_with_its_reason() {
    let mut bench = evicting();
    bench.on(Event::Evicted(dropped_reason::EVICTED_PRIORITY));
    let answer = bench.immediate();
    assert_eq!((answer.status, answer.details), (429, "evicted-priority"));
    let header = |name: &str| {
        let mut named = answer.headers.iter().filter(|(known, _)| *known == name);
        named.next().map(|(_, value)| value.as_str())
    };
    assert_eq!(header(header::DROPPED_REASON), Some("evicted-priority"));
    assert_eq!(header("retry-after"), Some("1"));
    assert_eq!((bench.in_flight(), bench.finished), (0, true));
    assert_eq!(bench.outcomes(), [(Outcome::Evicted, 1)]);
    // What the proxy still says of it, and a second eviction, change nothing.
    bench.on(Event::Evicted(dropped_reason::EVICTED_PRIORITY));
    bench.on(Event::Closed);
    assert_eq!(bench.outcomes(), [(Outcome::Evicted, 1)]);
    assert!(bench.reset.is_none() && bench.failed.is_none());
}

#[test]
fn an_eviction_in_the_middle_of_the_answer_resets_the_stream() {
    let mut bench = evicting();
    bench.on(response_headers("200", SSE, false));
    bench.on(response_body(TOKEN, false));
    let said = bench.replies.len();
    bench.on(Event::Evicted(dropped_reason::EVICTED_PRIORITY));
    assert_eq!(bench.reset, Some("evicted-priority"));
    assert_eq!(bench.replies.len(), said, "nothing is added to the answer");
    assert_eq!(bench.in_flight(), 0);
    assert_eq!(bench.outcomes(), [(Outcome::Evicted, 1)]);
}

#[test]
fn an_eviction_of_what_is_over_does_nothing() {
    let mut bench = evicting();
    bench.on(response_headers("200", JSON, true));
    bench.on(Event::Evicted(dropped_reason::EVICTED_PRIORITY));
    assert!(bench.reset.is_none());
    assert_eq!(bench.outcomes(), [(Outcome::Served, 1)]);
}

#[test]
fn clients_are_told_of_the_queue_where_the_configuration_says_so() {
    let told = |bench: &Bench| match &bench.replies[..] {
        [Reply::ResponseHeaders(change)] => {
            let of = |wanted: &str| {
                let mut set = change.set.iter().filter(|(name, _)| *name == wanted);
                let first = set.next();
                assert_eq!(set.next(), None, "{wanted} once");
                first.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            };
            (of(header::QUEUE_MS), of(header::BAND_ROOM))
        }
        other => panic!("{other:?}"),
    };
    let mut bench = evicting();
    bench.on(response_headers("200", JSON, true));
    assert_eq!(told(&bench), (Some("0".into()), Some("5000".into())));
    let mut silent = Bench::new(1);
    silent.request(BODY);
    silent.replies.clear();
    silent.on(response_headers("200", JSON, true));
    assert_eq!(told(&silent), (None, None));
}

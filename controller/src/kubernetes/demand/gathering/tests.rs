use epp_core::report::EndpointReport;

use super::*;
use crate::kubernetes::pickers::testing::report;
use crate::kubernetes::prometheus::query::{Element, Question};

const BEGUN: Duration = Duration::from_secs(1_700_000_000);

fn at(seconds: u64) -> Duration {
    BEGUN + Duration::from_secs(seconds)
}

fn pod(uid: &str, pool: &str) -> PickerPod {
    PickerPod {
        uid: uid.into(),
        namespace: "ns".into(),
        name: format!("epp-{uid}"),
        pool: pool.into(),
        address: Some(([127, 0, 0, 1], 9443).into()),
        restarts: 0,
    }
}

fn wanted(model: &str, pool: Option<&str>) -> Wanted {
    Wanted {
        key: key(model),
        pool: pool.map(str::to_owned),
    }
}

fn key(model: &str) -> ModelKey {
    ModelKey {
        namespace: "ns".into(),
        model: model.into(),
    }
}

fn offered(known: &Known) -> u64 {
    let bands = known.demand.bands.iter();
    bands.map(|band| band.totals.offered.requests).sum()
}

/// One model on one pool with the pickers named.
fn gathering(uids: &[&str]) -> Gathering {
    let mut gathering = Gathering::new();
    let pods: Vec<PickerPod> = uids.iter().map(|uid| pod(uid, "pool")).collect();
    let polled = gathering.expect(at(0), &[wanted("m", Some("pool"))], &pods);
    assert_eq!(polled, pods);
    gathering
}

#[test]
fn demand_is_the_sum_over_the_pickers_of_the_models_pool() {
    let mut gathering = gathering(&["a", "b"]);
    gathering
        .heard(at(1), "a", &report("epp-a", 1, 500, 7))
        .unwrap();
    gathering
        .heard(at(1), "b", &report("epp-b", 1, 500, 5))
        .unwrap();
    let known = &gathering.known(at(1))[&key("m")];
    assert_eq!((known.source, offered(known)), (Source::Pickers, 12));
    assert!(known.demand.silent.is_empty());
}

#[test]
fn a_silent_picker_is_unknown_until_its_pod_is_gone() {
    let mut gathering = gathering(&["a", "b"]);
    for second in 1..=10 {
        let told = report("epp-a", 1, second * 1_000 - 500, second);
        gathering.heard(at(second), "a", &told).unwrap();
    }
    let known = &gathering.known(at(10))[&key("m")];
    assert_eq!(known.source, Source::Pickers);
    assert_eq!(known.demand.silent[0].id, "b");
    gathering.expect(at(11), &[wanted("m", Some("pool"))], &[pod("a", "pool")]);
    let known = &gathering.known(at(11))[&key("m")];
    assert!(known.demand.silent.is_empty());
    assert_eq!(offered(known), 10);
}

#[test]
fn nonsense_is_told_and_counts_as_silence() {
    let mut gathering = gathering(&["a"]);
    let mut told = report("epp-a", 1, 500, 7);
    told.schema = 99;
    let reason = gathering.heard(at(1), "a", &told).unwrap_err();
    assert!(reason.contains("schema 99"), "{reason}");
    let known = &gathering.known(at(9))[&key("m")];
    assert_eq!(known.demand.silent.len(), 1);
    assert!(known.troubles["epp-a"].contains("schema 99"));
    gathering
        .heard(at(10), "a", &report("epp-a", 1, 900, 7))
        .unwrap();
    assert!(gathering.known(at(10))[&key("m")].troubles.is_empty());
}

#[test]
fn only_pickers_of_wanted_pools_are_polled() {
    let mut gathering = Gathering::new();
    let mut foreign = pod("c", "pool");
    foreign.namespace = "elsewhere".into();
    let pods = [pod("a", "pool"), pod("b", "other"), foreign];
    let polled = gathering.expect(at(0), &[wanted("m", Some("pool"))], &pods);
    assert_eq!(polled, [pod("a", "pool")]);
    assert_eq!(gathering.expect(at(0), &[], &pods), []);
}

#[test]
fn a_model_without_a_named_pool_takes_the_only_one_of_its_namespace() {
    let mut gathering = Gathering::new();
    let polled = gathering.expect(at(0), &[wanted("m", None)], &[pod("a", "pool")]);
    assert_eq!(polled.len(), 1);
    assert_eq!(
        gathering.known(at(0))[&key("m")].pool.as_deref(),
        Some("pool")
    );
    let both = [pod("a", "pool"), pod("b", "other")];
    assert_eq!(gathering.expect(at(0), &[wanted("m", None)], &both), []);
    assert_eq!(gathering.known(at(0))[&key("m")].source, Source::None);
}

#[test]
fn models_on_one_pool_know_of_each_other() {
    let mut gathering = Gathering::new();
    let models = [wanted("m", Some("pool")), wanted("n", Some("pool"))];
    gathering.expect(at(0), &models, &[pod("a", "pool")]);
    let known = gathering.known(at(0));
    assert_eq!(known[&key("m")].shared_with, [key("n")]);
}

#[test]
fn the_smallest_cache_of_a_class_counts() {
    let mut gathering = gathering(&["a"]);
    let mut told = report("epp-a", 1, 500, 7);
    for (class, tokens) in [("h100", 900), ("h100", 800), ("l40s", 100), ("l40s", 0)] {
        told.endpoints.push(EndpointReport {
            name: "e".into(),
            address: "10.0.0.1:8000".into(),
            class: class.into(),
            in_flight: 0,
            waiting: 0,
            kv_utilization: None,
            kv_tokens: Some(tokens),
            scraped_age_ms: None,
            ready: true,
            limit: None,
        });
    }
    gathering.heard(at(1), "a", &told).unwrap();
    let known = &gathering.known(at(1))[&key("m")];
    assert_eq!(
        (known.kv_tokens["h100"], known.kv_tokens["l40s"]),
        (800.0, 100.0)
    );
}

/// Prometheus's answer for model `m`: `rate` requests/s.
fn answers(rate: f64) -> Answers {
    let labels = [("namespace", "ns"), ("target_model_name", "m")];
    let element = Element {
        labels: labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        value: rate,
    };
    [(Question::Requests, vec![element])].into()
}

fn page(served: f64) -> Page {
    Page {
        served: Some(served),
        waiting: Some(1.0),
        running: Some(2.0),
        kv_tokens: Some(5_000.0),
        ..Page::default()
    }
}

#[test]
fn without_pickers_prometheus_tells_and_without_it_the_engines() {
    let mut gathering = gathering(&[]);
    let subjects = gathering.without_pickers();
    assert_eq!((subjects.len(), subjects[0].model.as_str()), (1, "m"));
    assert_eq!(gathering.known(at(0))[&key("m")].source, Source::None);

    gathering.engines(&key("m"), &["pod-1".to_owned()].into());
    gathering.engine(at(1), &key("m"), "pod-1", page(10.0));
    gathering.engine(at(2), &key("m"), "pod-1", page(14.0));
    let known = &gathering.known(at(2))[&key("m")];
    assert_eq!((known.source, offered(known)), (Source::Engines, 4));
    assert_eq!(known.kv_tokens[""], 5_000.0);

    gathering.prometheus(at(3), &subjects, &answers(2.0));
    let known = &gathering.known(at(13))[&key("m")];
    assert_eq!((known.source, offered(known)), (Source::Prometheus, 20));

    gathering.expect(at(14), &[wanted("m", Some("pool"))], &[pod("a", "pool")]);
    assert!(gathering.without_pickers().is_empty());
    let known = &gathering.known(at(14))[&key("m")];
    assert_eq!(
        known.source,
        Source::Pickers,
        "its own picker is waited for"
    );
}

#[test]
fn engines_that_are_not_heard_say_nothing() {
    let mut gathering = gathering(&[]);
    gathering.engine(at(1), &key("m"), "pod-1", page(10.0));
    assert_eq!(gathering.known(at(15))[&key("m")].source, Source::Engines);
    assert_eq!(gathering.known(at(16))[&key("m")].source, Source::None);
}

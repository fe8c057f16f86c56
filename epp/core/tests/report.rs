//! The demand report as JSON: the golden file is what controllers of other releases read.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use epp_core::report::{
    ClassReport, DemandReport, EndpointReport, FLOWS, PoolName, SCHEMA, TargetReport,
};
use epp_core::{Config, Director, EndpointSpec, Pool, Scraped, Slo};
use predictor::State;
use support::{complete, dispatched, request, seconds, with_slo};

const GOLDEN: &str = include_str!("golden/demand_report.json");

/// Two endpoints of different classes, one request served, one running, one queued.
fn report() -> DemandReport {
    let mut director = Director::new(Config::llmd_default().with_max_concurrency(1), 1);
    let spec = |name: &str, address: &str, class: &str| EndpointSpec {
        name: name.into(),
        address: address.into(),
        labels: [("headroom.dev/accelerator".to_owned(), class.to_owned())].into(),
    };
    let pool = Pool::default().updated(vec![spec("a", "10.0.0.1:8000", "H100")]);
    pool.endpoints[0].set_scraped(Scraped {
        at: seconds(9.5),
        waiting: 0.0,
        running: 1.0,
        kv_utilization: 0.25,
        block_tokens: Some(16),
        kv_blocks: Some(1_000),
    });
    director.set_pool(Duration::ZERO, Arc::new(pool));
    director.submit(seconds(1.0), with_slo(0, 900.0));
    let mut served = dispatched(&mut director);
    served.in_flight.first_token(seconds(1.5));
    served.in_flight.finish(seconds(2.0), complete(20));
    director.submit(seconds(3.0), request(0));
    let running = dispatched(&mut director);
    director.submit(seconds(4.0), request(-1));
    let (now, demand) = (seconds(10.0), director.demand());
    let (mix_from, mix) = demand.mix_after(0, 1_000);
    let mut endpoints = EndpointReport::all(director.pool(), now);
    let unknown = Pool::default().updated(vec![spec("b", "[fd00::2]:8000", "")]);
    endpoints.extend(EndpointReport::all(&unknown, now));
    let target = |state, labels, mape| TargetReport {
        state,
        labels,
        labels_last_minute: labels / 2,
        fresh_labels: 0.75 * labels as f64,
        mape,
        coverage_p90: mape.map(|_| 0.9),
    };
    let report = DemandReport {
        schema: SCHEMA,
        epp: "epp-0".into(),
        incarnation: 1_700_000_000_000,
        at_ms: 1_700_000_010_000,
        uptime_ms: 10_000,
        ready: true,
        pool: PoolName {
            namespace: "serving".into(),
            name: "llama".into(),
        },
        totals: demand.totals(),
        queued: director.queued(),
        in_flight: 1,
        endpoints,
        mix_from,
        mix,
        models: vec![ClassReport {
            class: "H100".into(),
            version: 3,
            checksum: "ab12".into(),
            ttft: target(State::Trained, 400, Some(7.5)),
            tpot: target(State::Prior, 0, None),
        }],
        default_slo: Slo {
            ttft_ms: Some(2_000.0),
            tpot_ms: None,
        },
        model_names: BTreeMap::from([("llama-8b".into(), 3)]),
        flows: demand.top_flows(FLOWS),
    };
    drop(running);
    report
}

#[test]
fn the_json_is_the_golden_one_and_is_read_back_whole() {
    let report = report();
    let json = serde_json::to_value(&report).unwrap();
    let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(
        json,
        golden,
        "{}",
        serde_json::to_string_pretty(&json).unwrap()
    );
    let read: DemandReport = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(read, report);
}

#[test]
fn fields_and_outcomes_of_another_release_are_passed_over() {
    let mut json: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
    json["invented"] = true.into();
    json["endpoints"][0]["invented"] = 1.into();
    json["totals"]["bands"][0]["outcomes"]["Invented"] =
        json["totals"]["bands"][0]["offered"].clone();
    let read: DemandReport = serde_json::from_value(json).unwrap();
    assert_eq!(read, report());
}

#[test]
fn a_report_of_an_older_release_has_no_flows() {
    let mut json: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
    json.as_object_mut().unwrap().remove("flows");
    let read: DemandReport = serde_json::from_value(json).unwrap();
    let without = DemandReport {
        flows: Vec::new(),
        ..report()
    };
    assert_eq!(read, without);
}

#[test]
fn the_mix_is_as_old_on_the_readers_clock_as_it_was() {
    let report = report();
    let mix: Vec<_> = report.mix_at(seconds(100.0)).collect();
    assert_eq!(mix.len(), 1);
    // Served at 2 s, reported at 10 s.
    assert_eq!(mix[0].at, seconds(92.0));
    assert_eq!(
        report.mix_at(seconds(1.0)).next().unwrap().at,
        Duration::ZERO
    );
}

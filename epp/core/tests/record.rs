//! Records as they are written, and what a replay of them tells.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::config::Config;
use epp_core::record::{
    Ended, Line, PickRecord, Picked, PoolRecord, RecordError, RequestRecord, SCHEMA,
};
use epp_core::replay::{Replay, Report};
use epp_core::{Director, Lora, Request, Scraped, Slo, Stopwatch, Verdict, Work};
use support::{complete, pool, trained_model};

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
const FILTERED: &str = "
featureGates: [flowControl]
plugins:
  - {name: cap, type: utilization-filter, parameters: {conditions: [{metric: waiting-queue, maxValue: 4}]}}
  - {type: queue-scorer}
  - {type: kv-cache-utilization-scorer}
  - {type: prefix-cache-scorer}
  - {type: predicted-latency-producer}
schedulingProfiles:
  - name: default
    plugins:
      - {pluginRef: cap}
      - {pluginRef: queue-scorer, weight: 2}
      - {pluginRef: kv-cache-utilization-scorer}
      - {pluginRef: prefix-cache-scorer, weight: 3}
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}
";

fn config(yaml: &str) -> Config {
    Config::from_yaml(&format!("{HEAD}{yaml}")).unwrap()
}

fn scraped(at: Duration, waiting: f32, kv_utilization: f32) -> Scraped {
    Scraped {
        at,
        waiting,
        running: 2.0,
        kv_utilization,
        block_tokens: Some(64),
        kv_blocks: Some(1_000),
    }
}

/// Three endpoints that have told of themselves: the last one is beyond the cap.
fn director(yaml: &str) -> Director {
    let mut director = Director::new(config(yaml), 1);
    director.set_model(trained_model());
    let now = Duration::from_secs(100);
    let pool = pool(3);
    for (slot, (waiting, kv)) in [(0.0, 0.5), (1.0, 0.25), (9.0, 0.0)]
        .into_iter()
        .enumerate()
    {
        pool.endpoints[slot].set_scraped(scraped(now - Duration::from_millis(50), waiting, kv));
    }
    let lora = Lora {
        max: 2,
        running: vec!["sql".into()],
        waiting: vec![],
    };
    pool.endpoints[1].set_lora(Arc::new(lora));
    pool.endpoints[1].set_attribute(&"GPUUtilization".into(), 0.5);
    director.set_pool(now, pool);
    director
}

fn asked(id: &str, flow: &str) -> Request {
    Request {
        id: id.into(),
        model: "chat".into(),
        target_model: Some("chat-v2".into()),
        prompt_tokens: 512,
        prefix: Arc::from([11, 12, 13, 14, 15, 16, 17, 18]),
        slo: Slo {
            ttft_ms: Some(900.0),
            tpot_ms: Some(60.0),
        },
        flow: flow.into(),
        bytes: 2_100,
        session: Some("their-own-word-for-it".into()),
        headers: vec![("authorization".into(), "Bearer hidden".into())],
        ..Request::default()
    }
}

/// What becomes of one request, as a shell would record it.
fn record(director: &mut Director, now: Duration, request: Request) -> Line {
    let facts = RequestRecord::of(&request, Some("5e55".into()));
    let id = request.id.clone();
    director.submit(now, request);
    let (_, verdict) = director.poll().expect("decided at once");
    let Verdict::Dispatched(dispatch) = verdict else {
        panic!("{verdict:?}")
    };
    let mut record = PickRecord {
        schema: SCHEMA,
        at_ms: 1_790_000_000_000 + now.as_millis() as u64,
        id,
        config: "c0ffee".into(),
        request: facts,
        waited_ms: dispatch.waited.as_secs_f64() * 1e3,
        picked: Picked::of(&dispatch.decision, 1),
        refused: None,
        ended: None,
    };
    let mut in_flight = dispatch.in_flight;
    in_flight.first_token(now + Duration::from_millis(310));
    let completion = in_flight.finish(now + Duration::from_millis(710), complete(21));
    record.ended = Some(Ended::of(&completion, Some(200)));
    Line::Pick(Box::new(record))
}

/// Numbers to three digits: the last ones of a logarithm differ from one machine to the next.
fn rounded(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) if number.is_f64() => {
            let text = format!("{:.2e}", number.as_f64().unwrap_or_default());
            text.parse::<f64>().unwrap().into()
        }
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key, rounded(value)))
            .collect(),
        other => other,
    }
}

/// `value` as text, compared with a golden file; with `UPDATE_GOLDEN` set the file is written.
fn golden(name: &str, value: &impl serde::Serialize) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let value = rounded(serde_json::to_value(value).unwrap());
    let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path}");
}

#[test]
fn a_record_is_the_golden_one_and_is_read_back() {
    let mut director = director(FILTERED);
    let now = Duration::from_secs(100);
    let pool = Line::Pool(PoolRecord::of(director.pool(), 1));
    record(&mut director, now, asked("first", "tenant-a"));
    let pick = record(
        &mut director,
        now + Duration::from_secs(1),
        asked("second", "tenant-a"),
    );
    let lines = vec![pool, pick];
    golden("decision_records.json", &lines);
    for line in &lines {
        let text = serde_json::to_string(line).unwrap();
        assert_eq!(Line::parse(&text).unwrap(), *line);
        for secret in ["hidden", "their-own-word"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

#[test]
fn those_taken_out_are_there_with_the_filter_that_did_it() {
    let mut director = director(FILTERED);
    let Line::Pick(record) = record(&mut director, Duration::from_secs(100), asked("a", "f"))
    else {
        panic!("a pick")
    };
    let picked = record.picked.unwrap();
    let removed: Vec<_> = picked
        .candidates
        .iter()
        .map(|one| one.removed_by.as_deref())
        .collect();
    assert_eq!(removed, [None, None, Some("cap")]);
    assert_eq!(
        (&*picked.removals[0].filter, picked.removals[0].count),
        ("cap", 1)
    );
    assert!(picked.candidates[2].scores.is_empty() && picked.candidates[2].total.is_none());
    assert_eq!(picked.candidates[0].scores.len(), picked.scorers.len());
}

#[test]
fn steps_are_timed_only_for_requests_that_are_recorded() {
    let mut director = director(FILTERED);
    let ticks = std::sync::atomic::AtomicU64::new(0);
    director.lend(Stopwatch::new(move || {
        Duration::from_micros(ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }));
    let mut laps = |recorded| {
        let request = Request {
            recorded,
            ..asked("a", "f")
        };
        director.submit(Duration::from_secs(100), request);
        match director.poll() {
            Some((_, Verdict::Dispatched(dispatch))) => {
                let laps = dispatch.decision.laps().iter();
                laps.map(|lap| (lap.work, lap.plugin.to_string()))
                    .collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(laps(false), []);
    let wanted = [
        (Work::Filter, "cap"),
        (Work::Predict, "predicted-latency-producer"),
        (Work::Score, "queue-scorer"),
        (Work::Score, "kv-cache-utilization-scorer"),
        (Work::Score, "prefix-cache-scorer"),
        (Work::Pick, "max-score-picker"),
    ];
    assert_eq!(
        laps(true),
        wanted.map(|(work, name)| (work, name.to_owned()))
    );
}

#[test]
fn records_of_later_versions_are_told_apart_from_nonsense() {
    assert_eq!(
        Line::parse(r#"{"kind":"pick","schema":2}"#),
        Err(RecordError::Later(2))
    );
    assert!(matches!(Line::parse("no"), Err(RecordError::Shape(_))));
    assert!(matches!(
        Line::parse(r#"{"kind":"pool","schema":1}"#),
        Err(RecordError::Shape(_))
    ));
}

/// Forty requests of four tenants, recorded.
fn recorded() -> Vec<Line> {
    let mut director = director(FILTERED);
    let mut lines = vec![Line::Pool(PoolRecord::of(director.pool(), 1))];
    for number in 0..40_u64 {
        let now = Duration::from_secs(100 + number);
        for (slot, endpoint) in director.pool().endpoints.iter().enumerate() {
            let waiting = ((number as usize + slot) % 7) as f32;
            endpoint.set_scraped(scraped(now, waiting, 0.1 * slot as f32));
        }
        let request = Request {
            prefix: (0..8).map(|block| block * 100 + number % 4).collect(),
            slo: Slo {
                ttft_ms: Some(320.0),
                tpot_ms: None,
            },
            priority: if number % 5 == 0 { -1 } else { 0 },
            ..asked(
                &format!("request-{number}"),
                &format!("tenant-{}", number % 4),
            )
        };
        lines.push(record(&mut director, now, request));
    }
    lines
}

fn replayed(yaml: &str, lines: &[Line]) -> Report {
    let mut replay = Replay::new(config(yaml), 7);
    for line in lines {
        replay.line(line);
    }
    replay.report()
}

#[test]
fn the_same_configuration_changes_nothing() {
    let report = replayed(FILTERED, &recorded());
    assert_eq!((report.picks, report.same, report.moved), (40, 40, 0));
    assert_eq!(report.moved_by_chance, 0);
    assert!(report.endpoints.iter().all(|one| one.before == one.after));
    let ttft = report.predicted_ttft.unwrap();
    assert_eq!(
        (ttft.before_ms, ttft.slower, ttft.faster),
        (ttft.after_ms, 0, 0)
    );
}

#[test]
fn another_configuration_changes_what_the_golden_report_says() {
    const PREDICTED: &str = "
featureGates: [flowControl]
plugins: [{type: predicted-ttft-scorer}, {type: latency-slo-admitter, parameters: {idleAdmits: false}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: predicted-ttft-scorer}]}]
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}
";
    golden("replay_report.json", &replayed(PREDICTED, &recorded()));
}

#[test]
fn chance_is_told_from_change() {
    const RANDOM: &str = "
plugins: [{type: random-picker}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: random-picker}]}]
";
    let report = replayed(RANDOM, &recorded());
    assert!(report.moved > 5 && report.moved_by_chance > 5, "{report:?}");
    assert_eq!(report.same + report.moved, 40);
}

#[test]
fn a_full_pool_and_a_missing_one_are_told() {
    const TINY: &str = "
featureGates: [flowControl]
plugins: [{type: concurrency-detector, parameters: {maxConcurrency: 1}}]
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}
";
    let mut lines = recorded();
    let Line::Pick(full) = &mut lines[1] else {
        panic!("a pick")
    };
    for candidate in &mut full.picked.as_mut().unwrap().candidates {
        candidate.in_flight = 1;
    }
    let report = replayed(TINY, &lines);
    assert_eq!((report.no_room, report.same + report.moved), (1, 39));
    let report = replayed(TINY, &lines[1..]);
    assert_eq!((report.unusable, report.picks), (40, 0));
}

//! Filters, admission and records, as a request through the director meets them.

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::{Config, Director, EndpointSpec, Lora, Outcome, Pool, Request, Scraped, Slo};
use support::{
    complete, dispatched, pool, refused, request, seconds, trained_model, warm, with_slo,
};

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn config(lines: &str) -> Config {
    let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
    Config::from_yaml(&format!("{head}{lines}")).unwrap()
}

fn director(config: Config, pool: &Arc<Pool>) -> Director {
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director
}

fn labelled(labels: &[&[(&str, &str)]]) -> Arc<Pool> {
    let specs = labels.iter().enumerate().map(|(number, labels)| {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        EndpointSpec {
            name: format!("e{number}"),
            address: format!("10.0.0.{}:8000", number + 1),
            labels: labels.iter().map(pair).collect(),
        }
    });
    Arc::new(Pool::default().updated(specs.collect()))
}

fn with_header(name: &str, value: &str) -> Request {
    Request {
        headers: vec![(name.into(), value.into())],
        ..request(0)
    }
}

#[test]
fn a_profile_may_hold_one_filter_type_twice_under_two_names() {
    let config = config(
        "plugins:
  - {name: gold, type: label-selector-filter, parameters: {matchLabels: {tier: gold}}}
  - {name: h100, type: label-selector-filter, parameters: {matchLabels: {gpu: h100}}}
  - type: queue-scorer
schedulingProfiles:
  - {name: default, plugins: [{pluginRef: gold}, {pluginRef: queue-scorer}, {pluginRef: h100}]}",
    );
    let pool = labelled(&[
        &[("tier", "gold")],
        &[("gpu", "h100")],
        &[("tier", "gold"), ("gpu", "h100")],
        &[],
    ]);
    let mut director = director(config, &pool);
    for _ in 0..8 {
        director.submit(Duration::ZERO, request(0));
        let dispatch = dispatched(&mut director);
        assert_eq!(&*dispatch.endpoint.name, "e2");
        let removals = dispatch.decision.removals();
        let removals: Vec<_> = removals
            .iter()
            .map(|removal| (&*removal.filter, removal.count))
            .collect();
        assert_eq!(removals, [("gold", 2), ("h100", 1)]);
    }
}

#[test]
fn without_profiles_every_filter_listed_counts() {
    let config = config(
        "plugins:
  - {type: label-selector-filter, parameters: {matchLabels: {tier: gold}}}
  - type: queue-scorer",
    );
    assert_eq!(config.profile.filters.len(), 1);
    let mut director = director(config, &labelled(&[&[], &[("tier", "gold")]]));
    director.submit(Duration::ZERO, request(0));
    assert_eq!(&*dispatched(&mut director).endpoint.name, "e1");
}

/// §11.2: strict affinity, then the tier with headroom, then loose affinity within it.
const PREDICTOR: &str = "
plugins:
  - {type: predicted-latency-producer, parameters: {streamingMode: true}}
  - name: strict
    type: prefix-cache-affinity-filter
    parameters: {affinityThreshold: 0.99, ttftSource: latencyPredictor, maxTTFTPenaltyMs: 5000}
  - {type: slo-headroom-tier-filter, parameters: {epsilonExploreNeg: 0}}
  - name: loose
    type: prefix-cache-affinity-filter
    parameters: {affinityThreshold: 0.80, ttftSource: latencyPredictor, maxTTFTPenaltyMs: 5000}
  - type: latency-scorer
  - type: weighted-random-picker
  - type: latency-slo-admitter
schedulingProfiles:
  - name: default
    plugins:
      - {pluginRef: strict}
      - {pluginRef: slo-headroom-tier-filter}
      - {pluginRef: loose}
      - {pluginRef: latency-scorer}
      - {pluginRef: weighted-random-picker}";

#[test]
fn llmds_predictor_profile_sticks_while_the_slo_holds() {
    let pool = pool(4);
    warm(&pool);
    let mut director = director(config(PREDICTOR), &pool);
    director.set_model(trained_model());
    let conversation = |blocks: u64, ttft_ms: f64| Request {
        prefix: (1..=blocks).collect(),
        prefix_block_tokens: 64,
        prompt_tokens: blocks as u32 * 64,
        ..with_slo(0, ttft_ms)
    };
    director.submit(Duration::ZERO, conversation(10, 5_000.0));
    let first = dispatched(&mut director);
    let home = Arc::clone(&first.endpoint);
    drop(first);
    // 10 of 11 blocks are there: the loose filter keeps it, though others have as much headroom.
    for _ in 0..5 {
        director.submit(Duration::ZERO, conversation(11, 5_000.0));
        let dispatch = dispatched(&mut director);
        assert_eq!(dispatch.endpoint.name, home.name);
        let filters = dispatch.decision.removals();
        assert_eq!(filters.len(), 1, "{filters:?}");
        assert!(matches!(&*filters[0].filter, "loose" | "strict"));
    }
}

#[test]
fn a_request_that_no_filter_lets_pass_is_refused_and_holds_up_nobody() {
    let lines = "featureGates: [flowControl]
plugins:
  - type: header-based-testing-filter
  - type: queue-scorer
  - {type: concurrency-detector, parameters: {maxConcurrency: 1}}
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}";
    let mut director = director(config(lines), &pool(2));
    let nowhere = with_header("test-epp-endpoint-selection", "10.9.9.9");
    director.submit(Duration::ZERO, nowhere.clone());
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.status, refusal.outcome),
        (429, Outcome::RejectedCapacity)
    );
    assert!(refusal.message.contains("filters"), "{}", refusal.message);
    director.submit(
        Duration::ZERO,
        with_header("test-epp-endpoint-selection", "10.0.0.2:8000"),
    );
    let held = dispatched(&mut director);
    assert_eq!(&*held.endpoint.name, "e1");
    director.submit(Duration::ZERO, request(0));
    let other = dispatched(&mut director);
    director.submit(Duration::ZERO, nowhere);
    director.submit(Duration::ZERO, request(0));
    drop(held);
    director.advance(seconds(1.0));
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedCapacity);
    dispatched(&mut director);
    drop(other);
}

#[test]
fn adapters_go_where_they_are_loaded() {
    let pool = pool(3);
    pool.endpoints[2].set_lora(Arc::new(Lora {
        max: 2,
        running: vec!["sql".into()],
        waiting: Vec::new(),
    }));
    let mut director = director(config("plugins: [{type: lora-affinity-scorer}]"), &pool);
    director.submit(
        Duration::ZERO,
        Request {
            model: "sql".into(),
            ..request(0)
        },
    );
    assert_eq!(&*dispatched(&mut director).endpoint.name, "e2");
}

#[test]
fn sessions_by_id_come_back_through_the_filter() {
    let lines = "plugins: [{type: session-affinity-filter, parameters: {strategy: session_id}}, {type: random-picker}]";
    let config = config(lines);
    let headers: Vec<_> = config.headers_in_use();
    assert_eq!(headers, ["x-session-id".into()]);
    let mut director = director(config, &pool(8));
    director.submit(Duration::ZERO, with_header("x-session-id", "s1"));
    let home = Arc::clone(&dispatched(&mut director).endpoint);
    for second in 0..20 {
        director.submit(
            seconds(f64::from(second)),
            with_header("x-session-id", "s1"),
        );
        assert_eq!(dispatched(&mut director).endpoint.name, home.name);
    }
}

#[test]
fn the_fuller_the_pool_the_likelier_a_sheddable_request_is_refused() {
    let pool = pool(2);
    let mut director = director(
        config("plugins: [{type: probabilistic-admitter}, {type: queue-scorer}]"),
        &pool,
    );
    let tell = |waiting: f32| {
        for endpoint in &pool.endpoints {
            endpoint.set_scraped(Scraped {
                at: Duration::ZERO,
                waiting,
                running: 0.0,
                kv_utilization: 0.0,
                block_tokens: None,
                kv_blocks: None,
            });
        }
    };
    let refusals = |director: &mut Director, waiting: f32, priority: i32| {
        let before = director
            .demand()
            .totals()
            .outcome(Outcome::RejectedCapacity);
        for _ in 0..500 {
            tell(waiting);
            director.submit(Duration::ZERO, request(priority));
            director.poll();
        }
        let after = director
            .demand()
            .totals()
            .outcome(Outcome::RejectedCapacity);
        after.requests - before.requests
    };
    assert_eq!(refusals(&mut director, 0.0, -1), 0);
    // Saturation 0.2: 300·0.2⁵ = 9.6 %.
    let some = refusals(&mut director, 1.0, -1);
    assert!((25..75).contains(&some), "{some}");
    assert_eq!(refusals(&mut director, 1.0, 0), 0);
    assert_eq!(refusals(&mut director, 4.5, -1), 500);
    tell(4.5);
    director.submit(Duration::ZERO, request(-1));
    let refusal = refused(&mut director);
    assert_eq!(
        (refusal.status, refusal.reason),
        (429, "rejected-saturated")
    );
}

/// TPOT here is 20 ms + 0.5 ms per running request.
fn with_tpot(priority: i32, tpot_ms: f64) -> Request {
    Request {
        slo: Slo {
            ttft_ms: None,
            tpot_ms: Some(tpot_ms),
        },
        ..request(priority)
    }
}

/// One endpoint with four running requests that need 22.5 ms per token, which they get up to four.
fn at_its_limit(config: Config) -> (Director, Vec<epp_core::Dispatch>) {
    let pool = pool(1);
    warm(&pool);
    let mut director = director(config, &pool);
    director.set_model(trained_model());
    let held = (0..4).map(|_| {
        director.submit(Duration::ZERO, with_tpot(0, 22.9));
        let mut dispatch = dispatched(&mut director);
        dispatch.in_flight.first_token(Duration::ZERO);
        *dispatch
    });
    let held = held.collect();
    (director, held)
}

#[test]
fn sheddable_requests_wait_for_those_they_would_slow_down() {
    let (mut director, mut held) = at_its_limit(Config::headroom_default());
    for _ in 0..6 {
        director.submit(Duration::ZERO, with_tpot(0, 500.0));
        let mut more = dispatched(&mut director);
        more.in_flight.first_token(Duration::ZERO);
        held.push(*more);
    }
    director.submit(seconds(1.0), with_tpot(-1, 1_000.0));
    assert!(director.poll().is_none(), "waits: others would miss theirs");
    director.submit(seconds(1.0), request(0));
    dispatched(&mut director);
    held.clear();
    director.advance(seconds(2.0));
    dispatched(&mut director);
}

#[test]
fn without_a_queue_they_are_refused_and_unprotected_they_pass() {
    let no_queue = Config {
        flow: None,
        ..Config::headroom_default()
    };
    let (mut director, held) = at_its_limit(no_queue);
    let mut crowd = held;
    for _ in 0..6 {
        director.submit(Duration::ZERO, with_tpot(0, 500.0));
        let mut more = dispatched(&mut director);
        more.in_flight.first_token(Duration::ZERO);
        crowd.push(*more);
    }
    director.submit(Duration::ZERO, with_tpot(-1, 1_000.0));
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedSlo);
    director.submit(Duration::ZERO, request(-1));
    assert_eq!(refused(&mut director).outcome, Outcome::RejectedSlo);
    let mut unprotected = Config::headroom_default();
    unprotected
        .predicted_latency
        .as_mut()
        .unwrap()
        .protect_running = false;
    let (mut director, held) = at_its_limit(unprotected);
    let mut crowd = held;
    for _ in 0..6 {
        director.submit(Duration::ZERO, with_tpot(0, 500.0));
        crowd.push(*dispatched(&mut director));
    }
    director.submit(Duration::ZERO, with_tpot(-1, 1_000.0));
    dispatched(&mut director);
}

#[test]
fn a_pick_is_recorded_where_its_request_says_so() {
    let pool = pool(4);
    let mut director = director(Config::llmd_default(), &pool);
    for recorded in [true, false, true] {
        director.submit(
            Duration::ZERO,
            Request {
                recorded,
                ..request(0)
            },
        );
        let decision = dispatched(&mut director).decision;
        let shown = decision.explain();
        assert_eq!(decision.recorded(), recorded);
        assert_eq!(shown.request.is_some(), recorded);
        assert_eq!(shown.candidates.len(), 4 * usize::from(recorded));
        assert_eq!(decision.totals().count(), shown.candidates.len());
    }
}

#[test]
fn a_record_holds_what_the_request_was_and_what_was_read() {
    let pool = pool(2);
    let mut director = director(Config::llmd_default(), &pool);
    let session: Arc<str> = "s".into();
    director.submit(
        Duration::ZERO,
        Request {
            id: "r-1".into(),
            model: "m".into(),
            prefix: (1..=3).collect(),
            session: Some(Arc::clone(&session)),
            ..with_slo(7, 300.0)
        },
    );
    let shown = dispatched(&mut director).decision.explain();
    let facts = shown.request.unwrap();
    assert_eq!((facts.id.as_str(), facts.model.as_str()), ("r-1", "m"));
    assert_eq!((facts.priority, facts.blocks, facts.bytes), (7, 3, 400));
    assert_eq!(
        (facts.slo.ttft_ms, facts.session),
        (Some(300.0), Some(session))
    );
    let json = serde_json::to_value(&shown.candidates[0]).unwrap();
    for field in [
        "waiting_tokens",
        "resident_tokens",
        "queue",
        "matched_blocks",
    ] {
        assert!(json.get(field).is_some(), "{field}: {json}");
    }
}

#[test]
fn pitfall_08_stale_metrics_empty_no_filter() {
    let lines = "plugins:
  - type: utilization-detector
  - {type: utilization-filter, parameters: {conditions: [{metric: waiting-queue, maxValue: 1}, {metric: kv-cache-utilization, maxValue: 0.1}]}}
  - {type: endpoint-attribute-filter, parameters: {attribute: gpu, algorithm: {type: threshold, threshold: {operator: LessThan, value: 0.5}}}}
  - type: queue-scorer
schedulingProfiles:
  - name: default
    plugins:
      - {pluginRef: utilization-detector}
      - {pluginRef: utilization-filter}
      - {pluginRef: endpoint-attribute-filter}
      - {pluginRef: queue-scorer}";
    let pool = pool(2);
    for endpoint in &pool.endpoints {
        endpoint.set_scraped(Scraped {
            at: Duration::ZERO,
            waiting: 99.0,
            running: 99.0,
            kv_utilization: 1.0,
            block_tokens: None,
            kv_blocks: None,
        });
    }
    let mut director = director(config(lines), &pool);
    director.submit(Duration::ZERO, request(0));
    assert_eq!(
        refused(&mut director).outcome,
        Outcome::RejectedCapacity,
        "fresh and full"
    );
    director.submit(seconds(60.0), request(0));
    dispatched(&mut director);
}

#[test]
fn pitfall_10_no_target_of_a_client_overflows() {
    let pool = pool(2);
    warm(&pool);
    let mut director = director(Config::headroom_default(), &pool);
    director.set_model(trained_model());
    let late = Duration::from_secs(1 << 50);
    for target in [f64::MAX, 1e300, f64::INFINITY, 1e-300, 0.0, -5.0, f64::NAN] {
        let slo = Slo {
            ttft_ms: Some(target),
            tpot_ms: Some(target),
        };
        director.submit(late, Request { slo, ..request(0) });
        let mut dispatch = dispatched(&mut director);
        dispatch.in_flight.first_token(late);
        dispatch.in_flight.finish(late, complete(3));
    }
    for endpoint in &pool.endpoints {
        let load = endpoint.load.snapshot();
        assert_eq!((load.in_flight, load.tightest_tpot_ms), (0, None));
        assert_eq!((load.kept_tpot_ms, load.kept_first_token_ms), (None, None));
    }
}

#[test]
fn pitfall_12_only_an_empty_pool_is_unavailable() {
    let lines = "plugins: [{type: prefill-filter}, {type: queue-scorer}]";
    let mut director = director(config(lines), &Arc::default());
    director.submit(Duration::ZERO, request(0));
    assert_eq!(refused(&mut director).status, 503);
    director.set_pool(Duration::ZERO, labelled(&[&[("llm-d.ai/role", "decode")]]));
    director.submit(Duration::ZERO, request(0));
    assert_eq!(refused(&mut director).status, 429);
}

#[test]
fn pitfall_17_a_stage_without_an_endpoint_is_said() {
    let lines = "plugins: [{type: prefill-filter}, {type: queue-scorer}]";
    let pool = labelled(&[&[("llm-d.ai/role", "decode")], &[]]);
    let mut director = director(config(lines), &pool);
    director.submit(Duration::ZERO, request(0));
    let refusal = refused(&mut director);
    assert!(
        refusal
            .message
            .contains("filters of the scheduling profile")
    );
}

//! What a request allocates must not grow with the pool.

mod support;

use std::time::Duration;

use epp_core::config::{NamedFilter, Profile, Scorer, WeightedScorer};
use epp_core::{Config, Director, Request, Scraped, Verdict};
use support::{complete, pool, trained_model, warm};

/// Requests before counting: buffers have their size, maps know the prompt.
const WARM_UP: usize = 6_000;

/// Allocations of one request through the core, not recorded, averaged over 50.
#[expect(clippy::panic, reason = "a test fails by panicking")]
fn allocations(config: &Config, endpoints: usize) -> f64 {
    let pool = pool(endpoints);
    warm(&pool);
    let mut director = Director::new(config.clone().with_max_concurrency(1_000), 1);
    director.set_model(trained_model());
    director.set_pool(Duration::ZERO, pool.clone());
    let prefix: std::sync::Arc<[u64]> = (1..=16).collect();
    let mut now = Duration::from_secs(1);
    let mut run = |director: &mut Director| {
        now += Duration::from_millis(1);
        director.submit(
            now,
            Request {
                prompt_tokens: 1_024,
                prefix: std::sync::Arc::clone(&prefix),
                bytes: 4_096,
                recorded: false,
                ..Request::default()
            },
        );
        let Some((_, Verdict::Dispatched(mut dispatch))) = director.poll() else {
            panic!("not dispatched")
        };
        dispatch.in_flight.first_token(now);
        dispatch.in_flight.finish(now, complete(2));
        director.advance(now);
    };
    for endpoint in &pool.endpoints {
        endpoint.set_scraped(Scraped {
            at: Duration::from_secs(1),
            waiting: 1.0,
            running: 1.0,
            kv_utilization: 0.5,
            block_tokens: None,
            kv_blocks: None,
        });
    }
    for _ in 0..WARM_UP {
        run(&mut director);
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..50 {
            run(&mut director);
        }
    });
    counted.count_total as f64 / 50.0
}

/// Every filter and scorer that needs no header, at once.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn everything() -> Config {
    let text = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: label-selector-filter
  - type: decode-filter
  - type: passive-health
  - {type: context-length-aware, parameters: {enableFiltering: true}}
  - {type: utilization-filter, parameters: {conditions: [{metric: active-requests, maxValue: 900}]}}
  - {type: endpoint-attribute-filter, parameters: {attribute: a, algorithm: {type: threshold, threshold: {operator: LessThan, value: 1}}}}
  - {type: prefix-cache-affinity-filter, parameters: {affinityThreshold: 0.99, ttftSource: latencyPredictor}}
  - type: slo-headroom-tier-filter
  - type: queue-scorer
  - type: running-requests-size-scorer
  - type: load-aware-scorer
  - type: token-load-scorer
  - type: active-request-scorer
  - type: no-hit-lru-scorer
  - type: lora-affinity-scorer
  - {type: endpoint-attribute-scorer, parameters: {attributeKey: a}}
  - type: latency-scorer
  - type: weighted-random-picker
";
    Config::from_yaml(text).unwrap()
}

#[test]
fn a_request_allocates_the_same_in_any_pool() {
    let without_scorers = Config {
        profile: Profile {
            scorers: Vec::<WeightedScorer>::new(),
            filters: Vec::<NamedFilter>::new(),
            ..Config::default().profile
        },
        ..Config::llmd_default()
    };
    let one_scorer = Config {
        profile: Profile {
            scorers: vec![WeightedScorer {
                name: "queue-scorer".into(),
                weight: 1.0,
                scorer: Scorer::Queue,
            }],
            ..Config::default().profile
        },
        ..Config::llmd_default()
    };
    for (name, config) in [
        ("no scorers", without_scorers),
        ("one scorer", one_scorer),
        ("llm-d", Config::llmd_default()),
        ("headroom", Config::headroom_default()),
        ("everything", everything()),
    ] {
        let (few, many) = (allocations(&config, 8), allocations(&config, 256));
        assert!(
            many <= few + 1.0,
            "{name}: {few} allocations with 8 endpoints, {many} with 256"
        );
        assert!(few <= 40.0, "{name}: {few} allocations");
    }
}

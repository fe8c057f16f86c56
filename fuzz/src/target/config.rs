//! `EndpointPickerConfig` documents: refused in words, or a picker that works.

use std::sync::Arc;
use std::time::Duration;

use epp_core::{Config, Director, EndpointSpec, Pool, Request};

use super::{Shape, Target};

pub(super) static TARGET: Target = Target {
    name: "config",
    words: &[
        b"apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n",
        b"featureGates: [flowControl]\n",
        b"plugins:\n",
        b"- type: ",
        b"  name: x\n",
        b"  parameters: ",
        b"schedulingProfiles:\n- name: default\n  plugins:\n",
        b"  - pluginRef: ",
        b"    weight: ",
        b"flowControl:\n",
        b"  maxBytes: 1G\n",
        b"  defaultRequestTTL: ",
        b"  priorityBands:\n  - priority: 2\n    maxRequests: 0\n",
        b"  defaultNegativePriorityBand: {maxRequests: 0}\n",
        b"  saturationDetector: {pluginRef: concurrency-detector}\n",
        b"queue-scorer",
        b"prefix-cache-scorer",
        b"predicted-ttft-scorer",
        b"latency-scorer",
        b"max-score-picker",
        b"weighted-random-picker",
        b"concurrency-detector",
        b"utilization-detector",
        b"approx-prefix-cache-producer",
        b"predicted-latency-producer",
        b"prefix-cache-affinity-filter",
        b"label-selector-filter",
        b"edf-ordering-policy",
        b"program-aware-fairness",
        b"latency-slo-admitter",
        b"&a ",
        b"*a",
        b"!!binary ",
        b"<<: *a\n",
        b"9223372036854775808",
        b"1e309",
        b".nan",
        b"-.inf",
        b"~",
        b"|\n",
        b"\t",
        b"---\n",
    ],
    run,
};

fn run(input: &[u8]) -> Shape {
    let Ok(text) = std::str::from_utf8(input) else {
        return Shape::default();
    };
    let config = match Config::from_yaml(text) {
        Ok(config) => config,
        Err(error) => return Shape::default().with_error(&error),
    };
    let shape = Shape::default()
        .with(config.flow_control())
        .with_length(config.warnings.len())
        .with(format!("{:?}", config.profile.picker))
        .with(config.profile.scorers.len())
        .with(config.profile.filters.len());
    shape.with(works(config))
}

/// A picker with that configuration decides over two requests, now or when its time comes.
fn works(config: Config) -> usize {
    let spec = |number: u8| EndpointSpec {
        name: format!("e{number}"),
        address: format!("10.0.0.{number}:8000"),
        labels: Default::default(),
    };
    let mut director = Director::new(config, 1);
    let pool = Pool::default().updated(vec![spec(1), spec(2)]);
    director.set_pool(Duration::ZERO, Arc::new(pool));
    for priority in [0, -1] {
        let request = Request {
            priority,
            prompt_tokens: 100,
            bytes: 400,
            prefix: [1, 2, 3].into(),
            prefix_block_tokens: 64,
            ..Request::default()
        };
        director.submit(Duration::from_secs(1), request);
    }
    let mut verdicts = 0;
    let mut take = |director: &mut Director| {
        while director.poll().is_some() {
            verdicts += 1;
        }
    };
    take(&mut director);
    director.advance(Duration::from_secs(2));
    take(&mut director);
    director.drain(Duration::from_secs(3));
    take(&mut director);
    assert_eq!(verdicts, 2, "a request without its verdict");
    verdicts
}

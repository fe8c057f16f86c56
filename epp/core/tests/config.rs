//! Configuration files: what loads, into what, and how the rest is refused.

use std::time::Duration;

use epp_core::Config;
use epp_core::config::{
    Detector, Filter, NamedFilter, PLUGIN_TYPES, Picker, Quantile, Scorer, Strategy,
};

const PLAIN: &str = include_str!("configs/plain.yaml");
const LLMD_QUEUED: &str = include_str!("configs/llmd-queued.yaml");
const HEADROOM: &str = include_str!("configs/headroom.yaml");
const EVERYTHING: &str = include_str!("configs/everything.yaml");

fn with(lines: &str) -> Result<Config, String> {
    let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
    Config::from_yaml(&format!("{head}{lines}")).map_err(|error| error.to_string())
}

#[expect(clippy::panic, reason = "a test fails by panicking")]
fn refused(lines: &str, parts: &[&str]) {
    let Err(message) = with(lines) else {
        panic!("accepted: {lines}")
    };
    for part in parts {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
}

/// The same without the plugins' own names, which only a file gives.
fn nameless(config: Config) -> Config {
    Config {
        types: Default::default(),
        ..config
    }
}

#[test]
fn files_equal_the_configurations_that_need_none() {
    assert_eq!(
        nameless(Config::from_yaml(PLAIN).unwrap()),
        Config::default()
    );
    assert_eq!(with("").unwrap(), Config::default());
    assert_eq!(
        nameless(Config::from_yaml(LLMD_QUEUED).unwrap()),
        Config::llmd_default().with_max_concurrency(16)
    );
    assert_eq!(
        nameless(Config::from_yaml(HEADROOM).unwrap()),
        Config::headroom_default().with_max_concurrency(16)
    );
}

/// The chart writes the default out, for users to see and change.
#[test]
fn the_chart_brings_headrooms_default() {
    #[derive(serde::Deserialize)]
    struct Values {
        #[serde(rename = "poolDefaults")]
        pool: Pool,
    }
    #[derive(serde::Deserialize)]
    struct Pool {
        epp: Picker,
    }
    #[derive(serde::Deserialize)]
    struct Picker {
        config: String,
    }
    let text = include_str!("../../../deploy/charts/headroom/values.yaml");
    let values: Values = serde_saphyr::from_str(text).unwrap();
    let config = Config::from_yaml(&values.pool.epp.config).unwrap();
    // In a pod the memory has an end.
    let mut expected = Config::headroom_default();
    expected.flow.as_mut().unwrap().max_bytes = Some(256_000_000);
    assert_eq!(nameless(config), expected);
}

#[test]
fn all_presets_share_their_queue() {
    let presets = [
        Config::headroom_default(),
        Config::llmd_default(),
        Config::round_robin(),
    ];
    for preset in &presets {
        assert_eq!(preset.flow, presets[0].flow);
        assert!(matches!(preset.detector, Detector::Concurrency(_)));
    }
    assert!(presets[0].flow.is_some());
    assert!(!presets[2].reads_metrics());
    assert!(presets[0].reads_metrics() && presets[1].reads_metrics());
}

#[test]
fn every_value_arrives() {
    let config = Config::from_yaml(EVERYTHING).unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("deprecated"));
    let discovery = config.discovery.unwrap();
    assert_eq!(
        (discovery.path.as_str(), discovery.watch_file),
        ("/etc/endpoints.yaml", true)
    );
    let prefix = config.prefix.unwrap();
    assert_eq!(
        (
            prefix.auto_tune,
            prefix.block_size_tokens,
            prefix.lru_capacity_per_server
        ),
        (false, 128, 1_000)
    );
    let producer = config.predicted_latency.unwrap();
    assert_eq!(
        (
            producer.slo_buffer_factor,
            producer.streaming_mode,
            producer.quantile
        ),
        (0.9, true, Quantile::P90)
    );
    assert_eq!(config.slo_admitter.unwrap().quantile, Quantile::P90);
    let metrics = config.metrics.unwrap();
    assert_eq!(
        (metrics.source.path.as_str(), metrics.source.interval),
        ("/m", Some(Duration::from_millis(100)))
    );
    assert_eq!(metrics.engines.label, "engine");

    let profile = config.profile;
    let weights: Vec<_> = profile
        .scorers
        .iter()
        .map(|scorer| (&*scorer.name, scorer.weight))
        .collect();
    let wanted = [
        ("queue-scorer", 1.5),
        ("kv-cache-utilization-scorer", 1.0),
        ("prefix", 0.0),
        ("latency-scorer", 4.0),
        ("predicted-ttft-scorer", 1.0),
    ];
    assert_eq!(weights, wanted);
    let Scorer::Latency(latency) = &profile.scorers[3].scorer else {
        panic!("{:?}", profile.scorers[3])
    };
    assert_eq!(
        (
            latency.headroom_selection_strategy,
            latency.composite_kv_weight
        ),
        (Strategy::Most, 2.0)
    );
    assert_eq!(
        (profile.picker, profile.endpoints),
        (Picker::WeightedRandom, 3)
    );
    let [
        NamedFilter {
            filter:
                Filter::Room(Detector::Utilization {
                    parameters,
                    staleness,
                }),
            ..
        },
    ] = &profile.filters[..]
    else {
        panic!("{profile:?}")
    };
    assert_eq!(
        (parameters.queue_depth_threshold, *staleness),
        (3.0, Duration::from_secs(1))
    );
    let Detector::Concurrency(detector) = &config.detector else {
        panic!("{:?}", config.detector)
    };
    assert_eq!((detector.max_concurrency, detector.headroom), (8, 0.25));
    assert_eq!(config.usage_limit.highest(), 0.9);

    let flow = config.flow.unwrap();
    assert_eq!(
        (flow.max_bytes, flow.max_requests),
        (Some(2 << 30), Some(10_000))
    );
    let half_minute = Some(Duration::from_secs(30));
    assert_eq!(
        (flow.request_ttl, flow.no_endpoint_ttl),
        (half_minute, half_minute)
    );
    assert_eq!(
        (flow.band(0).max_requests, flow.band(0).max_bytes),
        (100, 1_000_000_000)
    );
    assert_eq!(
        (flow.band(-3).max_requests, flow.band(-3).max_bytes),
        (50, 10_000_000)
    );
    assert_eq!(flow.band(-3).request_ttl, Some(Duration::from_secs(5)));
    assert_eq!(flow.band(10).max_requests, 7);
}

#[test]
fn every_type_is_known_by_its_name_alone() {
    let not_without = [
        "file-discovery",
        "endpoint-attribute-filter",
        "endpoint-attribute-scorer",
        "header-label-affinity-scorer",
        "priority-holdback-policy",
        "session-id-producer",
        "utilization-filter",
    ];
    for type_name in PLUGIN_TYPES
        .iter()
        .filter(|name| !not_without.contains(name))
    {
        let config = with(&format!("plugins: [{{type: {type_name}}}]"));
        assert!(config.is_ok(), "{type_name}: {config:?}");
    }
    refused(
        "plugins: [{type: file-discovery}]",
        &["path", "must name the endpoints file"],
    );
}

#[test]
fn what_is_consumed_is_injected() {
    let bare = with("plugins: [{type: queue-scorer}]").unwrap();
    assert!(
        bare.prefix.is_none() && bare.predicted_latency.is_none(),
        "nothing reads them"
    );
    let latency = with("plugins: [{type: latency-scorer}]").unwrap();
    assert!(latency.prefix.is_some() && latency.predicted_latency.is_some());
    let admitter = with("plugins: [{type: latency-slo-admitter}]").unwrap();
    assert!(admitter.predicted_latency.is_some() && admitter.slo_admitter.is_some());
    assert_eq!(admitter.profile, Config::default().profile);
    assert!(
        with("").unwrap().flow.is_none(),
        "the gate is off when absent"
    );
    assert!(
        with("dataLayer: {injectDefaults: false}")
            .unwrap()
            .metrics
            .is_none()
    );
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    refused(
        "plugins: [{type: no-hit-lfu-scorer}]",
        &[
            "plugins[0] `no-hit-lfu-scorer` line 3 column 11",
            "plugin type `no-hit-lfu-scorer`",
            "nearest known: `no-hit-lru-scorer`",
        ],
    );
    refused(
        "plugins: [{type: queue-scorr}]",
        &["nearest known: `queue-scorer`"],
    );
    refused(
        "plugin: []",
        &[
            "unknown field `plugin`",
            "nearest known: `plugins`",
            "line 3",
        ],
    );
    refused(
        "plugins: [{type: concurrency-detector, parameters: {maxConcurency: 3}}]",
        &[
            "plugins[0] `concurrency-detector` parameters.maxConcurency line 3 column 53",
            "unknown field `maxConcurency`",
            "nearest known: `maxConcurrency`",
        ],
    );
    refused(
        "plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: d, plugins: [{pluginRef: queue-score}]}]",
        &["pluginRef `queue-score`", "nearest known: `queue-scorer`"],
    );
    refused(
        "featureGates: [flowcontrol]",
        &["feature gate `flowcontrol`", "nearest known: `flowControl`"],
    );
    refused(
        "flowControl: {priorityBands: [{priority: 1, maxRequest: 3}]}",
        &["`maxRequest`", "`maxRequests`"],
    );
    refused(
        "plugins: [{type: latency-slo-admitter, parameters: {quantile: p95}}]",
        &["`p95`", "`p90`"],
    );
    refused(
        "plugins: [{type: latency-scorer, parameters: {headroomSelectionStrategy: mots}}]",
        &["nearest known: `most`"],
    );
}

#[test]
fn wrong_values_are_refused_with_what_would_be_right() {
    refused(
        "featureGates: [flowControl=maybe]",
        &["`flowControl=maybe`", "NAME=true"],
    );
    refused(
        "flowControl: {defaultRequestTTL: 60}",
        &["defaultRequestTTL", "`60`", "for example 60s"],
    );
    refused(
        "flowControl: {maxBytes: 1GB}",
        &["maxBytes", "`1GB`", "1G or 512Mi"],
    );
    refused(
        "plugins: [{type: priority-holdback-policy}]",
        &["minCeiling", "must be given"],
    );
    refused(
        "flowControl: {priorityBands: [{priority: 1}, {priority: 1}]}",
        &["priorityBands[1].priority", "twice"],
    );
    refused(
        "plugins: [{type: queue-scorer}, {type: queue-scorer}]",
        &["plugins[1].name", "given twice"],
    );
    refused(
        "plugins: [{type: random-picker}, {type: max-score-picker}]",
        &["are too many: a profile has one picker"],
    );
    refused(
        "plugins: [{type: passive-health}, {name: twice, type: passive-health}]",
        &["`twice`", "second passive-health"],
    );
    refused(
        "plugins: [{type: session-id-producer, parameters: {headerName: a, cookieName: b}}]",
        &["headerName, cookieName", "`a, b`", "exactly one"],
    );
    refused(
        "plugins: [{type: label-selector-filter, parameters: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]",
        &["matchExpressions values", "none for Exists"],
    );
    refused(
        "plugins: [{type: utilization-filter}]",
        &["conditions", "at least one"],
    );
    refused(
        "plugins: [{type: prefix-cache-affinity-filter, parameters: {affinityThreshold: 1.2}}]",
        &["affinityThreshold", "between 0 and 1"],
    );
    refused(
        "plugins: [{type: endpoint-attribute-scorer, parameters: {attributeKey: a, algorithm: {type: linear_lower_is_better, normalization: {fixedRange: {min: 1, max: 1}}}}}]",
        &["fixedRange", "min below max"],
    );
    refused(
        "plugins: [{type: passive-health, parameters: {baseEjection: 10}}]",
        &["baseEjection", "`10`"],
    );
    refused(
        "schedulingProfiles: [{name: a}, {name: b}]",
        &["`a, b`", "one profile"],
    );
    refused(
        "plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: d, plugins: [{pluginRef: queue-scorer, weight: -1}]}]",
        &["weight", "`-1`", "at least 0"],
    );
    refused(
        "plugins: [{type: concurrency-detector, parameters: {maxConcurrency: 0}}]",
        &["maxConcurrency", "above 0"],
    );
    refused(
        "flowControl: {saturationDetector: {pluginRef: queue-scorer}}",
        &["is a scorer", "saturation detector"],
    );
    refused(
        "dataLayer: {peerDiscovery: {pluginRef: x}}",
        &["peerDiscovery", "leave it out"],
    );
    refused(
        "plugins: [{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: approx}}]",
        &["prefixMatchInfoProducerName", "`approx`"],
    );
    let message = Config::from_yaml("apiVersion: v2\nkind: EndpointPickerConfig")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`v2`") && message.contains("llm-d.ai/v1alpha1"),
        "{message}"
    );
}

#[test]
fn odd_but_legal_files_are_warned_about() {
    let unused = with("plugins: [{type: openai-parser}]").unwrap();
    assert!(
        unused.warnings[0].contains("`openai-parser`"),
        "{:?}",
        unused.warnings
    );
    let twin = with("saturationDetector: {pluginRef: concurrency-detector}").unwrap();
    assert!(matches!(twin.detector, Detector::Concurrency(_)));
    assert!(twin.warnings[0].contains("flowControl.saturationDetector"));
    let gated = with("flowControl: {maxRequests: 3}").unwrap();
    assert!(gated.flow.is_none() && gated.warnings[0].contains("feature gate"));
    let said = |ttl: &str| {
        let section = format!("flowControl: {{noEndpointRequestTTL: {ttl}}}");
        let gated = with(&section).unwrap().empty_pool_ttl;
        let config = with(&format!("featureGates: [flowControl]\n{section}")).unwrap();
        (
            gated,
            config.empty_pool_ttl,
            config.flow.unwrap().no_endpoint_ttl,
        )
    };
    let long = Some(Duration::from_secs(90));
    assert_eq!(said("90s"), (None, long, long));
    assert_eq!(said("0s"), (None, Some(Duration::MAX), None));
    let endless = with("featureGates: [flowControl]\nflowControl: {defaultRequestTTL: 0s}")
        .unwrap()
        .flow
        .unwrap();
    assert_eq!((endless.request_ttl, endless.no_endpoint_ttl), (None, None));
}

/// What follows the two lines that every document begins with.
fn at(lines: &str, line: u64, column: u64) {
    let error = with(lines).err().unwrap_or_default();
    let place = format!(" line {line} column {column}: ");
    assert!(error.contains(&place), "`{error}` is not at{place}");
}

#[test]
fn errors_say_where_in_the_text() {
    at("plugins:\n- type: queue-scorer\n- type: queue-scoer", 5, 3);
    at(
        "plugins:\n- type: queue-scorer\n- type: queue-scorer\n  name: queue-scorer",
        6,
        3,
    );
    at(
        "plugins:\n- type: latency-scorer\n  parameters:\n    ttftWeight: -1",
        6,
        5,
    );
    at(
        "plugins:\n- type: latency-scorer\n  parameters:\n    ttftWeight: much",
        6,
        5,
    );
    at(
        "plugins:\n- {name: a, type: random-picker, parameters: {maxNumOfEndpoints: 0}}",
        4,
        47,
    );
    at(
        "flowControl:\n  priorityBands:\n  - priority: 1\n  - maxBytes: 1\n    priority: 1",
        7,
        5,
    );
    at(
        "flowControl: {defaultPriorityBand: {maxBytes: lots}}",
        3,
        37,
    );
    at(
        "schedulingProfiles:\n- name: x\n  plugins:\n  - pluginRef: queue",
        6,
        5,
    );
    at("dataLayer:\n  discovery:\n    pluginRef: here", 5, 5);
    at("kinds: x", 3, 1);
}

#[test]
fn anchors_and_merges_are_found_where_they_are_used() {
    let text = "plugins:\n- &one {type: queue-scorer}\n- *one";
    let error = with(text).unwrap_err();
    assert!(error.contains("plugins[1].name line 5"), "{error}");
}

#[test]
fn each_plugin_is_told_of_its_own_mistake() {
    let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: a}, {type: b}]";
    let findings = epp_core::config::lint(text, None);
    let places: Vec<_> = findings.iter().map(|finding| &*finding.place).collect();
    assert_eq!(places, ["plugins[0] `a`", "plugins[1] `b`"]);
}

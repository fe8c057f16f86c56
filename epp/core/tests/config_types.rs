//! Every plugin type that llm-d knows is known here, with its stage, what becomes of it, and its defaults.

use epp_core::Config;
use epp_core::config::{
    BandConfig, FlowConfig, Role, Stage, Status, catalogue, default_parameters, plugin_type,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

use self::Fate::{Alias, Built, Waits};
use Role::{
    Admitter, Decider, Detector, Discovery, EvictionFilter, EvictionOrdering, Extractor, Fairness,
    Filter, Ordering, Parser, Picker, Processor, Producer, ProfileHandler, Scorer, Screener,
    Source, UsageLimit,
};
use Stage::{Alpha, Beta, Deprecated};

/// What is to become of a type.
enum Fate {
    Built,
    Alias(&'static str),
    Waits,
}

const TYPES: &[(&str, Role, Stage, Fate)] = &[
    // Filters.
    ("label-selector-filter", Filter, Beta, Built),
    (
        "by-label",
        Filter,
        Deprecated,
        Alias("label-selector-filter"),
    ),
    (
        "by-label-selector",
        Filter,
        Deprecated,
        Alias("label-selector-filter"),
    ),
    ("encode-filter", Filter, Beta, Built),
    ("prefill-filter", Filter, Beta, Built),
    ("decode-filter", Filter, Beta, Built),
    ("session-affinity-filter", Filter, Alpha, Built),
    ("endpoint-attribute-filter", Filter, Alpha, Built),
    ("topology-affinity-filter", Filter, Alpha, Built),
    ("utilization-filter", Filter, Alpha, Built),
    ("prefix-cache-affinity-filter", Filter, Beta, Built),
    ("slo-headroom-tier-filter", Filter, Beta, Built),
    ("header-based-testing-filter", Filter, Beta, Built),
    ("multicluster-session-affinity-filter", Filter, Alpha, Waits),
    // Scorers.
    ("queue-scorer", Scorer, Beta, Built),
    ("running-requests-size-scorer", Scorer, Beta, Built),
    ("kv-cache-utilization-scorer", Scorer, Beta, Built),
    ("load-aware-scorer", Scorer, Beta, Built),
    ("lora-affinity-scorer", Scorer, Beta, Built),
    ("prefix-cache-scorer", Scorer, Beta, Built),
    ("precise-prefix-cache-scorer", Scorer, Deprecated, Waits),
    ("no-hit-lru-scorer", Scorer, Beta, Built),
    ("token-load-scorer", Scorer, Beta, Built),
    ("active-request-scorer", Scorer, Beta, Built),
    ("session-affinity-scorer", Scorer, Alpha, Built),
    ("header-label-affinity-scorer", Scorer, Alpha, Built),
    ("context-length-aware", Scorer, Beta, Built),
    ("mm-embeddings-cache-scorer", Scorer, Beta, Waits),
    ("endpoint-attribute-scorer", Scorer, Alpha, Built),
    ("topology-affinity-scorer", Scorer, Alpha, Built),
    ("latency-scorer", Scorer, Beta, Built),
    ("multicluster-queue-scorer", Scorer, Alpha, Waits),
    (
        "multicluster-kv-cache-utilization-scorer",
        Scorer,
        Alpha,
        Waits,
    ),
    ("multicluster-prefix-cache-scorer", Scorer, Alpha, Waits),
    // Pickers.
    ("max-score-picker", Picker, Beta, Built),
    ("random-picker", Picker, Beta, Built),
    ("weighted-random-picker", Picker, Beta, Built),
    // Profile handlers and deciders.
    ("single-profile-handler", ProfileHandler, Beta, Built),
    ("disagg-profile-handler", ProfileHandler, Beta, Waits),
    ("header-profile-handler", ProfileHandler, Alpha, Waits),
    ("pd-profile-handler", ProfileHandler, Deprecated, Waits),
    (
        "data-parallel-profile-handler",
        ProfileHandler,
        Deprecated,
        Alias("single-profile-handler"),
    ),
    ("disagg-headers-handler", Processor, Deprecated, Waits),
    ("prefill-header-handler", Processor, Deprecated, Waits),
    ("prefix-based-pd-decider", Decider, Beta, Waits),
    ("always-disagg-pd-decider", Decider, Beta, Waits),
    ("always-disagg-multimodal-decider", Decider, Beta, Waits),
    // Data sources, extractors, discovery.
    ("metrics-data-source", Source, Beta, Built),
    ("core-metrics-extractor", Extractor, Beta, Built),
    ("models-data-source", Source, Beta, Built),
    ("models-data-extractor", Extractor, Beta, Built),
    ("dcgm-data-source", Source, Alpha, Built),
    ("dcgm-extractor", Extractor, Alpha, Built),
    ("topology-extractor", Extractor, Alpha, Built),
    ("k8s-notification-source", Source, Beta, Waits),
    ("endpoint-notification-source", Source, Beta, Waits),
    ("multicluster-metrics-data-source", Source, Alpha, Waits),
    ("multicluster-metrics-extractor", Extractor, Alpha, Waits),
    ("file-discovery", Discovery, Beta, Built),
    ("multicluster-file-discovery", Discovery, Alpha, Waits),
    // Data producers.
    ("token-producer", Producer, Beta, Built),
    ("approx-prefix-cache-producer", Producer, Beta, Built),
    ("precise-prefix-cache-producer", Producer, Beta, Waits),
    ("burst-prefix-cache-producer", Producer, Alpha, Waits),
    ("inflight-load-producer", Producer, Beta, Built),
    ("predicted-latency-producer", Producer, Beta, Built),
    ("session-id-producer", Producer, Beta, Built),
    ("mm-embeddings-cache-producer", Producer, Beta, Waits),
    ("p2p-source-producer", Producer, Alpha, Waits),
    // Admission, requests, screening, reporting.
    ("latency-slo-admitter", Admitter, Beta, Built),
    ("probabilistic-admitter", Admitter, Beta, Built),
    ("agent-identity", Processor, Alpha, Built),
    ("disaggregatedset-rollout-screener", Screener, Alpha, Waits),
    ("request-attribute-reporter", Processor, Beta, Built),
    (
        "destination-endpoint-served-verifier",
        Processor,
        Beta,
        Built,
    ),
    // Flow control.
    ("global-strict-fairness-policy", Fairness, Beta, Built),
    ("round-robin-fairness-policy", Fairness, Beta, Built),
    ("program-aware-fairness", Fairness, Beta, Built),
    ("fcfs-ordering-policy", Ordering, Beta, Built),
    ("edf-ordering-policy", Ordering, Beta, Built),
    ("slo-deadline-ordering-policy", Ordering, Beta, Built),
    ("static-usage-limit-policy", UsageLimit, Beta, Built),
    ("priority-holdback-policy", UsageLimit, Alpha, Built),
    ("soft-reflective-ceiling-policy", UsageLimit, Alpha, Built),
    ("utilization-detector", Detector, Beta, Built),
    ("concurrency-detector", Detector, Beta, Built),
    ("sheddable-eviction-filter", EvictionFilter, Alpha, Built),
    (
        "eviction-priority-then-time-ordering",
        EvictionOrdering,
        Alpha,
        Built,
    ),
    // Parsers.
    ("openai-parser", Parser, Beta, Built),
    ("anthropic-parser", Parser, Beta, Built),
    ("vllmhttp-parser", Parser, Beta, Built),
    ("sglanghttp-parser", Parser, Beta, Built),
    ("vllmgrpc-parser", Parser, Beta, Built),
    ("vertexai-parser", Parser, Beta, Built),
    ("passthrough-parser", Parser, Beta, Built),
];

#[test]
fn every_type_is_built_an_alias_or_a_stand_in() {
    for (name, role, stage, fate) in TYPES {
        let entry = plugin_type(name).unwrap_or_else(|| panic!("{name} is unknown"));
        assert_eq!((entry.role, entry.stage), (*role, *stage), "{name}");
        let as_told = match (fate, entry.status) {
            (Built, status) => status == Status::Built,
            (Alias(of), status) => status == Status::AliasOf(of),
            (Waits, Status::StandIn { .. }) => true,
            (Waits, _) => false,
        };
        assert!(as_told, "{name}: {:?}", entry.status);
    }
}

#[test]
fn no_other_type_is_known_but_headrooms_own() {
    let known: BTreeSet<_> = TYPES.iter().map(|(name, ..)| *name).collect();
    for entry in catalogue() {
        let refused = matches!(entry.status, Status::Refused(_));
        let here_only = entry.stage == Stage::Own || refused;
        assert!(
            known.contains(entry.name) != here_only,
            "{}: {:?}",
            entry.name,
            entry.stage
        );
    }
}

fn with(lines: &str) -> Result<Config, String> {
    let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
    Config::from_yaml(&format!("{head}{lines}")).map_err(|error| error.to_string())
}

#[test]
fn refused_types_are_refused_with_their_reason() {
    let refused = catalogue().filter_map(|entry| match entry.status {
        Status::Refused(why) => Some((entry.name, why)),
        _ => None,
    });
    for (name, why) in refused {
        let message = with(&format!("plugins: [{{type: {name}}}]")).unwrap_err();
        assert!(
            message.contains(why) && message.contains("line 3 column 11"),
            "{message}"
        );
    }
}

#[test]
fn what_is_not_built_loads_whatever_its_parameters() {
    for entry in catalogue() {
        let Status::StandIn { acts_as, .. } = entry.status else {
            continue;
        };
        let parameters = match acts_as {
            Some("file-discovery") => "{path: clusters.yaml}",
            _ => "{whatever: [1, {x: y}]}",
        };
        let profiles = match entry.role {
            ProfileHandler => "\nschedulingProfiles: [{name: decode}]",
            _ => "",
        };
        let config = with(&format!(
            "plugins: [{{name: it, type: {}, parameters: {parameters}}}]{profiles}",
            entry.name
        ));
        let config = config.unwrap_or_else(|error| panic!("{}: {error}", entry.name));
        let told = |stand_in: &&epp_core::config::StandIn| {
            stand_in.plugin == "it" && stand_in.what == entry.name
        };
        assert_eq!(
            config.stand_ins.iter().filter(told).count(),
            1,
            "{}",
            entry.name
        );
        let warnings = config.warnings.join("\n");
        assert!(
            warnings.contains(&format!("`{}` is not built yet", entry.name)),
            "{warnings}"
        );
    }
}

/// llm-d's defaults, type by type. What is ours on top is not in the table.
fn defaults() -> Vec<(&'static str, Value)> {
    let session = json!({
        "strategy": "encoded_endpoint_header", "headerName": "x-session-token", "sources": ["x-session-id"],
        "evictionTtlSeconds": 300.0, "evictionSweepSeconds": 10.0, "profileName": null,
    });
    let pickers = json!({"maxNumOfEndpoints": 1});
    vec![
        (
            "label-selector-filter",
            json!({"matchLabels": {}, "matchExpressions": []}),
        ),
        ("session-affinity-filter", session.clone()),
        ("session-affinity-scorer", session),
        (
            "prefix-cache-affinity-filter",
            json!({
                "affinityThreshold": 0.8, "explorationProbability": 0.0, "maxTTFTPenaltyMs": 18000.0,
                "ttftSource": "prefillThroughput", "peakPrefillThroughput": 15928.0,
            }),
        ),
        (
            "slo-headroom-tier-filter",
            json!({"epsilonExploreNeg": 0.01}),
        ),
        ("utilization-filter", json!({"conditions": []})),
        ("load-aware-scorer", json!({"threshold": 128.0})),
        (
            "prefix-cache-scorer",
            json!({
                "matchLengthWeight": 0.0, "matchLengthScaleTokens": 8192.0, "prefixMatchInfoProducerName": null,
            }),
        ),
        ("no-hit-lru-scorer", json!({"lruSize": 1024})),
        (
            "token-load-scorer",
            json!({"queueThresholdTokens": 4_194_304}),
        ),
        (
            "active-request-scorer",
            json!({"idleThreshold": 0, "maxBusyScore": 1.0}),
        ),
        ("context-length-aware", json!({"enableFiltering": false})),
        (
            "latency-scorer",
            json!({
                "ttftWeight": 0.8, "tpotWeight": 0.2, "headroomSelectionStrategy": "least",
                "compositeKVWeight": 1.0, "compositeQueueWeight": 1.0, "compositePrefixWeight": 1.0,
            }),
        ),
        ("max-score-picker", pickers.clone()),
        ("random-picker", pickers.clone()),
        ("weighted-random-picker", pickers),
        (
            "metrics-data-source",
            json!({
                "scheme": "http", "path": "/metrics", "insecureSkipVerify": null, "caCertPath": null,
                "clientCertPath": null, "clientKeyPath": null, "interval": null,
                "holdAfterIdle": "100ms",
            }),
        ),
        (
            "core-metrics-extractor",
            json!({
                "engineLabelKey": "llm-d.ai/engine-type", "defaultEngine": "vllm", "engineConfigs": [],
            }),
        ),
        ("dcgm-data-source", json!({"port": 9400})),
        ("file-discovery", json!({"watchFile": false})),
        (
            "approx-prefix-cache-producer",
            json!({
                "autoTune": true, "blockSizeTokens": 16, "maxPrefixBlocksToMatch": 2048,
                "maxPrefixTokensToMatch": 131_072, "lruCapacityPerServer": 31_250,
            }),
        ),
        (
            "inflight-load-producer",
            json!({
                "addEstimatedOutputTokens": false, "outputRatio": 1.5, "maxEstimatedOutputTokens": null,
                "prefixMatchInfoProducerName": null,
            }),
        ),
        (
            "predicted-latency-producer",
            json!({
                "sloBufferFactor": 1.0, "contextTTL": "5m", "streamingMode": false, "endpointRoleLabel": "",
                "predictInProduce": true, "useEncoderCacheFeatures": false,
            }),
        ),
        (
            "probabilistic-admitter",
            json!({
                "queueDepthThreshold": 5.0, "kvCacheUtilThreshold": 0.8, "power": 5.0, "k": 300.0,
            }),
        ),
        (
            "program-aware-fairness",
            json!({
                "strategy": "las", "lasWeightService": 0.8, "lasWeightHeadWait": 0.2, "lasHalfLifeSeconds": 60.0,
                "evictionTtlSeconds": 3600.0, "evictionSweepSeconds": 300.0,
            }),
        ),
        ("static-usage-limit-policy", json!({"threshold": 1.0})),
        (
            "priority-holdback-policy",
            json!({"shape": "linear", "domain": "rank", "maxCeiling": 1.0}),
        ),
        (
            "utilization-detector",
            json!({
                "queueDepthThreshold": 5.0, "kvCacheUtilThreshold": 0.8, "metricsStalenessThreshold": "200ms", "headroom": 0.0,
            }),
        ),
        (
            "concurrency-detector",
            json!({
                "concurrencyMode": "requests", "maxConcurrency": 100, "maxTokenConcurrency": 1_000_000, "headroom": 0.0,
            }),
        ),
    ]
}

/// Whether two values are the same, whole numbers with or without a point.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[test]
fn defaults_are_llm_ds() {
    for (type_name, wanted) in defaults() {
        let found =
            default_parameters(type_name).unwrap_or_else(|| panic!("{type_name} is not built"));
        for (parameter, wanted) in wanted.as_object().unwrap() {
            let value = found
                .get(parameter)
                .unwrap_or_else(|| panic!("{type_name} has no {parameter}"));
            assert!(
                same(value, wanted),
                "{type_name} {parameter}: {value}, not {wanted}"
            );
        }
    }
}

#[test]
fn defaults_of_the_sections_are_llm_ds() {
    let config = with("featureGates: [flowControl]\nflowControl: {}").unwrap();
    let flow = config.flow.unwrap();
    assert_eq!(flow, FlowConfig::default());
    let minute = Some(Duration::from_secs(60));
    assert_eq!((flow.max_requests, flow.max_bytes), (None, None));
    assert_eq!((flow.request_ttl, flow.no_endpoint_ttl), (minute, minute));
    for priority in [7, 0, -7] {
        let BandConfig {
            max_requests,
            max_bytes,
            request_ttl,
            ..
        } = flow.band(priority);
        assert_eq!(
            (*max_requests, *max_bytes, *request_ttl),
            (5_000, 1_000_000_000, None)
        );
    }
    assert!(with("").unwrap().flow.is_none(), "the gate is off");
}

/// Whoever looks a name up in docs/configuration.md, or in the pages that it leads to, finds it.
#[test]
fn every_type_and_parameter_is_documented() {
    let page = [
        include_str!("../../../docs/configuration.md"),
        include_str!("../../../docs/scheduling.md"),
        include_str!("../../../docs/request-apis.md"),
        include_str!("../../../docs/metrics.md"),
    ]
    .concat();
    let mut missing = Vec::new();
    let mut look = |name: &str, of: &str| {
        if !page.contains(&format!("`{name}`")) {
            missing.push(format!("{name} ({of})"));
        }
    };
    for entry in catalogue() {
        look(entry.name, entry.role.noun());
        let parameters = default_parameters(entry.name).unwrap_or_default();
        for (parameter, _) in parameters.as_object().into_iter().flatten() {
            look(parameter, entry.name);
        }
    }
    assert!(
        missing.is_empty(),
        "docs/configuration.md and the pages that it leads to lack {missing:#?}"
    );
}

#[test]
fn the_extractor_that_tells_an_attribute_is_one() {
    let scorer = |producer: &str| {
        with(&format!(
            "plugins: [{{type: queue-scorer}}, {{type: endpoint-attribute-scorer, parameters: {{attributeKey: a, producer: {producer}}}}}]"
        ))
    };
    assert!(scorer("core-metrics-extractor").is_ok(), "it is injected");
    let misspelt = scorer("core-metrics-extracter").unwrap_err();
    for part in [
        "`endpoint-attribute-scorer` producer",
        "core-metrics-extracter",
        "core-metrics-extractor",
    ] {
        assert!(misspelt.contains(part), "{misspelt}");
    }
    let scorer = scorer("queue-scorer").unwrap_err();
    assert!(scorer.contains("extractor is wanted here"), "{scorer}");
}

/// As Helm writes what has no value.
#[test]
fn an_empty_name_is_none() {
    let lines = "plugins: [{name: \"\", type: queue-scorer}]\nschedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]";
    assert_eq!(with(lines).unwrap().profile.scorers.len(), 1);
}

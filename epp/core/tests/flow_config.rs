//! `flowControl` as it is written: what is accepted, with which defaults, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use epp_core::Config;
use epp_core::config::{
    AdaptiveConcurrency, Detector, Fairness, FlowConfig, HoldbackDomain, LimitAlgorithm, Ordering,
    PriorityHoldback, ProgramAwareFairness, UsageLimit, VirtualTokenCounter,
};

fn with(rest: &str) -> Result<Config, epp_core::config::ConfigError> {
    let head =
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\n";
    Config::from_yaml(&format!("{head}{rest}"))
}

fn flow(rest: &str) -> FlowConfig {
    with(rest).unwrap().flow.unwrap()
}

fn refused(rest: &str, parts: &[&str]) {
    let message = with(rest).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn policies_are_referred_to_by_type_or_by_name() {
    let flow = flow(
        "
plugins:
- {type: program-aware-fairness, name: las, parameters: {lasHalfLifeSeconds: 30}}
- {type: virtual-token-counter-fairness-policy, parameters: {outputWeight: 4, weights: {gold: 3}}}
flowControl:
  defaultPriorityBand: {fairnessPolicyRef: round-robin-fairness-policy, orderingPolicyRef: edf-ordering-policy}
  defaultNegativePriorityBand: {fairnessPolicyRef: las, orderingPolicyRef: slo-deadline-ordering-policy}
  priorityBands:
  - {priority: 7, fairnessPolicyRef: virtual-token-counter-fairness-policy}
  - {priority: 8, fairnessPolicyRef: global-strict-fairness-policy, orderingPolicyRef: fcfs-ordering-policy}
",
    );
    let of = |priority| {
        let band = flow.band(priority);
        (band.fairness.clone(), band.ordering)
    };
    assert_eq!(of(0), (Fairness::RoundRobin, Ordering::Edf));
    let las = ProgramAwareFairness {
        las_half_life_seconds: 30.0,
        ..ProgramAwareFairness::default()
    };
    assert_eq!(of(-1), (Fairness::ProgramAware(las), Ordering::SloDeadline));
    let tokens = VirtualTokenCounter {
        output_weight: 4.0,
        weights: [("gold".to_owned(), 3.0)].into(),
        ..VirtualTokenCounter::default()
    };
    assert_eq!(of(7), (Fairness::VirtualTokens(tokens), Ordering::Fcfs));
    assert_eq!(of(8), (Fairness::GlobalStrict, Ordering::Fcfs));
}

#[test]
fn defaults_are_llmds() {
    let las = ProgramAwareFairness::default();
    assert_eq!(
        (las.las_weight_service, las.las_weight_head_wait),
        (0.8, 0.2)
    );
    assert_eq!(
        (
            las.las_half_life_seconds,
            las.eviction_ttl_seconds,
            las.eviction_sweep_seconds
        ),
        (60.0, 3_600.0, 300.0)
    );
    let holdback = PriorityHoldback::default();
    assert_eq!(
        (holdback.domain, holdback.max_ceiling, holdback.min_ceiling),
        (HoldbackDomain::Rank, 1.0, None)
    );
    let silent = flow("");
    assert!(!silent.eviction && !silent.advisory_headers && !silent.negative_shares);
    assert_eq!(silent.band(0).fairness, Fairness::GlobalStrict);
    assert_eq!(silent.band(0).ordering, Ordering::Fcfs);
}

#[test]
fn ceilings_come_from_any_usage_limit_policy() {
    let limit = |plugin: &str, name: &str| {
        with(&format!(
            "plugins: [{plugin}]\nflowControl: {{usageLimitPolicyPluginRef: {name}}}"
        ))
        .unwrap()
        .usage_limit
    };
    let holdback = limit(
        "{type: priority-holdback-policy, name: hold, parameters: {minCeiling: 0.4, domain: value}}",
        "hold",
    );
    let UsageLimit::Holdback(parameters) = holdback else {
        panic!("{holdback:?}")
    };
    assert_eq!(
        (parameters.min_ceiling, parameters.domain),
        (Some(0.4), HoldbackDomain::Value)
    );
    let reflective = "soft-reflective-ceiling-policy";
    assert_eq!(
        limit(&format!("{{type: {reflective}}}"), reflective),
        UsageLimit::SoftReflective
    );
}

#[test]
fn the_negative_template_is_one_budget_and_zero_means_that_nothing_waits() {
    let absent = flow("flowControl: {defaultPriorityBand: {maxRequests: 9}}");
    assert!(!absent.negative_shares);
    assert_eq!(absent.band(-4), absent.band(0), "as any other band");
    let given = flow(
        "flowControl: {defaultNegativePriorityBand: {maxRequests: 9, maxBytes: 1k}, priorityBands: [{priority: -7}]}",
    );
    assert_eq!(
        (given.band(-4).max_requests, given.band(-4).max_bytes),
        (9, 1_000)
    );
    assert!(given.shares(-4) && !given.shares(0));
    assert!(!given.shares(-7), "it has limits of its own");
    assert_eq!(given.band(-7).max_requests, 5_000);
    for zero in ["maxRequests: 0", "maxBytes: 0", "maxBytes: 0Mi"] {
        let band = format!("flowControl: {{defaultNegativePriorityBand: {{{zero}}}}}");
        let flow = flow(&band);
        assert!(!flow.band(-1).waits() && flow.band(0).waits(), "{zero}");
    }
    // Elsewhere zero is absent, as it is for llm-d.
    let zero = flow("flowControl: {defaultPriorityBand: {maxRequests: 0, maxBytes: 0}}");
    assert_eq!(
        (zero.band(0).max_requests, zero.band(0).waits()),
        (5_000, true)
    );
    // The template is a copy: what changes one band made from it changes no other.
    let mut copied = given.clone();
    copied.negative_band.max_requests = 1;
    assert_eq!(given.band(-4).max_requests, 9);
}

#[test]
fn a_template_with_a_priority_is_warned_of() {
    let warned = with("flowControl: {defaultNegativePriorityBand: {priority: -1}}").unwrap();
    assert!(
        warned.warnings[0].contains("defaultNegativePriorityBand.priority"),
        "{:?}",
        warned.warnings
    );
}

#[test]
fn eviction_needs_a_word_and_its_plugins_need_none() {
    let both = "plugins: [{type: sheddable-eviction-filter}, {type: eviction-priority-then-time-ordering}]\n";
    let on = with(&format!("{both}flowControl: {{enableEviction: true}}")).unwrap();
    assert!(on.flow.unwrap().eviction && on.warnings.is_empty());
    assert!(flow("flowControl: {enableEviction: true}").eviction);
    let off = with(both).unwrap();
    assert_eq!(
        off.warnings.len(),
        2,
        "listed and not used: {:?}",
        off.warnings
    );
}

#[test]
fn limits_may_be_learned() {
    let config = with(
        "plugins: [{type: adaptive-concurrency-detector, parameters: {algorithm: aimd, initial: 4, max: 64, window: 500ms}}]\nflowControl: {advisoryHeaders: true, saturationDetector: {pluginRef: adaptive-concurrency-detector}}",
    )
    .unwrap();
    let wanted = Detector::Adaptive {
        parameters: AdaptiveConcurrency {
            algorithm: LimitAlgorithm::Aimd,
            initial: 4,
            max: 64,
            window: "500ms".into(),
            ..AdaptiveConcurrency::default()
        },
        window: Duration::from_millis(500),
    };
    assert_eq!(config.detector, wanted);
    assert!(config.flow.unwrap().advisory_headers);
}

#[test]
fn what_cannot_be_is_refused_with_what_would_be_right() {
    let plugin = |type_name: &str, parameters: &str| {
        format!("plugins: [{{type: {type_name}, parameters: {{{parameters}}}}}]")
    };
    let adaptive = |parameters: &str| plugin("adaptive-concurrency-detector", parameters);
    refused(&adaptive("initial: 0"), &["initial", "between min and max"]);
    refused(&adaptive("tolerance: 0.5"), &["tolerance", "at least 1"]);
    refused(&adaptive("window: 0s"), &["window", "above zero"]);
    refused(&adaptive("algorithm: vegas"), &["vegas", "gradient"]);
    let holdback = |parameters: &str| plugin("priority-holdback-policy", parameters);
    refused(
        &holdback("maxCeiling: 0.9"),
        &["minCeiling", "must be given"],
    );
    refused(
        &holdback("minCeiling: 0.9, maxCeiling: 0.5"),
        &["minCeiling", "maxCeiling"],
    );
    refused(
        &holdback("minCeiling: 0.9, shape: cubic"),
        &["cubic", "linear"],
    );
    let tokens = |parameters: &str| plugin("virtual-token-counter-fairness-policy", parameters);
    refused(&tokens("weights: {a: 0}"), &["weights.a", "above 0"]);
    refused(
        &tokens("inputWeight: 0, outputWeight: 0"),
        &["must not all be 0"],
    );
    let las = |parameters: &str| plugin("program-aware-fairness", parameters);
    refused(&las("strategy: wfq"), &["wfq", "las"]);
    refused(
        &las("evictionSweepSeconds: 0"),
        &["evictionSweepSeconds", "above 0"],
    );
    refused(
        &las("lasDecayFactor: 1.5"),
        &["lasDecayFactor", "between 0 and 1"],
    );
    refused(
        "flowControl: {defaultPriorityBand: {fairnessPolicyRef: edf-ordering-policy}}",
        &["is a ordering policy", "fairness policy is wanted"],
    );
    refused(
        "flowControl: {defaultPriorityBand: {fairnessPolicyRef: round-robin-fairnes-policy}}",
        &["fairnessPolicyRef"],
    );
}

use std::collections::BTreeMap;

use names::{annotation, kubernetes::GROUP};
use proptest::prelude::*;

use super::{MAX_PROBLEMS, ModelAnnotations, Problem, read};
use crate::model_scaler::{Mode, Role, Startup};

fn annotations<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn complete() -> BTreeMap<String, String> {
    annotations([
        ("headroom.dev/model", "meta-llama/Llama-3.1-8B"),
        ("headroom.dev/slo-ttft-ms", "500"),
        ("headroom.dev/slo-tpot-ms", " 37.5 "),
        ("headroom.dev/slo-percentile", "99.5"),
        ("headroom.dev/cost-per-hour", "0"),
        ("headroom.dev/accelerator", "NVIDIA-H100-80GB-HBM3"),
        ("headroom.dev/role", "decode"),
        ("headroom.dev/mode", "publish"),
        ("headroom.dev/startup-seconds", "auto"),
        ("headroom.dev/pool", "chat.pool-1"),
        ("headroom.dev/min-replicas", "0"),
        ("headroom.dev/max-replicas", "12"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
    ])
}

#[test]
fn every_annotation_is_read() {
    let read = read(&complete());
    assert_eq!(read.problems, []);
    assert_eq!(
        read.facts,
        ModelAnnotations {
            model: Some("meta-llama/Llama-3.1-8B".to_owned()),
            slo_ttft_ms: Some(500.0),
            slo_tpot_ms: Some(37.5),
            slo_percentile: Some(99.5),
            cost_per_hour: Some(0.0),
            accelerator: Some("NVIDIA-H100-80GB-HBM3".to_owned()),
            role: Some(Role::Decode),
            mode: Some(Mode::Publish),
            startup: Some(Startup::Auto),
            pool: Some("chat.pool-1".to_owned()),
            min_replicas: Some(0),
            max_replicas: Some(12),
        }
    );
}

#[test]
fn aliases_count_only_where_the_object_is_managed() {
    let mut object = annotations([
        ("llm-d.ai/model-id", "chat"),
        ("llm-d.ai/variant-cost", "2.5"),
    ]);
    assert_eq!(read(&object).facts, ModelAnnotations::default());
    object.insert("llm-d.ai/managed".to_owned(), "true".to_owned());
    let facts = read(&object).facts;
    assert_eq!(
        (facts.model.as_deref(), facts.cost_per_hour),
        (Some("chat"), Some(2.5))
    );
    object.insert("headroom.dev/model".to_owned(), "chat-v2".to_owned());
    assert_eq!(read(&object).facts.model.as_deref(), Some("chat-v2"));
    object.insert("llm-d.ai/managed".to_owned(), "yes".to_owned());
    let read = read(&object);
    assert_eq!(read.facts.cost_per_hour, None);
    assert_eq!(
        read.problems[0].to_string(),
        "annotation llm-d.ai/managed: `yes` is wrong, expected true or false"
    );
}

#[test]
fn a_wrong_value_is_no_fact_and_hides_its_alias() {
    let object = annotations([
        ("llm-d.ai/managed", "true"),
        ("llm-d.ai/variant-cost", "2.5"),
        ("headroom.dev/cost-per-hour", "cheap"),
    ]);
    let read = read(&object);
    assert_eq!(read.facts.cost_per_hour, None);
    assert_eq!(
        read.problems,
        [Problem {
            annotation: "headroom.dev/cost-per-hour".to_owned(),
            value: "cheap".to_owned(),
            expected: "a cost per hour of 0 or more, such as 2.5".to_owned(),
        }]
    );
}

#[test]
fn a_wrong_alias_is_named_as_the_object_spells_it() {
    let object = annotations([
        ("llm-d.ai/managed", "true"),
        ("llm-d.ai/variant-cost", "-1"),
    ]);
    assert_eq!(
        read(&object).problems[0].annotation,
        "llm-d.ai/variant-cost"
    );
}

#[test]
fn wrong_values_are_refused_with_what_would_be_right() {
    let long = "x".repeat(254);
    for (name, values) in [
        ("model", vec!["", "  ", long.as_str(), "a\nb"]),
        ("slo-ttft-ms", vec!["0", "-5", "NaN", "inf", "500ms", ""]),
        ("slo-tpot-ms", vec!["0", "1,5"]),
        ("slo-percentile", vec!["0", "0.9", "100", "p90", "90%"]),
        ("cost-per-hour", vec!["-0.1", "$2", "infinity"]),
        ("accelerator", vec!["", "H100 SXM", "-h100", &long[..64]]),
        ("role", vec!["Prefill", "decoder", ""]),
        ("mode", vec!["observe", "DIRECT"]),
        ("startup-seconds", vec!["0", "90s", "1.5", "86401"]),
        ("pool", vec!["", "Pool", "a..b", "ns/pool"]),
        ("min-replicas", vec!["-1", "1.0", "100001"]),
        ("max-replicas", vec!["0", "many"]),
    ] {
        for value in values {
            let name = format!("{GROUP}/{name}");
            let read = read(&annotations([(name.as_str(), value)]));
            assert_eq!(read.facts, ModelAnnotations::default(), "{name}: {value}");
            let [problem] = read.problems.as_slice() else {
                panic!("{name}: {value}: {:?}", read.problems);
            };
            assert_eq!(problem.annotation, name);
            assert!(value.trim().starts_with(&problem.value) && problem.value.len() <= 64);
            assert!(!problem.expected.is_empty());
        }
    }
}

#[test]
fn limits_that_contradict_each_other_are_both_dropped() {
    let read = read(&annotations([
        ("headroom.dev/min-replicas", "5"),
        ("headroom.dev/max-replicas", "4"),
    ]));
    assert_eq!(read.facts, ModelAnnotations::default());
    assert_eq!(
        read.problems[0].to_string(),
        "annotation headroom.dev/max-replicas: `4` is wrong, expected at least 5, the value of headroom.dev/min-replicas"
    );
    let last = ModelAnnotations {
        min_replicas: Some(1),
        max_replicas: Some(4),
        ..ModelAnnotations::default()
    };
    assert_eq!(read.keeping(&last), last);
}

#[test]
fn an_unknown_name_is_told_with_the_nearest_one() {
    for (written, meant) in [
        ("slo-ttft", "slo-ttft-ms"),
        ("ttft-slo-ms", "slo-ttft-ms"),
        ("Model", "model"),
        ("modell", "model"),
        ("costPerHour", "cost-per-hour"),
        ("minReplicas", "min-replicas"),
        ("gpu-accelerator", "accelerator"),
    ] {
        let read = read(&annotations([(&format!("{GROUP}/{written}"), "1")]));
        assert_eq!(
            read.problems[0].expected,
            format!("the name {GROUP}/{meant}"),
            "{written}"
        );
    }
    let far = read(&annotations([("headroom.dev/zzzzzzzzzzzz", "1")]));
    assert!(far.problems[0].expected.contains("slo-percentile"));
}

#[test]
fn names_that_are_not_for_models_are_left_alone() {
    let read = read(&annotations([
        (annotation::LEADER_ADDRESS, "10.0.0.1:8443"),
        ("headroom.dev.example.com/model", "x"),
        ("headroom.devs/model", "x"),
        ("llm-d.ai/active-ports", "8000"),
    ]));
    assert_eq!(read, super::Read::default());
}

#[test]
fn the_last_good_value_stays_where_the_new_one_is_wrong_but_not_where_it_is_gone() {
    let last = read(&complete()).facts;
    for name in annotation::MODEL_ANNOTATIONS {
        let mut object = complete();
        object.insert(name.canonical.to_owned(), "\u{7}".to_owned());
        let now = read(&object);
        assert_eq!(now.problems.len(), 1, "{}", name.canonical);
        assert_ne!(now.facts, last, "{}", name.canonical);
        assert_eq!(now.keeping(&last), last, "{}", name.canonical);

        object.remove(name.canonical);
        let gone = read(&object);
        assert_eq!(gone.problems, [], "{}", name.canonical);
        assert_ne!(gone.keeping(&last), last, "{}", name.canonical);
    }
}

#[test]
fn problems_are_bounded() {
    let object = (0..10_000)
        .map(|i| (format!("headroom.dev/{i}"), "x".repeat(1000)))
        .collect();
    let problems = read(&object).problems;
    assert_eq!(problems.len(), MAX_PROBLEMS);
    assert!(problems.iter().all(|problem| problem.value.len() == 64));
}

/// Names and values near the right ones, and far from them.
fn hostile() -> impl Strategy<Value = BTreeMap<String, String>> {
    let known: Vec<&'static str> = annotation::MODEL_ANNOTATIONS
        .iter()
        .flat_map(|name| name.all())
        .chain([annotation::MANAGED, annotation::LEADER_ADDRESS])
        .collect();
    let name = prop_oneof![
        4 => proptest::sample::select(known).prop_map(str::to_owned),
        1 => "headroom\\.dev/\\PC{0,80}",
        1 => "\\PC{0,20}",
    ];
    let value = prop_oneof![
        any::<String>(),
        "-?[0-9]{0,12}(\\.[0-9]{1,3})?",
        any::<f64>().prop_map(|number| number.to_string()),
        proptest::sample::select(vec!["true", "false", "auto", "both", "decode", "direct"])
            .prop_map(str::to_owned),
    ];
    proptest::collection::btree_map(name, value, 0..20)
}

proptest! {
    #[test]
    fn reading_is_total_and_facts_are_in_range(object in hostile()) {
        let read = read(&object);
        let facts = &read.facts;
        for target in [facts.slo_ttft_ms, facts.slo_tpot_ms].into_iter().flatten() {
            prop_assert!(target.is_finite() && target > 0.0);
        }
        prop_assert!(facts.slo_percentile.is_none_or(|p| (1.0..100.0).contains(&p)));
        prop_assert!(facts.cost_per_hour.is_none_or(|cost| cost.is_finite() && cost >= 0.0));
        if let (Some(min), Some(max)) = (facts.min_replicas, facts.max_replicas) {
            prop_assert!(min <= max);
        }
        prop_assert!(read.problems.len() <= MAX_PROBLEMS);
        for problem in &read.problems {
            prop_assert!(object.contains_key(&problem.annotation) || problem.annotation.len() >= 317);
        }
    }

    #[test]
    fn what_has_no_problem_needs_no_last_value(object in hostile(), before in hostile()) {
        let now = read(&object);
        let last = read(&before).facts;
        if now.problems.is_empty() {
            let facts = now.facts.clone();
            prop_assert_eq!(now.keeping(&last), facts);
        }
    }
}

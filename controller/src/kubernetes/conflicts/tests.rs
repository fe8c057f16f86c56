use std::sync::Arc;

use serde_json::{Value, json};

use crate::kubernetes::assemble::Inputs;
use crate::kubernetes::assemble::tests::{assembled, correct, external, hpa, reasons, workload};
use crate::kubernetes::models::{ModelSpec, Snapshot};
use crate::kubernetes::scalers::tests::scaler;

/// Model `llama` in mode publish, with an HPA of these fields.
fn published(fields: Value) -> Arc<ModelSpec> {
    let annotations = json!({"headroom.dev/model": "llama", "headroom.dev/mode": "publish"});
    let inputs = Inputs {
        hpas: vec![hpa("h", "llama", annotations, fields)],
        ..Inputs::default()
    };
    Arc::clone(&assembled(&inputs).models[0])
}

fn with_more(mut fields: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        fields[key] = value.clone();
    }
    fields
}

#[test]
fn two_hpas_on_one_target_are_told_to_both() {
    let annotations = json!({"headroom.dev/model": "llama"});
    let inputs = Inputs {
        hpas: vec![
            hpa("a", "llama", annotations, json!({})),
            hpa("b", "llama", json!({}), json!({})),
        ],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let spec = &snapshot.models[0];
    assert_eq!(reasons(spec), ["TwoAutoscalers", "TwoAutoscalers"]);
    let mut told: Vec<_> = spec.findings.iter().map(|one| &*one.about.name).collect();
    told.sort_unstable();
    assert_eq!(told, ["a", "b"]);
    assert!(spec.findings[0].message.contains("a, b"));
}

#[test]
fn two_variants_on_one_target_leave_it_to_the_model_scaler() {
    let inputs = Inputs {
        scalers: vec![Arc::new(scaler(json!({"model": "z"})))],
        workloads: vec![workload(
            "Deployment",
            "llama",
            json!({"headroom.dev/model": "a"}),
        )],
        ..Inputs::default()
    };
    let Snapshot { models, .. } = assembled(&inputs);
    let (annotated, explicit) = (&models[0], &models[1]);
    assert!(annotated.variants[0].contested && !explicit.variants[0].contested);
    assert_eq!(reasons(annotated), ["SharedTarget"]);
    assert_eq!(reasons(explicit), ["SharedTarget"]);
    assert!(
        annotated.findings[0]
            .message
            .starts_with("variant h100 of ModelScaler llama sizes"),
        "{}",
        annotated.findings[0].message
    );
}

#[test]
fn an_absolute_count_compared_with_a_value_is_a_trap() {
    let labels = json!({"variant": "llama", "model": "llama"});
    for (metric, target, told) in [
        (
            "llm_desired_replicas",
            json!({"type": "AverageValue", "averageValue": "1"}),
            false,
        ),
        (
            "llm_desired_replicas",
            json!({"type": "Value", "value": "1"}),
            true,
        ),
        (
            "llm_desired_replicas",
            json!({"type": "AverageValue", "averageValue": "2"}),
            true,
        ),
        (
            "llm_desired_ratio",
            json!({"type": "Value", "value": "1"}),
            false,
        ),
        (
            "llm_desired_ratio",
            json!({"type": "AverageValue", "averageValue": "1"}),
            true,
        ),
        (
            "llm_slo_pressure",
            json!({"type": "Value", "value": "1"}),
            false,
        ),
        (
            "llm_offered_tokens_per_second",
            json!({"type": "AverageValue", "averageValue": "5000"}),
            false,
        ),
    ] {
        let spec = published(external(metric, labels.clone(), target.clone()));
        assert_eq!(
            reasons(&spec).contains(&"WrongTargetType"),
            told,
            "{metric} {target}: {:?}",
            spec.findings
        );
    }
}

#[test]
fn a_selector_must_find_the_one_series_of_its_own_variant() {
    let one = json!({"type": "AverageValue", "averageValue": "1"});
    let read = |labels: Value| external("llm_desired_replicas", labels, one.clone());
    let annotations = json!({"headroom.dev/model": "llama", "headroom.dev/mode": "publish"});
    for (labels, reason) in [
        (json!({"variant": "llama"}), None),
        (json!({"variant": "llama", "namespace": "chat"}), None),
        (json!({"variant": "lama"}), Some("NoSeries")),
        (
            json!({"variant": "llama", "namespace": "other"}),
            Some("NoSeries"),
        ),
        (json!({"model": "llama"}), Some("SeveralSeries")),
        (json!({}), Some("SeveralSeries")),
        (json!({"variant": "second"}), Some("OtherSeries")),
    ] {
        let inputs = Inputs {
            hpas: vec![hpa("h", "llama", annotations.clone(), read(labels.clone()))],
            workloads: vec![workload("Deployment", "second", annotations.clone())],
            ..Inputs::default()
        };
        let snapshot = assembled(&inputs);
        let found = reasons(&snapshot.models[0]);
        assert_eq!(found, reason.into_iter().collect::<Vec<_>>(), "{labels}");
    }
}

#[test]
fn the_old_metric_name_is_selected_by_the_old_labels() {
    let one = json!({"type": "AverageValue", "averageValue": "1"});
    let read = |labels: Value| published(external("wva_desired_replicas", labels, one.clone()));
    let old = read(json!({"variant_name": "llama", "exported_namespace": "chat"}));
    assert_eq!(reasons(&old), [""; 0]);
    assert_eq!(reasons(&read(json!({"variant": "llama"}))), ["NoSeries"]);
}

#[test]
fn a_tolerance_hides_steps_of_one_from_ten_replicas_on() {
    let small = published(correct());
    assert_eq!(reasons(&small), [""; 0]);
    let large = published(with_more(correct(), json!({"maxReplicas": 20})));
    assert_eq!(reasons(&large), ["DeadBand"]);
    assert!(large.findings[0].note, "counts step over it");
    assert!(large.policy.variants[0].quantise.is_some());
    let none = json!({"maxReplicas": 20, "behavior": {"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "0"}}});
    assert_eq!(reasons(&published(with_more(correct(), none))), [""; 0]);
    let half = json!({"maxReplicas": 15, "behavior": {"scaleUp": {"tolerance": "50m"}, "scaleDown": {"tolerance": "50m"}}});
    assert_eq!(
        reasons(&published(with_more(correct(), half))),
        [""; 0],
        "5 % hides nothing below 20"
    );
}

#[test]
fn an_hpa_that_reads_nothing_of_ours_is_told_and_direct_mode_wants_none() {
    assert_eq!(reasons(&published(json!({}))), ["MetricNotRead"]);
    let annotations = json!({"headroom.dev/model": "llama", "headroom.dev/mode": "direct"});
    let inputs = Inputs {
        hpas: vec![hpa("h", "llama", annotations, json!({}))],
        ..Inputs::default()
    };
    assert_eq!(
        reasons(&assembled(&inputs).models[0]),
        ["DirectWithAutoscaler"]
    );
}

#[test]
fn an_hpa_of_another_target_that_reads_a_variants_series_is_told() {
    let annotations = json!({"headroom.dev/model": "llama", "headroom.dev/mode": "publish"});
    let inputs = Inputs {
        hpas: vec![
            hpa("h", "llama", annotations, correct()),
            hpa("stray", "other", json!({}), correct()),
        ],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    assert_eq!(reasons(&snapshot.models[0]), ["OtherTarget"]);
    assert_eq!(&*snapshot.models[0].findings[0].about.name, "stray");
}

#[test]
fn an_hpa_that_keda_made_is_keda_s_business() {
    let mut keda = Arc::unwrap_or_clone(hpa("keda-hpa-x", "llama", json!({}), json!({})));
    keda.scaled_object = Some("x".into());
    let annotations = json!({"headroom.dev/model": "llama", "headroom.dev/mode": "publish"});
    let inputs = Inputs {
        hpas: vec![Arc::new(keda)],
        workloads: vec![workload("Deployment", "llama", annotations)],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let spec = &snapshot.models[0];
    assert_eq!(reasons(spec), [""; 0]);
    let scaler = spec.variants[0].scaler.as_ref().unwrap();
    assert_eq!(
        (scaler.kind.as_str(), scaler.name.as_str()),
        ("ScaledObject", "x")
    );
}

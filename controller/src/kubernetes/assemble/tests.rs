use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::scalers::tests::scaler;

/// An HPA of Deployment `target` with these annotations and these fields over a plain spec.
pub(crate) fn hpa(name: &str, target: &str, annotations: Value, fields: Value) -> Arc<Hpa> {
    let mut whole = json!({
        "metadata": {"name": name, "namespace": "chat", "uid": name, "annotations": annotations},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicas": 1, "maxReplicas": 8,
        },
    });
    for (key, value) in fields.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    Arc::new(Hpa::trim(serde_json::from_value(whole).unwrap()).unwrap())
}

/// A spec field `metrics` that reads one of our metrics as External.
pub(crate) fn external(metric: &str, labels: Value, target: Value) -> Value {
    json!({"metrics": [{"type": "External", "external": {
        "metric": {"name": metric, "selector": {"matchLabels": labels}}, "target": target,
    }}]})
}

/// What a correct HPA of variant and model `llama` reads.
pub(crate) fn correct() -> Value {
    external(
        "llm_desired_replicas",
        json!({"variant": "llama", "model": "llama"}),
        json!({"type": "AverageValue", "averageValue": "1"}),
    )
}

pub(crate) fn workload(kind: &str, name: &str, annotations: Value) -> Arc<Workload> {
    let api_version = match kind {
        "LeaderWorkerSet" => "leaderworkerset.x-k8s.io/v1",
        _ => "apps/v1",
    };
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "chat", "uid": name, "annotations": annotations},
        "spec": {"replicas": 1},
    }))
    .unwrap();
    Arc::new(Workload::trim(api_version, kind, object).unwrap())
}

fn pool(name: &str, annotations: Value) -> Arc<Pool> {
    let pool = serde_json::from_value(json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "chat", "uid": name, "annotations": annotations},
        "spec": {"selector": {"matchLabels": {"app": "llm"}}, "targetPorts": [{"number": 8000}]},
    }));
    Arc::new(Pool::trim(pool.unwrap()).unwrap())
}

pub(crate) fn assembled(inputs: &Inputs) -> Snapshot {
    Assembler::default().assemble(inputs, true)
}

pub(crate) fn reasons(spec: &ModelSpec) -> Vec<&'static str> {
    spec.findings.iter().map(|finding| finding.reason).collect()
}

#[test]
fn one_annotated_hpa_is_a_whole_model() {
    let annotations = json!({
        "headroom.dev/model": "llama", "headroom.dev/slo-ttft-ms": "500", "headroom.dev/slo-tpot-ms": "40",
        "headroom.dev/slo-percentile": "95", "headroom.dev/mode": "publish", "headroom.dev/accelerator": "H100",
        "headroom.dev/cost-per-hour": "4.5", "headroom.dev/startup-seconds": "90",
    });
    let inputs = Inputs {
        hpas: vec![hpa("llama-hpa", "llama", annotations, correct())],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let [spec] = &snapshot.models[..] else {
        panic!("{snapshot:?}")
    };
    assert_eq!(spec.key.to_string(), "chat/llama");
    assert_eq!(spec.findings, []);
    assert_eq!(spec.mode, Mode::Publish);
    let slo = spec.policy.classes[0].slo;
    assert_eq!(
        (slo.ttft_ms, slo.tpot_ms, slo.percentile),
        (500.0, 40.0, 0.95)
    );
    let (policy, place) = (&spec.policy.variants[0], &spec.variants[0]);
    assert_eq!(
        (policy.name.as_str(), policy.min, policy.max),
        ("llama", 1, 8)
    );
    assert_eq!(
        (policy.accelerator.as_str(), policy.cost_per_hour),
        ("H100", 4.5)
    );
    assert_eq!(policy.quantise, Some(Tolerance::DEFAULT));
    assert_eq!(
        place.target,
        ObjectRef::new("apps/v1", "Deployment", "llama")
    );
    assert_eq!(place.scaler.as_ref().unwrap().name, "llama-hpa");
    assert_eq!(&*spec.source.name, "llama-hpa");
}

#[test]
fn a_lone_annotation_takes_the_documented_defaults() {
    let inputs = Inputs {
        workloads: vec![workload(
            "Deployment",
            "llama",
            json!({"headroom.dev/model": "llama"}),
        )],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let spec = &snapshot.models[0];
    assert_eq!(spec.policy.classes[0].slo, annotated::DEFAULT_SLO);
    assert_eq!(spec.mode, Mode::Advise);
    let variant = &spec.policy.variants[0];
    assert_eq!((variant.min, variant.max), (1, 10));
    assert_eq!((variant.quantise, &spec.variants[0].scaler), (None, &None));
}

#[test]
fn annotated_targets_of_one_model_are_its_variants() {
    let on = |accelerator: &str| json!({"headroom.dev/model": "llama", "headroom.dev/accelerator": accelerator});
    let inputs = Inputs {
        hpas: vec![hpa("h", "llama-h100", on("H100"), json!({}))],
        workloads: vec![
            workload(
                "Deployment",
                "llama-h100",
                json!({"headroom.dev/cost-per-hour": "4"}),
            ),
            workload("LeaderWorkerSet", "llama-l40s", on("L40S")),
            workload("Deployment", "llama-l40s", on("L4")),
            workload("Deployment", "plain", json!({})),
        ],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let [spec] = &snapshot.models[..] else {
        panic!("{snapshot:?}")
    };
    let variants: Vec<_> = spec
        .policy
        .variants
        .iter()
        .map(|one| {
            (
                one.name.as_str(),
                one.accelerator.as_str(),
                one.cost_per_hour,
            )
        })
        .collect();
    assert_eq!(
        variants,
        [
            ("llama-h100", "H100", 4.0),
            ("llama-l40s-deployment", "L4", 1.0),
            ("llama-l40s-leaderworkerset", "L40S", 1.0),
        ]
    );
}

#[test]
fn service_levels_come_from_the_pool_where_the_target_has_none() {
    let hpa_says = json!({"headroom.dev/model": "llama", "headroom.dev/slo-ttft-ms": "300"});
    let pool_says = json!({"headroom.dev/model": "llama", "headroom.dev/slo-ttft-ms": "900", "headroom.dev/slo-tpot-ms": "30"});
    let inputs = Inputs {
        hpas: vec![hpa("h", "llama", hpa_says, json!({}))],
        pools: vec![
            pool("other", json!({"headroom.dev/model": "qwen"})),
            pool("pool", pool_says),
        ],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let spec = &snapshot.models[0];
    let slo = spec.policy.classes[0].slo;
    assert_eq!((slo.ttft_ms, slo.tpot_ms), (300.0, 30.0));
    assert_eq!(spec.pool.as_deref(), Some("pool"));
    assert_eq!(snapshot.models.len(), 1, "a pool alone is nothing to scale");
}

#[test]
fn the_only_pool_of_a_namespace_is_the_models_and_one_of_several_must_be_named() {
    let model = json!({"headroom.dev/model": "llama"});
    let with = |pools: Vec<Arc<Pool>>, annotations: &Value| {
        let inputs = Inputs {
            workloads: vec![workload("Deployment", "llama", annotations.clone())],
            pools,
            ..Inputs::default()
        };
        assembled(&inputs).models[0].pool.clone()
    };
    let plain = |name| pool(name, json!({}));
    assert_eq!(with(vec![plain("a")], &model).as_deref(), Some("a"));
    assert_eq!(with(vec![plain("a"), plain("b")], &model), None);
    let told = json!({"headroom.dev/model": "llama", "headroom.dev/pool": "b"});
    assert_eq!(
        with(vec![plain("a"), plain("b")], &told).as_deref(),
        Some("b")
    );
    let others = vec![pool("a", json!({"headroom.dev/model": "qwen"}))];
    assert_eq!(with(others, &model), None);
}

#[test]
fn a_value_that_becomes_wrong_leaves_the_last_good_one_in_force() {
    let with = |ttft: &str| Inputs {
        hpas: vec![hpa(
            "h",
            "llama",
            json!({"headroom.dev/model": "llama", "headroom.dev/slo-ttft-ms": ttft}),
            json!({}),
        )],
        ..Inputs::default()
    };
    let mut assembler = Assembler::default();
    let ttft = |snapshot: &Snapshot| snapshot.models[0].policy.classes[0].slo.ttft_ms;
    assert_eq!(ttft(&assembler.assemble(&with("400"), true)), 400.0);
    for _ in 0..2 {
        let wrong = assembler.assemble(&with("fast"), true);
        assert_eq!(ttft(&wrong), 400.0);
        let finding = &wrong.models[0].findings[0];
        assert_eq!(
            (finding.reason, &*finding.about.name),
            ("WrongAnnotation", "h")
        );
        assert!(
            finding.message.contains("headroom.dev/slo-ttft-ms: `fast`"),
            "{}",
            finding.message
        );
    }
    assert_eq!(ttft(&assembler.assemble(&with("300"), true)), 300.0);
    // Gone and back: nothing is remembered of it.
    assembler.assemble(&Inputs::default(), true);
    assert_eq!(ttft(&assembler.assemble(&with("fast"), true)), 2000.0);
}

#[test]
fn annotations_without_a_model_are_told_of() {
    let inputs = Inputs {
        workloads: vec![workload(
            "Deployment",
            "llama",
            json!({"headroom.dev/mode": "publish"}),
        )],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    assert_eq!(snapshot.models.len(), 0);
    assert_eq!(snapshot.findings[0].reason, "ModelNotNamed");
}

#[test]
fn a_model_scaler_wins_over_annotations_and_says_so() {
    let inputs = Inputs {
        scalers: vec![Arc::new(scaler(json!({})))],
        workloads: vec![workload(
            "Deployment",
            "llama",
            json!({"headroom.dev/model": "llama"}),
        )],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let [spec] = &snapshot.models[..] else {
        panic!("{snapshot:?}")
    };
    assert!(spec.has_status());
    assert_eq!(spec.policy.classes[0].slo.ttft_ms, 500.0);
    assert_eq!(reasons(spec), ["AnnotationsIgnored"]);
    let finding = &spec.findings[0];
    assert!(finding.note && &*finding.about.kind == "Deployment");
}

#[test]
fn a_model_scaler_that_becomes_wrong_keeps_what_was_good_of_it() {
    let (good, wrong) = (
        json!({"behavior": {"margin": 0.2}}),
        json!({"behavior": {"margin": 5.0}}),
    );
    let with = |fields: &Value| Inputs {
        scalers: vec![Arc::new(scaler(fields.clone()))],
        ..Inputs::default()
    };
    let mut assembler = Assembler::default();
    assembler.assemble(&with(&good), true);
    let kept = assembler.assemble(&with(&wrong), true);
    assert_eq!(kept.models[0].policy.behavior.margin, 0.2);
    let finding = &kept.models[0].findings[0];
    assert_eq!(finding.reason, "InvalidSpec");
    assert!(
        finding.message.contains("`5`") && finding.message.contains("stays in force"),
        "{}",
        finding.message
    );
    let never = assembled(&with(&wrong));
    assert_eq!(never.models.len(), 0);
    assert!(never.findings[0].message.contains("is not sized"));
}

#[test]
fn the_older_of_two_model_scalers_for_one_model_counts() {
    let older = scaler(json!({}));
    let mut newer = scaler(json!({"mode": "direct"}));
    newer.source.name = "aaa".into();
    newer.created += 60;
    let inputs = Inputs {
        scalers: vec![Arc::new(newer), Arc::new(older)],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let [spec] = &snapshot.models[..] else {
        panic!("{snapshot:?}")
    };
    assert_eq!((&*spec.source.name, spec.mode), ("llama", Mode::Advise));
    assert_eq!(reasons(spec), ["DuplicateModel"]);
    assert_eq!(&*snapshot.findings[0].about.name, "aaa");
}

#[test]
fn an_hpas_limits_narrow_a_model_scalers() {
    let limited = |fields: Value| {
        let inputs = Inputs {
            scalers: vec![Arc::new(scaler(json!({"mode": "publish"})))],
            hpas: vec![hpa("h", "llama", json!({}), fields)],
            ..Inputs::default()
        };
        let snapshot = assembled(&inputs);
        let spec = Arc::clone(&snapshot.models[0]);
        let variant = &spec.policy.variants[0];
        (variant.min, variant.max, reasons(&spec))
    };
    let (min, max, _) = limited(json!({"minReplicas": 2, "maxReplicas": 20}));
    assert_eq!((min, max), (2, 8));
    let (min, max, told) = limited(json!({"minReplicas": 10, "maxReplicas": 20}));
    assert_eq!((min, max), (10, 20));
    assert!(told.contains(&"LimitsDisagree"), "{told:?}");
    let (min, max, told) = limited(json!({"minReplicas": 9, "maxReplicas": 3}));
    assert_eq!((min, max), (1, 8));
    assert!(told.contains(&"MinAboveMax"), "{told:?}");
}

#[test]
fn kedas_hpa_does_not_keep_a_variant_from_zero() {
    let floor = |keda: bool, min: u32| {
        let mut hpa = Hpa::clone(&hpa("h", "llama", json!({}), json!({"minReplicas": min})));
        hpa.scaled_object = keda.then(|| "llama".into());
        let mut policy = scaler(json!({"mode": "publish"})).policy().variants[0].clone();
        policy.min = 0;
        assert_eq!(limit(&mut policy, &hpa), None);
        policy.min
    };
    assert_eq!((floor(true, 1), floor(false, 1)), (0, 1));
    assert_eq!(floor(true, 2), 2, "asked for");
}

#[test]
fn a_pool_that_is_not_there_is_told_with_those_that_are() {
    let told = |name: &str| {
        let inputs = Inputs {
            scalers: vec![Arc::new(scaler(json!({"pool": name})))],
            pools: vec![pool("llama", json!({}))],
            ..Inputs::default()
        };
        let spec = Arc::clone(&assembled(&inputs).models[0]);
        let found = spec
            .findings
            .iter()
            .find(|one| one.reason == "PoolNotFound");
        found.map(|one| one.message.clone())
    };
    assert_eq!(told("llama"), None);
    assert!(told("lama").unwrap().contains("there is llama"));
}

#[test]
fn annotated_limits_narrow_the_hpas_too() {
    let annotations = json!({"headroom.dev/model": "llama", "headroom.dev/max-replicas": "5"});
    let inputs = Inputs {
        hpas: vec![hpa(
            "h",
            "llama",
            annotations,
            json!({"minReplicas": 2, "maxReplicas": 12}),
        )],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let variant = &snapshot.models[0].policy.variants[0];
    assert_eq!((variant.min, variant.max), (2, 5));
}

#[test]
fn variants_that_disagree_take_the_stricter_level_and_the_safer_mode() {
    let says = |ttft: &str, mode: &str| json!({"headroom.dev/model": "llama", "headroom.dev/slo-ttft-ms": ttft, "headroom.dev/mode": mode});
    let inputs = Inputs {
        workloads: vec![
            workload("Deployment", "a", says("500", "direct")),
            workload("Deployment", "b", says("800", "publish")),
        ],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    let spec = &snapshot.models[0];
    assert_eq!(spec.policy.classes[0].slo.ttft_ms, 500.0);
    assert_eq!(spec.mode, Mode::Publish);
    assert_eq!(reasons(spec), ["DifferentSlo", "DifferentMode"]);
    assert!(spec.findings.iter().all(|finding| finding.note));
}

#[test]
fn models_come_in_the_order_of_their_keys_so_that_they_are_found() {
    let named = |name: &str| workload("Deployment", name, json!({"headroom.dev/model": name}));
    let inputs = Inputs {
        workloads: vec![named("c"), named("a"), named("b")],
        ..Inputs::default()
    };
    let snapshot = assembled(&inputs);
    for model in ["a", "b", "c"] {
        let key = ModelKey {
            namespace: "chat".into(),
            model: model.into(),
        };
        assert_eq!(snapshot.get(&key).unwrap().key, key);
    }
    assert_eq!(snapshot.get(&ModelKey::default()), None);
}

use std::collections::BTreeMap;
use std::sync::Arc;

use controller::kubernetes::apiservice::Service;
use controller::kubernetes::assemble::{Assembler, Inputs};
use controller::kubernetes::hpas::Hpa;
use controller::kubernetes::models::Source;
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_000_000;

fn api_service(change: impl FnOnce(&mut Value)) -> APIService {
    let mut whole = json!({
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": "headroom-system", "name": "headroom-controller"},
            // "-----BEGIN CERTIFICATE-----"
            "caBundle": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t",
        },
        "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Passed"}]},
    });
    change(&mut whole);
    serde_json::from_value(whole).unwrap()
}

fn pod(name: &str, ready: bool) -> PodFact {
    PodFact {
        namespace: "chat".into(),
        name: name.into(),
        ready,
        account: "epp".into(),
        ports: vec![9002, names::admin::PORT],
    }
}

fn hpa(name: &str, fields: Value) -> Arc<Hpa> {
    let mut whole = json!({
        "metadata": {"name": name, "namespace": "chat", "annotations": {"headroom.dev/model": "llama", "headroom.dev/mode": "publish"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}, "maxReplicas": 8,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "llm_desired_replicas", "selector": {"matchLabels": {"variant": "llama"}}},
                "target": {"type": "AverageValue", "averageValue": "1"},
            }}],
        },
    });
    for (key, value) in fields.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    Arc::new(Hpa::trim(serde_json::from_value(whole).unwrap()).unwrap())
}

fn asked(hpas: Vec<Arc<Hpa>>) -> controller::kubernetes::models::Snapshot {
    let inputs = Inputs {
        hpas,
        ..Inputs::default()
    };
    Assembler::default().assemble(&inputs, true)
}

/// What the controller says of model `llama`.
fn explanation(change: impl FnOnce(&mut Value)) -> Explanation {
    let mut whole = json!({
        "schema": 1, "namespace": "chat", "model": "llama", "mode": "publish",
        "source": "HorizontalPodAutoscaler chat/h", "pool": "pool", "atMs": NOW,
        "notes": ["demand as the endpoint pickers report it"], "why": [], "variants": [],
        "snapshots": [], "findings": [], "decision": null, "changes": [],
    });
    change(&mut whole);
    serde_json::from_value(whole).unwrap()
}

/// A cluster in which all is well.
fn healthy() -> Facts {
    let pem = "-----BEGIN CERTIFICATE-----".to_owned();
    let data = BTreeMap::from([("requestheader-client-ca-file".to_owned(), pem)]);
    Facts {
        now_ms: NOW,
        version: Some((1, 36)),
        service: Service {
            namespace: "headroom-system".into(),
            name: "headroom-controller".into(),
            port: 443,
        },
        api_services: vec![(
            "external.metrics.k8s.io",
            "v1beta1",
            Ok(Some(api_service(|_| {}))),
        )],
        authentication: Ok(Some(data)),
        rights: vec![Right {
            who: "ServiceAccount a/b".into(),
            what: "read external metrics",
            allowed: Ok(true),
            advice: "bind it",
        }],
        controllers: Ok(vec![pod("controller-0", true)]),
        lease: Ok(Some(LeaseFact {
            holder: Some("controller-0".into()),
            renewed_ms: NOW - 5_000,
            duration_seconds: 15,
        })),
        pools: Ok(vec![("chat".into(), "pool".into())]),
        pickers: Ok(vec![("pool".into(), pod("epp-0", true))]),
        asked: Ok(asked(vec![hpa("h", json!({}))])),
        explained: vec![("chat/llama".into(), Ok(explanation(|_| {})))],
        conditions: Vec::new(),
        values: vec![ValueFact {
            hpa: Source {
                kind: "HorizontalPodAutoscaler".into(),
                name: "h".into(),
                ..Source::default()
            },
            path: "/apis/x".into(),
            answer: Ok(vec![(3.0, NOW - 500)]),
        }],
    }
}

/// What is not as it should be.
fn told(facts: &Facts) -> Vec<(Outcome, String)> {
    let checks = all(facts).into_iter();
    let told = checks.filter(|check| check.outcome != Outcome::Good);
    told.map(|check| {
        assert!(
            check.outcome == Outcome::Note || !check.evidence.is_empty(),
            "{check:?}"
        );
        (check.outcome, check.what)
    })
    .collect()
}

fn one(facts: &Facts, outcome: Outcome, part: &str) {
    let told = told(facts);
    let [(found, what)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(*found, outcome, "{what}");
    assert!(what.contains(part), "{what}");
}

#[test]
fn a_healthy_cluster_has_nothing_to_tell() {
    let facts = healthy();
    assert_eq!(told(&facts), []);
    let areas: Vec<_> = all(&facts).iter().map(|check| check.area).collect();
    for area in [API, RIGHTS, CONTROLLER, PICKERS, DEMAND, MODELS, VALUES] {
        assert!(areas.contains(&area), "{area} is not looked at");
    }
}

#[test]
fn a_picker_that_the_controller_does_not_hear_is_told() {
    let with = |said| {
        let mut facts = healthy();
        facts.explained[0].1 = said;
        facts
    };
    let troubled = explanation(|whole| {
        whole["notes"] = json!([
            "demand as the endpoint pickers report it",
            "endpoint picker epp-0: no answer: invalid peer certificate",
        ]);
    });
    one(
        &with(Ok(troubled)),
        Outcome::Wrong,
        "does not hear all endpoint pickers of chat/llama",
    );
    let nobody = explanation(|whole| {
        whole["notes"] =
            json!(["nothing tells the demand: no endpoint picker, no Prometheus, no engine"]);
    });
    one(
        &with(Ok(nobody)),
        Outcome::Wrong,
        "nothing tells the demand of chat/llama",
    );
    one(
        &with(Err("403 pods/proxy".into())),
        Outcome::Unknown,
        "chat/llama",
    );
}

#[test]
fn an_api_that_nobody_reads_may_be_somebody_elses() {
    let mut facts = healthy();
    facts.asked = Ok(asked(vec![hpa("h", json!({"metrics": []}))]));
    facts.api_services[0].2 = Ok(None);
    let told = told(&facts);
    let notes = told
        .iter()
        .filter(|(_, what)| what.contains("does not exist"));
    assert!(
        notes.clone().all(|(outcome, _)| *outcome == Outcome::Note),
        "{told:?}"
    );
    assert_eq!(notes.count(), 1);
}

#[test]
fn each_fault_of_an_api_service_is_told() {
    let with = |found| {
        let mut facts = healthy();
        facts.api_services[0].2 = found;
        facts
    };
    one(&with(Ok(None)), Outcome::Wrong, "does not exist");
    one(
        &with(Err("403 no".into())),
        Outcome::Unknown,
        "APIService v1beta1.external",
    );
    let keda = json!({"namespace": "keda", "name": "keda-operator-metrics-apiserver"});
    let changed = |change: &dyn Fn(&mut Value)| with(Ok(Some(api_service(change))));
    one(
        &changed(&|whole| whole["spec"]["service"] = keda.clone()),
        Outcome::Wrong,
        "belongs to Service keda/keda-operator-metrics-apiserver",
    );
    one(
        &changed(&|whole| whole["status"]["conditions"][0]["status"] = "False".into()),
        Outcome::Wrong,
        "is not available",
    );
    one(
        &changed(&|whole| whole["spec"]["caBundle"] = "".into()),
        Outcome::Wrong,
        "no authority",
    );
    one(
        &changed(&|whole| whole["spec"]["insecureSkipTLSVerify"] = true.into()),
        Outcome::Wrong,
        "skips the verification",
    );
    one(
        &changed(&|whole| whole["status"] = json!({})),
        Outcome::Wrong,
        "nobody has looked",
    );
}

#[test]
fn an_absent_front_proxy_authority_makes_everybody_anonymous() {
    let mut facts = healthy();
    facts.authentication = Ok(Some(BTreeMap::new()));
    one(&facts, Outcome::Wrong, "anonymous");
    facts.authentication = Ok(None);
    one(&facts, Outcome::Wrong, "anonymous");
}

#[test]
fn a_missing_right_says_which_binding() {
    let mut facts = healthy();
    facts.rights[0].allowed = Ok(false);
    one(
        &facts,
        Outcome::Wrong,
        "ServiceAccount a/b may not read external metrics",
    );
    let checks = all(&facts);
    let check = checks.iter().find(|check| check.area == RIGHTS).unwrap();
    assert_eq!(check.advice, "bind it");
}

#[test]
fn a_controller_that_is_missing_unready_or_without_a_lease_is_told() {
    let mut facts = healthy();
    facts.controllers = Ok(Vec::new());
    one(
        &facts,
        Outcome::Wrong,
        "no controller in namespace headroom-system",
    );
    facts.controllers = Ok(vec![pod("a", false)]);
    one(&facts, Outcome::Wrong, "0 of 1 controller pods");
    facts.controllers = Ok(vec![pod("a", false), pod("b", true)]);
    one(&facts, Outcome::Note, "1 of 2 controller pods");
    let mut facts = healthy();
    facts.lease = Ok(None);
    one(&facts, Outcome::Wrong, "no controller leads");
    facts.lease = Ok(Some(LeaseFact {
        holder: Some("a".into()),
        renewed_ms: NOW - 60_000,
        duration_seconds: 15,
    }));
    one(&facts, Outcome::Wrong, "has not renewed");
}

#[test]
fn a_pool_without_pickers_is_told() {
    let mut facts = healthy();
    facts.pickers = Ok(vec![("other".into(), pod("epp-0", true))]);
    one(
        &facts,
        Outcome::Wrong,
        "pool chat/pool has no endpoint picker",
    );
    let mut closed = pod("epp-0", true);
    closed.ports = vec![9002];
    facts.pickers = Ok(vec![("pool".into(), closed)]);
    one(&facts, Outcome::Note, "epp-0 does not declare the port");
    facts.pools = Ok(Vec::new());
    facts.pickers = Ok(Vec::new());
    one(&facts, Outcome::Note, "no InferencePool");
}

#[test]
fn traps_of_hpas_are_told_as_the_controller_tells_them() {
    let mut facts = healthy();
    let value = json!({"metrics": [{"type": "External", "external": {
        "metric": {"name": "llm_desired_replicas", "selector": {"matchLabels": {"variant": "llama"}}},
        "target": {"type": "Value", "value": "1"},
    }}]});
    facts.asked = Ok(asked(vec![hpa("h", value)]));
    one(&facts, Outcome::Wrong, "AverageValue 1");
    facts.asked = Ok(asked(vec![hpa("h", json!({"maxReplicas": 30}))]));
    one(&facts, Outcome::Note, "a step of one is ignored");
    facts.asked = Ok(asked(vec![hpa("h", json!({"minReplicas": 0}))]));
    one(&facts, Outcome::Note, "HPAScaleToZero");
    facts.version = Some((1, 37));
    assert_eq!(told(&facts), []);
    facts.asked = Ok(asked(Vec::new()));
    one(&facts, Outcome::Note, "no model is asked");
}

#[test]
fn an_hpa_that_cannot_compute_is_told_and_one_that_limits_is_not() {
    let condition = |kind: &str, status: &str, reason: &str| ConditionFact {
        about: Source {
            kind: "HorizontalPodAutoscaler".into(),
            name: "h".into(),
            ..Source::default()
        },
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: "m".into(),
    };
    let mut facts = healthy();
    facts.conditions = vec![condition(
        "ScalingActive",
        "False",
        "FailedGetExternalMetric",
    )];
    one(&facts, Outcome::Wrong, "does not scale (ScalingActive)");
    facts.conditions = vec![condition("ScalingActive", "False", "ScalingDisabled")];
    one(&facts, Outcome::Wrong, "is paused");
    facts.conditions = vec![
        condition("ScalingLimited", "False", "DesiredWithinRange"),
        condition("ScalingActive", "True", "ValidMetricFound"),
    ];
    assert_eq!(told(&facts), []);
}

#[test]
fn values_that_are_refused_missing_or_old_are_told() {
    let with = |answer| {
        let mut facts = healthy();
        facts.values[0].answer = answer;
        facts
    };
    one(
        &with(Err("503 the model is cold".into())),
        Outcome::Wrong,
        "gets no value",
    );
    one(&with(Ok(Vec::new())), Outcome::Wrong, "an empty list");
    one(
        &with(Ok(vec![(3.0, NOW - 60_000)])),
        Outcome::Wrong,
        "60 s old",
    );
}

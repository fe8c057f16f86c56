//! The generated definitions, without a cluster: fresh, structural, and every rule of ours refuses what it should.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, path::Path};

use crds::{ModelScaler, model_scaler::ModelScalerSpec, yaml};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, core::cel::Validator};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn documents(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// The document with that name.
fn good(name: &str) -> Value {
    documents("good.yaml")
        .into_iter()
        .find(|document| document["metadata"]["name"] == name)
        .unwrap()
}

fn schema(definition: &CustomResourceDefinition) -> Value {
    let version = serde_json::to_value(&definition.spec.versions[0]).unwrap();
    version["schema"]["openAPIV3Schema"].clone()
}

/// Every schema below `schema`, itself included, with its path.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            walk(&schema[part], &format!("{path}[]"), visit);
        }
    }
}

fn all_definitions() -> Vec<CustomResourceDefinition> {
    yaml::owned().into_iter().chain(yaml::read()).collect()
}

#[test]
fn the_files_are_what_the_types_say() {
    for (directory, definitions) in [
        ("deploy/crds", yaml::owned()),
        ("tests/cluster/crds", yaml::read()),
    ] {
        let directory = Path::new(REPOSITORY).join(directory);
        let mut expected = BTreeSet::new();
        for file in yaml::files(&definitions).unwrap() {
            let there = std::fs::read_to_string(directory.join(&file.name)).unwrap_or_default();
            assert!(
                there == file.yaml,
                "{} is stale: run `make crds`",
                file.name
            );
            expected.insert(file.name);
        }
        let there: BTreeSet<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
            .collect();
        assert_eq!(there, expected, "no other definitions");
    }
}

#[test]
fn ours_is_in_our_group() {
    let definition = ModelScaler::crd();
    assert_eq!(definition.spec.group, names::kubernetes::GROUP);
}

#[test]
fn groups_that_kubernetes_protects_carry_the_annotation_it_asks_for() {
    for definition in all_definitions() {
        let group = &definition.spec.group;
        let protected = group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io");
        let approved = definition
            .metadata
            .annotations
            .unwrap_or_default()
            .contains_key("api-approved.kubernetes.io");
        assert_eq!(approved, protected, "{group}");
    }
}

#[test]
fn schemas_hold_only_what_the_api_server_takes() {
    for definition in all_definitions() {
        let kind = &definition.spec.names.kind;
        walk(&schema(&definition), kind, &mut |path, schema| {
            assert!(schema.get("nullable").is_none(), "{path}");
            assert!(schema.get("oneOf").is_none(), "{path}");
            let format = schema["format"].as_str().unwrap_or("double");
            assert!(
                ["double", "int32", "int64", "date-time"].contains(&format),
                "{path}: {format}"
            );
            let int_or_string = schema["x-kubernetes-int-or-string"] == true;
            assert!(
                schema["type"].is_string() || int_or_string,
                "{path}: no type"
            );
            for key in schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let required = schema["items"]["required"].as_array().unwrap();
                assert!(required.contains(key), "{path}: {key} must be required");
            }
        });
    }
}

#[test]
fn every_field_of_ours_is_described() {
    walk(&schema(&yaml::owned()[0]), "", &mut |path, schema| {
        let inherited = [".apiVersion", ".kind", ".metadata"].contains(&path);
        let plain_item = path.ends_with("[]") && schema["type"] == "string";
        let described = schema["description"]
            .as_str()
            .is_some_and(|text| text.len() > 4);
        assert!(described || inherited || plain_item, "{path}");
    });
}

/// The API server estimates what a rule may cost from the bounds of what it reads: an unbounded list or text makes it
/// refuse the definition.
#[test]
fn everything_in_the_spec_is_bounded() {
    walk(
        &schema(&yaml::owned()[0])["properties"]["spec"],
        "spec",
        &mut |path, schema| match schema["type"].as_str() {
            Some("array") => assert!(schema["maxItems"].is_u64(), "{path}"),
            Some("string") if schema["enum"].is_null() => {
                assert!(schema["maxLength"].is_u64(), "{path}");
            }
            None => assert!(schema["maxLength"].is_u64(), "{path}"),
            _ => {}
        },
    );
}

#[test]
fn a_status_has_no_rules() {
    for definition in all_definitions() {
        let status = schema(&definition)["properties"]["status"].clone();
        assert!(status.is_object());
        walk(&status, "status", &mut |path, schema| {
            assert!(schema.get("x-kubernetes-validations").is_none(), "{path}");
            assert!(schema.get("default").is_none(), "{path}");
        });
    }
}

fn refusals(document: &Value) -> Vec<String> {
    let schema = schema(&yaml::owned()[0]);
    match Validator::new().validate_with_defaults(&schema, document, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn rules_let_pass_what_is_right() {
    for document in documents("good.yaml") {
        let name = &document["metadata"]["name"];
        assert_eq!(refusals(&document), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn each_rule_refuses_what_breaks_it_and_says_what_would_be_right() {
    let mut untested = BTreeSet::new();
    walk(&schema(&yaml::owned()[0]), "", &mut |_, schema| {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            untested.insert(rule["message"].as_str().unwrap().to_owned());
        }
    });
    assert!(untested.len() > 15);
    for document in documents("broken-rules.yaml") {
        let name = &document["metadata"]["name"];
        let expected = document["metadata"]["annotations"]["expect"]
            .as_str()
            .unwrap();
        let refusals = refusals(&document);
        assert_eq!(refusals.len(), 1, "{name} breaks one rule: {refusals:?}");
        assert!(refusals[0].contains(expected), "{name}: {refusals:?}");
        untested.retain(|message| !refusals[0].contains(message.as_str()));
    }
    assert_eq!(untested, BTreeSet::new(), "rules that no document breaks");
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let smallest = good("smallest");
    let scaler: ModelScaler = serde_json::from_value(smallest.clone()).unwrap();
    let defaulted = kube::core::cel::apply_defaults(&schema(&yaml::owned()[0]), &smallest);
    let server: ModelScalerSpec = serde_json::from_value(defaulted["spec"].clone()).unwrap();
    assert_eq!(scaler.spec, server);
    assert_eq!(
        json!(scaler.spec),
        json!({
            "model": "chat",
            "mode": "advise",
            "sloClasses": [
                {"name": "chat", "percentile": 90.0, "ttftMs": 500.0, "tpotMs": 50.0, "weight": 1.0},
            ],
            "variants": [{
                "name": "h100",
                "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat-h100"},
                "role": "both",
                "gpusPerReplica": 1,
                "costPerHour": 1.0,
                "minReplicas": 1,
                "maxReplicas": 4,
                "startupSeconds": "auto",
            }],
        })
    );
}

#[test]
fn a_complete_model_scaler_round_trips() {
    let document = good("complete");
    let scaler: ModelScaler = serde_json::from_value(document.clone()).unwrap();
    let written = serde_json::to_value(&scaler).unwrap();
    let mut expected = document["spec"].clone();
    // Only the lower end is open, and it is written out.
    expected["sloClasses"][1]["priority"]["min"] = json!(i32::MIN);
    assert_eq!(numbers(&written["spec"]), numbers(&expected));
}

/// `value` with every number as a float: 90 and 90.0 are the same to Kubernetes.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(numbers).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), numbers(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Reads the first document of the resource and writes it again.
fn rewritten<T: CustomResourceExt + DeserializeOwned + Serialize>(name: &str) -> (Value, Value) {
    let resource = T::api_resource();
    let document = documents("read.yaml")
        .into_iter()
        .find(|document| {
            document["apiVersion"] == resource.api_version.as_str()
                && document["kind"] == resource.kind.as_str()
                && document["metadata"]["name"] == name
        })
        .unwrap();
    let read: T = serde_json::from_value(document.clone()).unwrap();
    (
        document["spec"].clone(),
        serde_json::to_value(read).unwrap()["spec"].clone(),
    )
}

#[test]
fn what_we_read_round_trips() {
    let pool_ref =
        json!({"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "chat"});

    let (mut pool, written) = rewritten::<crds::InferencePool>("chat");
    pool["endpointPickerRef"]["group"] = json!("");
    pool["endpointPickerRef"]["kind"] = json!("Service");
    assert_eq!(written, pool);
    let (bare, written) = rewritten::<crds::InferencePool>("without-picker");
    assert_eq!(written, bare);

    let (mut objective, written) = rewritten::<crds::InferenceObjective>("overnight");
    objective["poolRef"] = pool_ref.clone();
    assert_eq!(written, objective);
    let (_, old) = rewritten::<crds::inference_objective::legacy::InferenceObjective>("overnight");
    assert_eq!(old, objective, "the move changed the group only");
    let (ordinary, written) = rewritten::<crds::InferenceObjective>("ordinary");
    assert_eq!(written, ordinary);

    let (mut rewrite, written) = rewritten::<crds::InferenceModelRewrite>("canary");
    rewrite["poolRef"] = pool_ref.clone();
    rewrite["rules"][0]["matches"][1]["model"]["type"] = json!("Exact");
    assert_eq!(written, rewrite);
    let (mut old, written) =
        rewritten::<crds::inference_model_rewrite::legacy::InferenceModelRewrite>("canary");
    old["poolRef"] = pool_ref;
    assert_eq!(written, old);

    let (scaler, written) = rewritten::<crds::DisaggregatedSetRoleScaler>("chat-prefill");
    assert_eq!(written, scaler);
    let (variant, written) = rewritten::<crds::VariantAutoscaling>("chat-h100");
    assert_eq!(written, variant);
}

#[test]
fn of_a_leader_worker_set_only_the_groups_are_kept() {
    let (_, written) = rewritten::<crds::LeaderWorkerSet>("wide");
    assert_eq!(
        written,
        json!({"replicas": 2, "leaderWorkerTemplate": {"size": 4}})
    );
}

#[test]
fn fields_that_are_not_known_yet_are_ignored() {
    for mut document in documents("read.yaml") {
        document["spec"]["fromTheFuture"] = json!({"a": [1]});
        document["status"] = json!({"fromTheFuture": true});
        let kind = document["kind"].as_str().unwrap().to_owned();
        let read = match (kind.as_str(), document["apiVersion"].as_str().unwrap()) {
            ("InferencePool", _) => reads::<crds::InferencePool>(document),
            ("InferenceObjective", "llm-d.ai/v1alpha2") => {
                reads::<crds::InferenceObjective>(document)
            }
            ("InferenceObjective", _) => {
                reads::<crds::inference_objective::legacy::InferenceObjective>(document)
            }
            ("InferenceModelRewrite", "llm-d.ai/v1alpha2") => {
                reads::<crds::InferenceModelRewrite>(document)
            }
            ("InferenceModelRewrite", _) => {
                reads::<crds::inference_model_rewrite::legacy::InferenceModelRewrite>(document)
            }
            ("LeaderWorkerSet", _) => reads::<crds::LeaderWorkerSet>(document),
            ("DisaggregatedSetRoleScaler", _) => {
                reads::<crds::DisaggregatedSetRoleScaler>(document)
            }
            ("VariantAutoscaling", _) => reads::<crds::VariantAutoscaling>(document),
            (other, _) => panic!("no type for {other}"),
        };
        assert_eq!(read, Ok(()), "{kind}");
    }
}

fn reads<T: DeserializeOwned>(document: Value) -> Result<(), String> {
    serde_json::from_value::<T>(document)
        .map(drop)
        .map_err(|error| error.to_string())
}

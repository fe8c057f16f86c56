//! The published JSON schema: it is the one that the code makes, and it accepts what the reader accepts.

use epp_core::Config;
use epp_core::config::{Status, catalogue, default_parameters, schema};
use jsonschema::Validator;
use serde_json::{Value, json};

const PUBLISHED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../deploy/schemas/endpoint-picker-config.schema.json"
);

/// `UPDATE_GOLDEN=1` writes the file anew.
#[test]
fn the_published_schema_is_current() {
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(PUBLISHED, &current).unwrap();
    }
    let published = std::fs::read_to_string(PUBLISHED).unwrap();
    assert!(
        published == current,
        "deploy/schemas is out of date; run with UPDATE_GOLDEN=1, or write it with `headroom config schema`"
    );
}

#[expect(clippy::expect_used, reason = "in a test, to expect is to assert")]
fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).expect("the schema is one")
}

#[expect(clippy::panic, reason = "a test fails by panicking")]
fn valid(validator: &Validator, name: &str, document: &Value) {
    let errors: Vec<_> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if !errors.is_empty() {
        panic!("{name}: {errors:#?}");
    }
}

#[test]
fn every_sample_is_valid() {
    let validator = validator();
    let mut seen = 0;
    for folder in ["epp/core/tests/configs", "deploy/examples"] {
        let folder = format!("{}/../../{folder}", env!("CARGO_MANIFEST_DIR"));
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            if !text.contains("kind: EndpointPickerConfig") {
                continue;
            }
            let document: Value = serde_saphyr::from_str(&text).unwrap();
            valid(&validator, &path.display().to_string(), &document);
            seen += 1;
        }
    }
    assert!(seen >= 31, "{seen}");
}

fn document(plugin: Value) -> Value {
    json!({"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "plugins": [plugin]})
}

/// With their defaults, spelt out, all built types are valid; so are they without parameters, and all others.
#[test]
fn every_type_is_valid() {
    let validator = validator();
    for entry in catalogue() {
        let named = document(json!({"type": entry.name}));
        if let Status::Refused(_) = entry.status {
            assert!(!validator.is_valid(&named), "{}", entry.name);
            continue;
        }
        valid(&validator, entry.name, &named);
        if let Some(parameters) = default_parameters(entry.name) {
            valid(
                &validator,
                entry.name,
                &document(json!({"type": entry.name, "parameters": parameters})),
            );
        }
    }
}

/// What the reader refuses for its shape, the schema refuses.
#[test]
fn mistakes_are_found() {
    let validator = validator();
    let mistakes = [
        json!({"type": "queue-scoer"}),
        json!({"type": "queue-scorer", "parameters": {"x": 1}}),
        json!({"type": "queue-scorer", "params": {}}),
        json!({"name": "nameless"}),
        json!({"type": "concurrency-detector", "parameters": {"maxConcurrency": "many"}}),
        json!({"type": "concurrency-detector", "parameters": {"concurrencyMode": "request"}}),
        json!({"type": "latency-slo-admitter", "parameters": {"quantile": "p95"}}),
        json!({"type": "by-label", "parameters": {"label": "x", "values": []}}),
    ];
    for plugin in mistakes {
        let document = document(plugin);
        assert!(!validator.is_valid(&document), "{document}");
        assert!(
            Config::from_yaml(&document.to_string()).is_err(),
            "{document}"
        );
    }
    let sections = [
        json!({"kind": "EndpointPickerConfig"}),
        json!({"apiVersion": "v1", "kind": "EndpointPickerConfig"}),
        json!({"apiVersion": "llm-d.ai/v1alpha1", "kind": "Pod"}),
        json!({"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "plugin": []}),
        json!({"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "featureGates": ["flow"]}),
        json!({"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "flowControl": {"maxBytes": true}}),
        json!({"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig",
            "flowControl": {"priorityBands": [{"maxRequests": 1}]}}),
    ];
    for document in sections {
        assert!(!validator.is_valid(&document), "{document}");
        assert!(
            Config::from_yaml(&document.to_string()).is_err(),
            "{document}"
        );
    }
}

/// A deprecated parameter is in the schema as such.
#[test]
fn deprecated_parameters_are_known() {
    let old = json!({"type": "approx-prefix-cache-producer", "parameters": {"blockSize": 32}});
    valid(&validator(), "blockSize", &document(old));
    let label = json!({"type": "topology-extractor", "parameters": {"hostnameLabel": "host"}});
    let label = document(label);
    valid(&validator(), "hostnameLabel", &label);
    let topology = Config::from_yaml(&label.to_string()).unwrap().topology;
    assert_eq!(topology.hostname, "host");
    let schema = schema();
    assert_eq!(
        schema["$defs"]["PrefixProducer"]["properties"]["blockSize"]["deprecated"],
        true
    );
    assert_eq!(schema["properties"]["parser"]["deprecated"], true);
}

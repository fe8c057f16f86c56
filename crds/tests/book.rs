//! The pages of the book on our types say what the code does.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path};

use crds::{ModelScaler, annotations, model_scaler::Startup, yaml};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

fn fields(schema: &JSONSchemaProps, below: &mut Vec<String>) {
    for (name, property) in schema.properties.iter().flatten() {
        if name == "conditions" {
            continue;
        }
        below.push(name.clone());
        fields(property, below);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &property.items {
            fields(items, below);
        }
    }
}

#[test]
fn every_field_is_on_the_page() {
    let page = page("modelscaler.md");
    let definition = yaml::definition::<ModelScaler>();
    let schema = definition.spec.versions[0].schema.clone().unwrap();
    let properties = schema.open_api_v3_schema.unwrap().properties.unwrap();
    for part in ["spec", "status"] {
        let mut names = Vec::new();
        fields(&properties[part], &mut names);
        assert!(names.len() > 20, "{part}: {names:?}");
        for name in names {
            let told = [
                format!("`{name}`"),
                format!("`{name}[]`"),
                format!("{name},"),
                format!("{name}}}"),
            ];
            assert!(
                told.iter().any(|told| page.contains(told)),
                "{part}: {name}"
            );
        }
    }
    assert!(page.contains(&Startup::UNMEASURED.as_secs().to_string()));
}

#[test]
fn every_annotation_is_on_the_page() {
    let page = page("annotations.md");
    for name in names::annotation::MODEL_ANNOTATIONS {
        for spelling in name.all() {
            assert!(page.contains(&format!("| `{spelling}` |")), "{spelling}");
        }
    }
    assert!(page.contains(&format!("at most {} such", annotations::MAX_PROBLEMS)));
}

/// The table of wrong values holds what is written, and what is told of it.
#[test]
fn wrong_values_are_told_as_the_page_says() {
    let page = page("annotations.md");
    let rows = page.lines().filter_map(|line| {
        line.strip_prefix("| `headroom.dev/")?
            .split_once("` | annotation ")
    });
    let mut seen = 0;
    for (written, told) in rows.map(|(written, told)| (written.replace("beside `", ""), told)) {
        let object: BTreeMap<String, String> = written
            .split("` ")
            .map(|pair| pair.split_once(": ").unwrap())
            .map(|(name, value)| (format!("headroom.dev/{name}"), value.replace('"', "")))
            .collect();
        let problems = annotations::read(&object).problems;
        assert_eq!(problems.len(), 1, "{written}: {problems:?}");
        let told = told.trim_end_matches(" |");
        assert_eq!(problems[0].to_string(), format!("annotation {told}"));
        seen += 1;
    }
    assert!(seen >= 4);
}

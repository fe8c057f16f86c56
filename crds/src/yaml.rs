//! The CustomResourceDefinitions as YAML: made from the types, made plain for the API server.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{
    DisaggregatedSetRoleScaler, InferenceModelRewrite, InferenceObjective, InferencePool,
    LeaderWorkerSet, ModelScaler, VariantAutoscaling, inference_model_rewrite, inference_objective,
};

/// First lines of every file.
const HEADER: &str = "# Made from the types of the crate `crds` by `make crds`; do not edit.\n";

/// A file of one CustomResourceDefinition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name, `<group>_<plural>.yaml`.
    pub name: String,
    /// Content.
    pub yaml: String,
}

/// A definition could not be written as YAML.
#[derive(Debug, thiserror::Error)]
#[error("{name}: the definition cannot be written as YAML: {source}")]
pub struct YamlError {
    /// The definition.
    pub name: String,
    /// Why.
    pub source: serde_yaml_ng::Error,
}

/// The definitions that we own.
pub fn owned() -> Vec<CustomResourceDefinition> {
    vec![definition::<ModelScaler>()]
}

/// The definitions of what we read and no Go module brings: good enough to apply real manifests against, no more.
pub fn read() -> Vec<CustomResourceDefinition> {
    vec![
        definition::<InferencePool>(),
        definition::<InferenceObjective>(),
        definition::<inference_objective::legacy::InferenceObjective>(),
        definition::<InferenceModelRewrite>(),
        definition::<inference_model_rewrite::legacy::InferenceModelRewrite>(),
        definition::<LeaderWorkerSet>(),
        definition::<DisaggregatedSetRoleScaler>(),
        definition::<VariantAutoscaling>(),
    ]
}

/// The definition of `T`, made plain for the API server.
pub fn definition<T: CustomResourceExt>() -> CustomResourceDefinition {
    let mut definition = T::crd();
    for version in &mut definition.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            plain(schema);
            if let Some(status) = schema
                .properties
                .as_mut()
                .and_then(|properties| properties.get_mut("status"))
            {
                // A controller writes it: nothing to default or refuse, and its lists, unbounded, would make rules that
                // the types bring along cost more than the API server allows.
                each(status, &mut |schema| {
                    schema.default = None;
                    schema.x_kubernetes_validations = None;
                });
            }
        }
    }
    definition
}

/// Writes definitions as files.
///
/// # Errors
/// A definition that YAML cannot hold.
pub fn files(definitions: &[CustomResourceDefinition]) -> Result<Vec<File>, YamlError> {
    definitions
        .iter()
        .map(|definition| {
            let name = format!(
                "{}_{}.yaml",
                definition.spec.group, definition.spec.names.plural
            );
            match serde_yaml_ng::to_string(definition) {
                Ok(yaml) => Ok(File {
                    name,
                    yaml: format!("{HEADER}{yaml}"),
                }),
                Err(source) => Err(YamlError { name, source }),
            }
        })
        .collect()
}

/// Rewrites what JSON schema generation leaves behind: widths that Kubernetes does not know, nulls where absence is
/// meant (the API server prunes them then), defaults that say nothing, broken lines.
fn plain(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        let width = match schema.format.as_deref() {
            Some("uint8" | "uint16" | "uint32") => Some("int32"),
            Some("uint64" | "uint") => Some("int64"),
            _ => None,
        };
        if let Some(width) = width {
            schema.format = Some(width.to_owned());
        }
        schema.nullable = None;
        let says_nothing = schema.default.as_ref().is_some_and(|default| {
            default.0.is_null()
                || default.0.as_array().is_some_and(Vec::is_empty)
                || default.0.as_object().is_some_and(serde_json::Map::is_empty)
        });
        if says_nothing {
            schema.default = None;
        }
        if let Some(text) = &mut schema.description {
            *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        }
    });
}

/// Visits a schema and all below it.
fn each(schema: &mut JSONSchemaProps, visit: &mut impl FnMut(&mut JSONSchemaProps)) {
    visit(schema);
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|map| map.values_mut())
    {
        each(property, visit);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => each(items, visit),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            items.iter_mut().for_each(|item| each(item, visit));
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        each(values, visit);
    }
}

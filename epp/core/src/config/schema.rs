//! The JSON schema of `EndpointPickerConfig`, for editors and for checks before anything runs.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::alias;
use super::build::{API_VERSION, FEATURE_GATES, KIND, OLD_API_VERSION};
use super::catalogue::{Stage, Status, TypeEntry, catalogue};
use super::plugin::{PLUGIN_TYPES, parameter_schemas};
use super::raw;

/// The schema (draft 2020-12) of the document that [`Config::from_yaml`](super::Config::from_yaml) reads: all fields,
/// all plugin types, and the parameters of those that are built. What a schema cannot say, such as that a name must be
/// one of the plugins, it leaves to the reader.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let parameters = parameters(&mut generator);
    let mut root = generator.into_root_schema_for::<raw::Document>().to_value();
    root["title"] = json!(KIND);
    root["properties"]["apiVersion"] = json!({
        "description": "Version of the document.",
        "anyOf": [{"const": API_VERSION}, {"const": OLD_API_VERSION, "deprecated": true}],
    });
    root["properties"]["kind"] = json!({"const": KIND});
    let gates = format!("^({})(=(true|false))?$", FEATURE_GATES.join("|"));
    root["properties"]["featureGates"]["items"]["pattern"] = json!(gates);
    let types: Vec<_> = catalogue()
        .filter(|entry| !matches!(entry.status, Status::Refused(_)))
        .map(described)
        .collect();
    deprecated_parameters(&mut root["$defs"], &parameters);
    let entry = &mut root["$defs"]["PluginEntry"];
    entry["properties"]["type"] = json!({"description": "The plugin type.", "anyOf": types});
    entry["allOf"] = Value::Array(parameters.into_iter().map(conditional).collect());
    root
}

/// The parameters of every type that has a schema of its own.
fn parameters(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
    let built = parameter_schemas(generator);
    let mut schemas: Vec<_> = PLUGIN_TYPES.iter().copied().zip(built).collect();
    for entry in catalogue() {
        let (Status::AliasOf(of)
        | Status::StandIn {
            acts_as: Some(of @ "file-discovery"),
            ..
        }) = entry.status
        else {
            continue;
        };
        let target = schemas.iter().find(|(name, _)| *name == of);
        if let Some(schema) =
            alias::schema(entry.name, generator).or_else(|| Some(target?.1.clone()))
        {
            schemas.push((entry.name, schema));
        }
    }
    schemas
}

/// One type, with what becomes of it.
fn described(entry: &TypeEntry) -> Value {
    let role = entry.role.noun();
    let description = match entry.status {
        Status::AliasOf(of) => format!("{role}; write `{of}`"),
        Status::StandIn { instead, until, .. } => {
            format!("{role}; not built yet, waits for {until}: {instead}")
        }
        Status::Built | Status::Refused(_) if entry.stage == Stage::Alpha => {
            format!("{role}; alpha at llm-d")
        }
        Status::Built | Status::Refused(_) => role.to_owned(),
    };
    let mut described = json!({"const": entry.name, "description": description});
    if entry.stage == Stage::Deprecated {
        described["deprecated"] = json!(true);
    }
    described
}

/// Parameters that hold for one type.
fn conditional((type_name, parameters): (&'static str, Schema)) -> Value {
    json!({
        "if": {"properties": {"type": {"const": type_name}}, "required": ["type"]},
        "then": {"properties": {"parameters": {"anyOf": [parameters.to_value(), {"type": "null"}]}}},
    })
}

/// Adds the old names of parameters beside the new ones.
fn deprecated_parameters(definitions: &mut Value, parameters: &[(&'static str, Schema)]) {
    for &(of, old, new) in alias::PARAMETERS {
        let schema = parameters.iter().find(|(type_name, _)| *type_name == of);
        let name = schema
            .and_then(|(_, schema)| schema.get("$ref")?.as_str()?.rsplit('/').next())
            .unwrap_or_default();
        let fields = &mut definitions[name]["properties"];
        let mut field = fields[new].clone();
        field["deprecated"] = json!(true);
        field["description"] = json!(format!("Write `{new}`."));
        fields[old] = field;
    }
}

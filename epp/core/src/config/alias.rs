//! Parameters of deprecated plugin types in the words of the types that took their place.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::ConfigError;
use super::yaml::from_parameters;

/// Old and new names of parameters: type, old, new.
pub(super) const PARAMETERS: &[(&str, &str, &str)] = &[
    (
        "approx-prefix-cache-producer",
        "blockSize",
        "blockSizeTokens",
    ),
    ("topology-extractor", "hostnameLabel", "hostname"),
];

/// The parameters of `type_name`, a deprecated type, for the type that it stands for.
pub(super) fn translated(
    type_name: &str,
    parameters: &Value,
    place: &str,
) -> Result<Value, ConfigError> {
    match type_name {
        "by-label" => by_label(parameters, place),
        // Ranks are endpoints of their own here, so that the first one's port needs no saying.
        "data-parallel-profile-handler" => {
            read::<DataParallel>(parameters, place).map(|_| Value::Null)
        }
        _ => Ok(parameters.clone()),
    }
}

/// The parameters with deprecated names replaced, and those names: old, new.
pub(super) fn renamed(
    type_name: &str,
    parameters: &Value,
) -> (Value, Vec<(&'static str, &'static str)>) {
    let mut parameters = parameters.clone();
    let mut found = Vec::new();
    for &(of, old, new) in PARAMETERS {
        let Some(fields) = parameters.as_object_mut().filter(|_| of == type_name) else {
            continue;
        };
        if let Some(value) = fields.remove(old) {
            fields.entry(new).or_insert(value);
            found.push((old, new));
        }
    }
    (parameters, found)
}

/// The schema of the parameters of a deprecated type, where they are not those of the type that it stands for.
pub(super) fn schema(type_name: &str, generator: &mut SchemaGenerator) -> Option<Schema> {
    match type_name {
        "by-label" => Some(generator.subschema_for::<ByLabel>()),
        "data-parallel-profile-handler" => Some(generator.subschema_for::<DataParallel>()),
        _ => None,
    }
}

fn read<T: DeserializeOwned>(parameters: &Value, place: &str) -> Result<T, ConfigError> {
    match parameters {
        Value::Null => from_parameters(&Value::Object(Default::default()), place),
        given => from_parameters(given, place),
    }
}

/// `data-parallel-profile-handler`: ranks of one pod, each with its own port.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DataParallel {
    /// Port of the first rank; without effect.
    #[serde(rename = "primaryPort")]
    _primary_port: Option<u16>,
}

/// `by-label`: endpoints by the value of one label.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ByLabel {
    /// The label.
    label: String,
    /// Values that pass.
    #[serde(default)]
    valid_values: Vec<String>,
    /// Whether endpoints without the label pass.
    #[serde(default)]
    allows_no_label: bool,
}

/// `by-label{label, validValues, allowsNoLabel}` as a label selector.
fn by_label(parameters: &Value, place: &str) -> Result<Value, ConfigError> {
    let by: ByLabel = read(parameters, place)?;
    if by.label.is_empty() {
        let wanted = "must name a label";
        return Err(ConfigError::value(
            format!("{place} parameters.label"),
            by.label,
            wanted,
        ));
    }
    let operator = match (by.valid_values.is_empty(), by.allows_no_label) {
        (true, true) => "DoesNotExist",
        (true, false) => {
            let field = format!("{place} parameters.validValues");
            let wanted = "must list a value, unless allowsNoLabel is true";
            return Err(ConfigError::value(field, "[]", wanted));
        }
        (false, false) => "In",
        // Headroom's own: no selector of Kubernetes says "one of these, or none at all".
        (false, true) => "InOrDoesNotExist",
    };
    let mut expression = json!({"key": by.label, "operator": operator});
    if !by.valid_values.is_empty() {
        expression["values"] = json!(by.valid_values);
    }
    Ok(json!({"matchExpressions": [expression]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_label_becomes_a_selector() {
        let told = |parameters| translated("by-label", &parameters, "plugins[0] `by-label`");
        assert_eq!(
            told(json!({"label": "tier", "validValues": ["a", "b"]})).unwrap(),
            json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]})
        );
        assert_eq!(
            told(json!({"label": "tier", "validValues": ["a"], "allowsNoLabel": true})).unwrap(),
            json!({"matchExpressions": [{"key": "tier", "operator": "InOrDoesNotExist", "values": ["a"]}]})
        );
        assert_eq!(
            told(json!({"label": "tier", "allowsNoLabel": true})).unwrap(),
            json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]})
        );
        let empty = told(json!({"label": "tier"})).unwrap_err().to_string();
        assert!(
            empty.contains("validValues: `[]` must list a value"),
            "{empty}"
        );
        let misspelt = told(json!({"label": "tier", "values": []})).unwrap_err();
        assert!(
            misspelt.to_string().contains("unknown field `values`"),
            "{misspelt}"
        );
    }

    #[test]
    fn a_deprecated_parameter_does_not_win_over_the_new_one() {
        let (parameters, names) = renamed(
            "approx-prefix-cache-producer",
            &json!({"blockSize": 64, "blockSizeTokens": 32}),
        );
        assert_eq!(parameters, json!({"blockSizeTokens": 32}));
        assert_eq!(names, [("blockSize", "blockSizeTokens")]);
        assert_eq!(
            renamed("queue-scorer", &json!({"blockSize": 1})).0,
            json!({"blockSize": 1})
        );
    }
}

//! YAML into strict types. What is wrong is told by its path, its position, what stands there, and what would be right.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Error;

use super::error::{ConfigError, Problem, suggested};
use super::position::{Outline, Position};

/// A mistake in a text.
struct Mistake {
    /// Where, such as `.flowControl.maxRequests`; empty where no part of the text stands there.
    path: String,
    position: Option<Position>,
    problem: Problem,
}

/// Reads a document; `name` stands for it in errors.
pub(crate) fn from_yaml<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, ConfigError> {
    read(text).map_err(|mistake| {
        let path = mistake.path.trim_start_matches('.');
        let place = match mistake.problem {
            // The name of the field says enough, and the position where it stands.
            Problem::Unknown { .. } => name.to_owned(),
            _ if path.is_empty() => name.to_owned(),
            _ => format!("{name} {path}"),
        };
        ConfigError {
            place,
            position: mistake.position,
            problem: mistake.problem,
        }
    })
}

/// Reads the parameters of a plugin, which is at `place`. JSON is YAML: going through text lets the one strict reader
/// name wrong fields here too. Positions in that text mean nothing outside: its paths tell.
pub(super) fn from_parameters<T: DeserializeOwned>(
    parameters: &Value,
    place: &str,
) -> Result<T, ConfigError> {
    read(&parameters.to_string()).map_err(|mistake| ConfigError {
        place: format!("{place} parameters{}", mistake.path),
        position: None,
        problem: mistake.problem,
    })
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let position = error.location().and_then(Position::of);
        let outline = Outline::read(text);
        let path = outline.and_then(|outline| outline.path_at(position?));
        Mistake {
            path: path.unwrap_or_default(),
            position,
            problem: problem(error, position.map(|at| written(text, at))),
        }
    })
}

/// What is wrong, where `written` stands.
fn problem(error: &Error, written: Option<&str>) -> Problem {
    let wrong = |wanted: String| Problem::Value {
        value: format!("`{}`", written.unwrap_or_default()),
        wanted,
    };
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => suggested("field", field, expected.iter().copied()),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => suggested("value", variant, expected.iter().copied()),
        Error::InvalidScalar { ty, .. } => wrong(format!("must be {}", meant(ty))),
        Error::InvalidBooleanStrict { .. } => wrong("must be true or false".into()),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            wrong(format!("must be {expected}"))
        }
        Error::Unexpected {
            expected: "sequence start",
            ..
        } => wrong("must be a list, such as [a, b]".into()),
        Error::Unexpected {
            expected: "mapping start",
            ..
        } => wrong("must have fields of its own, such as {name: value}".into()),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            Problem::Shape(format!("`{key}` is given twice; give it once"))
        }
        other => {
            let text = other.to_string();
            let line = text.lines().next().unwrap_or_default();
            // The position is told beside.
            let said = line.rsplit_once(" at line ").map_or(line, |(said, _)| said);
            Problem::Shape(said.to_owned())
        }
    }
}

/// A type in words.
fn meant(name: &str) -> &str {
    match name {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "floating point" | "f32" | "f64" => "a number",
        "boolean" | "bool" => "true or false",
        other => other,
    }
}

/// The value that begins at a position, as it is written there, on that line.
fn written(text: &str, at: Position) -> &str {
    let line = text.lines().nth(at.line.saturating_sub(1) as usize);
    let line = line.unwrap_or_default();
    let column = at.column.saturating_sub(1) as usize;
    let start = line
        .char_indices()
        .nth(column)
        .map_or(line.len(), |(start, _)| start);
    let rest = &line[start..];
    for quote in ['"', '\''] {
        if let Some((quoted, _)) = rest
            .strip_prefix(quote)
            .and_then(|rest| rest.split_once(quote))
        {
            return quoted;
        }
    }
    let plain = rest.split(" #").next().unwrap_or_default();
    plain
        .split([',', '}', ']'])
        .next()
        .unwrap_or_default()
        .trim_end()
}

#[cfg(test)]
mod tests {
    use crate::Config;

    fn said(rest: &str) -> String {
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        Config::from_yaml(&format!("{head}{rest}"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_told_with_what_would_be_right() {
        let detector = |parameters: &str| {
            said(&format!(
                "plugins:\n- type: concurrency-detector\n  parameters: {{{parameters}}}\n"
            ))
        };
        let whole = "must be a whole number of at least 0";
        for (parameters, expected) in [
            (
                "maxConcurrency: many",
                format!("parameters.maxConcurrency line 5 column 16: `many` {whole}"),
            ),
            (
                "maxConcurrency: -3",
                format!("parameters.maxConcurrency line 5 column 16: `-3` {whole}"),
            ),
            (
                "headroom: 50%",
                "parameters.headroom line 5 column 16: `50%` must be a number".into(),
            ),
        ] {
            let error = detector(parameters);
            assert!(error.ends_with(&expected), "{error}");
        }
        for (rest, expected) in [
            (
                "flowControl: {maxRequests: [lots]}",
                "config flowControl.maxRequests line 3 column 28: ",
            ),
            (
                "featureGates: flowControl # on",
                "config featureGates line 3 column 15: `flowControl` must be a list, such as [a, b]",
            ),
            (
                "plugins: []\nplugins: []",
                "config line 4 column 1: `plugins` is given twice; give it once",
            ),
            (
                "schedulingProfiles:\n- name: p\n  plugins:\n  - {pluginRef: a, weight: \"heavy\"}",
                "config schedulingProfiles[0].plugins[0].weight line 6 column 28: `heavy` must be a number",
            ),
        ] {
            let error = said(rest);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_empty_file_is_told_what_it_needs() {
        for empty in ["", "  \n", "# nothing\n"] {
            let error = Config::from_yaml(empty).unwrap_err().to_string();
            assert_eq!(
                error,
                "config: there is nothing in it; it needs `apiVersion`, `kind` and `plugins`"
            );
        }
    }
}

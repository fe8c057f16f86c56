//! Label selectors, all of Kubernetes' grammar: `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`,
//! `k>1`, `k<1`; a comma means "and", and nothing at all selects everything.

mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::published::Labels;

/// Longest selector that is read, in bytes.
const LONGEST: usize = 8_192;

/// A selector: all of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What must hold of it.
    pub test: Test,
}

/// What must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It has this value.
    Is(String),
    /// It has another value, or is not there.
    IsNot(String),
    /// It has one of these values.
    In(BTreeSet<String>),
    /// It has none of these values, or is not there.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It is an integer greater than this.
    Greater(i64),
    /// It is an integer less than this.
    Less(i64),
}

/// A selector that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It does not follow the grammar.
    #[error("unable to parse label selector {selector:?}: found {found}, expected {expected}")]
    Grammar {
        /// The whole text.
        selector: String,
        /// What stands there.
        found: String,
        /// What would be right there.
        expected: &'static str,
    },
    /// A key is no label's.
    #[error(
        "label selector: {0:?} is no label key: give [prefix/]name, the name at most 63 letters, digits, '-', '_' and '.', the first and last a letter or digit"
    )]
    Key(String),
    /// A value is no label's.
    #[error(
        "label selector: {0:?} is no label value: at most 63 letters, digits, '-', '_' and '.', the first and last a letter or digit (of a model's name use the label's spelling, in which '/' is '-')"
    )]
    Value(String),
    /// A value is no integer.
    #[error("label selector: {0:?} is no integer, as '>' and '<' compare")]
    Integer(String),
    /// It is too long.
    #[error("label selector is {0} bytes long: at most {LONGEST} are read")]
    Long(usize),
}

impl Selector {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`SelectorError`], with what stands where something else is expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > LONGEST {
            return Err(SelectorError::Long(text.len()));
        }
        parse::selector(text).map(|requirements| Self { requirements })
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether something with `labels` is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(labels))
    }

    /// The same as a Kubernetes `LabelSelector` object; `null` for a selector that selects everything, or that no such
    /// object can express (`>`, `<`).
    pub fn to_object(&self) -> Value {
        let mut labels = Map::new();
        let mut expressions = Vec::new();
        for Requirement { key, test } in &self.requirements {
            let (operator, values): (_, Vec<&str>) = match test {
                // Two demands on one label do not fit into a map.
                Test::Is(value) if !labels.contains_key(key) => {
                    labels.insert(key.clone(), value.as_str().into());
                    continue;
                }
                Test::Is(value) => ("In", vec![value]),
                Test::IsNot(value) => ("NotIn", vec![value]),
                Test::In(values) => ("In", values.iter().map(String::as_str).collect()),
                Test::NotIn(values) => ("NotIn", values.iter().map(String::as_str).collect()),
                Test::Exists => ("Exists", Vec::new()),
                Test::Absent => ("DoesNotExist", Vec::new()),
                Test::Greater(_) | Test::Less(_) => return Value::Null,
            };
            let mut expression = json!({"key": key, "operator": operator});
            if !values.is_empty() {
                expression["values"] = json!(values);
            }
            expressions.push(expression);
        }
        let mut object = Map::new();
        if !labels.is_empty() {
            object.insert("matchLabels".into(), Value::Object(labels));
        }
        if !expressions.is_empty() {
            object.insert("matchExpressions".into(), Value::Array(expressions));
        }
        if object.is_empty() {
            Value::Null
        } else {
            Value::Object(object)
        }
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let integer = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Is(wanted) => value == Some(wanted),
            Test::IsNot(unwanted) => value != Some(unwanted),
            Test::In(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Test::NotIn(unwanted) => value.is_none_or(|value| !unwanted.contains(value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Greater(bound) => integer().is_some_and(|value| value > *bound),
            Test::Less(bound) => integer().is_some_and(|value| value < *bound),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, requirement) in self.requirements.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list = |values: &BTreeSet<String>| {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            values.join(",")
        };
        match &self.test {
            Test::Is(value) => write!(f, "{key}={value}"),
            Test::IsNot(value) => write!(f, "{key}!={value}"),
            Test::In(values) => write!(f, "{key} in ({})", list(values)),
            Test::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Test::Exists => f.write_str(key),
            Test::Absent => write!(f, "!{key}"),
            Test::Greater(bound) => write!(f, "{key}>{bound}"),
            Test::Less(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

//! Labels kept lean, and selectors over them.

use std::fmt;

use thiserror::Error;

/// The labels of one object in one allocation: `key=value` lines, sorted by key. Neither part can hold a line break.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<str>);

impl Labels {
    /// From pairs in any order; of two equal keys the later counts.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let sorted: std::collections::BTreeMap<&str, &str> = pairs.into_iter().collect();
        let mut text = String::new();
        for (key, value) in sorted {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        Self(text.into_boxed_str())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter()
            .find_map(|(held, value)| (held == key).then_some(value))
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split('\n').filter_map(|line| line.split_once('='))
    }

    /// The lines `key=value`, as [`Selector::lines`] names them.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.split('\n').filter(|line| !line.is_empty())
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Requirement {
    /// The label is there with this value; kept as the line `key=value`.
    Equal(Box<str>),
    /// The label is there with one of the values.
    In(Box<str>, Vec<Box<str>>),
    /// The label is absent or has none of the values.
    NotIn(Box<str>, Vec<Box<str>>),
    /// The label is there.
    Exists(Box<str>),
    /// The label is absent.
    Absent(Box<str>),
}

/// A label selector in Kubernetes' text form, as the scale subresource states it. Empty selects nothing: a scale
/// target that does not name its pods must not be given those of everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(Vec<Requirement>);

/// A selector that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "label selector `{selector}`: `{part}` is not a requirement such as `a=b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a` or `!a`"
)]
pub struct SelectorError {
    /// The whole selector.
    pub selector: String,
    /// The part that is wrong.
    pub part: String,
}

impl Selector {
    /// Reads the text form.
    ///
    /// # Errors
    /// The first part that is not a requirement.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parts(text)
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                requirement(part).ok_or_else(|| SelectorError {
                    selector: text.to_owned(),
                    part: part.to_owned(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The selector that asks for exactly these labels.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| Requirement::Equal(format!("{key}={value}").into()))
                .collect(),
        )
    }

    /// Whether it has no requirement, and so selects nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `key=value` lines that every selected object holds.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|requirement| match requirement {
            Requirement::Equal(line) => Some(&**line),
            _ => None,
        })
    }

    /// Whether `labels` meet every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.is_empty() && self.0.iter().all(|requirement| requirement.met(labels))
    }
}

impl Requirement {
    fn met(&self, labels: &Labels) -> bool {
        let among = |key: &str, values: &[Box<str>]| {
            labels
                .get(key)
                .map(|held| values.iter().any(|value| **value == *held))
        };
        match self {
            Self::Equal(wanted) => labels.lines().any(|line| line == &**wanted),
            Self::In(key, values) => among(key, values) == Some(true),
            Self::NotIn(key, values) => among(key, values) != Some(true),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::Absent(key) => labels.get(key).is_none(),
        }
    }
}

/// Splits at the commas outside of parentheses.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth <= 0
    })
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some((key, values)) = part.split_once('(') {
        let values = values
            .strip_suffix(')')?
            .split(',')
            .map(|value| value.trim().into())
            .collect();
        let mut words = key.split_whitespace();
        let (key, operator) = (words.next()?, words.next()?);
        return match (operator, words.next()) {
            ("in", None) => Some(Requirement::In(named(key)?, values)),
            ("notin", None) => Some(Requirement::NotIn(named(key)?, values)),
            _ => None,
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Requirement::NotIn(named(key)?, vec![plain(value)?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        let line = format!("{}={}", named(key)?, plain(value)?);
        return Some(Requirement::Equal(line.into()));
    }
    match part.strip_prefix('!') {
        Some(key) => Some(Requirement::Absent(named(key)?)),
        None => Some(Requirement::Exists(named(part)?)),
    }
}

/// A label key: not empty, nothing but what keys are made of.
fn named(key: &str) -> Option<Box<str>> {
    let key = plain(key)?;
    (!key.is_empty()).then_some(key)
}

fn plain(value: &str) -> Option<Box<str>> {
    let value = value.trim();
    value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        .then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::new([("role", "decode"), ("app", "llm"), ("empty", "")])
    }

    #[test]
    fn labels_are_found_by_their_whole_key() {
        let labels = labels();
        assert_eq!(labels.get("app"), Some("llm"));
        assert_eq!(labels.get("empty"), Some(""));
        assert_eq!(labels.get("ap"), None);
        assert_eq!(
            labels.lines().collect::<Vec<_>>(),
            ["app=llm", "empty=", "role=decode"]
        );
        assert_eq!(Labels::default().lines().count(), 0);
    }

    #[test]
    fn every_form_of_requirement_selects() {
        for (text, selected) in [
            ("app=llm", true),
            ("app==llm,role=decode", true),
            ("app=llm,role=prefill", false),
            ("app!=llm", false),
            ("other!=llm", true),
            ("role in (prefill, decode)", true),
            ("role notin (prefill),app", true),
            ("role notin (decode)", false),
            ("!other", true),
            ("!app", false),
            ("app", true),
            ("other", false),
            ("empty=", true),
            ("other in (a,b),app=llm", false),
        ] {
            assert_eq!(
                Selector::parse(text).unwrap().matches(&labels()),
                selected,
                "{text}"
            );
        }
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        let empty = Selector::parse("").unwrap();
        assert!(empty.is_empty() && !empty.matches(&labels()));
    }

    #[test]
    fn a_wrong_part_is_named() {
        for (text, part) in [
            ("app=llm,role of (a)", "role of (a)"),
            ("=x", "=x"),
            ("a in (b", "a in (b"),
            ("a b", "a b"),
        ] {
            let error = Selector::parse(text).unwrap_err();
            assert_eq!((error.part.as_str(), error.selector.as_str()), (part, text));
        }
    }

    #[test]
    fn lines_are_what_an_index_can_be_asked_for() {
        let selector = Selector::parse("a=b,c in (d),e==f").unwrap();
        assert_eq!(selector.lines().collect::<Vec<_>>(), ["a=b", "e=f"]);
    }
}

//! Where things stand in a YAML document.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: u64,
    /// In characters, from 1.
    pub column: u64,
}

impl Position {
    /// `None` where the reader knew no place.
    pub(super) fn of(location: serde_saphyr::Location) -> Option<Self> {
        let (line, column) = (location.line(), location.column());
        (line > 0).then_some(Self { line, column })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// The shape of a document with the position of every field.
#[derive(Debug)]
pub(super) struct Outline(Spanned<Node>);

#[derive(Debug)]
enum Node {
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    /// The text of a string; other scalars are never looked up.
    Scalar(Option<String>),
}

impl Outline {
    /// `None` = not YAML.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_saphyr::from_str(text).ok().map(Self)
    }

    /// Where `place` stands, as errors and findings write it: a path such as `flowControl.priorityBands[1].priority`,
    /// an entry by its name such as ``schedulingProfiles `default` plugins[0].weight``, or a parameter such as
    /// ``plugin `queue` threshold``. The nearest part that is there counts; `None` = not even the first is.
    pub(super) fn locate(&self, place: &str) -> Option<Position> {
        let (mut node, mut found) = (&self.0, None);
        for step in steps(place) {
            if let (Node::Map(_), Step::Name(_)) = (&node.value, &step) {
                continue; // The name of an entry that its index has led to.
            }
            let Some((position, next)) = node.value.step(&step) else {
                break;
            };
            (node, found) = (next, position.or(found));
        }
        found
    }

    /// The path of the field or value that stands at `position`, such as `.headroom` or `.values[2]`.
    pub(super) fn path_at(&self, position: Position) -> Option<String> {
        fn search(node: &Spanned<Node>, position: Position, path: &mut String) -> bool {
            let length = path.len();
            match &node.value {
                Node::Map(entries) => {
                    for (key, value) in entries {
                        path.push('.');
                        path.push_str(&key.value);
                        if Position::of(key.referenced) == Some(position)
                            || search(value, position, path)
                        {
                            return true;
                        }
                        path.truncate(length);
                    }
                }
                Node::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        path.push_str(&format!("[{index}]"));
                        if search(item, position, path) {
                            return true;
                        }
                        path.truncate(length);
                    }
                }
                Node::Scalar(_) => {}
            }
            Position::of(node.referenced) == Some(position)
        }
        let mut path = String::new();
        search(&self.0, position, &mut path).then_some(path)
    }
}

/// One part of a place.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
    Name(&'a str),
}

fn steps(place: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = place;
    while !rest.is_empty() {
        if let Some((name, after)) = rest.strip_prefix('`').and_then(|rest| rest.split_once('`')) {
            steps.push(Step::Name(name));
            rest = after;
        } else if let Some((index, after)) =
            rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        {
            steps.extend(index.parse().ok().map(Step::Index));
            rest = after;
        } else if let Some(after) = rest.strip_prefix(['.', ' ', '[', '`']) {
            rest = after;
        } else {
            let end = rest.find(['.', ' ', '[', '`']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            steps.push(Step::Key(key));
            rest = after;
        }
    }
    steps
}

impl Node {
    /// The part that `step` leads to, and its position where that is another than before.
    fn step(&self, step: &Step<'_>) -> Option<(Option<Position>, &Spanned<Self>)> {
        match (self, step) {
            (Self::Map(_), Step::Key(key)) => self
                .field(key)
                // A parameter may be named without the word, and an entry of `plugins` is called a plugin.
                .or_else(|| self.field("parameters")?.1.value.field(key))
                .or_else(|| (*key == "plugin").then(|| self.field("plugins")).flatten())
                .map(|(key, value)| (Position::of(key.referenced), value)),
            (Self::List(items), Step::Index(index)) => items
                .get(*index)
                .map(|item| (Position::of(item.referenced), item)),
            (Self::List(items), Step::Name(name)) => items
                .iter()
                .find(|item| item.value.is_called(name))
                .map(|item| (Position::of(item.referenced), item)),
            _ => None,
        }
    }

    fn field(&self, name: &str) -> Option<(&Spanned<String>, &Spanned<Self>)> {
        let Self::Map(entries) = self else {
            return None;
        };
        entries
            .iter()
            .find(|(key, _)| key.value == name)
            .map(|(key, value)| (key, value))
    }

    /// Whether this is the entry of that name; one without a name goes by its type.
    fn is_called(&self, name: &str) -> bool {
        let text = |field| match self.field(field)?.1.value {
            Self::Scalar(Some(ref text)) => Some(text.as_str()),
            _ => None,
        };
        text("name").or_else(|| text("type")) == Some(name)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Some(text.to_owned())))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar(None))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar(None))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar(None))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar(None))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(None))
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
plugins:
- type: queue-scorer
- name: load
  type: concurrency-detector
  parameters:
    headroom: 0.1
    values: [1, {x: 2}]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer, weight: 2}]
flowControl: {maxBytes: 1G}
";

    fn at(place: &str) -> Option<(u64, u64)> {
        let position = Outline::read(TEXT).unwrap().locate(place)?;
        Some((position.line, position.column))
    }

    #[test]
    fn places_are_found_as_errors_write_them() {
        assert_eq!(at("flowControl.maxBytes"), Some((11, 15)));
        assert_eq!(at("plugins[1].name"), Some((3, 3)));
        assert_eq!(at("plugins[0] `queue-scorer`"), Some((2, 3)));
        assert_eq!(at("plugin `queue-scorer`"), Some((2, 3)));
        assert_eq!(at("plugin `load` headroom"), Some((6, 5)));
        assert_eq!(
            at("plugins[1] `load` parameters.values[1].x"),
            Some((7, 18))
        );
        assert_eq!(
            at("schedulingProfiles `default` plugins[0].weight"),
            Some((10, 39))
        );
    }

    #[test]
    fn what_is_not_there_is_at_its_nearest_part() {
        assert_eq!(at("flowControl.priorityBands[1].priority"), Some((11, 1)));
        assert_eq!(at("plugin `load` maxConcurrency"), Some((3, 3)));
        assert_eq!(at("plugins[7]"), Some((1, 1)));
        assert_eq!(at("kind"), None);
    }

    #[test]
    fn a_position_leads_back_to_the_path() {
        let outline = Outline::read(r#"{"a":1,"b":[2,{"c":3}]}"#).unwrap();
        let path = |column| outline.path_at(Position { line: 1, column });
        assert_eq!(path(2).as_deref(), Some(".a"));
        assert_eq!(path(16).as_deref(), Some(".b[1].c"));
        assert_eq!(path(20).as_deref(), Some(".b[1].c"));
        assert_eq!(path(90), None);
    }
}

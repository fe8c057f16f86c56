//! The parsers under fire, each with what must hold of it.

mod body;
mod config;
mod grpc;
mod json;
mod kv_events;
mod prometheus;
mod sse;

use std::hash::{DefaultHasher, Hash, Hasher};

/// A parser and what must hold of it.
pub struct Target {
    /// Its name on the command line, which is also its corpus's folder.
    pub name: &'static str,
    /// Words of its language, put into inputs.
    pub words: &'static [&'static [u8]],
    /// Reads one input and panics if something does not hold; returns how it behaved.
    pub run: fn(&[u8]) -> Shape,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every target. A new one is a module with a `TARGET`, a line here, and a folder of inputs.
pub static TARGETS: [&Target; 6] = [
    &json::TARGET,
    &sse::TARGET,
    &grpc::TARGET,
    &prometheus::TARGET,
    &config::TARGET,
    &kv_events::TARGET,
];

/// The target of that name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// A fingerprint of how a target behaved. Whatever tells ways through its code apart belongs in it; lengths only
/// roughly, or every input would be a behaviour of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(u64);

impl Shape {
    /// This, and `seen` besides.
    #[must_use]
    pub fn with(self, seen: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        (self.0, seen).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// This, and a length, to a power of two.
    #[must_use]
    pub fn with_length(self, length: usize) -> Self {
        self.with(usize::BITS - length.leading_zeros())
    }

    /// This, and what an error says without the figures in it.
    #[must_use]
    pub fn with_error(self, error: &impl ToString) -> Self {
        let text = error.to_string();
        assert!(!text.trim().is_empty(), "an error without words");
        let words: String = text
            .chars()
            .filter(|char| char.is_ascii_alphabetic())
            .take(64)
            .collect();
        self.with(words)
    }
}

/// Cuts the rest of `input` into pieces as its first byte says: into that many bytes each, and 0 = not at all.
fn cut(input: &[u8]) -> (&[u8], usize) {
    match input.split_first() {
        Some((0, rest)) => (rest, rest.len().max(1)),
        Some((width, rest)) => (rest, usize::from(*width)),
        None => (input, 1),
    }
}

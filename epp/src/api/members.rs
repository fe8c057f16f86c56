//! Hot path: the members of a body that mean something, taken as they arrive.

use super::clipped::Clipped;
use super::content::{Content, feed_ids};
use super::error::{RequestError, missing, too_long, wrong};
use super::head::LONGEST_NAME;
use super::json::{JsonError, Kind, Reader};
use super::media::Placed;
use super::rope::Rope;
use super::scan::{Look, Sink};
use super::shape::{Form, MOST_LIMITS, MOST_PARTS, Named, Shape};
use epp_core::{PrefixHasher, PrefixHashing, content_digest};
use std::fmt::Write;
use std::ops::Range;

/// What a body says, by its shape. Of a member that is there twice the last counts.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) shape: &'static Shape,
    hashing: PrefixHashing,
    /// The model and where it stands, quotes included.
    pub(super) model: Option<(String, Range<usize>)>,
    /// Where a null stands in its place.
    pub(super) null_model: Option<Range<usize>>,
    pub(super) stream: bool,
    pub(super) options: Option<Range<usize>>,
    sampling: Option<Range<usize>>,
    features: Option<Range<usize>>,
    salt: Option<Clipped>,
    parts: [Option<Given>; MOST_PARTS],
    limits: [Option<u32>; MOST_LIMITS],
    /// There is no member at all.
    pub(super) empty: bool,
    /// Offset behind the opening brace.
    pub(super) begin: usize,
    /// Offset of the closing brace.
    pub(super) end: usize,
    /// The member at hand, where it begins, its text if it is short, and its content if it is part of the prompt.
    taking: Taking,
    since: usize,
    text: Vec<u8>,
    content: Option<Content>,
}

/// A part of the prompt: where it stands, and what was fed of it.
#[derive(Debug)]
struct Given {
    span: Range<usize>,
    fed: Option<PrefixHasher>,
}

/// What a member is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    Nothing,
    Model,
    Stream,
    Options,
    Sampling,
    Features,
    Salt,
    Part(usize),
    Limit(usize),
}

impl Members {
    pub(super) fn new(shape: &'static Shape, hashing: PrefixHashing) -> Self {
        Self {
            shape,
            hashing,
            model: None,
            null_model: None,
            stream: false,
            options: None,
            sampling: None,
            features: None,
            salt: None,
            parts: Default::default(),
            limits: [None; MOST_LIMITS],
            empty: true,
            begin: 0,
            end: 0,
            taking: Taking::Nothing,
            since: 0,
            text: Vec::new(),
            content: None,
        }
    }

    fn meaning(&self, key: &[u8]) -> Taking {
        let shape = self.shape;
        let named = |name: &str| name.as_bytes() == key;
        match key {
            b"model" if shape.model != Named::Ignored => Taking::Model,
            b"stream" => Taking::Stream,
            b"stream_options" if shape.include_usage => Taking::Options,
            b"sampling_params" if shape.sampled_limit.is_some() => Taking::Sampling,
            b"features" if shape.prompt.iter().any(|part| part.form == Form::Ids) => {
                Taking::Features
            }
            key if key == shape.salt.as_bytes() => Taking::Salt,
            _ => {
                let part = shape.prompt.iter().position(|part| named(part.name));
                let limit = || shape.limits.iter().position(|limit| named(limit));
                let part = part.map(Taking::Part);
                part.or_else(|| limit().map(Taking::Limit))
                    .unwrap_or(Taking::Nothing)
            }
        }
    }

    /// A member's value begins.
    fn member(&mut self, kind: Kind) -> Result<Look, RequestError> {
        self.text.clear();
        if self.taking == Taking::Salt {
            self.salt = Some(Clipped::default());
        }
        match (self.taking, kind) {
            (Taking::Model, Kind::String)
            | (Taking::Salt, Kind::String)
            | (Taking::Stream, Kind::Bool)
            | (Taking::Limit(_), Kind::Number | Kind::Null) => Ok(Look::Into),
            (Taking::Model, Kind::Null) if self.shape.model != Named::Needed => Ok(Look::Past),
            (Taking::Model, other) => {
                Err(wrong("model", other, "give the model's name as a string"))
            }
            (Taking::Stream, Kind::Null) => Ok(Look::Past),
            (Taking::Stream, other) => Err(wrong("stream", other, "give true or false")),
            (Taking::Limit(index), other) => Err(no_limit(self.shape.limits[index], other)),
            (Taking::Part(index), kind) => {
                let hasher = self.hashing.hasher();
                self.content = Content::new(&self.shape.prompt[index], kind, hasher)?;
                match &mut self.content {
                    Some(content) => content.begin(kind, 0),
                    None => Ok(Look::Past),
                }
            }
            _ => Ok(Look::Past),
        }
    }

    /// A member's value ended before `at`.
    fn taken(&mut self, kind: Kind, at: usize) -> Result<(), RequestError> {
        let span = self.since..at;
        let text = || String::from_utf8_lossy(&self.text).into_owned();
        match (std::mem::replace(&mut self.taking, Taking::Nothing), kind) {
            (Taking::Model, Kind::String) => {
                (self.model, self.null_model) = (Some((text(), span)), None);
            }
            (Taking::Model, Kind::Null) => (self.model, self.null_model) = (None, Some(span)),
            (Taking::Salt, Kind::String) => {}
            (Taking::Salt, _) => self.salt = None,
            // Null as well.
            (Taking::Stream, _) => self.stream = self.text == b"true",
            (Taking::Options, _) => self.options = Some(span),
            (Taking::Sampling, _) => self.sampling = Some(span),
            (Taking::Features, _) => self.features = Some(span),
            (Taking::Limit(index), kind) => {
                self.limits[index] = limit(self.shape.limits[index], kind, &self.text)?;
            }
            (Taking::Part(index), kind) => {
                let mut content = self.content.take();
                if let Some(content) = &mut content {
                    content.end(kind, 0);
                }
                self.parts[index] = Some(Given {
                    span,
                    fed: content.map(Content::fed),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// What keeps prompts of equal text apart.
    pub(super) fn salt(&self, body: &Rope) -> String {
        let told = self.salt.iter().map(Clipped::text).collect::<Vec<_>>();
        let mut salt = String::from_utf8_lossy(&told.concat()).into_owned();
        for (part, given) in self.shape.prompt.iter().zip(&self.parts) {
            if let (Form::Setting, Some(given)) = (part.form, given) {
                let digest = content_digest(&body.slice(given.span.clone()));
                let _ = write!(salt, "\0{digest:016x}");
            }
        }
        salt
    }

    /// The prompt: its parts in the order in which the server puts them, each in blocks of its own.
    pub(super) fn prompt(&mut self, body: &Rope) -> Result<PrefixHasher, RequestError> {
        let given = self.shape.prompt.iter().zip(&mut self.parts);
        let mut hasher = self.hashing.hasher();
        let (mut needed, mut there) = (None, false);
        for (part, given) in given {
            needed = part.main.then_some(part.name).or(needed);
            let Some(given) = given else { continue };
            there |= part.main;
            let placed = match (part.form, &self.features) {
                (Form::Ids, Some(features)) => {
                    Placed::from_features(&body.slice(features.clone()))?
                }
                _ => Placed::default(),
            };
            if !placed.is_empty() {
                // Where images stand is known only now: their tokens are fed anew.
                let mut again = self.hashing.hasher();
                let ids = body.slice(given.span.clone());
                feed_ids(part.name, &ids, &placed, &mut again)?;
                hasher.append(again);
            } else if let Some(fed) = given.fed.take() {
                hasher.append(fed);
            }
        }
        match needed {
            Some(name) if !there => Err(missing(name, "give what the model is to answer")),
            _ => Ok(hasher),
        }
    }

    /// The client's bound on the answer.
    pub(super) fn limit(&self, body: &Rope) -> Result<Option<u32>, RequestError> {
        let given = self.limits.iter().copied().find_map(|limit| limit);
        let (Some(name), Some(span)) = (self.shape.sampled_limit, self.sampling.clone()) else {
            return Ok(given);
        };
        let sampling = body.slice(span);
        let mut reader = Reader::new(&sampling);
        let mut found = given;
        // Several requests in one have several sets of parameters, none of which speaks for all.
        if reader.kind()? == Kind::Object {
            reader.object(|reader, key| {
                if key.raw != name.as_bytes() {
                    return Ok(reader.skip()?);
                }
                let kind = reader.kind()?;
                let value = reader.span()?;
                found = limit(name, kind, reader.slice(value))?;
                Ok::<_, RequestError>(())
            })?;
        }
        Ok(found)
    }
}

impl Sink for Members {
    type Error = RequestError;

    fn key(&mut self, key: &[u8], depth: usize) {
        if depth == 1 {
            self.taking = self.meaning(key);
        } else if let Some(content) = &mut self.content {
            content.key(key);
        }
    }

    fn begin(&mut self, kind: Kind, at: usize, depth: usize) -> Result<Look, RequestError> {
        match (depth, &mut self.content) {
            (0, _) if kind == Kind::Object => {
                self.begin = at + 1;
                Ok(Look::Into)
            }
            (0, _) => {
                let expected = "an object";
                Err(JsonError { at, expected }.into())
            }
            (1, _) => {
                (self.empty, self.since) = (false, at);
                self.member(kind)
            }
            (_, Some(content)) => content.begin(kind, depth - 1),
            (_, None) => Ok(Look::Past),
        }
    }

    fn text(&mut self, run: &[u8]) -> Result<(), RequestError> {
        match &mut self.content {
            Some(content) => content.text(run),
            None if self.taking == Taking::Salt => {
                self.salt.get_or_insert_default().push(run);
                Ok(())
            }
            None if self.taking == Taking::Model && self.text.len() + run.len() > LONGEST_NAME => {
                Err(too_long("model"))
            }
            None => {
                self.text.extend_from_slice(run);
                Ok(())
            }
        }
    }

    fn end(&mut self, kind: Kind, at: usize, depth: usize) -> Result<(), RequestError> {
        match (depth, &mut self.content) {
            (0, _) => self.end = at - 1,
            (1, _) => self.taken(kind, at)?,
            (_, Some(content)) => content.end(kind, depth - 1),
            (_, None) => {}
        }
        Ok(())
    }
}

/// A bound on the answer, of `kind` and written as `text`.
fn limit(field: &'static str, kind: Kind, text: &[u8]) -> Result<Option<u32>, RequestError> {
    match kind {
        Kind::Null => Ok(None),
        Kind::Number if text.iter().all(u8::is_ascii_digit) => {
            let digits = text.iter().map(|digit| u32::from(digit - b'0'));
            let add = |value: u32, digit| value.saturating_mul(10).saturating_add(digit);
            Ok(Some(digits.fold(0, add)))
        }
        Kind::Number => Err(RequestError::Field {
            field,
            problem: "is no whole number of tokens".into(),
        }),
        other => Err(no_limit(field, other)),
    }
}

fn no_limit(field: &'static str, found: Kind) -> RequestError {
    wrong(field, found, "give a whole number of tokens")
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;

//! Hot path: what the picker takes from a request's body, without building a tree of it.

use super::edit::Edit;
use super::error::{RequestError, missing, too_long, wrong};
use super::head::LONGEST_NAME;
use super::include_usage::{self, Usage};
use super::json::{JsonError, Kind, Reader, Text};
use super::media::Placed;
use super::paths::Api;
use super::shape::{self, Form, MOST_LIMITS, MOST_PARTS, Named, Part, Shape};
use super::{content, vertex, vllm_grpc};
use bytes::Bytes;
use epp_core::{PrefixHasher, PrefixHashing};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// What reading a body needs besides the body.
pub struct Intake<'r> {
    /// The model to send on under instead of the client's (`None` = the body names none), if any.
    pub rewrite: &'r dyn Fn(Option<&str>) -> Option<String>,
    /// How prompts are cut for prefix matching.
    pub hashing: PrefixHashing,
    /// The header `grpc-encoding`.
    pub encoding: Option<&'r [u8]>,
    /// Bytes that a compressed body may grow to.
    pub most_bytes: usize,
}

/// What the picker needs of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The model the client names, or else the one that is sent on; empty when there is neither.
    pub model: String,
    /// The model to send on under, where that is another than the client's.
    pub target: Option<String>,
    /// Puts it in its place; empty when the body stays as it is.
    pub rename: Vec<Edit>,
    /// Whether the answer comes piece by piece.
    pub stream: bool,
    /// The client's own bound on the answer.
    pub max_output_tokens: Option<u32>,
    /// Estimated prompt tokens.
    pub prompt_tokens: u32,
    /// Chained block hashes of the prompt.
    pub prefix: Arc<[u64]>,
    /// Whether and how to ask for usage.
    pub usage: Usage,
}

impl Body {
    /// Of a body of which nothing is known.
    fn unread() -> Self {
        Self {
            model: String::new(),
            target: None,
            rename: Vec::new(),
            stream: false,
            max_output_tokens: None,
            prompt_tokens: 0,
            prefix: Arc::from([]),
            usage: Usage::NoQuestion,
        }
    }

    /// Of a body without a model, with its prompt.
    pub(super) fn of_prompt(hasher: PrefixHasher) -> Self {
        let (prompt_tokens, prefix) = hasher.finish();
        Self {
            prompt_tokens,
            prefix,
            ..Self::unread()
        }
    }
}

/// Reads `body` as `api` has it. The model that is sent on also salts the prefix.
///
/// # Errors
/// [`RequestError`] when the body is not what the API takes, naming the field and what would be right.
pub fn read(api: Api, body: &Bytes, intake: &Intake<'_>) -> Result<Body, RequestError> {
    match api {
        Api::VllmGrpcGenerate => vllm_grpc::generate(body, intake),
        Api::VllmGrpcEmbed => vllm_grpc::embed(body, intake),
        Api::VertexChat | Api::VertexRaw => vertex::read(api, body, intake),
        _ => json(api, body, intake),
    }
}

/// Reads a JSON body.
pub(super) fn json(api: Api, body: &[u8], intake: &Intake<'_>) -> Result<Body, RequestError> {
    let Some(shape) = shape::of(api) else {
        return Ok(Body::unread());
    };
    let members = Members::of(shape, body)?;
    let model = model(shape, &members, intake)?;
    let sent = model.target.as_deref().unwrap_or(&model.name);
    let mut hasher = intake.hashing.hasher(sent, &members.salt(shape, body)?);
    members.feed(shape, body, &mut hasher)?;
    let (prompt_tokens, prefix) = hasher.finish();
    let usage = if shape.include_usage && members.stream {
        include_usage::usage(body, members.options.clone(), members.end)?
    } else {
        Usage::NoQuestion
    };
    Ok(Body {
        max_output_tokens: members.limit(shape, body)?,
        model: model.name,
        target: model.target,
        rename: model.rename.into_iter().collect(),
        stream: members.stream,
        prompt_tokens,
        prefix,
        usage,
    })
}

/// A body's model and what becomes of it.
#[derive(Default)]
struct Model {
    name: String,
    target: Option<String>,
    rename: Option<Edit>,
}

fn model(shape: &Shape, members: &Members<'_>, intake: &Intake<'_>) -> Result<Model, RequestError> {
    if let Some((name, span)) = members.model.clone() {
        let name = name.decode()?.into_owned();
        if name.len() > LONGEST_NAME {
            return Err(too_long("model"));
        }
        let target = (intake.rewrite)(Some(&name)).filter(|target| *target != name);
        let rename = target
            .as_ref()
            .map(|target| Edit::new(span, json_string(target)));
        return Ok(Model {
            name,
            target,
            rename,
        });
    }
    let given = match shape.model {
        Named::Needed | Named::Welcome => (intake.rewrite)(None),
        Named::Optional | Named::Ignored => None,
    };
    match given {
        Some(name) => {
            let text = json_string(&name);
            let rename = match members.null_model.clone() {
                // A second member would be the first, and servers heed the last.
                Some(span) => Edit::new(span, text),
                None => {
                    let comma = if members.empty { "" } else { "," };
                    let member = format!(r#""model":{text}{comma}"#);
                    Edit::new(members.begin..members.begin, member)
                }
            };
            Ok(Model {
                name,
                target: None,
                rename: Some(rename),
            })
        }
        None if shape.model == Named::Needed => {
            Err(missing("model", "give the model's name as a string"))
        }
        None => Ok(Model::default()),
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Where the members of interest stand.
#[derive(Default)]
struct Members<'a> {
    /// The model and where it stands, quotes included.
    model: Option<(Text<'a>, Range<usize>)>,
    /// Where a null stands in its place.
    null_model: Option<Range<usize>>,
    parts: [Option<Range<usize>>; MOST_PARTS],
    limits: [Option<u32>; MOST_LIMITS],
    sampling: Option<Range<usize>>,
    features: Option<Range<usize>>,
    salt: Option<Text<'a>>,
    stream: bool,
    options: Option<Range<usize>>,
    /// There is no member at all.
    empty: bool,
    /// Offset behind the opening brace.
    begin: usize,
    /// Offset of the closing brace.
    end: usize,
}

impl<'a> Members<'a> {
    fn of(shape: &Shape, body: &'a [u8]) -> Result<Self, RequestError> {
        let mut members = Self {
            empty: true,
            ..Self::default()
        };
        let mut reader = Reader::new(body);
        reader.kind()?;
        members.begin = reader.position() + 1;
        reader.object(|reader, key| {
            members.empty = false;
            // Keys are matched as written; an escaped key is decoded first, since it means the same.
            let key = if key.escaped {
                key.bytes()?
            } else {
                Cow::Borrowed(key.raw)
            };
            members.member(shape, &key, reader)
        })?;
        members.end = reader.position() - 1;
        reader.end()?;
        Ok(members)
    }

    fn member(
        &mut self,
        shape: &Shape,
        key: &[u8],
        reader: &mut Reader<'a>,
    ) -> Result<(), RequestError> {
        match key {
            b"model" if shape.model != Named::Ignored => match reader.kind()? {
                Kind::String => {
                    let start = reader.position();
                    let text = reader.string()?;
                    self.model = Some((text, start..reader.position()));
                    self.null_model = None;
                }
                Kind::Null if shape.model != Named::Needed => {
                    self.model = None;
                    self.null_model = Some(reader.span()?);
                }
                other => return Err(wrong("model", other, "give the model's name as a string")),
            },
            b"stream" => match reader.kind()? {
                Kind::Bool => self.stream = reader.bool()?,
                Kind::Null => reader.skip()?,
                other => return Err(wrong("stream", other, "give true or false")),
            },
            b"stream_options" if shape.include_usage => self.options = Some(reader.span()?),
            b"sampling_params" if shape.sampled_limit.is_some() => {
                self.sampling = Some(reader.span()?);
            }
            b"features" if shape.prompt.iter().any(|part| part.form == Form::Ids) => {
                self.features = Some(reader.span()?);
            }
            key if key == shape.salt.as_bytes() && reader.kind()? == Kind::String => {
                self.salt = Some(reader.string()?);
            }
            key => return self.part_or_limit(shape, key, reader),
        }
        Ok(())
    }

    fn part_or_limit(
        &mut self,
        shape: &Shape,
        key: &[u8],
        reader: &mut Reader<'a>,
    ) -> Result<(), RequestError> {
        let named = |name: &str| name.as_bytes() == key;
        if let Some(index) = shape.prompt.iter().position(|part| named(part.name)) {
            self.parts[index] = Some(reader.span()?);
        } else if let Some(index) = shape.limits.iter().position(|limit| named(limit)) {
            self.limits[index] = token_limit(shape.limits[index], reader)?;
        } else {
            reader.skip()?;
        }
        Ok(())
    }

    fn salt(&self, shape: &Shape, body: &[u8]) -> Result<Cow<'a, str>, JsonError> {
        let mut salt = self
            .salt
            .map(|salt| salt.decode())
            .transpose()?
            .unwrap_or_default();
        for (part, span) in shape.prompt.iter().zip(&self.parts) {
            if let (Form::Setting, Some(span)) = (part.form, span) {
                let salt = salt.to_mut();
                salt.push('\0');
                salt.push_str(&String::from_utf8_lossy(&body[span.clone()]));
            }
        }
        Ok(salt)
    }

    /// Feeds the prompt.
    fn feed(
        &self,
        shape: &Shape,
        body: &[u8],
        hasher: &mut PrefixHasher,
    ) -> Result<(), RequestError> {
        let given = || shape.prompt.iter().zip(&self.parts);
        if let Some(named) = shape.prompt.iter().rfind(|part| part.main)
            && !given().any(|(part, span)| part.main && span.is_some())
        {
            return Err(missing(named.name, "give what the model is to answer"));
        }
        for (part, span) in given() {
            if let Some(span) = span {
                self.feed_part(part, &body[span.clone()], body, hasher)?;
            }
        }
        Ok(())
    }

    fn feed_part(
        &self,
        part: &Part,
        value: &[u8],
        body: &[u8],
        hasher: &mut PrefixHasher,
    ) -> Result<(), RequestError> {
        let mut reader = Reader::new(value);
        match (part.form, reader.kind()?) {
            (Form::Setting, _) => return Ok(()),
            (_, Kind::Null) if !part.main => return Ok(()),
            (Form::Texts, _) => return content::feed_texts(part.name, value, hasher),
            (Form::Ids, _) => {
                let features = self.features.clone();
                let placed = features.map(|span| Placed::from_features(&body[span]));
                let placed = placed.transpose()?.unwrap_or_default();
                return content::feed_ids(part.name, value, &placed, hasher);
            }
            (Form::List, Kind::Array)
            | (Form::Content, Kind::Array | Kind::String)
            | (Form::Any, _) => {}
            (Form::List, other) => return Err(wrong(part.name, other, "give an array")),
            (Form::Content, other) => {
                return Err(wrong(part.name, other, "give a text or an array"));
            }
        }
        Ok(content::feed_content(&mut reader, hasher)?)
    }

    fn limit(&self, shape: &Shape, body: &[u8]) -> Result<Option<u32>, RequestError> {
        let given = self.limits.iter().copied().find_map(|limit| limit);
        let (Some(name), Some(span)) = (shape.sampled_limit, self.sampling.clone()) else {
            return Ok(given);
        };
        let mut reader = Reader::new(&body[span]);
        let mut limit = given;
        // Several requests in one have several sets of parameters, none of which speaks for all.
        if reader.kind()? == Kind::Object {
            reader.object(|reader, key| {
                if key.raw == name.as_bytes() {
                    limit = token_limit(name, reader)?;
                } else {
                    reader.skip()?;
                }
                Ok::<_, RequestError>(())
            })?;
        }
        Ok(limit)
    }
}

fn token_limit(field: &'static str, reader: &mut Reader<'_>) -> Result<Option<u32>, RequestError> {
    match reader.kind()? {
        Kind::Null => reader.skip().map(|()| None).map_err(Into::into),
        Kind::Number => match reader.unsigned()? {
            Some(limit) => Ok(Some(u32::try_from(limit).unwrap_or(u32::MAX))),
            None => Err(RequestError::Field {
                field,
                problem: "is no whole number of tokens".into(),
            }),
        },
        other => Err(wrong(field, other, "give a whole number of tokens")),
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
pub(super) mod tests;

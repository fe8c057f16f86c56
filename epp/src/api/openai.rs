//! Hot path: OpenAI's `completions` and `chat/completions` bodies, read without building a tree.

use super::edit::Edit;
use super::error::RequestError;
use super::json::{JsonError, Kind, Reader, Text};
use epp_core::{PrefixHasher, PrefixHashing};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Which of the two bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `…/completions`: a `prompt`.
    Completions,
    /// `…/chat/completions`: `messages`.
    ChatCompletions,
}

impl Api {
    /// By the longest suffix of the path that is known; the query string does not count.
    pub fn of_path(path: &str) -> Option<Self> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        if path.ends_with("chat/completions") {
            Some(Self::ChatCompletions)
        } else if path.ends_with("completions") {
            Some(Self::Completions)
        } else {
            None
        }
    }

    fn input(self) -> &'static str {
        match self {
            Self::Completions => "prompt",
            Self::ChatCompletions => "messages",
        }
    }
}

/// What the client's `stream_options` say about usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The answer is one JSON document and carries its usage anyway.
    NotStreamed,
    /// The client asked for it, and gets it.
    Asked,
    /// The client did not ask; the edit asks for it.
    NotAsked(Edit),
    /// The client did not ask, and its options leave no room to ask in its place.
    Untouchable,
}

/// What the picker needs of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The model the client names.
    pub model: String,
    /// The model to send on under, where that is another.
    pub target: Option<String>,
    /// Where the model's name stands, quotes included.
    pub model_span: Range<usize>,
    /// Whether the answer comes as a stream of events.
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

/// Where the members of interest stand.
#[derive(Default)]
struct Members<'a> {
    model: Option<(Text<'a>, Range<usize>)>,
    input: Option<Range<usize>>,
    tools: Option<Range<usize>>,
    salt: Option<Text<'a>>,
    stream: bool,
    options: Option<Range<usize>>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    /// Offset of the closing brace.
    end: usize,
}

/// Reads `body`. `rewrite` tells which model to send on under instead of the client's, if any; that model also
/// salts the prefix.
///
/// # Errors
/// [`RequestError::Json`] when the body is no JSON object, [`RequestError::Field`] when `model` or
/// the prompt is missing or of the wrong kind.
pub fn parse(
    api: Api,
    body: &[u8],
    rewrite: impl FnOnce(&str) -> Option<String>,
    hashing: PrefixHashing,
) -> Result<Body, RequestError> {
    let members = members(api, body)?;
    let Some((model, model_span)) = members.model.clone() else {
        return Err(missing("model", "give the model's name as a string"));
    };
    let model = model.decode()?.into_owned();
    let Some(input) = members.input.clone() else {
        return Err(missing(api.input(), "give what the model is to answer"));
    };
    let salt = members
        .salt
        .map(|salt| salt.decode())
        .transpose()?
        .unwrap_or_default();
    let target = rewrite(&model).filter(|target| *target != model);
    let mut hasher = hashing.hasher(target.as_deref().unwrap_or(&model), &salt);
    match api {
        Api::Completions => feed_prompt(&body[input], &mut hasher)?,
        Api::ChatCompletions => feed_chat(body, members.tools.clone(), input, &mut hasher)?,
    }
    let (prompt_tokens, prefix) = hasher.finish();
    Ok(Body {
        prompt_tokens,
        prefix,
        usage: usage(body, &members)?,
        model,
        target,
        model_span,
        stream: members.stream,
        max_output_tokens: members.max_completion_tokens.or(members.max_tokens),
    })
}

fn missing(field: &'static str, right: &str) -> RequestError {
    RequestError::Field {
        field,
        problem: format!("is missing: {right}"),
    }
}

fn wrong(field: &'static str, found: Kind, right: &str) -> RequestError {
    RequestError::Field {
        field,
        problem: format!("is {}: {right}", found.name()),
    }
}

fn members(api: Api, body: &[u8]) -> Result<Members<'_>, RequestError> {
    let mut members = Members::default();
    let mut reader = Reader::new(body);
    reader.object(|reader, key| {
        // Keys are matched as written; an escaped key is decoded first, since it means the same.
        let key = if key.escaped {
            key.bytes()?
        } else {
            Cow::Borrowed(key.raw)
        };
        member(api, &key, reader, &mut members)
    })?;
    members.end = reader.position() - 1;
    reader.end()?;
    Ok(members)
}

fn member<'a>(
    api: Api,
    key: &[u8],
    reader: &mut Reader<'a>,
    members: &mut Members<'a>,
) -> Result<(), RequestError> {
    match key {
        b"model" => match reader.kind()? {
            Kind::String => {
                let start = reader.position();
                let text = reader.string()?;
                members.model = Some((text, start..reader.position()));
            }
            other => return Err(wrong("model", other, "give the model's name as a string")),
        },
        b"stream" => match reader.kind()? {
            Kind::Bool => members.stream = reader.bool()?,
            Kind::Null => {
                reader.skip()?;
            }
            other => return Err(wrong("stream", other, "give true or false")),
        },
        b"stream_options" => members.options = Some(reader.span()?),
        b"max_tokens" => members.max_tokens = token_limit("max_tokens", reader)?,
        b"max_completion_tokens" if api == Api::ChatCompletions => {
            members.max_completion_tokens = token_limit("max_completion_tokens", reader)?;
        }
        b"cache_salt" if reader.kind()? == Kind::String => members.salt = Some(reader.string()?),
        b"tools" if api == Api::ChatCompletions => members.tools = Some(reader.span()?),
        key if key == api.input().as_bytes() => members.input = Some(reader.span()?),
        _ => {
            reader.skip()?;
        }
    }
    Ok(())
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

/// Feeds a completions prompt: text, an array of texts, token ids, or an array of those.
fn feed_prompt(prompt: &[u8], hasher: &mut PrefixHasher) -> Result<(), RequestError> {
    feed_prompt_value(&mut Reader::new(prompt), hasher, 0)
}

fn feed_prompt_value(
    reader: &mut Reader<'_>,
    hasher: &mut PrefixHasher,
    depth: u8,
) -> Result<(), RequestError> {
    const RIGHT: &str = "give a text, an array of texts, or an array of token ids";
    match reader.kind()? {
        Kind::String => Ok(reader
            .string()?
            .feed(&mut |run: &[u8]| hasher.update(run))?),
        Kind::Array if depth < 2 => {
            reader.array(|reader| feed_prompt_value(reader, hasher, depth + 1))
        }
        Kind::Number if depth > 0 => {
            let id = reader.unsigned()?.and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| RequestError::Field {
                field: "prompt",
                problem: "holds a number that is no token id".into(),
            })?;
            hasher.update(&id.to_le_bytes());
            Ok(())
        }
        other => Err(wrong("prompt", other, RIGHT)),
    }
}

/// Feeds a chat: tools first, as chat templates put them, then the messages in canonical form. The
/// names of the members stand in for the template's own tokens around each message.
fn feed_chat(
    body: &[u8],
    tools: Option<Range<usize>>,
    messages: Range<usize>,
    hasher: &mut PrefixHasher,
) -> Result<(), RequestError> {
    if let Some(tools) = tools {
        Reader::new(&body[tools]).canonical(&mut |run: &[u8]| hasher.update(run))?;
    }
    let mut reader = Reader::new(&body[messages]);
    match reader.kind()? {
        Kind::Array => Ok(reader.canonical(&mut |run: &[u8]| hasher.update(run))?),
        other => Err(wrong("messages", other, "give an array of messages")),
    }
}

/// Finds out whether usage was asked for, and else the smallest edit that asks.
fn usage(body: &[u8], members: &Members<'_>) -> Result<Usage, JsonError> {
    if !members.stream {
        return Ok(Usage::NotStreamed);
    }
    let Some(options) = members.options.clone() else {
        let span = members.end..members.end;
        return Ok(Usage::NotAsked(Edit {
            span,
            text: r#","stream_options":{"include_usage":true}"#.into(),
        }));
    };
    let mut reader = Reader::new(&body[options.clone()]);
    match reader.kind()? {
        Kind::Null => {
            return Ok(Usage::NotAsked(Edit {
                span: options,
                text: r#"{"include_usage":true}"#.into(),
            }));
        }
        Kind::Object => {}
        _ => return Ok(Usage::Untouchable),
    }
    let mut include = None;
    let mut empty = true;
    let mut continuous = false;
    reader.object(|reader, key| {
        empty = false;
        let kind = reader.kind()?;
        let value = reader.span()?;
        match &*key.bytes()? {
            b"include_usage" => include = Some((kind, value)),
            // Usage on every event could not be told from what the client would have got.
            b"continuous_usage_stats" => continuous |= &body[options.start..][value] == b"true",
            _ => {}
        }
        Ok::<_, JsonError>(())
    })?;
    let shifted = |span: Range<usize>| options.start + span.start..options.start + span.end;
    Ok(match include {
        Some((Kind::Bool, value)) if &body[shifted(value.clone())] == b"true" => Usage::Asked,
        _ if continuous => Usage::Untouchable,
        Some((Kind::Bool | Kind::Null, value)) => Usage::NotAsked(Edit {
            span: shifted(value),
            text: "true".into(),
        }),
        Some(_) => Usage::Untouchable,
        None => {
            let text = if empty {
                r#""include_usage":true"#
            } else {
                r#","include_usage":true"#
            };
            let at = options.end - 1;
            Usage::NotAsked(Edit {
                span: at..at,
                text: text.into(),
            })
        }
    })
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;

//! Hot path: what the picker takes from a request's body, without building a tree of it.

use super::edit::Edit;
use super::error::{RequestError, missing};
use super::include_usage::{self, Usage};
use super::members::Members;
use super::paths::Api;
use super::rope::Rope;
use super::scan::Scanner;
use super::shape::{self, Named, Shape};
use super::{vertex, vllm_grpc};
use bytes::Bytes;
use epp_core::{PrefixHasher, PrefixHashing};
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
        let (prompt_tokens, prefix) = hasher.finish("", "");
        Self {
            prompt_tokens,
            prefix,
            ..Self::unread()
        }
    }
}

/// A body that is being read, as it comes where it is JSON.
#[derive(Debug)]
pub struct Reading {
    api: Api,
    json: Option<Box<Json>>,
}

impl Reading {
    /// Of a body of which nothing has come.
    pub fn new(api: Api, hashing: PrefixHashing) -> Self {
        let shape = shape::of(api).filter(|_| !api.grpc());
        Self {
            api,
            json: shape.map(|shape| Box::new(Json::new(shape, hashing))),
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`RequestError`] as soon as the body cannot be right any more. Nothing may be pushed after that.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RequestError> {
        match &mut self.json {
            Some(json) => json.push(piece),
            None => Ok(()),
        }
    }

    /// The body is complete, and this is it. The model that is sent on also salts the prefix.
    ///
    /// # Errors
    /// [`RequestError`] when it is not what the API takes, naming the field and what would be right.
    pub fn finish(self, body: &Rope, intake: &Intake<'_>) -> Result<Body, RequestError> {
        match (self.api, self.json) {
            (_, Some(json)) => json.finish(body, intake),
            (Api::VllmGrpcGenerate, _) => vllm_grpc::generate(&body.whole(), intake),
            (Api::VllmGrpcEmbed, _) => vllm_grpc::embed(&body.whole(), intake),
            (Api::VertexChat | Api::VertexRaw, _) => vertex::read(self.api, &body.whole(), intake),
            _ => Ok(Body::unread()),
        }
    }
}

/// Reads the JSON inside another body.
pub(super) fn inner(api: Api, body: Bytes, intake: &Intake<'_>) -> Result<Body, RequestError> {
    let Some(shape) = shape::of(api) else {
        return Ok(Body::unread());
    };
    let mut json = Json::new(shape, intake.hashing);
    json.push(&body)?;
    json.finish(&Rope::from(body), intake)
}

/// A JSON body that is being read.
#[derive(Debug)]
struct Json {
    scanner: Scanner,
    members: Members,
}

impl Json {
    fn new(shape: &'static Shape, hashing: PrefixHashing) -> Self {
        Self {
            scanner: Scanner::default(),
            members: Members::new(shape, hashing),
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), RequestError> {
        self.scanner.push(piece, &mut self.members)
    }

    fn finish(mut self, body: &Rope, intake: &Intake<'_>) -> Result<Body, RequestError> {
        self.scanner.finish(&mut self.members)?;
        let mut members = self.members;
        let model = model(&mut members, intake)?;
        let sent = model.target.as_deref().unwrap_or(&model.name);
        let hasher = members.prompt(body)?;
        let (prompt_tokens, prefix) = hasher.finish(sent, &members.salt(body));
        let usage = if members.shape.include_usage && members.stream {
            include_usage::usage(body, members.options.clone(), members.end)?
        } else {
            Usage::NoQuestion
        };
        Ok(Body {
            max_output_tokens: members.limit(body)?,
            model: model.name,
            target: model.target,
            rename: model.rename.into_iter().collect(),
            stream: members.stream,
            prompt_tokens,
            prefix,
            usage,
        })
    }
}

/// A body's model and what becomes of it.
#[derive(Default)]
struct Model {
    name: String,
    target: Option<String>,
    rename: Option<Edit>,
}

fn model(members: &mut Members, intake: &Intake<'_>) -> Result<Model, RequestError> {
    let shape = members.shape;
    if let Some((name, span)) = members.model.take() {
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

#[cfg(test)]
#[path = "body_tests.rs"]
pub(super) mod tests;

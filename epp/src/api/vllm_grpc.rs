//! vLLM's gRPC API (`vllm.grpc.engine.VllmEngine`). Its requests name no model: there is nothing to rewrite.

use super::body::{Body, Intake};
use super::error::RequestError;
use super::frame::{FrameError, Message};
use super::media::{Ids, Placed};
use super::proto::{Fields, ProtoError};
use bytes::Bytes;
use epp_core::PrefixHasher;

/// `GenerateRequest`: tokenized input 2, text 3, sampling parameters 4, stream 5, images 7.
pub(super) fn generate(body: &Bytes, intake: &Intake<'_>) -> Result<Body, RequestError> {
    let message = Message::only(body, intake.encoding, intake.most_bytes)?;
    let (mut tokenized, mut text, mut limit, mut stream) = (None, None, None, false);
    let mut placed = Placed::default();
    for field in Fields::of(&message.bytes) {
        let field = field.map_err(FrameError::from)?;
        match (field.number, field.value.bytes()) {
            (2, Some(input)) => (tokenized, text) = (Some(input), None),
            (3, Some(input)) => (tokenized, text) = (None, Some(input)),
            (4, Some(parameters)) => limit = max_tokens(parameters).map_err(FrameError::from)?,
            (5, None) => stream = field.value.count() == Some(1),
            (7, Some(inputs)) => {
                placed = Placed::from_message(inputs).map_err(FrameError::from)?;
            }
            _ => {}
        }
    }
    let mut hasher = intake.hashing.hasher();
    match (tokenized, text) {
        (Some(input), _) => feed_tokenized(input, &placed, &mut hasher)?,
        (None, Some(text)) => hasher.update(text),
        (None, None) => {
            return Err(super::error::missing(
                "input",
                "give tokenized input or a text",
            ));
        }
    }
    Ok(Body {
        stream,
        max_output_tokens: limit,
        ..Body::of_prompt(hasher)
    })
}

/// `EmbedRequest`: tokenized input 2.
pub(super) fn embed(body: &Bytes, intake: &Intake<'_>) -> Result<Body, RequestError> {
    let message = Message::only(body, intake.encoding, intake.most_bytes)?;
    let mut tokenized = None;
    for field in Fields::of(&message.bytes) {
        let field = field.map_err(FrameError::from)?;
        if let (2, Some(input)) = (field.number, field.value.bytes()) {
            tokenized = Some(input);
        }
    }
    let Some(input) = tokenized else {
        return Err(super::error::missing("tokenized", "give tokenized input"));
    };
    let mut hasher = intake.hashing.hasher();
    feed_tokenized(input, &Placed::default(), &mut hasher)?;
    Ok(Body::of_prompt(hasher))
}

/// `SamplingParams`: max_tokens 8.
fn max_tokens(parameters: &[u8]) -> Result<Option<u32>, ProtoError> {
    let mut limit = None;
    for field in Fields::of(parameters) {
        let field = field?;
        if field.number == 8 {
            limit = field.value.count();
        }
    }
    Ok(limit)
}

/// `TokenizedInput`: ids 2. The text they were made from is only there for reference.
fn feed_tokenized(
    input: &[u8],
    placed: &Placed,
    hasher: &mut PrefixHasher,
) -> Result<(), RequestError> {
    let mut ids = Ids::new(placed);
    for field in Fields::of(input) {
        let field = field.map_err(FrameError::from)?;
        if field.number == 2 {
            for id in field.value.integers() {
                ids.feed(id.map_err(FrameError::from)? as u32, hasher);
            }
        }
    }
    Ok(())
}

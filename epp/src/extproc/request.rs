//! The request's half of a stream: gathering the body, what is submitted, what is sent on.

use super::budget::Share;
use super::protocol::{Action, Actions, Rules, Submission};
use super::reply::{Destination, HeaderChange, Piece, Reply, pieces};
use super::response::{Asking, Relayed};
use crate::api::body::{Intake, Reading};
use crate::api::edit::Edit;
use crate::api::error::{ErrorShape, RequestError};
use crate::api::head::{Header, LONGEST_NAME, RequestHead};
use crate::api::include_usage::Usage;
use crate::api::paths::Api;
use crate::api::rename::Rename;
use crate::api::rope::Rope;
use crate::api::wanted::Taken;
use crate::telemetry::capped::OTHER;
use crate::usage::dialect::Plan;
use bytes::Bytes;
use epp_core::{Dispatch, Request};
use names::header;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

/// A flow for requests whose client names none.
const DEFAULT_FLOW: &str = "default-flow";

/// Headers, and as much of the body as has come, read as far as it has.
#[derive(Debug)]
pub(super) struct Gathering {
    head: RequestHead,
    api: Result<(Api, Reading), RequestError>,
    taken: Taken,
    subset: Option<Vec<String>>,
    body: Rope,
    share: Share,
}

impl Gathering {
    pub(super) fn new(headers: &[Header], subset: Option<Vec<String>>, rules: &Rules) -> Self {
        let head = RequestHead::read(headers);
        let api = rules.parsers.of(head.path());
        Self {
            api: api.map(|api| (api, Reading::new(api, rules.hashing))),
            taken: rules.wanted.take(headers),
            head,
            subset,
            body: Rope::default(),
            share: Share::new(Arc::clone(&rules.bodies)),
        }
    }

    /// How the client is told of errors.
    pub(super) fn errors(&self) -> ErrorShape {
        self.api
            .as_ref()
            .map_or_else(|_| ErrorShape::default(), |(api, _)| api.errors())
    }

    /// Adds a piece of the body. What cannot be right any more, or has more than `limit` bytes, is refused at once: the
    /// rest is not gathered.
    pub(super) fn push(&mut self, piece: Bytes, limit: usize) -> Result<(), RequestError> {
        if self.body.len() + piece.len() > limit {
            return Err(RequestError::TooLarge { limit });
        }
        if !self.share.take(piece.len() as u64) {
            return Err(RequestError::Crowded);
        }
        match &mut self.api {
            Ok((_, reading)) => reading.push(&piece)?,
            Err(error) => return Err(error.clone()),
        }
        self.body.push(piece);
        Ok(())
    }

    /// The body is complete: what the director is to decide on, and what is kept until it has.
    pub(super) fn submission(
        self,
        rules: &Rules,
        serial: u64,
        trailers: bool,
    ) -> Result<(Submission, Pending), RequestError> {
        let Self {
            head,
            api,
            taken,
            subset,
            body,
            share: _,
        } = self;
        let (api, reading) = api?;
        let said = head.rewrite()?;
        let ruled = Cell::new(None);
        // What the request itself says goes before the operator's rules.
        let rewrite = |model: Option<&str>| {
            if let Some(said) = said {
                return Some(said.to_owned());
            }
            let choice = rules.rewrites.choose(model, serial)?;
            ruled.set(Some(Arc::clone(choice.object)));
            Some(choice.model.to_owned())
        };
        let intake = Intake {
            rewrite: &rewrite,
            hashing: rules.hashing,
            encoding: head.grpc_encoding.as_deref(),
            most_bytes: rules.max_request_bytes,
        };
        let read = reading.finish(&body, &intake)?;
        let target = read.target.as_ref();
        let back = target.map(|target| Rename::new(target, &read.model));
        // Inside gRPC messages a name is only put back by reading them.
        let reads = rules.wanted.reads(serial) || back.is_some() && api.grpc();
        let (id, made_id) = identity(&head, serial);
        let mut request = Request {
            id,
            model: read.model,
            target_model: read.target,
            prompt_tokens: read.prompt_tokens,
            prefix: read.prefix,
            prefix_block_tokens: rules.hashing.block_tokens,
            slo: head.slo()?,
            flow: flow(head.fairness_id(), taken.flow),
            max_output_tokens: read.max_output_tokens,
            streams: read.stream,
            bytes: body.len() as u64,
            ttl: head.ttl()?,
            subset,
            session: taken.session,
            headers: taken.headers,
            ..Request::default()
        };
        rules.objectives.apply(head.objective(), &mut request);
        request.slo = request.slo.or(rules.default_slo);
        let pending = Pending {
            body,
            api,
            rename: read.rename,
            back,
            reads,
            usage: read.usage,
            announced: head.content_length.is_some(),
            trailers,
            made_id,
            smuggled: head.smuggled,
            accepts: accepted(head.accepts_encoding, head.accepts_grpc_encoding),
        };
        Ok((
            Submission {
                request,
                rewritten_by: ruled.into_inner(),
                streaming: read.stream,
            },
            pending,
        ))
    }
}

/// The headers of a request that ask for an encoded answer.
fn accepted(encoding: bool, grpc_encoding: bool) -> Vec<&'static str> {
    let named = [
        encoding.then_some("accept-encoding"),
        grpc_encoding.then_some("grpc-accept-encoding"),
    ];
    named.into_iter().flatten().collect()
}

/// What the request says itself goes before what its agent says. Flows are kept longer than requests: those with
/// names beyond any measure are one.
fn flow(said: Option<&str>, agent: Option<Arc<str>>) -> Arc<str> {
    let bounded = |id: &str| match id.len() {
        ..=LONGEST_NAME => Arc::from(id),
        _ => Arc::from(OTHER),
    };
    said.map(bounded)
        .or(agent)
        .unwrap_or_else(|| Arc::from(DEFAULT_FLOW))
}

/// The request's id as far as it is kept, and the same again if it had none.
fn identity(head: &RequestHead, serial: u64) -> (String, Option<String>) {
    match &head.request_id {
        Some(id) => {
            let kept = &id[..id.len().min(LONGEST_NAME)];
            (String::from_utf8_lossy(kept).into_owned(), None)
        }
        None => {
            let id = made_id(serial);
            (id.clone(), Some(id))
        }
    }
}

/// An id for the request on the stream with that number, in the form of a UUID (version 4): no other request has it,
/// here or at another picker.
fn made_id(serial: u64) -> String {
    /// Its keys are drawn anew in each process.
    static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    const VERSION: u128 = 0x4 << 76;
    const VARIANT: u128 = 0x2 << 62;
    let half = |which: u8| u128::from(PROCESS.hash_one((serial, which)));
    let drawn = half(0) << 64 | half(1);
    let bits = drawn & !(0xf << 76) & !(0x3 << 62) | VERSION | VARIANT;
    let hex = format!("{bits:032x}");
    let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// A request without a body, on its way to any endpoint.
#[derive(Debug)]
pub(super) struct Bodyless {
    made_id: Option<String>,
    smuggled: Vec<&'static str>,
}

impl Bodyless {
    /// From its headers, with how its client is told of errors.
    pub(super) fn new(headers: &[Header], rules: &Rules, serial: u64) -> (Self, ErrorShape) {
        let head = RequestHead::read(headers);
        let api = rules.parsers.of(head.path());
        let errors = api.map_or_else(|_| ErrorShape::default(), |api| api.errors());
        let (_, made_id) = identity(&head, serial);
        let smuggled = head.smuggled;
        (Self { made_id, smuggled }, errors)
    }

    /// Sends it to one of `endpoints`.
    pub(super) fn relay(self, endpoints: Arc<str>) -> Reply {
        let id = self.made_id.map(|id| (header::REQUEST_ID, Bytes::from(id)));
        Reply::RequestHeaders(HeaderChange {
            set: id.into_iter().collect(),
            remove: self.smuggled,
            destination: Some(Destination {
                endpoints,
                scores: Vec::new(),
            }),
            ..HeaderChange::default()
        })
    }
}

/// A request whose endpoint is not yet chosen.
#[derive(Debug)]
pub(super) struct Pending {
    body: Rope,
    api: Api,
    /// Puts the target model in place of the client's.
    rename: Vec<Edit>,
    /// Puts the client's name back into the answer.
    back: Option<Rename>,
    /// The answer is read for its first token and usage.
    reads: bool,
    usage: Usage,
    /// The client announced the body's length.
    announced: bool,
    /// Trailers end the body.
    trailers: bool,
    /// The id given to a request that brought none.
    made_id: Option<String>,
    smuggled: Vec<&'static str>,
    /// Headers that ask for an encoded answer.
    accepts: Vec<&'static str>,
}

impl Pending {
    /// Sends the request on: headers, body, and trailers where there are any. Returns what the answer is to be
    /// looked at for.
    pub(super) fn relay(self, dispatch: &Dispatch, rules: &Rules, out: &mut Actions) -> Relayed {
        let mut edits = self.rename;
        let asking = match self.usage {
            _ if !self.reads => Asking::Nothing,
            Usage::NoQuestion | Usage::Asked => Asking::Nothing,
            Usage::Untouchable => {
                Asking::Plain(rules.dialects.of(&dispatch.endpoint.address, self.api))
            }
            Usage::NotAsked(_) if !rules.inject_usage => Asking::Nothing,
            Usage::NotAsked(edit) => {
                let dialect = rules.dialects.of(&dispatch.endpoint.address, self.api);
                match dialect.plan() {
                    Plan::Probe => Asking::Plain(dialect),
                    Plan::Ask { nulls } => {
                        edits.push(edit);
                        Asking::Usage { dialect, nulls }
                    }
                }
            }
        };
        let pieces = self.body.edited(edits);
        let mut set = Vec::with_capacity(2);
        // With trailers a length is only told where the client told one.
        if self.announced || !self.trailers {
            let length: usize = pieces.iter().map(Bytes::len).sum();
            set.push(("content-length", Bytes::from(length.to_string())));
        }
        if let Some(id) = self.made_id {
            set.push((header::REQUEST_ID, Bytes::from(id)));
        }
        let mut remove = self.smuggled;
        if self.back.is_some() || matches!(asking, Asking::Usage { .. }) {
            // Nothing could be put into a compressed answer, or be taken out of it.
            remove.extend(self.accepts);
        }
        let destination = Some(destination(dispatch, rules.emit_scores));
        out.push_back(Action::Send(Reply::RequestHeaders(HeaderChange {
            set,
            remove,
            destination,
            ..HeaderChange::default()
        })));
        pass_on(pieces, !self.trailers, |piece| {
            out.push_back(Action::Send(Reply::RequestBody(piece)))
        });
        if self.trailers {
            out.push_back(Action::Send(Reply::RequestTrailers));
        }
        Relayed {
            asking,
            api: self.api,
            reads: self.reads,
            back: self.back,
            advice: dispatch.advice,
        }
    }
}

/// A body's pieces in messages; `end` marks the last of them.
fn pass_on(body: Vec<Bytes>, end: bool, mut each: impl FnMut(Piece)) {
    let mut body = body.into_iter();
    let mut bytes = body.next().unwrap_or_default();
    for next in body {
        pieces(std::mem::replace(&mut bytes, next), false, &mut each);
    }
    pieces(bytes, end, each);
}

fn destination(dispatch: &Dispatch, emit_scores: bool) -> Destination {
    let mut endpoints = Arc::clone(&dispatch.endpoint.address);
    if !dispatch.fallbacks.is_empty() {
        let mut list = endpoints.as_ref().to_owned();
        for fallback in &dispatch.fallbacks {
            list.push(',');
            list.push_str(&fallback.address);
        }
        endpoints = list.into();
    }
    let scores = if emit_scores {
        dispatch
            .decision
            .totals()
            .map(|(address, score)| (Arc::clone(address), score))
            .collect()
    } else {
        Vec::new()
    };
    Destination { endpoints, scores }
}

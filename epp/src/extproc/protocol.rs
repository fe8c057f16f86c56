//! The words of the protocol: what happens on a stream, and what is to be done about it.

use super::budget::Budget;
use super::reply::Reply;
use crate::api::head::Header;
use crate::api::paths::Parsers;
use crate::api::rewrite::Rewrites;
use crate::api::wanted::Wanted;
use crate::usage::dialect::Dialects;
use bytes::Bytes;
use epp_core::{Completion, Endpoint, Objectives, PrefixHashing, Request, Slo, Verdict};
use predictor::Observation;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// What every stream needs to know and none changes; a new set is for streams that begin later.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Priorities and default targets by name.
    pub objectives: Objectives,
    /// Targets of requests that bring none, where their objective has none either.
    pub default_slo: Slo,
    /// Which models requests are sent on under.
    pub rewrites: Arc<Rewrites>,
    /// How prompts are cut for prefix matching.
    pub hashing: PrefixHashing,
    /// Largest request body, bytes.
    pub max_request_bytes: usize,
    /// Room for request bodies that are arriving, over all streams.
    pub bodies: Arc<Budget>,
    /// Ask for usage in the client's place.
    pub inject_usage: bool,
    /// Tell the proxy every candidate's score.
    pub emit_scores: bool,
    /// Heed the proxy's choice of endpoints.
    pub subsets: bool,
    /// How servers write what was not asked for.
    pub dialects: Arc<Dialects>,
    /// Which APIs are read.
    pub parsers: Arc<Parsers>,
    /// What the configuration reads of requests' headers and puts into answers'.
    pub wanted: Arc<Wanted>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Request headers came.
    RequestHeaders {
        /// The headers.
        headers: Vec<Header>,
        /// No body follows.
        end_of_stream: bool,
        /// The proxy's choice of endpoints; `None` = all.
        subset: Option<Vec<String>>,
    },
    /// A piece of the request's body came.
    RequestBody {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        end_of_stream: bool,
    },
    /// Request trailers came.
    RequestTrailers,
    /// The director decided on what was submitted.
    Verdict(Verdict),
    /// The answer to [`Action::PickAny`]; `None` = there is no endpoint.
    Picked(Option<Arc<str>>),
    /// Response headers came.
    ResponseHeaders {
        /// The headers.
        headers: Vec<Header>,
        /// No body follows.
        end_of_stream: bool,
        /// Who served, where the proxy says so: it may have taken a fall-back.
        served: Option<Arc<Endpoint>>,
    },
    /// A piece of the response's body came.
    ResponseBody {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        end_of_stream: bool,
    },
    /// Response trailers came.
    ResponseTrailers {
        /// How a gRPC call ended.
        grpc_status: Option<u32>,
    },
    /// The request is to be taken off its server, for this reason.
    Evicted(&'static str),
    /// The proxy ended the stream.
    Closed,
}

impl Event {
    /// The event in words, for errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::RequestHeaders { .. } => "request headers",
            Self::RequestBody { .. } => "request body",
            Self::RequestTrailers => "request trailers",
            Self::Verdict(_) => "verdict",
            Self::Picked(_) => "any endpoint",
            Self::ResponseHeaders { .. } => "response headers",
            Self::ResponseBody { .. } => "response body",
            Self::ResponseTrailers { .. } => "response trailers",
            Self::Evicted(_) => "eviction",
            Self::Closed => "close",
        }
    }
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Hand the request to the director; an [`Event::Verdict`] follows.
    Submit(Box<Submission>),
    /// Choose any endpoint among these addresses (`None` = all); an [`Event::Picked`] follows at once.
    PickAny(Option<Vec<String>>),
    /// What was submitted is no longer wanted.
    Withdraw,
    /// Tell the proxy.
    Send(Reply),
    /// The answer's first token passed.
    FirstToken(Option<Observation>),
    /// A dispatched request ended and its load is given back.
    Ended(Box<Ended>),
    /// All is said: close the stream.
    Finish,
    /// The proxy broke the protocol: close the stream with an error.
    Fail(ProtocolError),
    /// The answer is on its way and is to go no further: close the stream with an error, for this reason, upon which
    /// the proxy resets the request.
    Reset(&'static str),
}

/// Actions not yet carried out.
pub type Actions = VecDeque<Action>;

/// A request for the director.
#[derive(Debug)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// Name of the object whose rule chose the model; `None` = no rule did.
    pub rewritten_by: Option<Arc<str>>,
    /// Whether the answer was asked for piece by piece.
    pub streaming: bool,
}

/// How a dispatched request ended.
#[derive(Debug)]
pub struct Ended {
    /// What the core knows of it.
    pub completion: Completion,
    /// HTTP status of the answer; `None` = the stream ended before one.
    pub status: Option<u16>,
}

/// An event in a phase that has no place for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol error: {event} while {phase}")]
pub struct ProtocolError {
    /// What came.
    pub event: &'static str,
    /// What was going on.
    pub phase: Phase,
}

/// How far a stream is, for errors and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing came yet.
    Start,
    /// The request's body is arriving.
    Gathering,
    /// The director has not decided yet.
    Waiting,
    /// The request is on its way; no answer yet.
    Relayed,
    /// The answer passes.
    Answering,
    /// All is said.
    Over,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "waiting for request headers",
            Self::Gathering => "reading the request body",
            Self::Waiting => "deciding",
            Self::Relayed => "waiting for response headers",
            Self::Answering => "relaying the response",
            Self::Over => "closing",
        })
    }
}

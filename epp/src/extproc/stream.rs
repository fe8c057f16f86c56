//! One ext_proc stream as a state machine without I/O.
//!
//! The protocol's rules live here: nothing is answered before the request's body is complete, replies
//! keep the order headers, body, trailers in each direction, the end of a body is announced once, a
//! second end is ignored, and a stream may be cut in every phase. A dispatched request holds its
//! reserved load ([`InFlight`]) as long as the stream lives, and no longer.

use super::reply::{Destination, HeaderChange, Immediate, Reply};
use super::request::{Gathering, Pending};
use super::response::{Answer, Asking};
use crate::api::error::{RequestError, openai_error};
use crate::api::head::Header;
use crate::usage::dialect::Dialects;
use bytes::Bytes;
use epp_core::{Completion, End, InFlight, Objectives, PrefixHashing, Refusal, Request, Verdict};
use names::header;
use predictor::Observation;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What every stream needs to know and none changes; a new set is for streams that begin later.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Priorities and default targets by name.
    pub objectives: Objectives,
    /// How prompts are cut for prefix matching.
    pub hashing: PrefixHashing,
    /// Largest request body, bytes.
    pub max_request_bytes: usize,
    /// Ask for usage in the client's place.
    pub inject_usage: bool,
    /// Tell the proxy every candidate's score.
    pub emit_scores: bool,
    /// Heed the proxy's choice of endpoints.
    pub subsets: bool,
    /// How servers write what was not asked for.
    pub dialects: Arc<Dialects>,
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
    },
    /// A piece of the response's body came.
    ResponseBody {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        end_of_stream: bool,
    },
    /// Response trailers came.
    ResponseTrailers,
    /// The proxy ended the stream.
    Closed,
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::RequestHeaders { .. } => "request headers",
            Self::RequestBody { .. } => "request body",
            Self::RequestTrailers => "request trailers",
            Self::Verdict(_) => "verdict",
            Self::Picked(_) => "any endpoint",
            Self::ResponseHeaders { .. } => "response headers",
            Self::ResponseBody { .. } => "response body",
            Self::ResponseTrailers => "response trailers",
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
}

/// Actions not yet carried out.
pub type Actions = VecDeque<Action>;

/// A request for the director.
#[derive(Debug)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// The model it is sent on under, where that is not the client's.
    pub target_model: Option<String>,
    /// Whether a stream of events was asked for.
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

#[derive(Debug)]
enum State {
    Start,
    Gathering(Box<Gathering>),
    Waiting(Box<Pending>),
    Picking,
    Relayed(Asking),
    Answering(Box<Answer>),
    Over,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    rules: Arc<Rules>,
    /// Number that makes up for a missing request id.
    serial: u64,
    state: State,
    in_flight: Option<InFlight>,
}

impl Stream {
    /// A stream on which nothing happened. `serial` is unique among streams.
    pub fn new(rules: Arc<Rules>, serial: u64) -> Self {
        Self {
            rules,
            serial,
            state: State::Start,
            in_flight: None,
        }
    }

    /// How far the stream is.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Start => Phase::Start,
            State::Gathering(_) => Phase::Gathering,
            State::Waiting(_) | State::Picking => Phase::Waiting,
            State::Relayed(_) => Phase::Relayed,
            State::Answering(_) => Phase::Answering,
            State::Over => Phase::Over,
        }
    }

    /// Takes `event` at `now`; what follows from it is appended to `out`.
    pub fn on(&mut self, now: Duration, event: Event, out: &mut Actions) {
        let name = event.name();
        let taken = match event {
            Event::RequestHeaders {
                headers,
                end_of_stream,
                subset,
            } => self.request_headers(&headers, end_of_stream, subset, out),
            Event::RequestBody {
                body,
                end_of_stream,
            } => self.request_body(body, end_of_stream, out),
            Event::RequestTrailers => self.request_trailers(out),
            Event::Verdict(verdict) => self.verdict(verdict, out),
            Event::Picked(endpoint) => self.picked(endpoint, out),
            Event::ResponseHeaders {
                headers,
                end_of_stream,
            } => self.response_headers(now, &headers, end_of_stream, out),
            Event::ResponseBody {
                body,
                end_of_stream,
            } => self.response_body(now, body, end_of_stream, out),
            Event::ResponseTrailers => self.response_trailers(now, out),
            Event::Closed => self.closed(now, out),
        };
        if !taken {
            let error = ProtocolError {
                event: name,
                phase: self.phase(),
            };
            self.closed(now, out);
            out.push_back(Action::Fail(error));
        }
    }

    fn request_headers(
        &mut self,
        headers: &[Header],
        end_of_stream: bool,
        subset: Option<Vec<String>>,
        out: &mut Actions,
    ) -> bool {
        if !matches!(self.state, State::Start) {
            return false;
        }
        let subset = subset.filter(|_| self.rules.subsets);
        if end_of_stream {
            // Nothing to read a model or a prompt from (a GET): any endpoint will do.
            self.state = State::Picking;
            out.push_back(Action::PickAny(subset));
        } else {
            self.state = State::Gathering(Box::new(Gathering::new(headers, subset)));
        }
        true
    }

    fn request_body(&mut self, body: Bytes, end_of_stream: bool, out: &mut Actions) -> bool {
        match &mut self.state {
            State::Gathering(gathering) => {
                if let Err(error) = gathering.push(body, self.rules.max_request_bytes) {
                    self.reject(&error, out);
                } else if end_of_stream {
                    self.submit(false, out);
                }
                true
            }
            State::Start => false,
            // A second end of the body, or what a proxy sends although the client was answered.
            _ => true,
        }
    }

    fn request_trailers(&mut self, out: &mut Actions) -> bool {
        match self.state {
            State::Gathering(_) => self.submit(true, out),
            State::Start => return false,
            _ => {}
        }
        true
    }

    /// The body is complete: parses it and asks the director.
    fn submit(&mut self, trailers: bool, out: &mut Actions) {
        let State::Gathering(gathering) = std::mem::replace(&mut self.state, State::Over) else {
            return;
        };
        match gathering.submission(&self.rules, self.serial, trailers) {
            Ok((submission, pending)) => {
                self.state = State::Waiting(Box::new(pending));
                out.push_back(Action::Submit(Box::new(submission)));
            }
            Err(error) => self.reject(&error, out),
        }
    }

    fn reject(&mut self, error: &RequestError, out: &mut Actions) {
        let body = openai_error(error.status(), &error.to_string(), error.param(), None);
        self.answer(immediate(error.status(), "rejected-bad-request", body), out);
    }

    /// Answers the client from here and closes.
    fn answer(&mut self, immediate: Immediate, out: &mut Actions) {
        self.state = State::Over;
        out.push_back(Action::Send(Reply::Immediate(immediate)));
        out.push_back(Action::Finish);
    }

    fn verdict(&mut self, verdict: Verdict, out: &mut Actions) -> bool {
        // A verdict that nobody waits for any more is dropped, and gives its load back with that.
        let State::Waiting(pending) = std::mem::replace(&mut self.state, State::Over) else {
            return true;
        };
        match verdict {
            Verdict::Refused(refusal) => self.answer(refused(&refusal), out),
            Verdict::Dispatched(dispatch) => {
                self.state = State::Relayed(pending.relay(&dispatch, &self.rules, out));
                self.in_flight = Some(dispatch.in_flight);
            }
        }
        true
    }

    fn picked(&mut self, endpoint: Option<Arc<str>>, out: &mut Actions) -> bool {
        if !matches!(self.state, State::Picking) {
            return true;
        }
        match endpoint {
            Some(endpoints) => {
                self.state = State::Relayed(Asking::Nothing);
                let destination = Some(Destination {
                    endpoints,
                    scores: Vec::new(),
                });
                out.push_back(Action::Send(Reply::RequestHeaders(HeaderChange {
                    destination,
                    ..Default::default()
                })));
            }
            None => self.answer(no_endpoints(), out),
        }
        true
    }

    fn response_headers(
        &mut self,
        now: Duration,
        headers: &[Header],
        end: bool,
        out: &mut Actions,
    ) -> bool {
        let asking = match &mut self.state {
            State::Relayed(asking) => std::mem::take(asking),
            // The proxy answers by itself (a client too slow, a body too large): nothing is wanted any more.
            State::Gathering(_) | State::Waiting(_) => {
                self.withdraw(out);
                Asking::Nothing
            }
            State::Start | State::Picking | State::Answering(_) | State::Over => return false,
        };
        let (answer, change) = Answer::new(headers, asking);
        out.push_back(Action::Send(Reply::ResponseHeaders(change)));
        self.state = State::Answering(Box::new(answer));
        if end {
            self.complete(now, out);
        }
        true
    }

    fn response_body(&mut self, now: Duration, body: Bytes, end: bool, out: &mut Actions) -> bool {
        match &mut self.state {
            State::Answering(answer) => {
                answer.push(now, body, end, self.in_flight.as_mut(), out);
                if end {
                    self.complete(now, out);
                }
                true
            }
            State::Over => true,
            _ => false,
        }
    }

    fn response_trailers(&mut self, now: Duration, out: &mut Actions) -> bool {
        match &mut self.state {
            State::Answering(answer) => {
                answer.flush(now, self.in_flight.as_mut(), out);
                out.push_back(Action::Send(Reply::ResponseTrailers));
                self.complete(now, out);
                true
            }
            State::Over => true,
            _ => false,
        }
    }

    /// The answer was relayed to its end.
    fn complete(&mut self, now: Duration, out: &mut Actions) {
        let end = match &self.state {
            State::Answering(answer) => answer.end(),
            _ => End::ClientGone,
        };
        self.end(now, end, out);
        out.push_back(Action::Finish);
    }

    fn closed(&mut self, now: Duration, out: &mut Actions) -> bool {
        self.withdraw(out);
        self.end(now, End::ClientGone, out);
        true
    }

    fn withdraw(&mut self, out: &mut Actions) {
        if matches!(self.state, State::Waiting(_)) {
            out.push_back(Action::Withdraw);
        }
    }

    fn end(&mut self, now: Duration, end: End, out: &mut Actions) {
        let status = match &self.state {
            State::Answering(answer) => Some(answer.status()),
            _ => None,
        };
        self.state = State::Over;
        if let Some(in_flight) = self.in_flight.take() {
            out.push_back(Action::Ended(Box::new(Ended {
                completion: in_flight.finish(now, end),
                status,
            })));
        }
    }
}

/// An answer of the picker's own: JSON, and why the request was dropped.
fn immediate(status: u16, reason: &'static str, body: Bytes) -> Immediate {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        (header::DROPPED_REASON, reason.to_owned()),
    ];
    Immediate {
        status,
        headers,
        body,
        details: reason,
    }
}

/// The answer to a request that was right but cannot be served now; says when to come back.
fn unavailable(
    status: u16,
    reason: &'static str,
    message: &str,
    after: Option<Duration>,
) -> Immediate {
    let mut answer = immediate(
        status,
        reason,
        openai_error(status, message, None, Some(reason)),
    );
    let seconds = after.map_or(1, |after| after.as_secs().max(1));
    answer.headers.push(("retry-after", seconds.to_string()));
    answer
}

/// The answer to a request that the director refused.
fn refused(refusal: &Refusal) -> Immediate {
    unavailable(
        refusal.status,
        refusal.reason,
        &refusal.message,
        refusal.retry_after,
    )
}

/// The answer to a request without a body when there is nowhere to send it.
fn no_endpoints() -> Immediate {
    unavailable(
        503,
        "rejected-no-endpoints",
        "no model server is ready",
        None,
    )
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;

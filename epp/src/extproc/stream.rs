//! One ext_proc stream as a state machine without I/O.
//!
//! The protocol's rules live here: nothing is answered before the request's body is complete, replies
//! keep the order headers, body, trailers in each direction, the end of a body is announced once, a
//! second end is ignored, and a stream may be cut in every phase. A dispatched request holds its
//! reserved load ([`InFlight`]) as long as the stream lives, and no longer.

use super::protocol::{Action, Actions, Ended, Event, Phase, ProtocolError, Rules};
use super::reply::{Immediate, Reply};
use super::request::{Bodyless, Gathering, Pending};
use super::response::{Answer, Relayed};
use crate::api::error::{ErrorShape, RequestError};
use crate::api::head::{Header, attempts};
use bytes::Bytes;
use epp_core::{End, InFlight, Refusal, Verdict};
use names::dropped_reason;
use names::header;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
enum State {
    Start,
    Gathering(Box<Gathering>),
    Waiting(Box<Pending>),
    Picking(Bodyless),
    Relayed(Box<Relayed>),
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
    /// How the client is told of errors.
    errors: ErrorShape,
    in_flight: Option<InFlight>,
}

impl Stream {
    /// A stream on which nothing happened. `serial` is unique among streams.
    pub fn new(rules: Arc<Rules>, serial: u64) -> Self {
        Self {
            rules,
            serial,
            state: State::Start,
            errors: ErrorShape::default(),
            in_flight: None,
        }
    }

    /// How far the stream is.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Start => Phase::Start,
            State::Gathering(_) => Phase::Gathering,
            State::Waiting(_) | State::Picking(_) => Phase::Waiting,
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
                served,
            } => {
                if let (Some(in_flight), Some(served)) = (&mut self.in_flight, served) {
                    in_flight.served_by(now, served, attempts(&headers) > Some(1));
                }
                self.response_headers(now, &headers, end_of_stream, out)
            }
            Event::ResponseBody {
                body,
                end_of_stream,
            } => self.response_body(now, body, end_of_stream, out),
            Event::ResponseTrailers { grpc_status } => {
                self.response_trailers(now, grpc_status, out)
            }
            Event::Evicted(reason) => self.evicted(now, reason, out),
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
            let (bodyless, errors) = Bodyless::new(headers, &self.rules, self.serial);
            self.errors = errors;
            self.state = State::Picking(bodyless);
            out.push_back(Action::PickAny(subset));
        } else {
            let gathering = Gathering::new(headers, subset, &self.rules);
            self.errors = gathering.errors();
            self.state = State::Gathering(Box::new(gathering));
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
        let answer = match error {
            RequestError::Crowded => unavailable(
                self.errors,
                error.status(),
                dropped_reason::SATURATED,
                &error.to_string(),
                None,
            ),
            _ => {
                let (status, errors) = (error.status(), self.errors);
                let body = errors.body(status, &error.to_string(), error.param(), None);
                immediate(errors, status, dropped_reason::BAD_REQUEST, body)
            }
        };
        self.answer(answer, out);
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
            Verdict::Refused(refusal) => self.answer(refused(self.errors, &refusal), out),
            Verdict::Dispatched(dispatch) => {
                let relayed = pending.relay(&dispatch, &self.rules, out);
                self.state = State::Relayed(Box::new(relayed));
                self.in_flight = Some(dispatch.in_flight);
            }
        }
        true
    }

    fn picked(&mut self, endpoint: Option<Arc<str>>, out: &mut Actions) -> bool {
        if !matches!(self.state, State::Picking(_)) {
            return true;
        }
        let picking = std::mem::replace(&mut self.state, State::Relayed(Box::default()));
        match (picking, endpoint) {
            (State::Picking(bodyless), Some(endpoint)) => {
                out.push_back(Action::Send(bodyless.relay(endpoint)));
            }
            _ => self.answer(no_endpoints(self.errors), out),
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
        let relayed = match &mut self.state {
            State::Relayed(relayed) => std::mem::take(&mut **relayed),
            // The proxy answers by itself (a client too slow, a body too large): nothing is wanted any more.
            State::Gathering(_) | State::Waiting(_) => {
                self.withdraw(out);
                Relayed::default()
            }
            State::Start | State::Picking(_) | State::Answering(_) | State::Over => return false,
        };
        let (answer, mut change) = Answer::new(headers, relayed);
        if let Some(in_flight) = &self.in_flight {
            change.named = self.rules.wanted.answered(in_flight.endpoint());
        }
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

    fn response_trailers(
        &mut self,
        now: Duration,
        grpc_status: Option<u32>,
        out: &mut Actions,
    ) -> bool {
        match &mut self.state {
            State::Answering(answer) => {
                answer.ended_with(grpc_status);
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
        self.report(out);
        let end = match &self.state {
            State::Answering(answer) => answer.end(),
            _ => End::ClientGone,
        };
        self.end(now, end, out);
        out.push_back(Action::Finish);
    }

    /// The request is taken off its server: the client is answered if it has had nothing of an answer yet, else its
    /// answer is cut off.
    fn evicted(&mut self, now: Duration, reason: &'static str, out: &mut Actions) -> bool {
        match self.state {
            State::Relayed(_) => {
                let message = "the request was taken off its server to make room for others";
                let answer = unavailable(self.errors, 429, reason, message, None);
                out.push_back(Action::Send(Reply::Immediate(answer)));
                self.end(now, End::Evicted, out);
                out.push_back(Action::Finish);
            }
            State::Answering(_) => {
                self.end(now, End::Evicted, out);
                out.push_back(Action::Reset(reason));
            }
            // It ended by itself before.
            _ => {}
        }
        true
    }

    /// Tells the proxy with the last message what the configuration computes of the answer's usage.
    fn report(&self, out: &mut Actions) {
        let State::Answering(answer) = &self.state else {
            return;
        };
        let wanted = self.rules.wanted.reports() && self.in_flight.is_some();
        if wanted && let Some(Action::Send(last)) = out.back_mut() {
            let attributes = self.rules.wanted.attributes(&answer.usage());
            if !attributes.is_empty() {
                let reply = std::mem::replace(last, Reply::ResponseTrailers);
                *last = Reply::Telling(Box::new(reply), attributes);
            }
        }
    }

    /// The proxy ended the stream before the answer's end. It does so in the same way whether the client left or
    /// the server died in the middle of its answer: nobody says which, unless the answer's last event had passed,
    /// upon which clients may leave. A server that cannot be reached at all is answered for by the proxy, with a
    /// status of its own.
    fn closed(&mut self, now: Duration, out: &mut Actions) -> bool {
        self.withdraw(out);
        let end = match &self.state {
            State::Answering(answer) if answer.whole() => answer.end(),
            State::Answering(_) => End::BrokenOff,
            _ => End::ClientGone,
        };
        self.end(now, end, out);
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

/// An answer of the picker's own, and why the request was dropped.
fn immediate(errors: ErrorShape, status: u16, reason: &'static str, body: Bytes) -> Immediate {
    let mut headers = vec![(header::DROPPED_REASON, reason.to_owned())];
    headers.extend(
        errors
            .content_type()
            .map(|kind| ("content-type", kind.to_owned())),
    );
    Immediate {
        status,
        headers,
        body,
        grpc_status: errors.grpc_status(status),
        details: reason,
    }
}

/// The answer to a request that was right but cannot be served now; says when to come back.
fn unavailable(
    errors: ErrorShape,
    status: u16,
    reason: &'static str,
    message: &str,
    after: Option<Duration>,
) -> Immediate {
    let body = errors.body(status, message, None, Some(reason));
    let mut answer = immediate(errors, status, reason, body);
    let seconds = after.map_or(1, |after| after.as_secs().max(1));
    answer.headers.push(("retry-after", seconds.to_string()));
    answer
}

/// The answer to a request that the director refused.
fn refused(errors: ErrorShape, refusal: &Refusal) -> Immediate {
    unavailable(
        errors,
        refusal.status,
        refusal.reason,
        &refusal.message,
        refusal.retry_after,
    )
}

/// The answer to a request without a body when there is nowhere to send it.
fn no_endpoints(errors: ErrorShape) -> Immediate {
    unavailable(
        errors,
        503,
        dropped_reason::NO_ENDPOINTS,
        "no model server is ready",
        None,
    )
}

#[cfg(test)]
#[path = "stream_api_tests.rs"]
mod api_tests;
#[cfg(test)]
#[path = "stream_bench.rs"]
mod bench;
#[cfg(test)]
#[path = "stream_end_tests.rs"]
mod endings;
#[cfg(test)]
#[path = "stream_eviction_tests.rs"]
mod eviction;
#[cfg(test)]
#[path = "stream_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;

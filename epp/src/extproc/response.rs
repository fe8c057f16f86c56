//! Hot path: the response's half of a stream: every piece passes at once, and is looked at.

use super::reply::{HeaderChange, Piece, Reply, pieces};
use super::stream::{Action, Actions};
use crate::api::head::{Header, ResponseHead};
use crate::usage::document::Tail;
use crate::usage::sse::{Seen, Tap};
use crate::usage::tokens::Tokens;
use bytes::Bytes;
use epp_core::{End, InFlight};
use names::header;
use std::time::Duration;

/// An answer on its way to the client.
#[derive(Debug)]
pub(super) struct Answer {
    head: ResponseHead,
    body: Watched,
    /// Pieces that the tap let through, for one call.
    passed: Vec<Bytes>,
    tokens: Tokens,
    /// Events that carried a choice: how far the answer is while its usage is unknown.
    events: u32,
}

/// How the body is looked at.
#[derive(Debug)]
enum Watched {
    /// A stream of events.
    Events(Tap),
    /// One JSON document.
    Document(Tail),
    /// Compressed: nothing can be read.
    Opaque,
}

impl Answer {
    /// From the response's headers, with the change of headers that the proxy is told. `strip`: usage was
    /// asked for in the client's place.
    pub(super) fn new(headers: &[Header], strip: bool) -> (Self, HeaderChange) {
        let head = ResponseHead::read(headers);
        let body = match (head.encoded, head.event_stream) {
            (true, _) => Watched::Opaque,
            (false, true) => Watched::Events(Tap::new(strip)),
            (false, false) => Watched::Document(Tail::default()),
        };
        let mut change = HeaderChange {
            set: vec![(header::RESPONSE_SEEN, Bytes::from_static(b"true"))],
            ..HeaderChange::default()
        };
        if strip && matches!(body, Watched::Events(_)) {
            // The client gets fewer bytes than the server announced, if it announced any.
            change.remove.push("content-length");
        }
        let answer = Self { head, body, passed: Vec::new(), tokens: Tokens::default(), events: 0 };
        (answer, change)
    }

    /// HTTP status.
    pub(super) fn status(&self) -> u16 {
        self.head.status
    }

    /// A piece of the body; `end` when it is the last.
    pub(super) fn push(
        &mut self,
        now: Duration,
        piece: Bytes,
        end: bool,
        in_flight: Option<&mut InFlight>,
        out: &mut Actions,
    ) {
        match &mut self.body {
            Watched::Opaque => self.passed.push(piece),
            Watched::Document(tail) => {
                tail.push(&piece);
                self.passed.push(piece);
            }
            Watched::Events(tap) => {
                let mut found = Found::default();
                tap.push(piece, &mut self.passed, |seen| found.add(seen));
                if end {
                    tap.finish(&mut self.passed, |seen| found.add(seen));
                }
                self.noted(now, found, in_flight, out);
            }
        }
        self.pass(end, out);
    }

    /// The body ends without an end of its own, because trailers follow.
    pub(super) fn flush(&mut self, now: Duration, in_flight: Option<&mut InFlight>, out: &mut Actions) {
        if let Watched::Events(tap) = &mut self.body {
            let mut found = Found::default();
            tap.finish(&mut self.passed, |seen| found.add(seen));
            self.noted(now, found, in_flight, out);
        }
        self.pass(false, out);
    }

    fn pass(&mut self, end: bool, out: &mut Actions) {
        let last = self.passed.len().saturating_sub(1);
        if self.passed.is_empty() && end {
            out.push_back(Action::Send(Reply::ResponseBody(Piece { body: Bytes::new(), end_of_stream: true })));
        }
        for (index, bytes) in self.passed.drain(..).enumerate() {
            pieces(bytes, end && index == last, |piece| out.push_back(Action::Send(Reply::ResponseBody(piece))));
        }
    }

    fn noted(&mut self, now: Duration, found: Found, in_flight: Option<&mut InFlight>, out: &mut Actions) {
        if let Some(tokens) = found.tokens {
            self.tokens = tokens;
        }
        let Some(in_flight) = in_flight.filter(|_| found.choices > 0 && self.head.status == 200) else { return };
        if self.events == 0 {
            out.push_back(Action::FirstToken(in_flight.first_token(now)));
        }
        self.events = self.events.saturating_add(found.choices);
        in_flight.emitted(self.tokens.output.unwrap_or(self.events));
    }

    /// How the answer ended, relayed to its end.
    pub(super) fn end(&self) -> End {
        let tokens = match &self.body {
            Watched::Document(tail) => tail.tokens(),
            Watched::Events(_) | Watched::Opaque => self.tokens,
        };
        End::Complete {
            status: self.head.status,
            streaming: self.head.event_stream,
            prompt_tokens: tokens.prompt,
            cached_tokens: tokens.cached,
            output_tokens: tokens.output,
        }
    }
}

/// What the events of one piece carried together.
#[derive(Default)]
struct Found {
    choices: u32,
    tokens: Option<Tokens>,
}

impl Found {
    fn add(&mut self, seen: Seen) {
        self.choices += u32::from(seen.choice);
        self.tokens = seen.usage.or(self.tokens);
    }
}

//! Hot path: the response's half of a stream: every piece passes at once, and is looked at.

use super::protocol::{Action, Actions};
use super::reply::{HeaderChange, Reply, pieces};
use crate::api::head::{Header, ResponseHead};
use crate::usage::dialect::Dialect;
use crate::usage::document::Tail;
use crate::usage::sse::{Seen, Strip, Tap};
use crate::usage::tokens::Tokens;
use bytes::Bytes;
use epp_core::{End, InFlight};
use names::header;
use std::time::Duration;

/// What was asked of the server in the client's place.
#[derive(Debug, Default)]
pub(super) enum Asking {
    /// Nothing, and nothing is to be learned from the answer's form.
    #[default]
    Nothing,
    /// Nothing: the answer shows how the server writes unasked.
    Plain(Dialect),
    /// Usage, which is kept from the client.
    Usage {
        /// What is known of how the server writes.
        dialect: Dialect,
        /// Keep `"usage":null` from the client too.
        nulls: bool,
    },
}

impl Asking {
    fn strip(&self) -> Strip {
        match self {
            Self::Nothing | Self::Plain(_) => Strip::Nothing,
            Self::Usage { nulls: false, .. } => Strip::UsageEvent,
            Self::Usage { nulls: true, .. } => Strip::UsageEventAndNulls,
        }
    }

    /// Learns from the first event that carries a choice; the later ones look alike.
    fn learn(&mut self, null: bool) {
        match &*self {
            Self::Nothing => return,
            Self::Plain(dialect) => dialect.plain(null),
            Self::Usage { dialect, .. } if null => dialect.null_when_asked(),
            Self::Usage { .. } => {}
        }
        *self = Self::Nothing;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Only an answer without any event still has something to be learned.
        if let Self::Plain(dialect) = self {
            dialect.probe_failed();
        }
    }
}

/// An answer on its way to the client.
#[derive(Debug)]
pub(super) struct Answer {
    head: ResponseHead,
    body: Watched,
    asking: Asking,
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
    /// From the response's headers, with the change of headers that the proxy is told.
    pub(super) fn new(headers: &[Header], asking: Asking) -> (Self, HeaderChange) {
        let head = ResponseHead::read(headers);
        let strip = asking.strip();
        let body = match (head.encoded, head.event_stream) {
            (true, _) => Watched::Opaque,
            (false, true) => Watched::Events(Tap::new(strip)),
            (false, false) => Watched::Document(Tail::default()),
        };
        let mut change = HeaderChange {
            set: vec![(header::RESPONSE_SEEN, Bytes::from_static(b"true"))],
            ..HeaderChange::default()
        };
        if strip != Strip::Nothing && matches!(body, Watched::Events(_)) {
            // The client gets fewer bytes than the server announced, if it announced any.
            change.remove.push("content-length");
        }
        let answer = Self {
            head,
            body,
            asking,
            passed: Vec::new(),
            tokens: Tokens::default(),
            events: 0,
        };
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
    pub(super) fn flush(
        &mut self,
        now: Duration,
        in_flight: Option<&mut InFlight>,
        out: &mut Actions,
    ) {
        if let Watched::Events(tap) = &mut self.body {
            let mut found = Found::default();
            tap.finish(&mut self.passed, |seen| found.add(seen));
            self.noted(now, found, in_flight, out);
        }
        self.pass(false, out);
    }

    fn pass(&mut self, end: bool, out: &mut Actions) {
        let bytes = match &mut self.passed[..] {
            [] => Bytes::new(),
            [only] => std::mem::take(only),
            // Something was taken out: one message of small remains costs less than several.
            several => Bytes::from(several.concat()),
        };
        self.passed.clear();
        pieces(bytes, end, |piece| {
            out.push_back(Action::Send(Reply::ResponseBody(piece)))
        });
    }

    fn noted(
        &mut self,
        now: Duration,
        found: Found,
        in_flight: Option<&mut InFlight>,
        out: &mut Actions,
    ) {
        if let Some(tokens) = found.tokens {
            self.tokens = tokens;
        }
        if found.choices > 0 {
            self.asking.learn(found.null);
        }
        let Some(in_flight) = in_flight.filter(|_| found.choices > 0 && self.head.status == 200)
        else {
            return;
        };
        if self.events == 0 {
            out.push_back(Action::FirstToken(in_flight.first_token(now)));
        }
        self.events = self.events.saturating_add(found.choices);
        in_flight.progress(now);
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
    /// The first choice came with `"usage":null`.
    null: bool,
}

impl Found {
    fn add(&mut self, seen: Seen) {
        if seen.choice {
            self.null |= self.choices == 0 && seen.null_usage.is_some();
            self.choices += 1;
        }
        self.tokens = seen.usage.or(self.tokens);
    }
}

//! Hot path: the response's half of a stream: every piece passes at once, and is looked at.

use super::protocol::{Action, Actions};
use super::reply::{HeaderChange, Reply, pieces};
use crate::api::error::http_status;
use crate::api::head::{Header, ResponseHead};
use crate::api::paths::Api;
use crate::api::rename::Rename;
use crate::usage::dialect::Dialect;
use crate::usage::sse::{Seen, Strip};
use crate::usage::tokens::Tokens;
use crate::usage::watch::Watch;
use bytes::Bytes;
use epp_core::expression::Usage;
use epp_core::{Advice, End, InFlight};
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

/// What the answer to a request is looked at for.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    /// What was asked in the client's place.
    pub(super) asking: Asking,
    /// What the request speaks.
    pub(super) api: Api,
    /// The answer is read for its first token and usage.
    pub(super) reads: bool,
    /// Puts the client's name for the model back.
    pub(super) back: Option<Rename>,
    /// What the client is told of the queue.
    pub(super) advice: Option<Advice>,
}

/// An answer on its way to the client.
#[derive(Debug)]
pub(super) struct Answer {
    head: ResponseHead,
    grpc: bool,
    watch: Watch,
    asking: Asking,
    back: Option<Rename>,
    /// Pieces that the watch let through, for one call.
    passed: Vec<Bytes>,
    tokens: Tokens,
    /// Output tokens that came as ids.
    ids: u32,
    /// The answer's last event has passed.
    whole: bool,
    /// The server said that it failed in the middle of the answer.
    failed: bool,
    /// Events that carried a choice: how far the answer is while its usage is unknown.
    events: u32,
    /// It passes unread: its pieces are all there is to tell how far it is.
    unread: bool,
}

impl Answer {
    /// From the response's headers, with the change of headers that the proxy is told.
    pub(super) fn new(headers: &[Header], relayed: Relayed) -> (Self, HeaderChange) {
        let Relayed {
            asking,
            api,
            reads,
            mut back,
            advice,
        } = relayed;
        let head = ResponseHead::read(headers);
        let strip = asking.strip();
        if head.encoded {
            // Nothing can be read in it, and nothing be changed.
            back = None;
        }
        let watch = if head.encoded || !reads {
            Watch::Opaque
        } else {
            Watch::of(api, head.event_stream, head.grpc_gzip, strip, &mut back)
        };
        let mut change = HeaderChange {
            set: vec![(header::RESPONSE_SEEN, Bytes::from_static(b"true"))],
            ..HeaderChange::default()
        };
        if let Some(Advice { queued, band_room }) = advice {
            let told = |number: u128| Bytes::from(number.to_string());
            change
                .set
                .push((header::QUEUE_MS, told(queued.as_millis())));
            change.set.push((header::BAND_ROOM, told(band_room.into())));
        }
        let stripped = strip != Strip::Nothing && matches!(watch, Watch::Events(_));
        if stripped || back.is_some() {
            // The client gets fewer or more bytes than the server announced, if it announced any.
            change.remove.push("content-length");
        }
        let answer = Self {
            head,
            grpc: api.grpc(),
            watch,
            asking,
            back,
            passed: Vec::new(),
            tokens: Tokens::default(),
            ids: 0,
            whole: false,
            failed: false,
            events: 0,
            unread: !reads && api.watched(),
        };
        (answer, change)
    }

    /// HTTP status; for a gRPC call the one that says the same as its own, once that is known.
    pub(super) fn status(&self) -> u16 {
        match self.head.grpc_status {
            Some(status) if self.grpc && self.head.status == 200 => http_status(status),
            _ => self.head.status,
        }
    }

    /// Trailers told how a gRPC call ended.
    pub(super) fn ended_with(&mut self, grpc_status: Option<u32>) {
        self.head.grpc_status = grpc_status.or(self.head.grpc_status);
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
        let mut found = Found::default();
        if self.unread && self.head.event_stream && !piece.is_empty() {
            found.choices = 1;
        }
        self.watch
            .push(piece, &mut self.passed, |seen| found.add(seen));
        if end {
            self.watch.finish(&mut self.passed, |seen| found.add(seen));
        }
        self.noted(now, found, in_flight, out);
        self.pass(end, end, out);
    }

    /// The body ends without an end of its own, because trailers follow.
    pub(super) fn flush(
        &mut self,
        now: Duration,
        in_flight: Option<&mut InFlight>,
        out: &mut Actions,
    ) {
        let mut found = Found::default();
        self.watch.finish(&mut self.passed, |seen| found.add(seen));
        self.noted(now, found, in_flight, out);
        self.pass(true, false, out);
    }

    /// Gives out what was let through; `last` when nothing follows, `end` when that is to be said here.
    fn pass(&mut self, last: bool, end: bool, out: &mut Actions) {
        if let Some(back) = &mut self.back {
            let mut renamed = Vec::new();
            for piece in self.passed.drain(..) {
                back.push(piece, &mut renamed);
            }
            if last {
                back.finish(&mut renamed);
            }
            self.passed = renamed;
        }
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
        self.tokens = self.tokens.merge(found.tokens);
        self.ids = self.ids.saturating_add(found.ids);
        self.whole |= found.last;
        self.failed |= found.failed;
        if found.choices > 0 {
            self.asking.learn(found.null);
        }
        let Some(in_flight) = in_flight.filter(|_| found.choices > 0 && self.head.status == 200)
        else {
            return;
        };
        if self.events == 0 {
            // A first piece need not be a first token: nothing is learned from it.
            let label = in_flight.first_token(now).filter(|_| !self.unread);
            out.push_back(Action::FirstToken(label));
        }
        self.events = self.events.saturating_add(found.choices);
        in_flight.progress(now);
        in_flight.emitted(self.output_tokens().unwrap_or(0).max(self.events));
    }

    /// Token counts as far as they were told.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            prompt: self.tokens.whole_prompt(),
            cached: self.tokens.cached,
            output: self.output_tokens(),
        }
    }

    /// Output tokens as told, or as counted where they came as ids.
    fn output_tokens(&self) -> Option<u32> {
        let counted = (self.ids > 0).then_some(self.ids);
        self.tokens.output.max(counted)
    }

    /// Whether nothing of the answer is missing, although its end was not told.
    pub(super) fn whole(&self) -> bool {
        self.whole
    }

    /// How the answer ended, relayed to its end.
    pub(super) fn end(&self) -> End {
        if self.failed && self.head.status == 200 {
            return End::UpstreamCut;
        }
        let usage = self.usage();
        End::Complete {
            status: self.status(),
            streaming: self.head.event_stream || self.events > 0,
            prompt_tokens: usage.prompt,
            cached_tokens: usage.cached,
            output_tokens: usage.output,
        }
    }
}

/// What the events of one piece carried together.
#[derive(Default)]
struct Found {
    choices: u32,
    tokens: Tokens,
    ids: u32,
    /// The first choice came with `"usage":null`.
    null: bool,
    last: bool,
    failed: bool,
}

impl Found {
    fn add(&mut self, seen: Seen) {
        if seen.choice {
            self.null |= self.choices == 0 && seen.null_usage.is_some();
            self.choices += 1;
        }
        self.tokens = self.tokens.merge(seen.usage.unwrap_or_default());
        self.ids = self.ids.saturating_add(seen.ids);
        self.last |= seen.last;
        self.failed |= seen.failed;
    }
}

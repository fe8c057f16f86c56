//! A stream and a real director, driven as the shell drives them; and what a proxy says.

use super::*;
use crate::extproc::budget::Budget;
use crate::extproc::reply::Piece;
use epp_core::{Config, Director, EndpointSpec, Objectives, Outcome, Pool};

/// A director with one endpoint and a stream, driven as the shell drives them.
pub(super) struct Bench {
    pub(super) director: Director,
    pub(super) pool: Arc<Pool>,
    pub(super) stream: Stream,
    pub(super) now: Duration,
    pub(super) ticket: Option<epp_core::Ticket>,
    pub(super) replies: Vec<Reply>,
    pub(super) ended: Vec<Ended>,
    pub(super) finished: bool,
    pub(super) failed: Option<ProtocolError>,
    pub(super) reset: Option<&'static str>,
}

pub(super) fn rules() -> Rules {
    Rules {
        objectives: Objectives::default(),
        default_slo: epp_core::Slo::NONE,
        rewrites: Arc::default(),
        hashing: Director::new(Config::default(), 1).prefix_hashing(),
        max_request_bytes: 100_000,
        bodies: Arc::new(Budget::new(150_000)),
        inject_usage: true,
        emit_scores: false,
        subsets: true,
        dialects: Arc::default(),
        parsers: Arc::default(),
        wanted: Arc::default(),
    }
}

impl Bench {
    pub(super) fn new(endpoints: usize) -> Self {
        Self::with(
            Config::llmd_default().with_max_concurrency(1),
            endpoints,
            rules(),
        )
    }

    pub(super) fn with(config: Config, endpoints: usize, rules: Rules) -> Self {
        let mut director = Director::new(config, 1);
        let specs = (0..endpoints)
            .map(|index| EndpointSpec {
                name: format!("e{index}"),
                address: format!("10.0.0.{}:8000", index + 1),
                labels: Default::default(),
            })
            .collect();
        let pool = Arc::new(Pool::default().updated(specs));
        director.set_pool(Duration::ZERO, Arc::clone(&pool));
        Self {
            director,
            pool,
            stream: Stream::new(Arc::new(rules), 7),
            now: Duration::ZERO,
            ticket: None,
            replies: Vec::new(),
            ended: Vec::new(),
            finished: false,
            failed: None,
            reset: None,
        }
    }

    /// Another stream after the first, with the same director.
    pub(super) fn again(&mut self) {
        self.stream = Stream::new(Arc::clone(&self.stream.rules), 8);
        self.replies.clear();
        self.ended.clear();
        (self.ticket, self.finished, self.failed) = (None, false, None);
    }

    pub(super) fn on(&mut self, event: Event) {
        self.now += Duration::from_millis(10);
        let mut actions = Actions::new();
        self.stream.on(self.now, event, &mut actions);
        while let Some(action) = actions.pop_front() {
            self.act(action, &mut actions);
        }
    }

    pub(super) fn act(&mut self, action: Action, actions: &mut Actions) {
        match action {
            Action::Submit(submission) => {
                self.ticket = Some(self.director.submit(self.now, submission.request));
                self.deliver(actions);
            }
            Action::PickAny(_) => {
                let any = self
                    .pool
                    .endpoints
                    .first()
                    .map(|endpoint| Arc::clone(&endpoint.address));
                self.stream.on(self.now, Event::Picked(any), actions);
            }
            Action::Withdraw => {
                let ticket = self
                    .ticket
                    .take()
                    .expect("only what was submitted is withdrawn");
                self.director.cancel(self.now, ticket);
                while self.director.poll().is_some() {}
            }
            Action::Send(reply) => self.replies.push(reply),
            Action::FirstToken(_) => {}
            Action::Ended(ended) => self.ended.push(*ended),
            Action::Finish => self.finished = true,
            Action::Fail(error) => self.failed = Some(error),
            Action::Reset(reason) => self.reset = Some(reason),
        }
    }

    pub(super) fn deliver(&mut self, actions: &mut Actions) {
        while let Some((ticket, verdict)) = self.director.poll() {
            if self.ticket == Some(ticket) {
                self.ticket = None;
                self.stream.on(self.now, Event::Verdict(verdict), actions);
            }
        }
    }

    /// Time passes for the director.
    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.director.advance(self.now);
        let mut actions = Actions::new();
        self.deliver(&mut actions);
        while let Some(action) = actions.pop_front() {
            self.act(action, &mut actions);
        }
    }

    pub(super) fn request(&mut self, body: &str) {
        self.on(request_headers(&[], false));
        self.on(request_body(body, true));
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.pool
            .endpoints
            .iter()
            .map(|endpoint| endpoint.load.snapshot().in_flight)
            .sum()
    }

    pub(super) fn outcomes(&self) -> Vec<(Outcome, u64)> {
        let totals = self.director.demand().totals();
        let count = |outcome| totals.outcome(outcome).requests;
        Outcome::ALL
            .into_iter()
            .map(|outcome| (outcome, count(outcome)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    pub(super) fn request_bytes(&self) -> Vec<u8> {
        bytes(&self.replies, request_piece)
    }

    pub(super) fn response_bytes(&self) -> Vec<u8> {
        bytes(&self.replies, response_piece)
    }

    pub(super) fn immediate(&self) -> &Immediate {
        match &self.replies[..] {
            [Reply::Immediate(immediate)] => immediate,
            other => panic!("one immediate answer expected: {other:?}"),
        }
    }
}

pub(super) fn request_piece(reply: &Reply) -> Option<&Piece> {
    match reply {
        Reply::RequestBody(piece) => Some(piece),
        _ => None,
    }
}

pub(super) fn response_piece(reply: &Reply) -> Option<&Piece> {
    match reply {
        Reply::ResponseBody(piece) => Some(piece),
        _ => None,
    }
}

pub(super) fn bytes(replies: &[Reply], of: impl Fn(&Reply) -> Option<&Piece>) -> Vec<u8> {
    replies
        .iter()
        .filter_map(of)
        .flat_map(|piece| piece.body.to_vec())
        .collect()
}

pub(super) fn request_headers(extra: &[(&str, &str)], end_of_stream: bool) -> Event {
    let mut headers = vec![
        Header::new(":path", "/v1/completions"),
        Header::new("x-request-id", "r1"),
    ];
    headers.extend(extra.iter().map(|(name, value)| Header::new(name, value)));
    Event::RequestHeaders {
        headers,
        end_of_stream,
        subset: None,
    }
}

pub(super) fn request_body(body: &str, end_of_stream: bool) -> Event {
    Event::RequestBody {
        body: Bytes::copy_from_slice(body.as_bytes()),
        end_of_stream,
    }
}

pub(super) fn response_headers(status: &str, content_type: &str, end_of_stream: bool) -> Event {
    let headers = vec![
        Header::new(":status", status),
        Header::new("content-type", content_type),
    ];
    Event::ResponseHeaders {
        headers,
        end_of_stream,
        served: None,
    }
}

pub(super) fn response_body(body: &str, end_of_stream: bool) -> Event {
    Event::ResponseBody {
        body: Bytes::copy_from_slice(body.as_bytes()),
        end_of_stream,
    }
}

pub(super) const BODY: &str = r#"{"model":"m","prompt":"hello"}"#;
pub(super) const STREAMED: &str = r#"{"model":"m","prompt":"hello","stream":true}"#;
pub(super) const JSON: &str = "application/json";
pub(super) const SSE: &str = "text/event-stream";
pub(super) const TOKEN: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
pub(super) const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3}}\n\n";

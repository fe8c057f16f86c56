//! Hot path: the gRPC service. Each stream is polled by its connection and runs its state machine in
//! place: no task, no channel and no lock of its own between two messages.

use super::hub::{Hub, Submitted};
use super::incoming::event;
use super::protocol::{Action, Actions, Ended, Event, Submission};
use super::reply::{Immediate, Reply};
use super::stream::Stream as Machine;
use super::wire::{self, ProcessingRequest, ProcessingResponse};
use crate::api::head::Header;
use crate::spans::{Trace, Value};
use crate::telemetry::StreamCode;
use crate::telemetry::account::Account;
use bytes::Bytes;
use epp_core::{Outcome, Ticket, Verdict};
use names::header;
use predictor::Observation;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::codegen::{Body, BoxFuture, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// OpenTelemetry's name of an attribute.
const HTTP_STATUS: &str = "http.response.status_code";

/// `envoy.service.ext_proc.v3.ExternalProcessor`.
#[derive(Clone, Debug)]
pub struct ExternalProcessor {
    hub: Arc<Hub>,
    /// Largest message taken, bytes.
    max_message: usize,
}

impl ExternalProcessor {
    /// The service over `hub`; messages above `max_message` bytes are refused.
    pub fn new(hub: Arc<Hub>, max_message: usize) -> Self {
        Self { hub, max_message }
    }
}

impl NamedService for ExternalProcessor {
    const NAME: &'static str = wire::SERVICE;
}

impl<B> tonic::codegen::Service<http::Request<B>> for ExternalProcessor
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != wire::PROCESS {
            return Box::pin(ready(Ok(Status::unimplemented(
                "only Process is served here",
            )
            .into_http())));
        }
        let process = Process(Arc::clone(&self.hub));
        let max_message = self.max_message;
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default())
                .apply_max_message_size_config(Some(max_message), None);
            Ok(grpc.streaming(process, request).await)
        })
    }
}

struct Process(Arc<Hub>);

impl StreamingService<ProcessingRequest> for Process {
    type Response = ProcessingResponse;
    type ResponseStream = Exchange;
    type Future = Ready<Result<Response<Exchange>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<ProcessingRequest>>) -> Self::Future {
        ready(Ok(Response::new(Exchange::new(
            Arc::clone(&self.0),
            request.into_inner(),
        ))))
    }
}

/// One stream: the proxy's messages in, ours out.
pub struct Exchange {
    hub: Arc<Hub>,
    inbound: Streaming<ProcessingRequest>,
    machine: Machine,
    actions: Actions,
    queued: Option<(Ticket, oneshot::Receiver<Verdict>)>,
    account: Option<Account>,
    /// Number of the stream.
    serial: u64,
    trace: Option<Box<Trace>>,
    /// Where the request may be taken off its server: tells when it is.
    evictable: Option<(Ticket, oneshot::Receiver<&'static str>)>,
    /// What the first token taught, until the answer has ended well.
    first_label: Option<Observation>,
    opened: Duration,
    code: Option<StreamCode>,
    /// HTTP status of the answer, as far as there is one.
    status: Option<u16>,
    /// The request was not served, and not because its client left.
    failed: bool,
}

impl Exchange {
    fn new(hub: Arc<Hub>, inbound: Streaming<ProcessingRequest>) -> Self {
        let opened = hub.clock.now();
        let (rules, serial) = hub.begin();
        hub.telemetry.streams_inflight.inc();
        Self {
            hub,
            inbound,
            machine: Machine::new(rules, serial),
            actions: Actions::new(),
            queued: None,
            account: None,
            serial,
            trace: None,
            evictable: None,
            first_label: None,
            opened,
            code: None,
            status: None,
            failed: false,
        }
    }

    /// Tells the machine what happened, now.
    fn feed(&mut self, event: Event) -> Duration {
        let now = self.hub.clock.now();
        self.machine.on(now, event, &mut self.actions);
        now
    }

    /// Tells the machine what the proxy said, and telemetry of it.
    fn hear(&mut self, event: Event) {
        if let (Some(tracer), Event::RequestHeaders { headers, .. }) =
            (&self.hub.telemetry.tracer, &event)
        {
            let named = |one: &&Header| {
                one.name
                    .eq_ignore_ascii_case(header::TRACEPARENT.as_bytes())
            };
            let parent = headers.iter().find(named).map(|header| &*header.value);
            self.trace = tracer.begin(parent).map(Box::new);
        }
        let piece = match &event {
            Event::ResponseBody { body, .. } => Some(body.len()),
            _ => None,
        };
        if let (
            Some(account),
            Event::ResponseHeaders {
                served: Some(served),
                ..
            },
        ) = (&mut self.account, &event)
        {
            account.served_by(&self.hub, served);
        }
        let now = self.feed(event);
        if let (Some(account), Some(bytes)) = (&mut self.account, piece) {
            account.piece(now, bytes);
            if account.profiled() {
                account.relayed(self.hub.clock.now().saturating_sub(now));
            }
        }
    }

    /// Carries out what stands next; a reply is returned, and so is the end of the stream.
    fn act(&mut self, action: Action) -> Option<Result<Reply, Option<Status>>> {
        match action {
            Action::Send(mut reply) => {
                if let Reply::Immediate(immediate) = &reply {
                    self.status = Some(immediate.status);
                    self.failed |= immediate.status == 429;
                }
                match (&mut reply, &self.account, &self.trace) {
                    (Reply::Immediate(immediate), Some(account), _) => {
                        account.series.error(error_code(immediate.status));
                    }
                    (
                        Reply::Immediate(Immediate {
                            status, details, ..
                        }),
                        None,
                        _,
                    ) => {
                        let telemetry = &self.hub.telemetry;
                        telemetry.refused_unread(*status, details, error_code(*status));
                    }
                    (Reply::RequestHeaders(change), _, Some(trace)) => {
                        let traceparent = Bytes::from(trace.traceparent());
                        change.set.push((header::TRACEPARENT, traceparent));
                    }
                    _ => {}
                }
                return Some(Ok(reply));
            }
            Action::Submit(submission) => self.submit(*submission),
            Action::PickAny(subset) => {
                let endpoint = self.hub.any_endpoint(subset.as_deref());
                self.feed(Event::Picked(endpoint));
            }
            Action::Withdraw => {
                if let Some(account) = &mut self.account {
                    account.withdrawn(&self.hub, self.hub.clock.now());
                }
                if let Some((ticket, verdict)) = self.queued.take() {
                    // A verdict that nobody read may hold reserved room: it goes back before others are let in.
                    drop(verdict);
                    self.hub.withdraw(ticket);
                }
            }
            Action::FirstToken(observation) => {
                if let Some(account) = &mut self.account {
                    account.first_token(self.hub.clock.now());
                }
                self.first_label = observation;
            }
            Action::Ended(ended) => self.ended(*ended),
            Action::Finish => {
                self.code = Some(StreamCode::Ok);
                return Some(Err(None));
            }
            Action::Fail(error) => {
                tracing::warn!(%error, "stream closed");
                self.code = Some(StreamCode::FailedPrecondition);
                self.failed = true;
                return Some(Err(Some(Status::failed_precondition(error.to_string()))));
            }
            Action::Reset(reason) => {
                self.code = Some(StreamCode::ResourceExhausted);
                return Some(Err(Some(Status::resource_exhausted(reason))));
            }
        }
        None
    }

    fn submit(&mut self, mut submission: Submission) {
        let (hub, now) = (&self.hub, self.hub.clock.now());
        let trace = self.trace.as_deref();
        let account = Account::open(hub, self.opened, now, self.serial, &mut submission, trace);
        self.account = Some(account);
        let request = submission.request;
        let bytes = request.bytes;
        match self.hub.submit(now, request) {
            Submitted::Decided(verdict) => self.decided(verdict),
            Submitted::Queued(ticket, receiver) => {
                if let Some(account) = &mut self.account {
                    account.queued(self.hub.clock.now(), bytes);
                }
                self.queued = Some((ticket, receiver));
            }
        }
    }

    fn decided(&mut self, verdict: Verdict) {
        let now = self.hub.clock.now();
        if let Verdict::Dispatched(dispatch) = &verdict {
            self.hub
                .trainer
                .note_dispatch(&dispatch.endpoint.class, now);
            let ticket = dispatch.in_flight.evictable();
            self.evictable = ticket.map(|ticket| (ticket, self.hub.follow_eviction(ticket)));
        }
        if let Some(account) = &mut self.account {
            account.decided(&self.hub, now, &verdict, self.trace.as_deref_mut());
        }
        self.feed(Event::Verdict(verdict));
    }

    fn ended(&mut self, ended: Ended) {
        if let Some((ticket, _)) = self.evictable.take() {
            self.hub.forget_eviction(ticket);
        }
        self.hub.pump();
        let Ended { completion, status } = ended;
        self.status = status.or(self.status);
        let outcome = completion.outcome;
        self.failed |= matches!(outcome, Outcome::UpstreamCut | Outcome::Evicted);
        let Some(account) = &mut self.account else {
            return;
        };
        let at = self.hub.clock.now();
        account.ended(&self.hub, at, &completion, status);
        // An answer that was cancelled or cut teaches nothing, not even how it began. A label arrives when it is
        // handed over, so that labels keep the order of their times.
        let first = self
            .first_label
            .take()
            .filter(|_| completion.outcome == Outcome::Served);
        let first = first.map(|label| Observation { at, ..label });
        let class = account.class.as_deref().unwrap_or_default();
        for observation in first.into_iter().chain(completion.observations) {
            self.hub.trainer.observe(class, observation);
        }
    }

    /// The next message from the proxy, or the director's verdict.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some((_, receiver)) = &mut self.queued
            && let Poll::Ready(verdict) = Pin::new(receiver).poll(context)
        {
            self.queued = None;
            match verdict {
                Ok(verdict) => self.decided(verdict),
                // Only a director that is gone drops its senders: the process ends.
                Err(_) => self.cut(),
            }
            return Poll::Ready(());
        }
        if let Some((_, told)) = &mut self.evictable
            && let Poll::Ready(told) = Pin::new(told).poll(context)
        {
            self.evictable = None;
            if let Ok(reason) = told {
                self.feed(Event::Evicted(reason));
            }
            return Poll::Ready(());
        }
        match Pin::new(&mut self.inbound).poll_next(context) {
            Poll::Ready(Some(Ok(message))) => {
                if let Some(event) = event(message, &self.hub) {
                    self.hear(event);
                }
                Poll::Ready(())
            }
            Poll::Ready(Some(Err(status))) => {
                tracing::debug!(%status, "stream broken off");
                self.cut();
                Poll::Ready(())
            }
            Poll::Ready(None) => {
                self.cut();
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The proxy will say nothing more.
    fn cut(&mut self) {
        self.feed(Event::Closed);
        self.actions.push_back(Action::Finish);
    }
}

impl Stream for Exchange {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            while let Some(action) = self.actions.pop_front() {
                match self.act(action) {
                    Some(Ok(reply)) => return Poll::Ready(Some(Ok(reply.into()))),
                    Some(Err(Some(status))) => return Poll::Ready(Some(Err(status))),
                    Some(Err(None)) => return Poll::Ready(None),
                    None => {}
                }
            }
            if self.code.is_some() {
                return Poll::Ready(None);
            }
            match self.poll_event(context) {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Exchange {
    /// The connection may drop a stream at any moment: what it holds is given back all the same.
    fn drop(&mut self) {
        let code = self.code.unwrap_or(StreamCode::Cancelled);
        self.feed(Event::Closed);
        while let Some(action) = self.actions.pop_front() {
            match action {
                Action::Withdraw | Action::Ended(_) | Action::FirstToken(_) => {
                    drop(self.act(action))
                }
                Action::Submit(_)
                | Action::PickAny(_)
                | Action::Send(_)
                | Action::Finish
                | Action::Fail(_)
                | Action::Reset(_) => {}
            }
        }
        let now = self.hub.clock.now();
        let life = now.saturating_sub(self.opened);
        self.hub.telemetry.stream_ended(code, life);
        if let (Some(mut trace), Some(tracer)) = (self.trace.take(), &self.hub.telemetry.tracer) {
            let account = self.account.as_ref();
            let mut attributes = account.map_or_else(Vec::new, Account::attributes);
            let status = self.status.map(|status| Value::Int(status.into()));
            attributes.extend(status.map(|status| (HTTP_STATUS, status)));
            let failed = self.failed || self.status.is_some_and(|status| status >= 500);
            trace.request(self.opened, now, attributes, failed);
            tracer.take(*trace);
        }
    }
}

/// llm-d's name of the error behind an answer of ours.
fn error_code(status: u16) -> &'static str {
    match status {
        400..=428 => "BadRequest",
        429 => "ResourceExhausted",
        503 => "ServiceUnavailable",
        _ => "Internal",
    }
}

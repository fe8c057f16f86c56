//! Hot path: the gRPC service. Each stream is polled by its connection and runs its state machine in
//! place: no task, no channel and no lock of its own between two messages.

use super::hub::{Hub, Submitted};
use super::incoming::event;
use super::protocol::{Action, Actions, Ended, Event, Submission};
use super::reply::Reply;
use super::stream::Stream as Machine;
use super::wire::{self, ProcessingRequest, ProcessingResponse};
use crate::telemetry::StreamCode;
use crate::telemetry::series::Series;
use epp_core::{Outcome, Slo, Ticket, Verdict};
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
    /// Where the request may be taken off its server: tells when it is.
    evictable: Option<(Ticket, oneshot::Receiver<&'static str>)>,
    request: Option<Subject>,
    /// What the first token taught, until the answer has ended well.
    first_label: Option<Observation>,
    opened: Duration,
    code: Option<StreamCode>,
}

/// What telemetry needs to know of the request.
struct Subject {
    id: String,
    series: Arc<Series>,
    slo: Slo,
    priority: i32,
    /// Class of the endpoint that it was dispatched to.
    class: Option<Arc<str>>,
    streaming: bool,
    submitted: Duration,
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
            evictable: None,
            request: None,
            first_label: None,
            opened,
            code: None,
        }
    }

    fn feed(&mut self, event: Event) {
        self.machine
            .on(self.hub.clock.now(), event, &mut self.actions);
    }

    /// Carries out what stands next; a reply is returned, and so is the end of the stream.
    fn act(&mut self, action: Action) -> Option<Result<Reply, Option<Status>>> {
        match action {
            Action::Send(reply) => {
                if let (Reply::Immediate(immediate), Some(request)) = (&reply, &self.request) {
                    request.series.error(error_code(immediate.status));
                }
                return Some(Ok(reply));
            }
            Action::Submit(submission) => self.submit(*submission),
            Action::PickAny(subset) => {
                let endpoint = self.hub.any_endpoint(subset.as_deref());
                self.feed(Event::Picked(endpoint));
            }
            Action::Withdraw => {
                if let Some((ticket, verdict)) = self.queued.take() {
                    // A verdict that nobody read may hold reserved room: it goes back before others are let in.
                    drop(verdict);
                    self.hub.withdraw(ticket);
                }
            }
            Action::FirstToken(observation) => {
                if let Some(request) = &self.request {
                    let ttft = self
                        .hub
                        .clock
                        .now()
                        .saturating_sub(self.opened)
                        .as_secs_f64();
                    request.series.ttft_streaming.observe(ttft);
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
                return Some(Err(Some(Status::failed_precondition(error.to_string()))));
            }
            Action::Reset(reason) => {
                self.code = Some(StreamCode::ResourceExhausted);
                return Some(Err(Some(Status::resource_exhausted(reason))));
            }
        }
        None
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            request,
            rewritten_by,
            streaming,
        } = submission;
        let series = self.hub.telemetry.requests.series(
            &request.model,
            request.sent_model(),
            &request.flow,
            request.priority,
        );
        series.requests.inc();
        if let Some(object) = &rewritten_by {
            self.hub.telemetry.rewrites.decided(object, &series.labels);
        }
        let now = self.hub.clock.now();
        self.request = Some(Subject {
            id: request.id.clone(),
            series,
            slo: request.slo,
            priority: request.priority,
            class: None,
            streaming,
            submitted: now,
        });
        match self.hub.submit(now, request) {
            Submitted::Decided(verdict) => {
                let took = self.hub.clock.now().saturating_sub(now);
                self.hub
                    .telemetry
                    .scheduler_duration
                    .observe(took.as_secs_f64());
                self.decided(verdict);
            }
            Submitted::Queued(ticket, receiver) => self.queued = Some((ticket, receiver)),
        }
    }

    fn decided(&mut self, mut verdict: Verdict) {
        let now = self.hub.clock.now();
        if let Some(request) = &mut self.request {
            let id = std::mem::take(&mut request.id);
            let outcome = match &mut verdict {
                Verdict::Dispatched(dispatch) => {
                    let class = &dispatch.endpoint.class;
                    self.hub.trainer.note_dispatch(class, now);
                    request.class = Some(Arc::clone(class));
                    let ticket = dispatch.in_flight.evictable();
                    self.evictable = ticket.map(|it| (it, self.hub.follow_eviction(it)));
                    if let Some(prediction) = &dispatch.decision.prediction {
                        request
                            .series
                            .predicted_ttft
                            .observe(f64::from(prediction.ttft.p50) / 1e3);
                        request
                            .series
                            .predicted_tpot
                            .observe(f64::from(prediction.tpot.p50) / 1e3);
                    }
                    self.hub.decisions.dispatched(id, dispatch.decision.clone());
                    "Dispatched"
                }
                Verdict::Refused(refusal) => {
                    self.hub.decisions.refused(id, now, refusal.clone());
                    refusal.outcome.name()
                }
            };
            let (count, duration) = self.hub.telemetry.outcome(outcome, request.priority);
            count.inc();
            duration.observe(now.saturating_sub(request.submitted).as_secs_f64());
        }
        self.feed(Event::Verdict(verdict));
    }

    fn ended(&mut self, ended: Ended) {
        if let Some((ticket, _)) = self.evictable.take() {
            self.hub.forget_eviction(ticket);
        }
        self.hub.pump();
        let Ended { completion, status } = ended;
        let Some(Subject {
            series,
            slo,
            class,
            streaming,
            ..
        }) = &self.request
        else {
            return;
        };
        let life = self
            .hub
            .clock
            .now()
            .saturating_sub(self.opened)
            .as_secs_f64();
        let waited_ms = completion.waited.as_secs_f64() * 1e3;
        if status.is_some_and(|status| status >= 400) {
            series.error("ModelServerError");
        }
        if status == Some(200) {
            series.duration.observe(life);
            series
                .input_tokens
                .observe(f64::from(completion.prompt_tokens));
            if let Some(output) = completion.output_tokens {
                series.output_tokens.observe(f64::from(output));
            }
            if !streaming {
                series.ttft_document.observe(life);
            }
        }
        if let Some(tpot_ms) = completion.tpot_ms {
            series.tpot.observe(tpot_ms / 1e3);
        }
        let missed = |target: Option<f64>, actual: Option<f64>| {
            target
                .zip(actual)
                .is_some_and(|(target, actual)| actual > target)
        };
        if missed(slo.ttft_ms, completion.ttft_ms.map(|ttft| ttft + waited_ms)) {
            series.violation("ttft");
        }
        if missed(slo.tpot_ms, completion.tpot_ms) {
            series.violation("tpot");
        }
        if let Some(reason) = completion.unlearned {
            self.hub.telemetry.unlearned(reason);
        }
        // An answer that was cancelled or cut teaches nothing, not even how it began. A label arrives when it is
        // handed over, so that labels keep the order of their times.
        let at = self.hub.clock.now();
        let first = self
            .first_label
            .take()
            .filter(|_| completion.outcome == Outcome::Served);
        let first = first.map(|label| Observation { at, ..label });
        let class = class.as_deref().unwrap_or_default();
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
                    self.feed(event);
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
        let life = self.hub.clock.now().saturating_sub(self.opened);
        self.hub.telemetry.stream_ended(code, life);
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

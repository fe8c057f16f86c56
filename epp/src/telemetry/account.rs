//! One request's account, from its submission to its end: what metrics, records and spans are told of it.

use super::decisions::{Kept, Wanted};
use super::per_endpoint::Held;
use super::series::{Latency, Of, Series};
use crate::extproc::hub::Hub;
use crate::extproc::protocol::Submission;
use crate::spans::{Trace, Value};
use epp_core::record::{PickRecord, Picked, Refused, RequestRecord, SCHEMA};
use epp_core::{Completion, Dispatch, Endpoint, Outcome, Refusal, Slo, Verdict};
use prometheus_client::metrics::gauge::Gauge;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What telemetry needs to know of a request.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) series: Arc<Series>,
    /// What the request names, if it is traced.
    named: Option<Box<Names>>,
    slo: Slo,
    priority: i32,
    streaming: bool,
    prompt_tokens: u32,
    /// When its stream was opened.
    opened: Duration,
    submitted: Duration,
    /// How long each step takes is told.
    profiled: bool,
    /// Class of the endpoint that it was dispatched to.
    pub(crate) class: Option<Arc<str>>,
    queued: Option<InQueue>,
    held: Option<Held>,
    answer_bytes: u64,
    last_piece: Option<Duration>,
    /// Work on the answer so far.
    relaying: Duration,
    draft: Option<Box<Draft>>,
    kept: Option<Arc<Kept>>,
}

/// Names as they came, where labels are bounded in number.
#[derive(Debug)]
struct Names {
    id: String,
    model: String,
    target_model: String,
    flow: Arc<str>,
}

/// A record whose decision is not made yet.
#[derive(Debug)]
struct Draft {
    wanted: Wanted,
    id: String,
    request: RequestRecord,
}

/// A place in the queue, counted as long as this lives.
#[derive(Debug)]
struct InQueue {
    requests: Gauge,
    bytes: Gauge,
    of_request: i64,
}

impl InQueue {
    fn new(series: &Series, bytes: u64) -> Self {
        let place = Self {
            requests: series.queued.clone(),
            bytes: series.queued_bytes.clone(),
            of_request: i64::try_from(bytes).unwrap_or(i64::MAX),
        };
        place.requests.inc();
        place.bytes.inc_by(place.of_request);
        place
    }
}

impl Drop for InQueue {
    fn drop(&mut self) {
        self.requests.dec();
        self.bytes.dec_by(self.of_request);
    }
}

impl Account {
    /// Opens the account of `submission` at `now`; its stream was opened at `opened` and has the number `serial`.
    pub(crate) fn open(
        hub: &Hub,
        opened: Duration,
        now: Duration,
        serial: u64,
        submission: &mut Submission,
        trace: Option<&Trace>,
    ) -> Self {
        let telemetry = &hub.telemetry;
        let request = &submission.request;
        let series = telemetry.requests.series(
            &request.model,
            request.sent_model(),
            &request.flow,
            request.priority,
        );
        series.requests.inc();
        series.observe(Of::RequestSize, request.bytes as f64);
        if let Some(object) = &submission.rewritten_by {
            telemetry.rewrites.decided(object, &series.labels);
        }
        let (wanted, profiled) = (hub.decisions.wants(now), telemetry.profiles(serial));
        let draft = wanted.any().then(|| {
            let session = request
                .session
                .as_deref()
                .map(|session| telemetry.disguise(session));
            Box::new(Draft {
                wanted,
                id: request.id.clone(),
                request: RequestRecord::of(request, session),
            })
        });
        let account = Self {
            named: trace.map(|_| {
                Box::new(Names {
                    id: request.id.clone(),
                    model: request.model.clone(),
                    target_model: request.sent_model().to_owned(),
                    flow: Arc::clone(&request.flow),
                })
            }),
            slo: request.slo,
            priority: request.priority,
            streaming: submission.streaming,
            prompt_tokens: request.prompt_tokens,
            opened,
            submitted: now,
            profiled,
            class: None,
            queued: None,
            held: None,
            answer_bytes: 0,
            last_piece: None,
            relaying: Duration::ZERO,
            draft,
            kept: None,
            series,
        };
        let sampled = wanted.any() || profiled || trace.is_some();
        submission.request.recorded = sampled || telemetry.configured().scores;
        account
    }

    /// Taking the request in took until `now`; it has not been decided on.
    pub(crate) fn queued(&mut self, now: Duration, bytes: u64) {
        self.queued = Some(InQueue::new(&self.series, bytes));
        let took = now.saturating_sub(self.submitted).as_secs_f64();
        self.series.taken_in("Queued", took);
    }

    /// At `now` it is no longer wanted.
    pub(crate) fn withdrawn(&mut self, hub: &Hub, now: Duration) {
        if self.queued.take().is_some() {
            let outcome = Outcome::EvictedContextCancelled.name();
            hub.telemetry.outcome(outcome, self.priority);
            let waited = now.saturating_sub(self.submitted).as_secs_f64();
            self.series.waited(outcome, waited);
        }
    }

    /// It was decided on at `now`.
    pub(crate) fn decided(
        &mut self,
        hub: &Hub,
        now: Duration,
        verdict: &Verdict,
        trace: Option<&mut Trace>,
    ) {
        let at_once = self.queued.take().is_none();
        let outcome = match verdict {
            Verdict::Dispatched(dispatch) => {
                self.dispatched(hub, now, dispatch);
                "Dispatched"
            }
            Verdict::Refused(refusal) => {
                hub.telemetry.failed(&self.series.labels.target_model_name);
                self.record_refusal(hub, refusal);
                refusal.outcome.name()
            }
        };
        let waited = now.saturating_sub(self.submitted).as_secs_f64();
        if at_once {
            hub.telemetry.scheduler_duration.observe(waited);
            self.series.taken_in(outcome, waited);
        }
        hub.telemetry.outcome(outcome, self.priority);
        self.series.waited(outcome, waited);
        let program = &self.series.labels.fairness_id;
        hub.telemetry.program_waited(program, waited);
        if let Some(trace) = trace {
            self.trace_decision(hub, now, verdict, outcome, trace);
        }
    }

    fn dispatched(&mut self, hub: &Hub, now: Duration, dispatch: &Dispatch) {
        let (telemetry, endpoint, decision) =
            (&hub.telemetry, &dispatch.endpoint, &dispatch.decision);
        self.class = Some(Arc::clone(&endpoint.class));
        if let Some(prediction) = &decision.prediction {
            let seconds = |ms: f32| f64::from(ms) / 1e3;
            self.series
                .predicted(Latency::Ttft, seconds(prediction.ttft.p50));
            self.series
                .predicted(Latency::Tpot, seconds(prediction.tpot.p50));
        }
        let labels = &self.series.labels;
        let tried = telemetry
            .attempts
            .cell(endpoint, &labels.target_model_name, 0);
        tried.value.fetch_add(1, Relaxed);
        let cell = telemetry
            .on_endpoint
            .cell(endpoint, &labels.fairness_id, self.priority);
        let (prompt, cached) = (self.prompt_tokens, decision.cached_tokens);
        let uncached = prompt.saturating_sub(cached);
        self.held = Some(Held::new(cell, uncached, self.series.running.clone()));
        telemetry.prefix(prompt, cached);
        let processed = now.saturating_sub(self.opened).as_secs_f64();
        telemetry.request_processing.observe(processed);
        if self.profiled {
            for lap in decision.laps() {
                telemetry.plugin(lap);
                if lap.work == epp_core::Work::Predict {
                    let took = lap.ended.saturating_sub(lap.began);
                    self.series.predicting(took.as_secs_f64());
                }
            }
        }
        if let Some(draft) = self.draft.take() {
            let wanted = draft.wanted;
            let record = PickRecord {
                picked: Picked::of(decision, 0),
                waited_ms: dispatch.waited.as_secs_f64() * 1e3,
                ..draft.record(hub)
            };
            let pool = decision.pool().map(Arc::clone);
            self.kept = Some(hub.decisions.decided(wanted, pool, record));
        }
    }

    fn record_refusal(&mut self, hub: &Hub, refusal: &Refusal) {
        if let Some(draft) = self.draft.take() {
            let wanted = draft.wanted;
            let record = PickRecord {
                refused: Some(Refused::from(refusal)),
                ..draft.record(hub)
            };
            hub.decisions.decided(wanted, None, record);
        }
    }

    fn trace_decision(
        &self,
        hub: &Hub,
        now: Duration,
        verdict: &Verdict,
        outcome: &'static str,
        trace: &mut Trace,
    ) {
        let kind = |name: &str| hub.telemetry.plugin_type(&Arc::from(name)).to_string();
        let mut attributes = vec![("headroom.outcome", Value::Text(outcome.to_owned()))];
        let laps = match verdict {
            Verdict::Dispatched(dispatch) => {
                let waited = dispatch.waited.as_secs_f64() * 1e3;
                let cached = i64::from(dispatch.decision.cached_tokens);
                attributes.push((
                    "headroom.endpoint",
                    Value::Text(dispatch.endpoint.name.to_string()),
                ));
                attributes.push(("headroom.queue_ms", Value::Double(waited)));
                attributes.push(("headroom.cached_tokens", Value::Int(cached)));
                dispatch.decision.laps()
            }
            Verdict::Refused(_) => &[],
        };
        trace.decision(self.submitted, now, laps, kind, attributes);
    }

    /// The proxy tells who serves the request: the endpoint picked, or one of its fall-backs.
    pub(crate) fn served_by(&mut self, hub: &Hub, endpoint: &Endpoint) {
        if let Some(held) = &mut self.held {
            let tenant = &self.series.labels.fairness_id;
            let on_endpoint = &hub.telemetry.on_endpoint;
            let cell = on_endpoint.cell(endpoint, tenant, self.priority);
            held.moved(cell, self.prompt_tokens);
            self.class = Some(Arc::clone(&endpoint.class));
        }
    }

    /// The answer's first token passed at `now`.
    pub(crate) fn first_token(&mut self, now: Duration) {
        let ttft = now.saturating_sub(self.opened).as_secs_f64();
        self.series.ttft(ttft, true);
        if let Some(held) = &mut self.held {
            held.started();
        }
    }

    /// A piece of the answer passed at `now`.
    pub(crate) fn piece(&mut self, now: Duration, bytes: usize) {
        self.answer_bytes += bytes as u64;
        if self.streaming
            && bytes > 0
            && let Some(last) = self.last_piece.replace(now)
        {
            let gap = now.saturating_sub(last).as_secs_f64();
            self.series.observe(Of::Itl, gap);
        }
    }

    /// Whether the time that relaying takes is told.
    pub(crate) fn profiled(&self) -> bool {
        self.profiled
    }

    /// Relaying something of the answer took so long.
    pub(crate) fn relayed(&mut self, took: Duration) {
        self.relaying += took;
    }

    /// The request ended at `now`; `status` is that of its answer.
    pub(crate) fn ended(
        &mut self,
        hub: &Hub,
        now: Duration,
        completion: &Completion,
        status: Option<u16>,
    ) {
        self.held = None;
        let series = &self.series;
        let life = now.saturating_sub(self.opened).as_secs_f64();
        if status.is_some_and(|status| status >= 400) {
            series.error("ModelServerError");
        }
        if status == Some(200) {
            series.observe(Of::Duration, life);
            series.observe(Of::ResponseSize, self.answer_bytes as f64);
            series.observe(Of::InputTokens, f64::from(completion.prompt_tokens));
            series.observe(Of::CachedTokens, f64::from(completion.cached_tokens));
            if let Some(output) = completion.output_tokens {
                series.observe(Of::OutputTokens, f64::from(output));
                if output > 0 {
                    series.observe(Of::Ntpot, life / f64::from(output));
                }
            }
            if !self.streaming {
                series.ttft(life, false);
            }
        }
        if let Some(tpot_ms) = completion.tpot_ms {
            series.observe(Of::Tpot, tpot_ms / 1e3);
            series.last("tpot", tpot_ms / 1e3);
        }
        let missed = |target: Option<f64>, actual: Option<f64>| {
            let both = target.zip(actual);
            both.is_some_and(|(target, actual)| actual > target)
        };
        let waited_ms = completion.waited.as_secs_f64() * 1e3;
        if missed(
            self.slo.ttft_ms,
            completion.ttft_ms.map(|ttft| ttft + waited_ms),
        ) {
            series.violation("ttft");
        }
        if missed(self.slo.tpot_ms, completion.tpot_ms) {
            series.violation("tpot");
        }
        if let Some(reason) = completion.unlearned {
            hub.telemetry.unlearned(reason);
        }
        if self.profiled {
            let relaying = self.relaying.as_secs_f64();
            hub.telemetry.response_processing.observe(relaying);
        }
        if let Some(kept) = self.kept.take() {
            hub.decisions.ended(&kept, completion, status);
        }
    }

    /// What the span of the whole request says of it.
    pub(crate) fn attributes(&self) -> Vec<(&'static str, Value)> {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut attributes = vec![("headroom.priority", Value::Int(self.priority.into()))];
        if let Some(names) = &self.named {
            attributes.extend([
                ("gen_ai.request.id", text(&names.id)),
                ("gen_ai.request.model", text(&names.model)),
                ("headroom.target_model", text(&names.target_model)),
                ("headroom.fairness_id", text(&names.flow)),
            ]);
        }
        attributes
    }
}

impl Draft {
    fn record(self, hub: &Hub) -> PickRecord {
        PickRecord {
            schema: SCHEMA,
            at_ms: hub.clock.unix_ms(),
            id: self.id,
            config: hub.telemetry.configured().version.to_string(),
            request: self.request,
            waited_ms: 0.0,
            picked: None,
            refused: None,
            ended: None,
        }
    }
}

impl super::Telemetry {
    /// A word that stands for `session` as long as this process runs, and tells nothing of it.
    pub(crate) fn disguise(&self, session: &str) -> String {
        format!("{:016x}", self.disguises.hash_one(session))
    }
}

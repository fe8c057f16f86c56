//! A dispatched request: the load it holds on its endpoint, and what its stream teaches.

use std::sync::Arc;
use std::time::Duration;

use predictor::{Features, Observation, Prediction, Target};
use serde::{Deserialize, Serialize};

use crate::demand::{BandCounters, DemandLedger, MixSample, Totals};
use crate::director::Ticket;
use crate::director::evict::Evictable;
use crate::endpoint::{COLD_LABELS, Endpoint};
use crate::flow::{Charge, FlowAccount, LimitRule};
use crate::health::{Fate, Visit, Watch};
use crate::load::Share;
use crate::outcome::Outcome;
use crate::slo::Slo;

/// Reserved load on one endpoint. It lives exactly as long as the request's stream: dropping it gives the
/// load back whatever happened, and counts a stream that ended without [`InFlight::finish`] as
/// [`Outcome::ClientGone`].
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    ledger: DemandLedger,
    booking: Booking,
    first_token_at: Option<Duration>,
    /// The label at the first token fell among the endpoint's first ten.
    cold_start: bool,
    /// Context tokens counted on the endpoint since the first token.
    resident: u64,
    emitted: u32,
    recorded: bool,
    /// Its place among those that may be taken off their server.
    evictable: Option<Evictable>,
    /// What it adds to the endpoint's load.
    share: Share,
    /// Its stay as the endpoint's health sees it.
    visit: Option<Visit>,
}

/// Everything that was known when the request was dispatched.
#[derive(Debug)]
pub(crate) struct Booking {
    pub(crate) band: Arc<BandCounters>,
    pub(crate) dispatched_at: Duration,
    pub(crate) waited: Duration,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    /// Output tokens expected, as `inflight-load-producer` estimates them.
    pub(crate) estimated_tokens: u32,
    pub(crate) priority: i32,
    pub(crate) slo: Slo,
    /// Features frozen at dispatch; `None` when nothing is to be learned.
    pub(crate) features: Option<Features>,
    pub(crate) prediction: Option<Prediction>,
    /// The flow that it counts for.
    pub(crate) account: Arc<FlowAccount>,
    /// What the flow was charged for it.
    pub(crate) charge: Charge,
    /// How its endpoint's limit is learned, where it is.
    pub(crate) limit: Option<Arc<LimitRule>>,
    /// Whether the prediction is believed.
    pub(crate) trusted: bool,
    /// Passive health; `None` = nobody asks for it.
    pub(crate) watch: Option<Arc<Watch>>,
}

impl Booking {
    fn uncached_tokens(&self) -> u64 {
        u64::from(self.prompt_tokens.saturating_sub(self.cached_tokens))
    }

    /// What the request adds to its endpoint's load. Targets are in whole milliseconds, rounded down; those that were
    /// predicted to be missed are nobody's to keep.
    fn share(&self) -> Share {
        let tpot_target_ms = self.slo.tpot_ms.map(|target| target as u64);
        let kept_tpot_ms = tpot_target_ms.filter(|_| {
            let tpot_ms = self.prediction.map(|prediction| prediction.tpot.p50);
            let met = |tpot_ms| {
                self.slo
                    .tpot_ms
                    .is_some_and(|target| f64::from(tpot_ms) <= target)
            };
            tpot_ms.is_some_and(met)
        });
        Share {
            uncached_tokens: self.uncached_tokens(),
            estimated_tokens: u64::from(self.estimated_tokens),
            tpot_target_ms,
            kept_tpot_ms,
            kept_first_token_ms: self.first_token_deadline_ms(),
        }
    }

    /// Latest instant of the first token, milliseconds on the picker's clock, if its target is expected to be met.
    fn first_token_deadline_ms(&self) -> Option<u64> {
        let left_ms = self.slo.ttft_ms? - milliseconds(self.waited);
        let predicted_ms = f64::from(self.prediction?.ttft.p50);
        (predicted_ms <= left_ms).then(|| (milliseconds(self.dispatched_at) + left_ms) as u64)
    }

    /// How many times the predicted p99 `span` is, if the prediction is believed.
    fn times_p99(&self, span: Duration) -> Option<f64> {
        let prediction = self.prediction.filter(|_| self.trusted)?;
        Some(milliseconds(span) / f64::from(prediction.ttft.p99).max(1.0))
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server's answer was relayed to its end.
    Complete {
        /// HTTP status of the answer.
        status: u16,
        /// Whether the answer was a stream of events.
        streaming: bool,
        /// Prompt tokens, from usage.
        prompt_tokens: Option<u32>,
        /// Of those cached, from usage.
        cached_tokens: Option<u32>,
        /// Output tokens, from usage.
        output_tokens: Option<u32>,
    },
    /// The client left.
    ClientGone,
    /// The server broke its answer off, and said so.
    UpstreamCut,
    /// The answer broke off; nobody says whether the client left or the server ended it. Where passive health sees
    /// that far more answers of this endpoint break off than of others it counts as [`Self::UpstreamCut`], else as
    /// [`Self::ClientGone`].
    BrokenOff,
    /// The request was taken off the server to make room.
    Evicted,
}

/// Why a stream taught nothing about the time per output token (and, before its first token, nothing at all).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlearned {
    /// No producer of predictions is configured.
    Off,
    /// The status was not 200.
    NotOk,
    /// The answer was not a stream, so its first token was not seen.
    NotStreaming,
    /// The stream was cancelled, cut or evicted.
    Unfinished,
    /// One of the first ten after the endpoint's start.
    ColdStart,
    /// The server told no token counts.
    NoUsage,
    /// Fewer than two output tokens have no time between them.
    TooShort,
}

impl Unlearned {
    /// The reason as metric labels spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NotOk => "not-ok",
            Self::NotStreaming => "not-streaming",
            Self::Unfinished => "unfinished",
            Self::ColdStart => "cold-start",
            Self::NoUsage => "no-usage",
            Self::TooShort => "too-short",
        }
    }
}

/// What is known of a request once its stream has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// What the request counts as.
    pub outcome: Outcome,
    /// The labels not yet handed out: the one for TPOT, or none. (That for TTFT came at the first token.)
    pub observations: Vec<Observation>,
    /// Why there is none.
    pub unlearned: Option<Unlearned>,
    /// Time in the queue.
    pub waited: Duration,
    /// Dispatch to first token in milliseconds; `None` = none was seen.
    pub ttft_ms: Option<f64>,
    /// Mean time per output token after the first in milliseconds; needs usage and two tokens.
    pub tpot_ms: Option<f64>,
    /// Dispatch to end.
    pub duration: Duration,
    /// Prompt tokens, from usage else estimated.
    pub prompt_tokens: u32,
    /// Cached prompt tokens, from usage else as the prefix index expected.
    pub cached_tokens: u32,
    /// Output tokens, from usage.
    pub output_tokens: Option<u32>,
    /// Whether the SLO was met, queueing included; `None` = there was no SLO.
    pub slo_met: Option<bool>,
    /// What was predicted at dispatch.
    pub predicted: Option<Prediction>,
}

impl InFlight {
    /// Reserves the load at once.
    pub(crate) fn reserve(endpoint: Arc<Endpoint>, ledger: DemandLedger, booking: Booking) -> Self {
        let share = booking.share();
        endpoint.load.dispatched(&share);
        let at = booking.dispatched_at;
        let visit = |watch: &Arc<Watch>| watch.dispatched(&endpoint.load.health, at);
        let visit = booking.watch.as_ref().map(visit);
        Self {
            endpoint,
            ledger,
            booking,
            first_token_at: None,
            cold_start: false,
            resident: 0,
            emitted: 0,
            recorded: false,
            evictable: None,
            share,
            visit,
        }
    }

    /// Another endpoint than the one picked serves the request: the proxy could not reach the first and took a
    /// fall-back. The load moves there, and nothing is learned, since nothing was predicted for it.
    pub fn served_by(&mut self, now: Duration, endpoint: Arc<Endpoint>) {
        if Arc::ptr_eq(&endpoint.load, &self.endpoint.load) {
            return;
        }
        self.tell_health(now, Fate::Unreachable, None);
        self.release();
        self.booking.features = None;
        self.booking.prediction = None;
        self.booking.trusted = false;
        self.booking.cached_tokens = 0;
        self.share = self.booking.share();
        self.endpoint = endpoint;
        let load = &self.endpoint.load;
        load.dispatched(&self.share);
        if self.first_token_at.is_some() {
            load.started(&self.share, self.resident);
        }
        let watch = self.booking.watch.as_ref();
        self.visit = watch.map(|watch| watch.dispatched(&load.health, now));
    }

    /// Another piece of the answer came.
    pub fn progress(&mut self, now: Duration) {
        if let (Some(watch), Some(visit)) = (&self.booking.watch, &mut self.visit) {
            watch.progress(&self.endpoint.load.health, now, visit);
        }
    }

    /// It may be taken off its server from now on.
    pub(crate) fn make_evictable(&mut self, place: Evictable) {
        self.evictable = Some(place);
    }

    /// The ticket under which [`crate::Director::poll_eviction`] may name this request; `None` = it never does.
    pub fn evictable(&self) -> Option<Ticket> {
        self.evictable.as_ref().map(Evictable::ticket)
    }

    /// The endpoint the request was dispatched to.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// What was predicted at dispatch.
    pub fn predicted(&self) -> Option<&Prediction> {
        self.booking.prediction.as_ref()
    }

    /// The first event with a choice of a streamed 200 arrived: the request now decodes. Returns the TTFT label
    /// (service time: dispatch to now) unless nothing is learned or the endpoint is cold. Later calls do nothing.
    pub fn first_token(&mut self, now: Duration) -> Option<Observation> {
        if self.first_token_at.is_some() {
            return None;
        }
        self.first_token_at = Some(now);
        self.resident = u64::from(self.booking.prompt_tokens);
        self.endpoint.load.started(&self.share, self.resident);
        let served_in = now.saturating_sub(self.booking.dispatched_at);
        let ttft_ms = milliseconds(served_in);
        if let Some(rule) = &self.booking.limit {
            let load = &self.endpoint.load;
            let (uncached, in_flight) = (self.share.uncached_tokens, load.snapshot().in_flight);
            let limit = &load.limit;
            if limit.first_token(rule, now, ttft_ms, uncached, in_flight) {
                // There is more room than before, as if a stream had ended.
                self.ledger.note_freed();
            }
        }
        if let (Some(watch), Some(visit)) = (&self.booking.watch, &mut self.visit) {
            let times_p99 = self.booking.times_p99(served_in);
            watch.first_token(&self.endpoint.load.health, now, visit, times_p99);
        }
        self.cold_start = self.endpoint.load.label() < COLD_LABELS;
        if self.cold_start {
            return None;
        }
        self.observation(Target::Ttft, ttft_ms, now)
    }

    /// `tokens_total` output tokens have been seen so far; counts as context on the endpoint once decoding.
    pub fn emitted(&mut self, tokens_total: u32) {
        if self.first_token_at.is_some() && tokens_total > self.emitted {
            let grown = u64::from(tokens_total - self.emitted);
            self.emitted = tokens_total;
            self.resident += grown;
            self.endpoint.load.grew(grown);
        }
    }

    /// The stream ended: records the outcome, gives the load back and returns what is now known.
    pub fn finish(mut self, now: Duration, end: End) -> Completion {
        let (prompt_tokens, cached_tokens, output_tokens) = self.tokens(end);
        let tpot_ms = self.tpot_ms(now, output_tokens);
        self.teach_limit(now, end, tpot_ms);
        if let Some(evictable) = self.evictable.as_mut().filter(|_| end == End::Evicted) {
            evictable.taken();
        }
        let blamed = self.tell_health(now, self.fate(now, end), tpot_ms);
        let outcome = outcome(end, blamed);
        let learned = self.lesson(end, tpot_ms, now);
        let ttft_ms = self
            .first_token_at
            .map(|at| milliseconds(at.saturating_sub(self.booking.dispatched_at)));
        let slo_met = self
            .booking
            .slo
            .is_set()
            .then(|| self.met_slo(outcome, now, tpot_ms));
        if slo_met == Some(true) {
            self.booking.band.slo_met();
        }
        if let (Outcome::Served, Some(output_tokens)) = (outcome, output_tokens) {
            self.booking.account.learn_output(output_tokens);
        }
        let totals = Totals {
            requests: 1,
            prompt_tokens: u64::from(prompt_tokens),
            cached_tokens: u64::from(cached_tokens),
            output_tokens: u64::from(output_tokens.unwrap_or_default()),
        };
        self.record(outcome, totals, prompt_tokens, output_tokens);
        if let (Outcome::Served, Some(output_tokens)) = (outcome, output_tokens) {
            let (priority, slo) = (self.booking.priority, self.booking.slo);
            let sample = MixSample {
                at: now,
                input_tokens: prompt_tokens,
                cached_tokens,
                output_tokens,
                priority,
                slo,
            };
            self.ledger.sample(sample);
        }
        Completion {
            outcome,
            unlearned: learned.as_ref().err().copied(),
            observations: learned.into_iter().collect(),
            waited: self.booking.waited,
            ttft_ms,
            tpot_ms,
            duration: now.saturating_sub(self.booking.dispatched_at),
            prompt_tokens,
            cached_tokens,
            output_tokens,
            slo_met,
            predicted: self.booking.prediction,
        }
    }

    /// (prompt, cached, output) tokens: as told, else as expected at dispatch; cached never above prompt.
    fn tokens(&self, end: End) -> (u32, u32, Option<u32>) {
        let (expected_prompt, expected_cached) =
            (self.booking.prompt_tokens, self.booking.cached_tokens);
        match end {
            End::Complete {
                prompt_tokens,
                cached_tokens,
                output_tokens,
                ..
            } => {
                let prompt = prompt_tokens.unwrap_or(expected_prompt);
                (
                    prompt,
                    cached_tokens.unwrap_or(expected_cached).min(prompt),
                    output_tokens,
                )
            }
            End::ClientGone | End::UpstreamCut | End::BrokenOff | End::Evicted => {
                (expected_prompt, expected_cached, None)
            }
        }
    }

    /// `(end − first token) / (output tokens − 1)` in milliseconds.
    fn tpot_ms(&self, now: Duration, output_tokens: Option<u32>) -> Option<f64> {
        let gaps = output_tokens?.checked_sub(1).filter(|&gaps| gaps > 0)?;
        Some(milliseconds(now.saturating_sub(self.first_token_at?)) / f64::from(gaps))
    }

    /// The TPOT label of a finished stream, or why there is none.
    fn lesson(
        &self,
        end: End,
        tpot_ms: Option<f64>,
        now: Duration,
    ) -> Result<Observation, Unlearned> {
        let End::Complete {
            status,
            streaming,
            output_tokens,
            ..
        } = end
        else {
            return Err(Unlearned::Unfinished);
        };
        if status != 200 {
            return Err(Unlearned::NotOk);
        }
        if !streaming || self.first_token_at.is_none() {
            return Err(Unlearned::NotStreaming);
        }
        if self.cold_start {
            return Err(Unlearned::ColdStart);
        }
        let missing = if output_tokens.is_none() {
            Unlearned::NoUsage
        } else {
            Unlearned::TooShort
        };
        self.observation(Target::Tpot, tpot_ms.ok_or(missing)?, now)
            .ok_or(Unlearned::Off)
    }

    fn observation(&self, target: Target, actual_ms: f64, at: Duration) -> Option<Observation> {
        let predicted = self.booking.prediction.map(|prediction| match target {
            Target::Ttft => prediction.ttft,
            Target::Tpot => prediction.tpot,
        });
        let features = self.booking.features?;
        Some(Observation {
            target,
            features,
            actual_ms: actual_ms as f32,
            at,
            predicted,
        })
    }

    /// Whether the user's latencies met the SLO. An answer that is not streamed shows its first token at its end.
    fn met_slo(&self, outcome: Outcome, now: Duration, tpot_ms: Option<f64>) -> bool {
        let shown = self
            .first_token_at
            .unwrap_or(now)
            .saturating_sub(self.booking.dispatched_at);
        outcome == Outcome::Served
            && self
                .booking
                .slo
                .met(milliseconds(self.booking.waited + shown), tpot_ms)
    }

    /// What the stream's end says of how much its endpoint can take.
    fn teach_limit(&self, now: Duration, end: End, tpot_ms: Option<f64>) {
        let (Some(rule), End::Complete { status, .. }) = (&self.booking.limit, end) else {
            return;
        };
        let load = &self.endpoint.load;
        let in_flight = load.snapshot().in_flight;
        if matches!(status, 429 | 503) {
            load.limit.refused(rule, now, in_flight);
        } else if let Some(tpot_ms) = tpot_ms.filter(|_| status == 200) {
            load.limit.ended(rule, now, tpot_ms, in_flight);
        }
    }

    /// What `end` says of the endpoint.
    fn fate(&self, now: Duration, end: End) -> Fate {
        let waited = || {
            let waited = now.saturating_sub(self.booking.dispatched_at);
            let waiting = self.first_token_at.is_none();
            waiting.then(|| self.booking.times_p99(waited)).flatten()
        };
        match end {
            End::Complete { status, .. } => Fate::Answered(status),
            End::UpstreamCut => Fate::Cut,
            End::BrokenOff => Fate::Broken(waited()),
            End::ClientGone | End::Evicted => Fate::Left(waited()),
        }
    }

    /// True = the answer broke off, and its endpoint is to blame.
    fn tell_health(&mut self, now: Duration, fate: Fate, tpot_ms: Option<f64>) -> bool {
        let (Some(watch), Some(visit)) = (&self.booking.watch, &mut self.visit) else {
            return false;
        };
        watch.ended(&self.endpoint.load.health, now, visit, fate, tpot_ms)
    }

    /// Gives the load back.
    fn release(&self) {
        match self.first_token_at {
            Some(_) => self.endpoint.load.ended_running(&self.share, self.resident),
            None => self.endpoint.load.ended_waiting(&self.share),
        }
    }

    /// Records the one end, and what it cost the flow: tokens as told, output else as far as it was seen.
    fn record(
        &mut self,
        outcome: Outcome,
        totals: Totals,
        prompt_tokens: u32,
        output_tokens: Option<u32>,
    ) {
        self.recorded = true;
        self.booking.band.ended(outcome, totals);
        let account = &self.booking.account;
        account.ended(outcome, totals);
        let output_tokens = output_tokens.unwrap_or(self.emitted);
        account.correct(self.booking.charge.correction(prompt_tokens, output_tokens));
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.release();
        // Without an instant nothing is held against the endpoint; a trial is left to the next request.
        self.tell_health(self.booking.dispatched_at, Fate::Left(None), None);
        if !self.recorded {
            let prompt_tokens = self.booking.prompt_tokens;
            let totals = Totals {
                requests: 1,
                prompt_tokens: u64::from(prompt_tokens),
                cached_tokens: u64::from(self.booking.cached_tokens),
                output_tokens: 0,
            };
            self.record(Outcome::ClientGone, totals, prompt_tokens, None);
        }
        // Last: who sees the count sees the room.
        self.ledger.note_freed();
    }
}

/// What `end` counts as; `blamed` = an answer that broke off is held against its endpoint.
fn outcome(end: End, blamed: bool) -> Outcome {
    match end {
        End::Complete {
            status: 200..=299, ..
        } => Outcome::Served,
        End::Complete { .. } => Outcome::Failed,
        End::ClientGone => Outcome::ClientGone,
        End::UpstreamCut => Outcome::UpstreamCut,
        End::BrokenOff if blamed => Outcome::UpstreamCut,
        End::BrokenOff => Outcome::ClientGone,
        End::Evicted => Outcome::Evicted,
    }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

//! A dispatched request: the load it holds on its endpoint, and what its stream teaches.

mod booking;
mod completion;

use std::sync::Arc;
use std::time::Duration;

use predictor::{Observation, Prediction, Target};

pub(crate) use booking::Booking;
pub use completion::{Completion, End, Unlearned};

use crate::demand::{DemandLedger, MixSample, Totals};
use crate::director::Ticket;
use crate::director::evict::Evictable;
use crate::endpoint::{COLD_LABELS, Endpoint};
use crate::health::{Fate, Visit, Watch};
use crate::load::Share;
use crate::outcome::Outcome;

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

    /// Another endpoint than the one picked serves the request: the proxy took a fall-back. The load moves there, and
    /// nothing is learned, since nothing was predicted for it. `tried` = the proxy could not reach the first; else it
    /// may not know it yet, which is no fault of the endpoint's.
    pub fn served_by(&mut self, now: Duration, endpoint: Arc<Endpoint>, tried: bool) {
        if Arc::ptr_eq(&endpoint.load, &self.endpoint.load) {
            return;
        }
        let fate = if tried {
            Fate::Unreachable
        } else {
            Fate::Left(None)
        };
        self.tell_health(now, fate, None);
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
            let booking = &mut self.booking;
            if let Some(told) = booking.charge.emitted(tokens_total) {
                booking.account.told(told);
            }
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
        let outcome = end.outcome(blamed);
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
        let (
            Some(rule),
            End::Complete {
                status,
                output_tokens,
                ..
            },
        ) = (&self.booking.limit, end)
        else {
            return;
        };
        let load = &self.endpoint.load;
        let in_flight = load.snapshot().in_flight;
        match (status, tpot_ms) {
            (429 | 503, _) => load.limit.refused(rule, now, in_flight),
            (200, Some(tpot_ms)) => load.limit.ended(rule, now, tpot_ms, in_flight),
            (200, None) if self.first_token_at.is_none() => {
                let took = now.saturating_sub(self.booking.dispatched_at);
                let work = (self.share.uncached_tokens, output_tokens.unwrap_or(0));
                let limit = &load.limit;
                limit.answered(rule, now, milliseconds(took), work, in_flight)
            }
            _ => {}
        }
    }

    /// What `end` says of the endpoint.
    fn fate(&self, now: Duration, end: End) -> Fate {
        // Only a stream shows its first token, and so only its client can tell that it has not come.
        let waiting = self.booking.streams && self.first_token_at.is_none();
        let waited = || {
            let waited = now.saturating_sub(self.booking.dispatched_at);
            self.booking.times_p99(waited).filter(|_| waiting)
        };
        match end {
            End::Complete { status, .. } => Fate::Answered(status),
            End::UpstreamCut => Fate::Cut,
            End::BrokenOff => Fate::Broken(waited()),
            End::ClientGone => Fate::Left(waited()),
            End::Evicted => Fate::Left(None),
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
        account.told(self.booking.charge.ended(prompt_tokens, output_tokens));
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

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

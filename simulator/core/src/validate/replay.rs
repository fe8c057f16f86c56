//! Playing recorded arrivals through the engine.

use super::recording::Recorded;
use crate::engine::{Engine, SubmitError};
use crate::event::{Event, EventKind, Prefix, Submission};
use crate::profile::Profile;
use std::time::Duration;

/// When a request was scheduled first, emitted its first and its last token: seconds since the first arrival.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replayed {
    /// First admission to the batch.
    pub scheduled: f64,
    /// First output token.
    pub first_token: f64,
    /// Last output token.
    pub last_token: f64,
}

/// A replayed run.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// One per recorded request, in the same order.
    pub requests: Vec<Replayed>,
    /// (running, waiting) at each instant asked for.
    pub series: Vec<(u32, u32)>,
    /// Preemptions in the whole run.
    pub preemptions: u64,
}

impl Replay {
    /// Submits `requests` (sorted by arrival) to an engine with `profile` at their recorded arrivals, prompts sharing
    /// nothing, and observes it at `ticks` (ascending, seconds since the first arrival).
    ///
    /// # Errors
    /// If the engine refuses a request.
    pub fn of(requests: &[Recorded], profile: &Profile, ticks: &[f64]) -> Result<Self, SubmitError> {
        let mut engine = Engine::new(profile.clone(), 0);
        let unseen = Replayed { scheduled: f64::NAN, first_token: f64::NAN, last_token: f64::NAN };
        let mut replay = Self { requests: vec![unseen; requests.len()], ..Self::default() };
        let mut events = Vec::new();
        let mut ticks = ticks.iter().copied().peekable();
        for (index, request) in requests.iter().enumerate() {
            while let Some(tick) = ticks.next_if(|&tick| tick < request.queued) {
                replay.observe(&mut engine, tick, &mut events);
            }
            let at = Duration::from_secs_f64(request.queued);
            engine.advance(at, &mut events);
            replay.take(&mut events);
            let prefix = Prefix::default();
            let (prompt_tokens, output_tokens) = (request.input_tokens, request.output_tokens);
            engine.submit(at, Submission { id: index as u64, prompt_tokens, prefix, output_tokens })?;
        }
        for tick in ticks {
            replay.observe(&mut engine, tick, &mut events);
        }
        while let Some(due) = engine.next_event() {
            engine.advance(due, &mut events);
            replay.take(&mut events);
        }
        replay.preemptions = engine.load().preemptions;
        Ok(replay)
    }

    fn observe(&mut self, engine: &mut Engine, tick: f64, events: &mut Vec<Event>) {
        engine.advance(Duration::from_secs_f64(tick), events);
        self.take(events);
        let load = engine.load();
        self.series.push((load.running, load.waiting));
    }

    fn take(&mut self, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            let request = &mut self.requests[event.id as usize];
            let at = event.at.as_secs_f64();
            match event.kind {
                // Only the first admission counts: a server reports that one, too.
                EventKind::Scheduled { .. } if request.scheduled.is_nan() => request.scheduled = at,
                EventKind::FirstToken => (request.first_token, request.last_token) = (at, at),
                EventKind::Token => request.last_token = at,
                _ => {}
            }
        }
    }
}

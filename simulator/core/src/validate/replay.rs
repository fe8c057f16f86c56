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
    pub fn of(
        requests: &[Recorded],
        profile: &Profile,
        ticks: &[f64],
    ) -> Result<Self, SubmitError> {
        Self::until(requests.len(), requests, profile, ticks)
    }

    /// As [`of`](Self::of), but only until the first `needed` requests have ended; the times of those that have not
    /// are not numbers.
    pub(super) fn until(
        needed: usize,
        requests: &[Recorded],
        profile: &Profile,
        ticks: &[f64],
    ) -> Result<Self, SubmitError> {
        let mut player = Player::new(needed, requests.len(), profile);
        let mut ticks = ticks.iter().copied().peekable();
        for (index, request) in requests.iter().enumerate() {
            while let Some(tick) = ticks.next_if(|&tick| tick < request.queued) {
                player.observe(tick);
            }
            player.submit(index as u64, request)?;
        }
        ticks.for_each(|tick| player.observe(tick));
        while let Some(due) = player.engine.next_event().filter(|_| player.unfinished > 0) {
            player.advance(due);
        }
        player.replay.preemptions = player.engine.load().preemptions;
        Ok(player.replay)
    }
}

/// A replay in progress.
struct Player {
    engine: Engine,
    replay: Replay,
    events: Vec<Event>,
    needed: u64,
    /// How many of the first `needed` requests have not ended.
    unfinished: usize,
}

impl Player {
    fn new(needed: usize, requests: usize, profile: &Profile) -> Self {
        let unseen = Replayed {
            scheduled: f64::NAN,
            first_token: f64::NAN,
            last_token: f64::NAN,
        };
        Self {
            engine: Engine::new(profile.clone(), 0),
            replay: Replay {
                requests: vec![unseen; requests],
                ..Replay::default()
            },
            events: Vec::new(),
            needed: needed as u64,
            unfinished: needed,
        }
    }

    fn submit(&mut self, id: u64, request: &Recorded) -> Result<(), SubmitError> {
        let at = Duration::from_secs_f64(request.queued);
        self.advance(at);
        let submission = Submission {
            id,
            prompt_tokens: request.input_tokens,
            prefix: Prefix::default(),
            output_tokens: request.output_tokens,
        };
        self.engine.submit(at, submission)
    }

    fn observe(&mut self, tick: f64) {
        self.advance(Duration::from_secs_f64(tick));
        let load = self.engine.load();
        self.replay.series.push((load.running, load.waiting));
    }

    fn advance(&mut self, now: Duration) {
        self.engine.advance(now, &mut self.events);
        for event in self.events.drain(..) {
            let request = &mut self.replay.requests[event.id as usize];
            let at = event.at.as_secs_f64();
            match event.kind {
                // Only the first admission counts: a server reports that one, too.
                EventKind::Scheduled { .. } if request.scheduled.is_nan() => request.scheduled = at,
                EventKind::Scheduled { .. } | EventKind::Preempted => {}
                EventKind::FirstToken => (request.first_token, request.last_token) = (at, at),
                EventKind::Token => request.last_token = at,
                EventKind::Finished { .. } => {
                    self.unfinished -= usize::from(event.id < self.needed)
                }
            }
        }
    }
}

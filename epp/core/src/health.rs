//! Passive health: endpoints that fail what they are sent are left alone for a while, tried with one request, and
//! let back in gradually.
//!
//! An endpoint is ejected for connections that cannot be made, for its share of failed answers, for its share of
//! first tokens far beyond what was predicted, and for streams on which nothing comes any more. Shares count only
//! where they are well above those of the rest of the pool: what happens everywhere is not one endpoint's fault.
//! An ejection lasts `base·2ⁿ` for the n-th in a row; then one request goes there, and its fate decides.
//!
//! State lives in the endpoint's [`Load`](crate::Load), so that it outlives pool updates. Sans-IO: every instant is
//! passed in.

mod window;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::config::HealthRules;
use window::{Counts, Window};

/// A share is an endpoint's own if it is at least so many times that of the others.
const ABOVE_OTHERS: f64 = 3.0;
/// Doublings of an ejection at most; the configured limit comes first.
const MOST_DOUBLINGS: u32 = 20;
/// Share of the load with which an endpoint that is back begins.
const FIRST_SHARE: f64 = 0.1;

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It serves.
    Serving,
    /// It is left alone until that instant.
    Ejected {
        /// On the picker's clock.
        until: Duration,
    },
    /// The next request sent there is a trial.
    HalfOpen,
    /// A trial is under way.
    Probing,
    /// It is back, with that share of the load.
    Ramping {
        /// Above 0, below 1.
        share: f64,
    },
}

/// What an endpoint is ejected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Connections could not be made.
    Connect,
    /// Answers failed.
    Errors,
    /// First tokens came far later than predicted.
    SlowFirstToken,
    /// Streams stood still.
    Stalled,
}

impl Fault {
    /// All of them, in the order of [`HealthView::ejections`].
    pub const ALL: [Self; 4] = [
        Self::Connect,
        Self::Errors,
        Self::SlowFirstToken,
        Self::Stalled,
    ];

    /// As metric labels spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Errors => "errors",
            Self::SlowFirstToken => "slow-first-token",
            Self::Stalled => "stalled",
        }
    }
}

/// What can be told of an endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HealthView {
    /// How it stands.
    pub standing: Standing,
    /// Ejections since it is known, by [`Fault::ALL`].
    pub ejections: [u64; 4],
}

/// One endpoint's health. Without `passive-health` in the configuration nothing ever changes in it.
#[derive(Debug, Default)]
pub struct Health {
    /// The standing for readers that take no lock; see [`Mark`].
    mark: AtomicU64,
    /// When a watched stream last brought something, milliseconds.
    heard: AtomicU64,
    /// Decoding streams whose chunks are told.
    watched: AtomicU32,
    /// Mean time per output token, microseconds.
    interval: AtomicU32,
    state: Mutex<State>,
}

/// A standing in one word: two bits of kind, then milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Serving,
    /// Until.
    Ejected(u64),
    Probing,
    /// Since.
    Ramping(u64),
}

#[derive(Debug, Default)]
struct State {
    recent: Window,
    connect_failures: u32,
    /// Ejections in a row.
    times: u32,
    /// When it was last let back in.
    returned: Option<Duration>,
    /// Counts ejections: what was sent before the last one says nothing new.
    epoch: u32,
    ejections: [u64; 4],
}

/// A request's stay on an endpoint, as far as its health is concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    epoch: u32,
    /// Its fate decides whether the endpoint is let back in.
    probe: bool,
    /// Its chunks are told.
    watched: bool,
    settled: bool,
}

/// How a request fared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It was answered; anything but 5xx is well.
    Answered(u16),
    /// No connection was made: another endpoint served it.
    Unreachable,
    /// The answer broke off.
    Cut,
    /// The client left, or the picker took it away: nobody knows. Carries how many times its predicted p99 it
    /// waited without a first token.
    Left(Option<f64>),
}

/// The rules, and what all endpoints together do.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) rules: HealthRules,
    pool: Mutex<Window>,
    /// Counts changes of any endpoint's standing.
    changes: AtomicU64,
}

impl Health {
    /// How the endpoint stands and how often it was ejected.
    pub fn view(&self, now: Duration) -> HealthView {
        HealthView {
            standing: self.standing(now, Duration::ZERO),
            ejections: self.lock().ejections,
        }
    }

    /// How the endpoint stands, where one that is back takes `slow_start` to take up its share.
    pub(crate) fn standing(&self, now: Duration, slow_start: Duration) -> Standing {
        match Mark::decode(self.mark.load(Relaxed)) {
            Mark::Serving => Standing::Serving,
            Mark::Probing => Standing::Probing,
            Mark::Ejected(until) if milliseconds(now) >= until => Standing::HalfOpen,
            Mark::Ejected(until) => Standing::Ejected {
                until: Duration::from_millis(until),
            },
            Mark::Ramping(since) => {
                let passed = now.saturating_sub(Duration::from_millis(since));
                if passed >= slow_start {
                    return Standing::Serving;
                }
                let share = passed.as_secs_f64() / slow_start.as_secs_f64();
                Standing::Ramping {
                    share: share.max(FIRST_SHARE),
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the watched streams have brought nothing; `None` = there are none.
    fn silence(&self, now: Duration) -> Option<Duration> {
        let heard = Duration::from_millis(self.heard.load(Relaxed));
        (self.watched.load(Relaxed) > 0).then(|| now.saturating_sub(heard))
    }
}

impl Watch {
    pub(crate) fn new(rules: HealthRules) -> Self {
        Self {
            rules,
            pool: Mutex::default(),
            changes: AtomicU64::new(1),
        }
    }

    /// Counts changes of any endpoint's standing.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// A request is sent to the endpoint.
    pub(crate) fn dispatched(&self, health: &Health, now: Duration) -> Visit {
        let state = health.lock();
        let mark = Mark::decode(health.mark.load(Relaxed));
        let probe = matches!(mark, Mark::Ejected(until) if milliseconds(now) >= until);
        if probe {
            self.mark(health, Mark::Probing);
        }
        Visit {
            epoch: state.epoch,
            probe,
            watched: false,
            settled: false,
        }
    }

    /// Its first token came after `times_p99` times the predicted p99 (`None` = no prediction is believed).
    pub(crate) fn first_token(
        &self,
        health: &Health,
        now: Duration,
        visit: &mut Visit,
        times_p99: Option<f64>,
    ) {
        let mut state = health.lock();
        if self.stale(health, &state, visit) {
            return;
        }
        let slow = times_p99.is_some_and(|times| times > self.rules.parameters.ttft_outlier_factor);
        if times_p99.is_some() {
            self.count(&mut state, now, |counts| {
                counts.first_tokens += 1;
                counts.slow += u32::from(slow);
            });
        }
        if visit.probe {
            visit.probe = false;
            if slow {
                self.eject(health, &mut state, now, Fault::SlowFirstToken);
            } else {
                self.let_back(health, &mut state, now);
            }
        } else if slow && self.stands_out(&state, now, Part::Lateness) {
            self.eject(health, &mut state, now, Fault::SlowFirstToken);
        }
    }

    /// One of its chunks came.
    pub(crate) fn progress(&self, health: &Health, now: Duration, visit: &mut Visit) {
        health.heard.fetch_max(milliseconds(now), Relaxed);
        if !visit.watched {
            let state = health.lock();
            visit.watched = state.epoch == visit.epoch;
            if visit.watched {
                health.watched.fetch_add(1, Relaxed);
            }
        }
    }

    /// It ended, with `tpot_ms` per output token.
    pub(crate) fn ended(
        &self,
        health: &Health,
        now: Duration,
        visit: &mut Visit,
        fate: Fate,
        tpot_ms: Option<f64>,
    ) {
        if std::mem::replace(&mut visit.settled, true) {
            return;
        }
        let mut state = health.lock();
        if visit.watched && state.epoch == visit.epoch {
            health.watched.fetch_sub(1, Relaxed);
        }
        if let Some(tpot_ms) = tpot_ms {
            health.paced(tpot_ms);
        }
        if self.stale(health, &state, visit) {
            return;
        }
        match fate {
            Fate::Answered(status) => self.answered(health, &mut state, now, visit, status),
            Fate::Unreachable => self.answered(health, &mut state, now, visit, 503),
            Fate::Cut => self.failed(health, &mut state, now, visit, Fault::Errors),
            Fate::Left(waited) => self.left(health, &mut state, now, visit, waited),
        }
    }

    /// Ejects the endpoint if its streams stand still; true = it does so now.
    pub(crate) fn check_stall(&self, health: &Health, now: Duration) -> bool {
        let Some(silence) = health.silence(now) else {
            return false;
        };
        let interval = Duration::from_micros(u64::from(health.interval.load(Relaxed)));
        let pause = interval.mul_f64(self.rules.parameters.stall_intervals.min(1e9));
        if silence < pause.max(self.rules.min_stall) {
            return false;
        }
        let mut state = health.lock();
        let serves = matches!(
            Mark::decode(health.mark.load(Relaxed)),
            Mark::Serving | Mark::Ramping(_)
        );
        if serves {
            self.eject(health, &mut state, now, Fault::Stalled);
        }
        serves
    }

    fn answered(
        &self,
        health: &Health,
        state: &mut State,
        now: Duration,
        visit: &Visit,
        status: u16,
    ) {
        if matches!(status, 502..=504) {
            state.connect_failures += 1;
            let most = self.rules.parameters.max_connect_failures;
            if visit.probe || state.connect_failures >= most {
                return self.eject(health, state, now, Fault::Connect);
            }
        }
        if status >= 500 {
            return self.failed(health, state, now, visit, Fault::Errors);
        }
        state.connect_failures = 0;
        self.count(state, now, |counts| counts.ended += 1);
        if visit.probe {
            self.let_back(health, state, now);
        }
    }

    fn failed(
        &self,
        health: &Health,
        state: &mut State,
        now: Duration,
        visit: &Visit,
        fault: Fault,
    ) {
        self.count(state, now, |counts| {
            counts.ended += 1;
            counts.failed += 1;
        });
        if visit.probe || self.stands_out(state, now, Part::Failures) {
            self.eject(health, state, now, fault);
        }
    }

    fn left(
        &self,
        health: &Health,
        state: &mut State,
        now: Duration,
        visit: &Visit,
        waited: Option<f64>,
    ) {
        let slow = waited.is_some_and(|times| times > self.rules.parameters.ttft_outlier_factor);
        if slow {
            self.count(state, now, |counts| {
                counts.first_tokens += 1;
                counts.slow += 1;
            });
        }
        if slow && (visit.probe || self.stands_out(state, now, Part::Lateness)) {
            self.eject(health, state, now, Fault::SlowFirstToken);
        } else if visit.probe {
            // It told nothing: the next request is the trial.
            self.mark(health, Mark::Ejected(milliseconds(now)));
        }
    }

    /// What was sent before the last ejection, or while the endpoint is left alone, changes nothing.
    fn stale(&self, health: &Health, state: &State, visit: &Visit) -> bool {
        let mark = Mark::decode(health.mark.load(Relaxed));
        visit.epoch != state.epoch
            || matches!(mark, Mark::Ejected(_))
            || mark == Mark::Probing && !visit.probe
    }

    fn count(&self, state: &mut State, now: Duration, add: impl Fn(&mut Counts)) {
        let window = self.rules.window;
        add(state.recent.at(now, window));
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        add(pool.at(now, window));
    }

    /// Whether a part of what the endpoint does is above its limit and well above that of the others.
    fn stands_out(&self, state: &State, now: Duration, part: Part) -> bool {
        let (window, parameters) = (self.rules.window, &self.rules.parameters);
        let own = state.recent.total(now, window);
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let others = pool.total(now, window).without(&own);
        let share = |(part, whole): (u32, u32)| f64::from(part) / f64::from(whole.max(1));
        let limit = match part {
            Part::Failures => parameters.max_error_share,
            Part::Lateness => parameters.max_ttft_outlier_share,
        };
        let own = part.of(&own);
        own.1 >= parameters.min_requests
            && share(own) >= limit
            && share(own) >= ABOVE_OTHERS * share(part.of(&others))
    }

    fn eject(&self, health: &Health, state: &mut State, now: Duration, fault: Fault) {
        let HealthRules {
            window,
            base_ejection,
            max_ejection,
            slow_start,
            ..
        } = self.rules;
        let kept_well = |back: Duration| now.saturating_sub(back) > slow_start + window;
        if state.returned.is_some_and(kept_well) {
            state.times = 0;
        }
        let doubled = base_ejection.saturating_mul(1 << state.times.min(MOST_DOUBLINGS));
        let until = now.saturating_add(doubled.min(max_ejection));
        state.times = state.times.saturating_add(1);
        state.epoch = state.epoch.wrapping_add(1);
        state.recent = Window::default();
        state.connect_failures = 0;
        state.ejections[fault as usize] += 1;
        health.watched.store(0, Relaxed);
        self.mark(health, Mark::Ejected(milliseconds(until)));
    }

    fn let_back(&self, health: &Health, state: &mut State, now: Duration) {
        state.returned = Some(now);
        state.recent = Window::default();
        self.mark(health, Mark::Ramping(milliseconds(now)));
    }

    fn mark(&self, health: &Health, mark: Mark) {
        health.mark.store(mark.encode(), Relaxed);
        self.changes.fetch_add(1, Relaxed);
    }
}

impl Health {
    /// Takes a stream's time per output token into the mean.
    fn paced(&self, tpot_ms: f64) {
        let told = (tpot_ms * 1e3).clamp(1.0, f64::from(u32::MAX)) as u32;
        let known = self.interval.load(Relaxed);
        let mean = if known == 0 {
            told
        } else {
            known - known / 8 + told / 8
        };
        self.interval.store(mean, Relaxed);
    }
}

/// What shares are taken of.
#[derive(Clone, Copy, Debug)]
enum Part {
    Failures,
    Lateness,
}

impl Part {
    fn of(self, counts: &Counts) -> (u32, u32) {
        match self {
            Self::Failures => counts.failures(),
            Self::Lateness => counts.lateness(),
        }
    }
}

impl Mark {
    const KIND: u32 = 62;
    const TIME: u64 = (1 << Self::KIND) - 1;

    fn encode(self) -> u64 {
        let (kind, time) = match self {
            Self::Serving => (0, 0),
            Self::Ejected(until) => (1, until),
            Self::Probing => (2, 0),
            Self::Ramping(since) => (3, since),
        };
        kind << Self::KIND | time.min(Self::TIME)
    }

    fn decode(word: u64) -> Self {
        let time = word & Self::TIME;
        match word >> Self::KIND {
            0 => Self::Serving,
            1 => Self::Ejected(time),
            2 => Self::Probing,
            _ => Self::Ramping(time),
        }
    }
}

fn milliseconds(instant: Duration) -> u64 {
    u64::try_from(instant.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

//! What requests tell of an endpoint, and what follows from it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::window::{Counts, Window};
use super::{Fault, Health, Mark, State, milliseconds};
use crate::config::HealthRules;

/// A share is an endpoint's own if it is at least so many times that of the others.
const ABOVE_OTHERS: f64 = 3.0;
/// Doublings of an ejection at most; the configured limit comes first.
const MOST_DOUBLINGS: u32 = 20;
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
    /// The server broke its answer off, and said so.
    Cut,
    /// The answer broke off, nobody knows at which end. Carries what `Left` does.
    Broken(Option<f64>),
    /// The client left, or the picker took it away: nobody knows. Carries how many times its predicted p99 it
    /// waited without a first token.
    Left(Option<f64>),
}

/// The rules, and what all endpoints together do.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) rules: HealthRules,
    pool: Arc<Mutex<Window>>,
    /// Counts changes of any endpoint's standing.
    changes: Arc<AtomicU64>,
}

/// What shares are taken of.
#[derive(Clone, Copy, Debug)]
enum Part {
    Connections,
    Failures,
    Breaks,
    Lateness,
}

impl Part {
    fn of(self, counts: &Counts) -> (u32, u32) {
        match self {
            Self::Connections => counts.connections(),
            Self::Failures => counts.failures(),
            Self::Breaks => counts.breaks(),
            Self::Lateness => counts.lateness(),
        }
    }
}

/// A share and what it is a share of.
#[derive(Clone, Copy, Debug)]
struct Fraction {
    share: f64,
    of: u32,
}

impl Fraction {
    /// 0 of nothing.
    fn of(part: Part, counts: &Counts) -> Self {
        let (part, of) = part.of(counts);
        Self {
            share: f64::from(part) / f64::from(of.max(1)),
            of,
        }
    }
}

impl Watch {
    pub(crate) fn new(rules: HealthRules) -> Self {
        Self {
            rules,
            pool: Arc::default(),
            changes: Arc::new(AtomicU64::new(1)),
        }
    }

    /// The same endpoints under other rules; requests in flight go on telling under those that they began with.
    pub(crate) fn under(&self, rules: HealthRules) -> Self {
        Self {
            rules,
            pool: Arc::clone(&self.pool),
            changes: Arc::clone(&self.changes),
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
        let slow = self.slow(times_p99);
        if times_p99.is_some() {
            self.count(&mut state, now, |counts| {
                counts.first_tokens += 1;
                counts.slow += u32::from(slow);
            });
        }
        if visit.probe {
            visit.probe = false;
            if slow && self.condemns(&state, now, Part::Lateness) {
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

    /// It ended, with `tpot_ms` per output token. True = its answer broke off, and all speaks for the endpoint
    /// having done it.
    pub(crate) fn ended(
        &self,
        health: &Health,
        now: Duration,
        visit: &mut Visit,
        fate: Fate,
        tpot_ms: Option<f64>,
    ) -> bool {
        if std::mem::replace(&mut visit.settled, true) {
            return false;
        }
        let mut state = health.lock();
        if visit.watched && state.epoch == visit.epoch {
            health.watched.fetch_sub(1, Relaxed);
        }
        if let Some(tpot_ms) = tpot_ms {
            health.paced(tpot_ms);
        }
        if self.stale(health, &state, visit) {
            let broke = matches!(fate, Fate::Cut | Fate::Broken(_));
            return broke && visit.epoch != state.epoch && state.breaks_answers();
        }
        match fate {
            Fate::Answered(status) => self.answered(health, &mut state, now, visit, status),
            Fate::Unreachable => self.answered(health, &mut state, now, visit, 503),
            Fate::Cut => {
                self.count(&mut state, now, Counts::fail);
                self.failed(health, &mut state, now, visit);
            }
            Fate::Broken(waited) if !self.slow(waited) => {
                return self.broken(health, &mut state, now, visit);
            }
            Fate::Left(waited) | Fate::Broken(waited) => {
                self.left(health, &mut state, now, visit, waited);
            }
        }
        false
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
            return self.unreachable(health, state, now, visit);
        }
        if status >= 500 {
            self.count(state, now, Counts::fail);
            return self.failed(health, state, now, visit);
        }
        state.connect_failures = 0;
        self.count(state, now, |counts| counts.ended += 1);
        if visit.probe {
            self.let_back(health, state, now);
        }
    }

    /// No connection was made. An engine that has too much to do answers in the same way, so it counts in a row and
    /// against the others.
    fn unreachable(&self, health: &Health, state: &mut State, now: Duration, visit: &Visit) {
        if now.saturating_sub(state.connect_failed) > self.rules.window {
            state.connect_failures = 0;
        }
        state.connect_failures = state.connect_failures.saturating_add(1);
        state.connect_failed = now;
        self.count(state, now, |counts| {
            counts.fail();
            counts.unreachable += 1;
        });
        if visit.probe {
            return self.tried(health, state, now, Part::Connections, Fault::Connect);
        }
        let most = self.rules.parameters.max_connect_failures;
        let (own, others) = self.shares(state, now, Part::Connections);
        if state.connect_failures >= most && own.share >= ABOVE_OTHERS * others.share {
            return self.eject(health, state, now, Fault::Connect);
        }
        self.failed(health, state, now, visit);
    }

    /// A failed answer was counted.
    fn failed(&self, health: &Health, state: &mut State, now: Duration, visit: &Visit) {
        if visit.probe {
            self.tried(health, state, now, Part::Failures, Fault::Errors);
        } else if self.stands_out(state, now, Part::Failures) {
            self.eject(health, state, now, Fault::Errors);
        }
    }

    /// A trial failed.
    fn tried(&self, health: &Health, state: &mut State, now: Duration, part: Part, fault: Fault) {
        if self.condemns(state, now, part) {
            self.eject(health, state, now, fault);
        } else {
            self.undecided(health, now);
        }
    }

    /// Whether a failed trial is held against the endpoint: not where the others fail nearly as often.
    fn condemns(&self, state: &State, now: Duration, part: Part) -> bool {
        let (_, others) = self.shares(state, now, part);
        ABOVE_OTHERS * others.share <= 1.0
    }

    /// A trial told nothing: the next request is the trial.
    fn undecided(&self, health: &Health, now: Duration) {
        self.mark(health, Mark::Ejected(milliseconds(now)));
    }

    /// Clients leave all endpoints alike: an answer counts against its endpoint where far more of its own break off
    /// than of the others'. With too little to compare with nothing is held against it.
    fn broken(&self, health: &Health, state: &mut State, now: Duration, visit: &Visit) -> bool {
        if visit.probe {
            self.undecided(health, now);
            return false;
        }
        self.count(state, now, |counts| counts.broken += 1);
        let (_, others) = self.shares(state, now, Part::Breaks);
        let comparable = others.of >= self.rules.parameters.min_requests;
        let its_own = comparable && self.stands_out(state, now, Part::Breaks);
        if its_own {
            self.eject(health, state, now, Fault::Errors);
        }
        its_own
    }

    fn slow(&self, times_p99: Option<f64>) -> bool {
        times_p99.is_some_and(|times| times > self.rules.parameters.ttft_outlier_factor)
    }

    fn left(
        &self,
        health: &Health,
        state: &mut State,
        now: Duration,
        visit: &Visit,
        waited: Option<f64>,
    ) {
        let slow = self.slow(waited);
        if slow {
            self.count(state, now, |counts| {
                counts.first_tokens += 1;
                counts.slow += 1;
            });
        }
        if visit.probe && slow {
            self.tried(health, state, now, Part::Lateness, Fault::SlowFirstToken);
        } else if visit.probe {
            self.undecided(health, now);
        } else if slow && self.stands_out(state, now, Part::Lateness) {
            self.eject(health, state, now, Fault::SlowFirstToken);
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
        let parameters = &self.rules.parameters;
        let limit = match part {
            Part::Connections | Part::Failures | Part::Breaks => parameters.max_error_share,
            Part::Lateness => parameters.max_ttft_outlier_share,
        };
        let (own, others) = self.shares(state, now, part);
        own.of >= parameters.min_requests
            && own.share >= limit
            && own.share >= ABOVE_OTHERS * others.share
    }

    /// A part of what the endpoint does, and the same of the others together.
    fn shares(&self, state: &State, now: Duration, part: Part) -> (Fraction, Fraction) {
        let window = self.rules.window;
        let own = state.recent.total(now, window);
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let others = pool.total(now, window).without(&own);
        (Fraction::of(part, &own), Fraction::of(part, &others))
    }

    /// What the endpoint did counts no more: not for it, and not among the others for anybody.
    fn begin_anew(&self, state: &mut State) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.forget(&std::mem::take(&mut state.recent));
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
        self.begin_anew(state);
        state.connect_failures = 0;
        state.ejections[fault as usize] += 1;
        state.fault = Some(fault);
        health.watched.store(0, Relaxed);
        self.mark(health, Mark::Ejected(milliseconds(until)));
    }

    fn let_back(&self, health: &Health, state: &mut State, now: Duration) {
        (state.returned, state.slow_start) = (Some(now), self.rules.slow_start);
        self.begin_anew(state);
        self.mark(health, Mark::Ramping(milliseconds(now)));
    }

    fn mark(&self, health: &Health, mark: Mark) {
        health.mark.store(mark.encode(), Relaxed);
        self.changes.fetch_add(1, Relaxed);
    }
}

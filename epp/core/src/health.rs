//! Passive health: endpoints that fail what they are sent are left alone for a while, tried with one request, and
//! let back in gradually.
//!
//! An endpoint is ejected for connections that cannot be made, for its share of failed answers, for its share of
//! first tokens far beyond what was predicted, and for streams on which nothing comes any more. Failures count only
//! where they are well above those of the rest of the pool: what happens everywhere is not one endpoint's fault.
//! An ejection lasts `base·2ⁿ` for the n-th in a row; then one request goes there, and its fate decides.
//!
//! State lives in the endpoint's [`Load`](crate::Load), so that it outlives pool updates. Sans-IO: every instant is
//! passed in.

mod watch;
mod window;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

pub(crate) use watch::{Fate, Visit, Watch};
use window::Window;

/// Share of the load with which an endpoint that is back begins.
const FIRST_SHARE: f64 = 0.1;

/// Streams that have to stand still together: one alone may have a client that does not read.
const WITNESSES: u32 = 2;

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
    /// Connections that failed in a row, and when the last one did.
    connect_failures: u32,
    connect_failed: Duration,
    /// Ejections in a row.
    times: u32,
    /// When it was last let back in, and the time it then takes to take up its share.
    returned: Option<Duration>,
    slow_start: Duration,
    /// Counts ejections: what was sent before the last one says nothing new.
    epoch: u32,
    ejections: [u64; 4],
    /// What it was last ejected for.
    fault: Option<Fault>,
}

impl State {
    /// Whether what it was last ejected for ends the answers under way too.
    fn breaks_answers(&self) -> bool {
        self.fault
            .is_some_and(|fault| fault != Fault::SlowFirstToken)
    }
}

impl Health {
    /// How the endpoint stands and how often it was ejected.
    pub fn view(&self, now: Duration) -> HealthView {
        let state = self.lock();
        HealthView {
            standing: self.standing(now, state.slow_start),
            ejections: state.ejections,
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

    /// How long the watched streams have brought nothing; `None` = there are too few to say.
    fn silence(&self, now: Duration) -> Option<Duration> {
        let heard = Duration::from_millis(self.heard.load(Relaxed));
        (self.watched.load(Relaxed) >= WITNESSES).then(|| now.saturating_sub(heard))
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

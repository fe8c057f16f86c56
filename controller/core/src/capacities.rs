//! Capacities as they are counted by: computed when something changed, and steadied over time.
//!
//! What a replica can do changes as slowly as the mix; what a model refitted on a few new rows says of it jumps. Counted
//! by is therefore the median of the capacities computed lately (`Book`). A computation costs milliseconds, so it is
//! saved where nothing has changed (`Care`), and put off where a cycle has spent what it may (`Allowance`).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capacity::{self, Capacity, Terms};
use crate::decision::Hold;
use crate::latency::Latency;
use crate::mix::Mix;
use crate::policy::Nanos;

/// A capacity is looked at anew when the model was refitted, and at least this often, since the mix moves too.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Most capacities that a median is taken of.
const MOST_ENTRIES: usize = 256;

/// When a capacity is computed anew although the model is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Whenever the mix is not exactly the same.
    Exact,
    /// When the mix has moved by more than the noise of its sample, and once a minute.
    Thrifty,
}

/// How far the thrifty let the mix move: means by a twentieth, the spread of prefill work by a tenth. A sample of a
/// thousand requests moves about as much by chance.
const MEAN_MOVES: f64 = 0.05;
const SPREAD_MOVES: f64 = 0.1;
/// The thrifty compute anew after this long, unless the mix is exactly the same.
const THRIFT_ENDS: Duration = Duration::from_secs(60);

/// Computations that may still be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    left: usize,
    spent: usize,
}

impl Allowance {
    /// `computations` may be spent.
    pub fn new(computations: usize) -> Self {
        Self {
            left: computations,
            spent: 0,
        }
    }

    /// Computations spent so far.
    pub fn spent(&self) -> usize {
        self.spent
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    fn spend(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.spent += usize::from(may);
        may
    }
}

/// What a capacity is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) now: Duration,
    pub(crate) model: &'a dyn Latency,
    pub(crate) mix: &'a Mix,
    pub(crate) terms: &'a Terms,
    pub(crate) kv_tokens: Option<f64>,
}

/// A capacity to count by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) capacity: Capacity,
    /// Since the newest computation that went into it.
    pub(crate) age: Duration,
    /// A newer one should be computed and could not be.
    pub(crate) due: bool,
    /// The latency over its target, at no load and at the highest rate.
    pub(crate) pressure: Pressure,
}

/// Predicted latency at the objective's percentile over its target, by the share of the highest rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pressure {
    /// At no load.
    idle: f64,
    /// At the highest rate.
    full: f64,
}

impl Pressure {
    /// At a rate of `load` times the highest. Waiting grows like ρ/(1 − ρ), which at the highest rate has grown to
    /// `full`; the share of the engine's time that this takes is at most [`BUSIEST`].
    pub(crate) fn at(&self, load: f64) -> f64 {
        let odds = |load: f64| {
            let busy = (load * BUSIEST).min(0.999);
            busy / (1.0 - busy)
        };
        self.idle + (self.full - self.idle).max(0.0) * odds(load.max(0.0)) / odds(1.0)
    }
}

/// Utilisation that a replica at its highest rate is taken to have.
const BUSIEST: f64 = 0.8;

/// The capacities of one variant for one class, computed lately, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "SavedBook", into = "SavedBook")]
pub(crate) struct Book {
    entries: VecDeque<Entry>,
    /// What the newest was computed from; unknown after a restart.
    basis: Option<Basis>,
    pressure: Pressure,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    at: Duration,
    version: u64,
    capacity: Capacity,
}

#[derive(Clone, Debug, PartialEq)]
struct Basis {
    computed: Duration,
    mix: Mix,
    terms: Terms,
    kv_tokens: Option<f64>,
}

impl Book {
    /// The capacity to count by: the median of the last ones, the newest computed now if one is due. Those older than
    /// `window` when a new one is added are forgotten.
    ///
    /// # Errors
    /// [`Hold::Unbounded`] when the newest is not known, [`Hold::AwaitingCapacity`] when there is none and nothing may
    /// be spent.
    pub(crate) fn consult(
        &mut self,
        question: &Question<'_>,
        window: Duration,
        care: Care,
        allowance: &mut Allowance,
    ) -> Result<Known, Hold> {
        let now = question.now;
        let version = question.model.version();
        let changed_terms = self
            .basis
            .as_ref()
            .is_some_and(|basis| basis.terms != *question.terms);
        let fresh = |entry: &Entry| entry.version == version && now < entry.at + LOOK_EVERY;
        let newest = self.entries.back().copied();
        if newest.is_some_and(|entry| fresh(&entry)) && !changed_terms {
            return self.known(now, false).ok_or(Hold::AwaitingCapacity);
        }
        let unchanged =
            newest.filter(|entry| entry.version == version && self.is_same(question, care));
        let capacity = match unchanged {
            Some(entry) => entry.capacity,
            None if !allowance.spend() => {
                return self.known(now, true).ok_or(Hold::AwaitingCapacity);
            }
            None => {
                if changed_terms {
                    self.entries.clear();
                }
                self.compute(question)?
            }
        };
        let oldest = now.saturating_sub(window);
        self.entries.retain(|entry| entry.at > oldest);
        if self.entries.len() == MOST_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            at: now,
            version,
            capacity,
        });
        self.known(now, false).ok_or(Hold::Unbounded)
    }

    /// The capacity counted by last, whatever has changed since.
    pub(crate) fn last_known(&self, now: Duration) -> Option<Known> {
        self.known(now, true)
    }

    /// When the capacity was computed last; `None`: never.
    pub(crate) fn computed(&self) -> Option<Duration> {
        let newest = self.entries.back()?;
        Some(
            self.basis
                .as_ref()
                .map_or(newest.at, |basis| basis.computed),
        )
    }

    fn compute(&mut self, question: &Question<'_>) -> Result<Capacity, Hold> {
        let Question {
            now,
            model,
            mix,
            terms,
            kv_tokens,
        } = *question;
        let Some(capacity) = capacity::capacity(model, mix, terms, kv_tokens) else {
            self.entries.clear();
            self.basis = None;
            return Err(Hold::Unbounded);
        };
        let worst = |ttft: f64, tpot: f64| (ttft / terms.slo.ttft_ms).max(tpot / terms.slo.tpot_ms);
        let idle = capacity::idle_latency(model, mix, terms);
        self.pressure = Pressure {
            idle: idle.map_or(0.0, |(ttft, tpot)| worst(ttft, tpot)),
            full: worst(capacity.ttft_ms, capacity.tpot_ms),
        };
        self.basis = Some(Basis {
            computed: now,
            mix: mix.clone(),
            terms: *terms,
            kv_tokens,
        });
        Ok(capacity)
    }

    /// Whether a computation now would say what the newest says.
    fn is_same(&self, question: &Question<'_>, care: Care) -> bool {
        let Some(basis) = &self.basis else {
            return false;
        };
        if basis.terms != *question.terms || basis.kv_tokens != question.kv_tokens {
            return false;
        }
        if basis.mix == *question.mix {
            return true;
        }
        care == Care::Thrifty
            && question.now < basis.computed + THRIFT_ENDS
            && is_near(&basis.mix, question.mix)
    }

    fn known(&self, now: Duration, due: bool) -> Option<Known> {
        let mut lately: Vec<Capacity> = self.entries.iter().map(|entry| entry.capacity).collect();
        lately.sort_by(|a, b| a.requests_per_second.total_cmp(&b.requests_per_second));
        let capacity = lately.get(lately.len() / 2).copied()?;
        Some(Known {
            capacity,
            age: now.saturating_sub(self.computed()?),
            due,
            pressure: self.pressure,
        })
    }

    /// Whether this could have been computed until `now`.
    pub(crate) fn is_sane(&self, now: Duration) -> bool {
        let rate = |entry: &Entry| entry.capacity.requests_per_second;
        self.entries.len() <= MOST_ENTRIES
            && self.entries.iter().is_sorted_by_key(|entry| entry.at)
            && self
                .entries
                .iter()
                .all(|entry| entry.at <= now && rate(entry).is_finite() && rate(entry) > 0.0)
    }
}

/// Whether two mixes differ by no more than their samples' noise.
fn is_near(a: &Mix, b: &Mix) -> bool {
    let near = |most: f64, of: &dyn Fn(&Mix) -> f64| {
        let (a, b) = (of(a), of(b));
        (a - b).abs() <= most * a.abs().max(b.abs()).max(1.0)
    };
    near(MEAN_MOVES, &Mix::mean_output)
        && near(MEAN_MOVES, &|mix| mix.mean(|s| f64::from(s.input)))
        && near(MEAN_MOVES, &|mix| mix.mean(|s| f64::from(s.uncached())))
        && near(SPREAD_MOVES, &|mix| {
            mix.mean(|s| f64::from(s.uncached()).powi(2)).sqrt()
        })
        && near(SPREAD_MOVES, &|mix| {
            mix.strata().last().map_or(0.0, |s| f64::from(s.uncached()))
        })
}

/// A book as it is written: the median in full, of the others the rates alone.
#[derive(Serialize, Deserialize)]
struct SavedBook {
    version: u64,
    rates: Vec<(Nanos, f64)>,
    median: Option<Capacity>,
    pressure: Pressure,
}

impl From<Book> for SavedBook {
    fn from(book: Book) -> Self {
        let known = book.known(Duration::ZERO, false);
        let rates = book.entries.iter();
        Self {
            version: book.entries.back().map_or(0, |entry| entry.version),
            rates: rates
                .map(|entry| (Nanos(entry.at), entry.capacity.requests_per_second))
                .collect(),
            median: known.map(|known| known.capacity),
            pressure: book.pressure,
        }
    }
}

impl From<SavedBook> for Book {
    fn from(saved: SavedBook) -> Self {
        let Some(median) = saved.median else {
            return Self::default();
        };
        let entry = |(at, rate): (Nanos, f64)| Entry {
            at: at.0,
            version: saved.version,
            capacity: Capacity {
                requests_per_second: rate,
                ..median
            },
        };
        Self {
            entries: saved.rates.into_iter().map(entry).collect(),
            basis: None,
            pressure: saved.pressure,
        }
    }
}

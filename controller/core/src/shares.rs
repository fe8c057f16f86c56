//! What several endpoint pickers have counted, as one demand.
//!
//! Every picker of a pool counts the requests that came to it, from its own start. [`Shares`] adds their counts up so
//! that the sum only grows, however reports are delayed, repeated or reordered, and however pickers restart or leave:
//!
//! - each (picker, incarnation) is counted by the growth of its own counters, so a restart begins a new count beside
//!   the old one and a report that comes twice or late adds nothing twice;
//! - a picker that had been counting before anybody listened contributes from its first report on: what it counted
//!   earlier arrived at an unknown time;
//! - a picker that is gone keeps what it contributed; only its present state (queue, requests in flight) leaves;
//! - a picker that is silent is unknown, not zero: its count stays as it was, it is named, and what it counted
//!   meanwhile is handed over as [`Arrears`], spread over its silence, so that no burst appears that never was.

mod saved;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::mix::{Mix, Sample};
use crate::policy::Nanos;
use crate::signals::{Backlog, Totals};
pub use saved::{SavedShares, SharesError};

/// A picker unheard for longer than this is silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Counts that grew over a longer gap between two reports are spread over the gap.
const GAP: Duration = Duration::from_millis(1500);
/// Most pickers of one pool.
pub const MAX_PICKERS: usize = 256;
/// Most bands told apart in the sum; requests of further priorities join the lowest.
const MAX_BANDS: usize = 128;
/// Counts of past incarnations kept against late reports.
const MAX_PAST: usize = 64;
/// Request shapes kept.
const MAX_SAMPLES: usize = 4096;
/// Request shapes that a mix is made of: enough for its tail, few enough to follow a change.
pub(crate) const MIX_SAMPLES: usize = 1000;

/// What is known of the requests of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Band {
    /// Priority.
    pub priority: i32,
    /// Cumulative counts.
    pub totals: Totals,
    /// What waits now.
    pub queued: Backlog,
}

/// The shape of one served request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Its priority.
    pub priority: i32,
    /// Its tokens.
    pub sample: Sample,
}

/// One picker's report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Changes with every start of the picker: the counters below belong to it.
    pub incarnation: u64,
    /// Time since that start.
    pub uptime: Duration,
    /// Counts and queue by priority. Several entries of one priority are added up.
    pub bands: Vec<Band>,
    /// Requests on the replicas.
    pub in_flight: u64,
    /// Number, since the picker's start, of the first of `mix`.
    pub mix_from: u64,
    /// Shapes of requests served since the last report, oldest first. Those that were reported before are left out.
    pub mix: Vec<Shape>,
}

/// A picker that cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "picker `{id}` is one too many: at most {MAX_PICKERS} endpoint pickers of one pool are counted"
)]
pub struct Crowded {
    /// The picker.
    pub id: String,
}

/// A picker whose share is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silent {
    /// The picker.
    pub id: String,
    /// Unheard for so long.
    #[serde(rename = "forSeconds", with = "crate::policy::seconds")]
    pub unheard: Duration,
}

/// Counts that grew at an unknown time after `since`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrears {
    /// When their picker was last heard.
    pub since: Duration,
    /// Their priority.
    pub priority: i32,
    /// The growth; part of the totals already.
    pub totals: Totals,
}

/// The newest request shapes of all pickers.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    shapes: VecDeque<Shape>,
    version: u64,
}

impl Samples {
    /// Adds one; the oldest gives way.
    pub fn push(&mut self, shape: Shape) {
        if self.shapes.len() == MAX_SAMPLES {
            self.shapes.pop_front();
        }
        self.shapes.push_back(shape);
        self.version += 1;
    }

    /// Changes with every addition.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The mix of the newest thousand whose priority `belongs`; empty if there is none.
    pub fn mix(&self, belongs: impl Fn(i32) -> bool) -> Mix {
        let newest = self.shapes.iter().rev();
        let theirs = newest.filter(|shape| belongs(shape.priority));
        Mix::from_samples(theirs.take(MIX_SAMPLES).map(|shape| shape.sample))
    }
}

impl FromIterator<Shape> for Samples {
    fn from_iter<I: IntoIterator<Item = Shape>>(shapes: I) -> Self {
        let mut samples = Self::default();
        shapes.into_iter().for_each(|shape| samples.push(shape));
        samples
    }
}

/// The demand on all pickers at one instant.
#[derive(Clone, Debug, Default)]
pub struct MergedDemand {
    /// Which ledger the totals are of: those of different ledgers cannot be compared.
    pub ledger: u8,
    /// By priority, highest first. The totals never decrease from one instant to the next.
    pub bands: Vec<Band>,
    /// Requests on the replicas.
    pub in_flight: u64,
    /// Pickers that were heard lately. None: demand is unknown.
    pub heard: usize,
    /// Pickers whose share is unknown now.
    pub silent: Vec<Silent>,
    /// What the totals have caught up with since the last instant.
    pub arrears: Vec<Arrears>,
    /// Shapes of recent requests.
    pub samples: Arc<Samples>,
}

/// Adds up what pickers report. Memory is bounded by [`MAX_PICKERS`].
#[derive(Clone, Debug)]
pub struct Shares {
    begun: Duration,
    /// The sum so far.
    sum: BTreeMap<i32, Totals>,
    live: BTreeMap<String, Share>,
    /// Last counts of incarnations that ended, oldest first.
    past: VecDeque<Past>,
    arrears: Vec<Arrears>,
    samples: Arc<Samples>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Share {
    /// Last heard, or first expected.
    heard: Nanos,
    current: Option<Current>,
}

/// What the present incarnation of a picker told last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Current {
    incarnation: u64,
    counted: BTreeMap<i32, Totals>,
    queued: Vec<(i32, Backlog)>,
    in_flight: u64,
    /// Not saved: the shapes are not, so they are asked for again.
    #[serde(skip)]
    mix_next: u64,
}

impl Current {
    fn again(past: Past) -> Self {
        Self {
            incarnation: past.incarnation,
            counted: past.counted,
            queued: Vec::new(),
            in_flight: 0,
            mix_next: 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Past {
    id: String,
    incarnation: u64,
    counted: BTreeMap<i32, Totals>,
}

impl Shares {
    /// Nobody heard yet; listening begins `now`.
    pub fn new(now: Duration) -> Self {
        Self {
            begun: now,
            sum: BTreeMap::new(),
            live: BTreeMap::new(),
            past: VecDeque::new(),
            arrears: Vec::new(),
            samples: Arc::default(),
        }
    }

    /// The picker exists and should report: silent if it has not within [`SILENT_AFTER`].
    ///
    /// # Errors
    /// [`Crowded`] when there are too many.
    pub fn expect(&mut self, now: Duration, id: &str) -> Result<(), Crowded> {
        if self.live.contains_key(id) {
            return Ok(());
        }
        if self.live.len() == MAX_PICKERS {
            return Err(Crowded { id: id.to_owned() });
        }
        let share = Share {
            heard: Nanos(now),
            current: None,
        };
        self.live.insert(id.to_owned(), share);
        Ok(())
    }

    /// Takes the report of picker `id`, received `now`.
    ///
    /// # Errors
    /// [`Crowded`] when there are too many pickers.
    pub fn accept(&mut self, now: Duration, id: &str, report: Report) -> Result<(), Crowded> {
        self.expect(now, id)?;
        let Some(mut share) = self.live.remove(id) else {
            return Ok(());
        };
        let bands = by_priority(&report.bands);
        let counted: BTreeMap<i32, Totals> = bands
            .iter()
            .map(|(&priority, band)| (priority, band.totals))
            .collect();
        let ended = self
            .past
            .iter()
            .position(|past| past.incarnation == report.incarnation && past.id == id);
        if let Some(index) = ended {
            if share.current.is_some() {
                // A report that was overtaken by the picker's restart: its counts count, its state is history.
                self.add_late(index, &counted);
                self.live.insert(id.to_owned(), share);
                return Ok(());
            }
            // It was said to be gone and is not: it goes on.
            share.current = self.past.remove(index).map(Current::again);
        }
        let (mut current, since) = match share.current.take() {
            Some(current) if current.incarnation == report.incarnation => (current, share.heard.0),
            before => {
                self.retire(id, before);
                self.begin(now, &report, &counted)
            }
        };
        for (&priority, totals) in &counted {
            let before = current.counted.entry(priority).or_default();
            let growth = totals.growth_since(before);
            *before = before.most(totals);
            self.add(now, since, priority, growth);
        }
        current.queued = bands
            .into_iter()
            .map(|(priority, band)| (priority, band.queued))
            .collect();
        current.in_flight = report.in_flight;
        let known = current.mix_next.saturating_sub(report.mix_from);
        for shape in report
            .mix
            .iter()
            .skip(usize::try_from(known).unwrap_or(usize::MAX))
        {
            Arc::make_mut(&mut self.samples).push(*shape);
        }
        let told = report.mix_from.saturating_add(report.mix.len() as u64);
        current.mix_next = current.mix_next.max(told);
        share = Share {
            heard: Nanos(now.max(share.heard.0)),
            current: Some(current),
        };
        self.live.insert(id.to_owned(), share);
        Ok(())
    }

    /// The picker's pod is gone: its queue and its requests in flight leave the sum, and its silence no longer counts.
    /// What it had counted stays counted.
    pub fn gone(&mut self, id: &str) {
        if let Some(share) = self.live.remove(id) {
            self.retire(id, share.current);
        }
    }

    /// The pickers that are counted on.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.live.keys().map(String::as_str)
    }

    /// The number of the first shape not yet known of picker `id` in this incarnation: what to ask it for.
    pub fn mix_after(&self, id: &str) -> Option<(u64, u64)> {
        let current = self.live.get(id)?.current.as_ref()?;
        Some((current.incarnation, current.mix_next))
    }

    /// The demand `now`. Arrears are handed over once.
    pub fn demand(&mut self, now: Duration) -> MergedDemand {
        let mut bands: BTreeMap<i32, Band> = BTreeMap::new();
        for (&priority, &totals) in &self.sum {
            let band = Band {
                priority,
                totals,
                queued: Backlog::default(),
            };
            bands.insert(priority, band);
        }
        let mut in_flight = 0_u64;
        let mut silent = Vec::new();
        let mut heard = 0;
        for (id, share) in &self.live {
            let unheard = now.saturating_sub(share.heard.0);
            if unheard > SILENT_AFTER {
                silent.push(Silent {
                    id: id.clone(),
                    unheard,
                });
            } else if share.current.is_some() {
                heard += 1;
            }
            // The last queue told stands until the picker is heard or gone: unknown is not empty.
            if let Some(current) = &share.current {
                in_flight = in_flight.saturating_add(current.in_flight);
                for &(priority, queued) in &current.queued {
                    let key = key(&bands, priority);
                    bands.entry(key).or_default().queued += queued;
                }
            }
        }
        for (&priority, band) in &mut bands {
            band.priority = priority;
        }
        MergedDemand {
            ledger: 0,
            bands: bands.into_values().rev().collect(),
            in_flight,
            heard,
            silent,
            arrears: std::mem::take(&mut self.arrears),
            samples: Arc::clone(&self.samples),
        }
    }

    /// The counters that a new incarnation begins with, and when it began: zero if it started since we listen, else
    /// what it has counted.
    fn begin(
        &self,
        now: Duration,
        report: &Report,
        counted: &BTreeMap<i32, Totals>,
    ) -> (Current, Duration) {
        let started = now.saturating_sub(report.uptime);
        let current = Current {
            incarnation: report.incarnation,
            counted: if started < self.begun {
                counted.clone()
            } else {
                BTreeMap::new()
            },
            queued: Vec::new(),
            in_flight: 0,
            mix_next: 0,
        };
        (current, started.max(self.begun))
    }

    fn retire(&mut self, id: &str, current: Option<Current>) {
        let Some(current) = current else { return };
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        }
        self.past.push_back(Past {
            id: id.to_owned(),
            incarnation: current.incarnation,
            counted: current.counted,
        });
    }

    fn add_late(&mut self, index: usize, counted: &BTreeMap<i32, Totals>) {
        let Some(past) = self.past.get_mut(index) else {
            return;
        };
        let mut growths = Vec::new();
        for (&priority, totals) in counted {
            let before = past.counted.entry(priority).or_default();
            growths.push((priority, totals.growth_since(before)));
            *before = before.most(totals);
        }
        for (priority, growth) in growths {
            *self.band(priority) += growth;
        }
    }

    fn add(&mut self, now: Duration, since: Duration, priority: i32, growth: Totals) {
        if growth == Totals::default() {
            return;
        }
        *self.band(priority) += growth;
        if now.saturating_sub(since) > GAP && self.arrears.len() < MAX_PICKERS * MAX_BANDS {
            self.arrears.push(Arrears {
                since,
                priority,
                totals: growth,
            });
        }
    }

    /// The sum that requests of `priority` belong to.
    fn band(&mut self, priority: i32) -> &mut Totals {
        let key = key(&self.sum, priority);
        self.sum.entry(key).or_default()
    }
}

/// Where `priority` belongs among those of `bands`: to itself, or, when there are too many, to the lowest.
fn key<T>(bands: &BTreeMap<i32, T>, priority: i32) -> i32 {
    let crowded = bands.len() >= MAX_BANDS && !bands.contains_key(&priority);
    let lowest = bands.keys().next().copied();
    lowest.filter(|_| crowded).unwrap_or(priority)
}

/// A report's bands by priority.
fn by_priority(reported: &[Band]) -> BTreeMap<i32, Band> {
    let mut bands: BTreeMap<i32, Band> = BTreeMap::new();
    for band in reported {
        let priority = key(&bands, band.priority);
        let sum = bands.entry(priority).or_default();
        sum.totals += band.totals;
        sum.queued += band.queued;
    }
    bands
}

#[cfg(test)]
mod tests;

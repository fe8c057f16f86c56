//! A learner's state as written: everything but its configuration, with ages in place of times.
//!
//! Times count from the start of a process; ages outlive it. Reading turns them into times again on a clock that is
//! moved forward far enough for the oldest of them ([`crate::Learner`] keeps the move to itself).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::Frame;
use super::model_set::{TargetBody, check_class};
use super::{Flaw, SnapshotError};
use crate::Features;
use crate::classes::MOST_CLASSES;
use crate::drift::Side;
use crate::scores::Score;
use crate::store::Row;

/// Bytes of one class's learner, at most: twenty thousand rows per target take two millions of them.
const MOST_BYTES: usize = 16 << 20;
/// Largest count that is read: what a float counts exactly.
const MOST_COUNT: u64 = 1 << 53;

const FRAME: Frame = Frame {
    magic: b"HDRMLRNR",
    most: MOST_BYTES * MOST_CLASSES,
};

/// All learners of a file.
#[derive(Serialize, Deserialize)]
struct File {
    /// When it was written, unix milliseconds.
    at_ms: u64,
    classes: Vec<SavedClass>,
}

/// The learner of one class.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedClass {
    pub(crate) class: Arc<str>,
    pub(crate) version: u64,
    pub(crate) targets: [Saved; 2],
}

/// Nanoseconds before the moment of writing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Age(u64);

/// The learner of one target.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) model: TargetBody,
    pub(crate) rows: Vec<SavedRow>,
    pub(crate) scores: Vec<Score>,
    pub(crate) drift: [(f32, Age); 2],
    pub(crate) counts: Counts,
    pub(crate) beats_base: bool,
    pub(crate) alarmed: bool,
    /// Labels at the last refit, and its age.
    pub(crate) last_fit: Option<(u64, Age)>,
    pub(crate) in_force: Option<Age>,
    pub(crate) last_label: Option<Age>,
    /// Since when requests have had no answer, where that makes the target stale. The requests that were under way
    /// when the file was written ended with their process, and prove nothing.
    pub(crate) silent: Option<Age>,
    pub(crate) fresh_labels: f64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) labels: u64,
    pub(crate) rejected: u64,
    pub(crate) refits: u64,
    pub(crate) refused: u64,
    pub(crate) alarms: u64,
    pub(crate) base_labels: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SavedRow {
    features: Features,
    actual_ms: f32,
    age: Age,
    number: u64,
}

/// The moment of writing or reading, on the clock of the times that are turned into ages and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Duration,
    /// Time since the file was written; zero when writing.
    pub(crate) elapsed: Duration,
}

impl Moment {
    pub(crate) fn age(&self, at: Duration) -> Age {
        let nanoseconds = self.now.saturating_sub(at).as_nanos();
        Age(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    pub(crate) fn time(&self, age: Age) -> Duration {
        self.now
            .saturating_sub(age.span())
            .saturating_sub(self.elapsed)
    }

    pub(crate) fn saved_row(&self, row: &Row) -> SavedRow {
        SavedRow {
            features: row.features,
            actual_ms: row.actual_ms,
            age: self.age(row.at),
            number: row.number,
        }
    }

    pub(crate) fn row(&self, row: &SavedRow) -> Row {
        Row {
            features: row.features,
            actual_ms: row.actual_ms,
            at: self.time(row.age),
            number: row.number,
        }
    }

    pub(crate) fn saved_side(&self, side: &Side) -> (f32, Age) {
        (side.excess, self.age(side.since))
    }

    pub(crate) fn side(&self, (excess, since): (f32, Age)) -> Side {
        Side {
            excess,
            since: self.time(since),
        }
    }
}

impl Age {
    fn span(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl Saved {
    /// The oldest time that is kept.
    pub(crate) fn oldest(&self) -> Duration {
        let single = [
            self.in_force,
            self.last_label,
            self.silent,
            self.last_fit.map(|fit| fit.1),
        ];
        let rows = self.rows.iter().map(|row| row.age);
        let drift = self.drift.iter().map(|side| side.1);
        let ages = single.into_iter().flatten().chain(rows).chain(drift);
        ages.map(Age::span).max().unwrap_or_default()
    }

    /// What it has that no learner writes, if anything (its model apart).
    pub(crate) fn flaw(&self) -> Option<Flaw> {
        let Counts {
            labels,
            rejected,
            refits,
            refused,
            alarms,
            base_labels,
        } = self.counts;
        let counts = [labels, rejected, refits, refused, alarms, base_labels];
        if let Some(&count) = counts.iter().find(|count| **count > MOST_COUNT) {
            return Some(Flaw::new("count", count as f64, "at most 2^53"));
        }
        if let Some((fitted, _)) = self.last_fit.filter(|(fitted, _)| *fitted > labels) {
            let right = "at most those learned from";
            return Some(Flaw::new("labels at the last refit", fitted as f64, right));
        }
        if !(self.fresh_labels.is_finite() && self.fresh_labels >= 0.0) {
            let right = "finite and not negative";
            return Some(Flaw::new("fresh labels", self.fresh_labels, right));
        }
        let odd = self
            .drift
            .iter()
            .find(|(excess, _)| !(excess.is_finite() && *excess >= 0.0));
        if let Some((excess, _)) = odd {
            return Some(Flaw::new(
                "drift",
                f64::from(*excess),
                "finite and not negative",
            ));
        }
        self.rows_flaw()
    }

    fn rows_flaw(&self) -> Option<Flaw> {
        let mut next = 0;
        for row in &self.rows {
            if row.number < next || row.number >= self.counts.labels {
                let right = "in order and below the count of labels";
                return Some(Flaw::new("number of a row", row.number as f64, right));
            }
            next = row.number + 1;
            if !(row.actual_ms.is_finite() && row.actual_ms > 0.0) {
                let right = "finite and positive";
                return Some(Flaw::new("label", f64::from(row.actual_ms), right));
            }
        }
        None
    }
}

/// The bytes of all learners, written at `at_ms` (unix milliseconds).
pub(crate) fn write(at_ms: u64, classes: Vec<SavedClass>) -> Result<Vec<u8>, SnapshotError> {
    FRAME.write(&File { at_ms, classes })
}

/// The learners that `bytes` hold, and when they were written.
pub(crate) fn read(bytes: &[u8]) -> Result<(u64, Vec<SavedClass>), SnapshotError> {
    let File { at_ms, classes } = FRAME.read(bytes)?;
    // One place is kept for the class without a name.
    let named = classes
        .iter()
        .filter(|saved| !saved.class.is_empty())
        .count();
    if named >= MOST_CLASSES {
        return Err(SnapshotError::Malformed(format!(
            "it holds {named} classes with a name, fewer than {MOST_CLASSES} are read"
        )));
    }
    for (at, saved) in classes.iter().enumerate() {
        let flawed = |flaw| SnapshotError::Flawed {
            class: saved.class.to_string(),
            flaw,
        };
        check_class(&saved.class).map_err(flawed)?;
        if classes[..at].iter().any(|other| other.class == saved.class) {
            return Err(SnapshotError::Malformed(format!(
                "class {:?} is there twice",
                saved.class
            )));
        }
        let version = Some(saved.version).filter(|version| *version > MOST_COUNT);
        let version = version.map(|version| Flaw::new("version", version as f64, "at most 2^53"));
        let [ttft, tpot] = &saved.targets;
        if let Some(flaw) = version.or_else(|| ttft.flaw()).or_else(|| tpot.flaw()) {
            return Err(flawed(flaw));
        }
    }
    Ok((at_ms, classes))
}

//! What the controller wants known of its decisions, and the board that it is read from.
//!
//! The leader posts once per cycle, a follower posts what the leader streams to it; the metrics APIs and the KEDA
//! scaler read. A reader never waits, and never takes an old number for a fresh one: every model is asked for with
//! [`Posted::answer`], which refuses with the reason once the decision is older than the board's bound. Ages are
//! measured on this process's own clock, from the moment of posting, so that two machines' clocks need not agree.

mod object;
pub mod series;

pub use crds::model_scaler::{Mode, Role};
pub use object::{ObjectRef, plural_of};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use runtime::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::series::Catalog;

/// Oldest decision that is still served, unless configured otherwise.
pub const FRESHNESS_BOUND: Duration = Duration::from_secs(10);
/// Longest value of a label that a selector can name.
const LONGEST_LABEL: usize = 63;

/// Everything published at one moment: all models of a controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Published {
    /// When, in milliseconds since the Unix epoch, by the leader's clock.
    pub at_ms: u64,
    /// Grows with every publication of one leader.
    pub sequence: u64,
    /// The models, in any order; (namespace, model) is unique.
    pub models: Vec<PublishedModel>,
}

/// One model in one namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedModel {
    /// Namespace that the model is scaled in. Nothing of it is shown in any other.
    pub namespace: String,
    /// Its name, as clients send it.
    pub model: String,
    /// The name as a label value: [`label_value`] of `model`.
    pub slug: String,
    /// The InferencePool in the same namespace that its demand arrives at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The object that asks for the scaling: a ModelScaler, or the annotated object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ObjectRef>,
    /// How far decisions go.
    pub mode: Mode,
    /// When its decision was made, in milliseconds since the Unix epoch, by the leader's clock.
    pub decided_at_ms: u64,
    /// Whether the decision may be acted on.
    pub state: Answer,
    /// Predicted latency at the SLO's percentile over the SLO, the worst of all classes and targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_pressure: Option<f64>,
    /// Prompt and output tokens offered per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_tokens_per_second: Option<f64>,
    /// Seconds of work that wait in front of the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_seconds: Option<f64>,
    /// Its variants; names are unique.
    pub variants: Vec<PublishedVariant>,
}

/// One variant of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedVariant {
    /// Its name, unique in its model.
    pub name: String,
    /// What its replicas do.
    pub role: Role,
    /// What they run on; empty when not known.
    pub accelerator: String,
    /// What is scaled.
    pub target: ObjectRef,
    /// The HorizontalPodAutoscaler or ScaledObject that acts on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaler: Option<ObjectRef>,
    /// Replicas wanted.
    pub desired: u32,
    /// Replicas that the target has now.
    pub current: u32,
    /// Those of them that are ready; `None` while not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<u32>,
    /// What one replica holds, requests per second; `None` while not known. Splits the model's offered load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Fewest replicas that the confidence bound of the capacity allows for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<u32>,
    /// Most replicas that the confidence bound of the capacity asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<u32>,
}

/// Whether a decision may be acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Answer {
    /// It may.
    Fresh,
    /// Not yet: too little is known.
    Cold {
        /// What is missing, as a sentence without its full stop.
        reason: String,
    },
    /// No longer: what it rests on is too old.
    Stale {
        /// What is too old, as a sentence without its full stop.
        reason: String,
    },
}

/// Why a value is not served. Shown to people by whoever asked: the HPA puts it in its conditions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Nothing has been posted yet.
    #[error(
        "no decision has been made yet: the controller has just started, or this replica has not reached the leader"
    )]
    Nothing,
    /// The model's decisions are for people only.
    #[error(
        "model {model:?} is in mode advise: its decisions are explained and not acted on (set mode publish to serve them)"
    )]
    Advise {
        /// The model.
        model: String,
    },
    /// Too little is known.
    #[error("model {model:?} has no decision yet: {reason}")]
    Cold {
        /// The model.
        model: String,
        /// What is missing.
        reason: String,
    },
    /// What the decision rests on is too old.
    #[error("the decision for model {model:?} rests on old data: {reason}")]
    Stale {
        /// The model.
        model: String,
        /// What is too old.
        reason: String,
    },
    /// The decision itself is too old.
    #[error("the last decision for model {model:?} is {:.1} s old, more than the {:.0} s after which none is served", age.as_secs_f64(), bound.as_secs_f64())]
    Old {
        /// The model.
        model: String,
        /// Its age.
        age: Duration,
        /// The oldest that is served.
        bound: Duration,
    },
}

/// One publication as it hangs on the board.
#[derive(Debug)]
pub struct Posted {
    published: Published,
    catalog: Catalog,
    /// When it was posted, on this process's clock; `None` when nothing has been.
    received: Option<Duration>,
    bound: Duration,
}

impl Posted {
    fn new(published: Published, received: Option<Duration>, bound: Duration) -> Self {
        let catalog = Catalog::of(&published);
        Self {
            published,
            catalog,
            received,
            bound,
        }
    }

    /// What was posted.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Its series, by namespace.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Whether anything has been posted.
    pub fn any(&self) -> bool {
        self.received.is_some()
    }

    /// Time since the model's decision was made: as old as it was when posted, and what has passed since.
    pub fn age(&self, model: &PublishedModel, now: Duration) -> Option<Duration> {
        let before =
            Duration::from_millis(self.published.at_ms.saturating_sub(model.decided_at_ms));
        Some(before + now.saturating_sub(self.received?))
    }

    /// Whether the model's decision may be served at `now` (this process's clock).
    ///
    /// # Errors
    /// Why not.
    pub fn answer(&self, model: &PublishedModel, now: Duration) -> Result<(), Unavailable> {
        let name = || model.model.clone();
        let age = self.age(model, now).ok_or(Unavailable::Nothing)?;
        if model.mode == Mode::Advise {
            return Err(Unavailable::Advise { model: name() });
        }
        match &model.state {
            Answer::Cold { reason } => Err(Unavailable::Cold {
                model: name(),
                reason: reason.clone(),
            }),
            Answer::Stale { reason } => Err(Unavailable::Stale {
                model: name(),
                reason: reason.clone(),
            }),
            Answer::Fresh if age > self.bound => Err(Unavailable::Old {
                model: name(),
                age,
                bound: self.bound,
            }),
            Answer::Fresh => Ok(()),
        }
    }
}

/// Where publications hang. Clones share it.
#[derive(Clone, Debug)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    bound: Duration,
    latest: ArcSwap<Posted>,
    changes: watch::Sender<u64>,
}

impl Board {
    /// An empty board that serves decisions up to [`FRESHNESS_BOUND`] old.
    pub fn new(clock: Clock) -> Self {
        Self::with_bound(clock, FRESHNESS_BOUND)
    }

    /// An empty board that serves decisions up to `bound` old.
    pub fn with_bound(clock: Clock, bound: Duration) -> Self {
        let nothing = Posted::new(Published::default(), None, bound);
        Self {
            inner: Arc::new(Inner {
                clock,
                bound,
                latest: ArcSwap::from_pointee(nothing),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// Replaces what hangs here, and wakes whoever waits for a change.
    pub fn publish(&self, published: Published) {
        let inner = &self.inner;
        let posted = Posted::new(published, Some(inner.clock.now()), inner.bound);
        inner.latest.store(Arc::new(posted));
        inner.changes.send_modify(|count| *count += 1);
    }

    /// What hangs here now. Never blocks.
    pub fn latest(&self) -> Arc<Posted> {
        self.inner.latest.load_full()
    }

    /// A receiver that changes with every publication; its value counts them.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The clock that ages are measured on.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }
}

/// `text` as a value that a label selector can name: at most 63 letters, digits, `-`, `_` and `.`, the first and the
/// last a letter or digit. Other characters become `-`; what is too long keeps its beginning and ends in a checksum.
pub fn label_value(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let replaced: String = text
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    let trimmed = replaced.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if trimmed.len() <= LONGEST_LABEL {
        return trimmed.to_owned();
    }
    let checksum = format!("-{:08x}", checksum(text));
    format!("{}{checksum}", &trimmed[..LONGEST_LABEL - checksum.len()])
}

/// FNV-1a, 32 bits: tells apart long names that begin alike.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Labels of a series or an object.
pub type Labels = BTreeMap<String, String>;

#[cfg(test)]
mod tests;

//! What is wanted of each variant, what was seen, and why.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::{ModelKey, Role};
use crate::capacity::Capacity;
use crate::decision::{Basis, Reason, Span};
use crate::demand::Demand;
use crate::forecast::Forecast;
use crate::guard::Guarded;
use crate::policy::seconds;
use crate::shares::Silent;
use crate::signals::{Backlog, Replicas};

/// Whether a decision rests on what is the case now.
///
/// A count that is merely held does not renew what it rests on: it ages, and is to be refused to whoever would act on
/// it, so that an autoscaler keeps what it has instead of following an echo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Evidence {
    /// It does.
    Fresh,
    /// There has been nothing to rest on yet.
    Cold {
        /// What is missing.
        reason: String,
    },
    /// What it rests on is too old.
    Stale {
        /// What is missing, and since when.
        reason: String,
    },
}

impl Evidence {
    /// Whether to act on the decision.
    pub fn is_fresh(&self) -> bool {
        *self == Self::Fresh
    }
}

/// One class as the decision sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassDecision {
    /// The class.
    pub name: String,
    /// Its demand; `None` while unknown.
    pub demand: Option<Demand>,
    /// Its forecast; `None` while demand is unknown.
    pub forecast: Option<Forecast>,
    /// What of it waits.
    pub queued: Backlog,
}

/// What one replica carries of one class alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassCapacity {
    /// The class.
    pub class: String,
    /// The capacity counted by.
    pub capacity: Capacity,
    /// Time since the newest computation that went into it.
    #[serde(rename = "ageSeconds", with = "seconds")]
    pub age: Duration,
    /// The mix, the objective or the model has changed since: a computation is due.
    pub due: bool,
}

/// What is wanted of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantDecision {
    /// The variant.
    pub name: String,
    /// What its replicas do with a request.
    pub role: Role,
    /// Replicas wanted from now on.
    pub replicas: u32,
    /// Replicas wanted until now.
    pub previous: u32,
    /// What the present rate alone needs, without error, trend or backlog.
    pub lower: u32,
    /// What the cautious forecast with all slack needs: fewer than this may be too few.
    pub upper: u32,
    /// Replicas that exist.
    pub supply: Replicas,
    /// How the count came about.
    pub basis: Basis,
    /// Capacity of one replica for each class, in the classes' order; empty while unknown.
    pub capacities: Vec<ClassCapacity>,
    /// Requests/s of the present mix of classes that one replica serves; `None` while unknown.
    pub requests_per_second: Option<f64>,
    /// Requests/s that the ready replicas could take beyond their share of the offered ones (negative: too many are
    /// offered); `None` while capacity or demand is unknown.
    pub headroom: Option<f64>,
    /// Start-up time counted with.
    #[serde(rename = "startupSeconds", with = "seconds")]
    pub startup: Duration,
    /// Why, in the order in which the reasons took effect.
    pub reasons: Vec<Reason>,
    /// The guard that changed the count, if one did; also among `reasons`.
    pub guarded: Option<Guarded>,
}

impl VariantDecision {
    /// Whether the count changes.
    pub fn changes(&self) -> bool {
        self.replicas != self.previous
    }
}

/// What is wanted of all variants of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelDecision {
    /// When, since the clock's epoch.
    #[serde(rename = "atSeconds", with = "seconds")]
    pub at: Duration,
    /// The model.
    pub model: ModelKey,
    /// Its service levels, in the policy's order.
    pub classes: Vec<ClassDecision>,
    /// Its variants, in the policy's order.
    pub variants: Vec<VariantDecision>,
    /// Reasons that concern more than one variant.
    pub reasons: Vec<Reason>,
    /// Requests/s that the ready replicas of all variants could take beyond the offered ones; `None` while unknown.
    pub headroom: Option<f64>,
    /// Predicted latency at the objective's percentile over its target, under the present load: the worst of classes,
    /// variants and targets. Above 1 the objective is missed. `None` while unknown.
    pub pressure: Option<f64>,
    /// Prompt and output tokens offered per second; `None` while demand is unknown.
    pub offered_tokens_per_second: Option<f64>,
    /// Time in which the ready replicas work the queue off at capacity, in seconds: 0 without a queue, `None` when there
    /// is one and no capacity known or ready.
    pub queue_seconds: Option<f64>,
    /// Requests on the replicas.
    pub in_flight: u64,
    /// Endpoint pickers whose share of the demand is unknown.
    pub silent: Vec<Silent>,
    /// Whether to act on this.
    pub evidence: Evidence,
}

impl ModelDecision {
    /// Whether any count changes.
    pub fn changes(&self) -> bool {
        self.variants.iter().any(VariantDecision::changes)
    }

    /// The decision on the variant of this name.
    pub fn variant(&self, name: &str) -> Option<&VariantDecision> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// Requests waiting in front of the replicas.
    pub fn queued(&self) -> u64 {
        let waiting = self.classes.iter().map(|class| class.queued.requests);
        waiting.fold(0, u64::saturating_add)
    }

    /// Age of the oldest capacity that a computation is due for, if one is.
    pub fn oldest_due(&self) -> Option<Duration> {
        let capacities = self.variants.iter().flat_map(|variant| &variant.capacities);
        let due = capacities.filter(|capacity| capacity.due);
        due.map(|capacity| capacity.age).max()
    }
}

impl fmt::Display for ModelDecision {
    /// One sentence on the model, then one for each variant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.model)?;
        for (index, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if index == 0 { ": " } else { "; " })?;
        }
        if let Evidence::Cold { reason } | Evidence::Stale { reason } = &self.evidence {
            write!(f, "; not to be acted upon: {reason}")?;
        }
        for variant in &self.variants {
            write!(f, "\n{variant}")?;
        }
        Ok(())
    }
}

impl fmt::Display for VariantDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        if self.changes() {
            write!(f, "{} → {}", self.previous, self.replicas)?;
        } else {
            write!(f, "stays at {}", self.replicas)?;
        }
        for (index, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if index == 0 { ": " } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (for {})", self.id, Span(self.unheard))
    }
}

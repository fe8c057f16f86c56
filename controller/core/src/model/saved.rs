//! What a decision remembers, for the next process.
//!
//! A restart must neither add replicas nor take any away: the demand seen, the capacities computed, what the guards
//! remember and what was decided go along. The state of a model is some kilobytes, and bounded by its numbers of classes
//! and variants. Times in it are those of the caller's clock, so that clock must go on from where it was: Unix time does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::activity::Activity;
use super::controller::{ModelController, VariantState};
use super::policy::{MAX_CLASSES, MAX_VARIANTS, ModelPolicy};
use crate::capacities::Book;
use crate::demand::Meter;
use crate::guard::Guard;
use crate::policy::Nanos;
use crate::startup::StartTimes;

/// Version of the layout.
const SCHEMA: u32 = 1;
/// A state older than this says nothing about the present.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// No count of replicas is larger.
const MOST_REPLICAS: u32 = 1_000_000;

/// What a [`ModelController`] remembers between ticks; see the module's documentation for what it is good for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    schema: u32,
    at: Nanos,
    classes: Vec<SavedClass>,
    variants: Vec<SavedVariant>,
    /// Names of the variants, leg after leg, in the order in which they are filled.
    order: Vec<String>,
    activity: Activity,
    #[serde(default)]
    ledger: Option<u8>,
    supported: Option<Nanos>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedClass {
    name: String,
    meter: Meter,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedVariant {
    name: String,
    guard: Guard,
    wanted: Option<u32>,
    pending_since: Option<Nanos>,
    starts: StartTimes,
    /// In the order of `classes`.
    books: Vec<Book>,
}

/// A state that cannot be gone on from.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Written by another version of this program.
    #[error("saved state: schema: `{found}` is not {SCHEMA}, the version that this program reads")]
    Schema {
        /// The version found.
        found: u32,
    },
    /// Of another time.
    #[error(
        "saved state: it was saved {0:?} ago: more than an hour says nothing about the present"
    )]
    Old(Duration),
    /// Not something that this program saved.
    #[error(
        "saved state: {field}: `{of}` holds what cannot be: times after the present or out of order, or counts out of range"
    )]
    Nonsense {
        /// The part of the state.
        field: &'static str,
        /// The class or variant, if it is of one.
        of: String,
    },
}

impl SavedState {
    /// When it was saved, on the clock of whoever saved it.
    pub fn at(&self) -> Duration {
        self.at.0
    }

    fn check(&self, now: Duration) -> Result<(), RestoreError> {
        if self.schema != SCHEMA {
            return Err(RestoreError::Schema { found: self.schema });
        }
        let age = now.saturating_sub(self.at.0);
        if age > GOOD_FOR {
            return Err(RestoreError::Old(age));
        }
        let at = self.at.0;
        let sane = |field, of: &str, ok: bool| {
            let of = of.to_owned();
            if ok {
                Ok(())
            } else {
                Err(RestoreError::Nonsense { field, of })
            }
        };
        sane("at", "", at <= now)?;
        let most = self.classes.len() <= MAX_CLASSES && self.variants.len() <= MAX_VARIANTS;
        sane(
            "classes and variants",
            "",
            most && self.order.len() <= MAX_VARIANTS,
        )?;
        sane("activity", "", self.activity.is_sane(at))?;
        sane(
            "supported",
            "",
            self.supported.is_none_or(|time| time.0 <= at),
        )?;
        for class in &self.classes {
            sane("meter", &class.name, class.meter.is_sane(at))?;
        }
        for variant in &self.variants {
            let of = &variant.name;
            sane("guard", of, variant.guard.is_sane(at))?;
            sane(
                "wanted",
                of,
                variant.wanted.is_none_or(|count| count <= MOST_REPLICAS),
            )?;
            let pending = variant.pending_since.is_none_or(|time| time.0 <= at);
            sane("pending", of, pending)?;
            sane("starts", of, variant.starts.is_sane())?;
            let books = variant.books.len() == self.classes.len();
            sane(
                "capacities",
                of,
                books && variant.books.iter().all(|book| book.is_sane(at)),
            )?;
        }
        Ok(())
    }
}

impl ModelController {
    /// What is remembered at `now`, to go on from in another process.
    pub fn save(&self, now: Duration) -> SavedState {
        let names = |index: &usize| Some(self.policy.variants.get(*index)?.name.clone());
        let classes = self.policy.classes.iter().zip(&self.classes);
        let variants = self.policy.variants.iter().zip(&self.variants);
        SavedState {
            schema: SCHEMA,
            at: Nanos(now),
            classes: classes
                .map(|(class, state)| SavedClass {
                    name: class.name.clone(),
                    meter: state.meter.clone(),
                })
                .collect(),
            variants: variants
                .map(|(variant, state)| SavedVariant {
                    name: variant.name.clone(),
                    guard: state.guard.clone(),
                    wanted: state.wanted,
                    pending_since: state.pending_since.map(Nanos),
                    starts: state.starts.clone(),
                    books: state.books.clone(),
                })
                .collect(),
            order: self.legs.iter().flatten().filter_map(names).collect(),
            activity: self.activity,
            ledger: self.ledger,
            supported: self.supported.map(Nanos),
        }
    }

    /// Goes on from what another process remembered, for the classes and variants that the policy (still) names. `now`
    /// and the times saved must be of one epoch.
    ///
    /// # Errors
    /// [`RestoreError`] when it makes no sense; then nothing is changed.
    pub fn restore(&mut self, saved: SavedState, now: Duration) -> Result<(), RestoreError> {
        saved.check(now)?;
        // A controller that remembers all of it under the saved names: the rest is as with a replaced policy.
        let mut before = Self::new(self.named_as(&saved));
        for (state, class) in before.classes.iter_mut().zip(saved.classes) {
            state.meter = class.meter;
        }
        for (state, variant) in before.variants.iter_mut().zip(saved.variants) {
            *state = VariantState {
                guard: variant.guard,
                wanted: variant.wanted,
                pending_since: variant.pending_since.map(|time| time.0),
                starts: variant.starts,
                books: variant.books,
            };
        }
        let index = |name: &String| {
            let variants = &before.policy.variants;
            variants.iter().position(|variant| variant.name == *name)
        };
        before.legs = vec![saved.order.iter().filter_map(index).collect()];
        before.activity = saved.activity;
        before.ledger = saved.ledger;
        before.supported = saved.supported.map(|time| time.0);
        self.adopt(&before);
        Ok(())
    }

    /// The policy with the classes and variants that were saved, by name and in their order.
    fn named_as(&self, saved: &SavedState) -> ModelPolicy {
        let class = self.policy.classes.first();
        let variant = self.policy.variants.first();
        let classes = saved.classes.iter().zip(class.iter().cycle());
        let variants = saved.variants.iter().zip(variant.iter().cycle());
        ModelPolicy {
            classes: classes
                .map(|(saved, class)| super::SloClass {
                    name: saved.name.clone(),
                    ..(*class).clone()
                })
                .collect(),
            variants: variants
                .map(|(saved, variant)| super::VariantPolicy {
                    name: saved.name.clone(),
                    ..(*variant).clone()
                })
                .collect(),
            ..self.policy.clone()
        }
    }
}

#[cfg(test)]
mod tests;

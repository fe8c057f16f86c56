//! One model: several service levels, several kinds of replica, one decision.
//!
//! The stages are those of the crate; here they meet:
//!
//! - demand is metered per service level, from the priorities that belong to it ([`ModelPolicy::class_of`]);
//! - one replica of a variant is worth 1 / capacity of a class's requests/s, so a variant alone would need
//!   Σ rate / capacity over the classes ([`crate::plan`]);
//! - variants are filled in the order of their cost per unit of capacity, each to its maximum and to what it has room
//!   for; what remains goes to the next ([`crate::plan::place`]);
//! - each count passes its variant's guard; then budgets, silent pickers, zero and the autoscaler's dead band have
//!   their say.
//!
//! Choosing the mix of variants by optimisation instead of in order would replace [`crate::plan::place`] alone.

mod activity;
mod budget;
mod conclude;
mod controller;
mod decision;
mod policy;
mod ranking;
mod report;
mod saved;
mod signals;
mod sizing;
mod standing;

pub use controller::ModelController;
pub(crate) use controller::{ClassSeen, Seen};
pub use decision::{ClassCapacity, ClassDecision, Evidence, ModelDecision, VariantDecision};
pub use policy::{
    MAX_CLASSES, MAX_VARIANTS, ModelKey, ModelPolicy, Priorities, Role, SloClass, Startup,
    VariantPolicy,
};
pub use saved::{RestoreError, SavedState};
pub use signals::{ModelSignals, VariantSignals};

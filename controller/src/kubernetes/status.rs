//! What is told of each model: the status of its ModelScaler, its conditions, and Events.
//!
//! Its conditions and [`status_of`] are pure; [`Reporter`] writes: Events at once (its recorder drops repetitions), a
//! status when it changed and at most every ten seconds per object.

mod conditions;
mod pace;
mod report;
mod writer;

pub use conditions::{
    AUTOSCALER_FOLLOWS, CAPACITY_AVAILABLE, FEASIBLE, METRICS_FRESH, MODEL_TRAINED, NO_CONFLICT,
    SPEC_ACCEPTED, TARGETS_FOUND,
};
pub use pace::{Limiter, Told};
pub use report::{Report, status_of};
pub use writer::Reporter;

#[cfg(test)]
pub(crate) use report::tests as testing;

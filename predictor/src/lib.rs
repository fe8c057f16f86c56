//! The online latency model: features, analytic base, residual forest, calibration, store, trainer.
//!
//! `prediction = analytic base × exp(monotone forest on the log residual + quantile offset)`, for the
//! time to the first token ([`Target::Ttft`]) and the time per further token ([`Target::Tpot`]).
//!
//! The way of one observation: [`Learner::observe`] keeps it in the `store`, moves the
//! `tracker`'s quantile offsets and the `scores`; [`Learner::fit`] makes a [`Candidate`] (`base`,
//! then `gbdt` forest) from the store; [`Learner::install`] lets it replace the champion if it
//! is not worse; [`Learner::model`] is the immutable [`LatencyModel`] that readers predict with.
//! [`Learners`] does so for each class of endpoints; [`snapshot`] writes models and learners as bytes.
//! [`trainer`] runs that loop on a thread, [`eval`] runs it on a virtual clock over recorded requests.

mod base;
mod candidate;
mod classes;
mod columns;
mod config;
mod drift;
pub mod eval;
mod features;
mod learner;
mod learners;
mod model;
mod nnls;
mod observation;
mod quantiles;
mod recency;
mod scores;
pub mod snapshot;
mod store;
mod support;
mod target_learner;
mod tracker;
pub mod trainer;

pub use candidate::Candidate;
pub use classes::{LONGEST_CLASS, MOST_CLASSES, Models};
pub use config::{ConfigError, LearnerConfig};
pub use drift::DriftConfig;
pub use features::Features;
pub use learner::Learner;
pub use learners::{ClassReport, Learners};
pub use model::LatencyModel;
pub use observation::{Observation, State, Target};
pub use quantiles::{Prediction, Quantiles};
pub use scores::{Report, TargetReport};

//! From signals to a scaling decision, and nothing else: no clock, no socket, no task.
//!
//! One tick walks the stages in the order of the modules below:
//!
//! 1. [`signals`]: what the request path has counted so far, the replicas that exist, the learned model;
//! 2. [`demand`]: counters become rates, over the longest window that still describes the present;
//! 3. [`forecast`]: the demand that a replica started now will meet;
//! 4. [`capacity`]: the rate one replica of the model serves within its objective, from the learned model;
//! 5. [`plan`]: how many replicas that makes, with the backlog;
//! 6. [`guard`]: what of it may be done now without flapping;
//! 7. [`decision`]: the count and, in sentences, why.
//!
//! [`Controller`] owns the state between ticks. The same code runs in the control loop, in what-if replay on a
//! virtual clock and in the tests.

pub mod capacities;
pub mod capacity;
#[cfg(test)]
mod closed_form;
mod controller;
pub mod decision;
pub mod demand;
pub mod fleet;
pub mod forecast;
pub mod guard;
pub mod hpa;
pub mod latency;
pub mod mix;
pub mod model;
pub mod plan;
pub mod policy;
mod request_path;
pub mod roster;
pub mod shares;
pub mod signals;
pub mod startup;

pub use capacity::{Binding, Capacity};
pub use controller::Controller;
pub use decision::{Decision, Reason};
pub use latency::Latency;
pub use mix::Mix;
pub use model::{
    Evidence, ModelController, ModelDecision, ModelKey, ModelPolicy, ModelSignals, Role,
    SavedState, SloClass, Startup, VariantDecision, VariantPolicy, VariantSignals,
};
pub use policy::{Behavior, Policy, PolicyError, SloTargets};
pub use roster::Roster;
pub use shares::{MergedDemand, Shares};
pub use signals::{Backlog, Replicas, Signals, Totals, Volume};

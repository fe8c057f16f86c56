//! The controller on Kubernetes: what it watches, what it collects, what it writes.

mod annotated;
pub mod assemble;
mod conflicts;
pub mod demand;
pub mod engines;
pub mod hpas;
pub mod kinds;
pub mod labels;
pub mod models;
pub mod objects;
pub mod observe;
pub mod models_from_pickers;
pub mod pickers;
pub mod pods;
pub mod pools;
pub mod prometheus;
pub mod scalers;
pub mod targets;
pub mod workloads;

//! Kubernetes types: [`model_scaler`] is ours, the other resources are those we read. What we read is tolerant: unknown
//! fields are ignored and only what upstream requires is required.

#![allow(
    clippy::duplicated_attributes,
    reason = "the printer columns of a resource resemble each other"
)]

pub mod annotations;
pub mod disaggregated_set_role_scaler;
pub mod inference_model_rewrite;
pub mod inference_objective;
pub mod inference_pool;
pub mod leader_worker_set;
pub mod migration;
pub mod model_scaler;
pub mod variant_autoscaling;
pub mod yaml;

pub use annotations::ModelAnnotations;
pub use disaggregated_set_role_scaler::DisaggregatedSetRoleScaler;
pub use inference_model_rewrite::InferenceModelRewrite;
pub use inference_objective::InferenceObjective;
pub use inference_pool::InferencePool;
pub use leader_worker_set::LeaderWorkerSet;
pub use model_scaler::ModelScaler;
pub use variant_autoscaling::VariantAutoscaling;

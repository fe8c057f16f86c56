//! Demand from Prometheus, where the endpoint pickers are not Headroom's.

mod ask;
mod integral;
pub mod query;

pub use ask::{Prometheus, PrometheusError, PrometheusOptions};
pub use integral::Integral;

//! Demand from Prometheus, where the endpoint pickers are not Headroom's.

mod ask;
mod integral;
mod rounds;
pub mod query;

pub use ask::{Prometheus, PrometheusError, PrometheusOptions};
pub use integral::Integral;
pub use rounds::Rounds;

//! Demand from Prometheus, where the endpoint pickers are not Headroom's.

mod ask;
mod integral;
pub mod query;
mod rounds;

pub use ask::{Prometheus, PrometheusError, PrometheusOptions};
pub use integral::Integral;
pub use rounds::Rounds;

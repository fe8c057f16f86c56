//! The messages of KEDA's `externalscaler.ExternalScaler`, as its clients send and expect them.

use prost::Message;
use std::collections::HashMap;

/// gRPC service name.
pub const SERVICE: &str = "externalscaler.ExternalScaler";

/// Which trigger of which ScaledObject asks.
#[derive(Clone, PartialEq, Message)]
pub struct ScaledObjectRef {
    /// The ScaledObject's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The trigger's `metadata`, all of it.
    #[prost(map = "string, string", tag = "3")]
    pub scaler_metadata: HashMap<String, String>,
}

/// Whether there should be any replica.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct IsActiveResponse {
    /// There should.
    #[prost(bool, tag = "1")]
    pub result: bool,
}

/// What the HPA is to compare.
#[derive(Clone, PartialEq, Message)]
pub struct GetMetricSpecResponse {
    /// One per metric.
    #[prost(message, repeated, tag = "1")]
    pub metric_specs: Vec<MetricSpec>,
}

/// A metric and its target.
#[derive(Clone, PartialEq, Message)]
pub struct MetricSpec {
    /// Its name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// The target, for clients that know no fractions.
    #[prost(int64, tag = "2")]
    pub target_size: i64,
    /// The target.
    #[prost(double, tag = "3")]
    pub target_size_float: f64,
}

/// Asks for a metric's value.
#[derive(Clone, PartialEq, Message)]
pub struct GetMetricsRequest {
    /// Who asks.
    #[prost(message, optional, tag = "1")]
    pub scaled_object_ref: Option<ScaledObjectRef>,
    /// The name that its specification gave.
    #[prost(string, tag = "2")]
    pub metric_name: String,
}

/// Values.
#[derive(Clone, PartialEq, Message)]
pub struct GetMetricsResponse {
    /// One per metric.
    #[prost(message, repeated, tag = "1")]
    pub metric_values: Vec<MetricValue>,
}

/// A metric and its value.
#[derive(Clone, PartialEq, Message)]
pub struct MetricValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// The value, rounded up, for clients that know no fractions.
    #[prost(int64, tag = "2")]
    pub metric_value: i64,
    /// The value.
    #[prost(double, tag = "3")]
    pub metric_value_float: f64,
}

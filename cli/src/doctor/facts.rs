//! What is looked at: plain values, so that what they mean can be judged without a cluster.

use std::collections::BTreeMap;

use controller::kubernetes::apiservice::Service;
use controller::kubernetes::explain::Explanation;
use controller::kubernetes::models::{Snapshot, Source};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

/// Something that was read, or why it could not be.
pub(super) type Known<T> = Result<T, String>;

/// Everything that was read.
#[derive(Debug)]
pub(super) struct Facts {
    /// Unix milliseconds of reading.
    pub(super) now_ms: u64,
    /// Major and minor version of the API server, where they are numbers.
    pub(super) version: Option<(u32, u32)>,
    /// Where the metrics APIs should lead.
    pub(super) service: Service,
    /// The APIServices of our groups and versions.
    pub(super) api_services: Vec<(&'static str, &'static str, Known<Option<APIService>>)>,
    /// Data of the ConfigMap that tells aggregated servers whom to trust.
    pub(super) authentication: Known<Option<BTreeMap<String, String>>>,
    /// What accounts may do.
    pub(super) rights: Vec<Right>,
    /// The controller's pods.
    pub(super) controllers: Known<Vec<PodFact>>,
    /// The controller's Lease.
    pub(super) lease: Known<Option<LeaseFact>>,
    /// InferencePools, as namespace and name.
    pub(super) pools: Known<Vec<(String, String)>>,
    /// Endpoint picker pods, with the pool that their label names.
    pub(super) pickers: Known<Vec<(String, PodFact)>>,
    /// What is asked for, with what stands in its way.
    pub(super) asked: Known<Snapshot>,
    /// What the leading controller says of each of them, by namespace and model.
    pub(super) explained: Vec<(String, Known<Explanation>)>,
    /// Conditions of the ModelScalers that are not as they should be, and of the HPAs that read our metrics.
    pub(super) conditions: Vec<ConditionFact>,
    /// Every value that an HPA asks for, asked for the same way.
    pub(super) values: Vec<ValueFact>,
}

/// Whether an account may do something.
#[derive(Clone, Debug)]
pub(super) struct Right {
    /// The account.
    pub(super) who: String,
    /// What it needs to do.
    pub(super) what: &'static str,
    /// Whether it may.
    pub(super) allowed: Known<bool>,
    /// What to do if it may not.
    pub(super) advice: &'static str,
}

/// A pod of ours.
#[derive(Clone, Debug, Default)]
pub(super) struct PodFact {
    /// Namespace.
    pub(super) namespace: String,
    /// Name.
    pub(super) name: String,
    /// Whether it is ready.
    pub(super) ready: bool,
    /// Its ServiceAccount.
    pub(super) account: String,
    /// Ports that its containers declare.
    pub(super) ports: Vec<u16>,
}

/// A Lease.
#[derive(Clone, Debug)]
pub(super) struct LeaseFact {
    /// Who holds it.
    pub(super) holder: Option<String>,
    /// When it was renewed last, unix milliseconds.
    pub(super) renewed_ms: u64,
    /// For how long that holds, seconds.
    pub(super) duration_seconds: u64,
}

/// A condition of an object.
#[derive(Clone, Debug)]
pub(super) struct ConditionFact {
    /// The object.
    pub(super) about: Source,
    /// The condition's type.
    pub(super) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(super) status: String,
    /// Its reason.
    pub(super) reason: String,
    /// Its message.
    pub(super) message: String,
}

/// A value as an HPA would get it.
#[derive(Clone, Debug)]
pub(super) struct ValueFact {
    /// The HPA.
    pub(super) hpa: Source,
    /// The path that was asked.
    pub(super) path: String,
    /// What came: value and unix milliseconds of each item.
    pub(super) answer: Known<Vec<(f64, u64)>>,
}

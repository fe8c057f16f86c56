//! What is replayed besides the requests.

use std::time::Duration;

use epp_core::config::{Config, Detector};
use predictor::LearnerConfig;
use simulator_core::Profile;

use super::exchange::Pickers;
use super::score::Slo;
use super::sizing::Sizing;

/// One policy to replay.
#[derive(Clone, Debug)]
pub struct FleetSpec {
    /// Its name in the report.
    pub name: String,
    /// The endpoint picker's configuration.
    pub epp: Config,
    /// The replicas' hardware.
    pub profile: Profile,
    /// From launch to healthy.
    pub startup: Duration,
    /// How many replicas.
    pub sizing: Sizing,
    /// The endpoint pickers in front of them. An autoscaled fleet has one, whatever this says.
    pub pickers: Pickers,
    /// Requests that all clients together have under way at most: whoever comes then holds back until one ends, as a
    /// load generator's workers do, and is timed from when it is sent. `None` = nobody holds back.
    pub clients: Option<u32>,
    /// The online learner, where the configuration uses predictions.
    pub learner: Option<LearnerConfig>,
    /// What interactive and sheddable requests ask for, and everything with an SLO is scored against.
    pub slo: Slo,
    /// Between two scrapes of an endpoint.
    pub scrape_interval: Duration,
    /// Between two samples of the timeline.
    pub sample_interval: Duration,
    /// Everything random.
    pub seed: u64,
}

impl FleetSpec {
    /// Requests that a replica is given at most, where the configuration says so.
    pub(super) fn limit(&self) -> Option<u32> {
        match &self.epp.detector {
            Detector::Concurrency(parameters) => Some(parameters.max_concurrency),
            _ => None,
        }
    }
}

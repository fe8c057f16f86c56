//! Who is heard, read when metrics are asked for.

use super::Peers;
use names::metric::HEADROOM_PREFIX;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;
use std::sync::Arc;

/// Counts a picker's peers on every exposition.
#[derive(Debug)]
pub(crate) struct PeersCollector {
    pub(crate) peers: Arc<Peers>,
    /// The pool's name.
    pub(crate) pool: String,
}

impl Collector for PeersCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let states = self.peers.states();
        let sharing = states.iter().filter(|peer| peer.hears_us).count();
        for (name, help, count) in [
            (
                "epp_peers",
                "Other pickers of the pool heard within a second",
                states.len(),
            ),
            (
                "epp_peers_sharing",
                "Those of them that hear this picker as well, so that room is shared with them",
                sharing,
            ),
        ] {
            let name = format!("{HEADROOM_PREFIX}_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            let labels: &[(&str, &str)] = &[("name", &self.pool)];
            ConstGauge::new(count as f64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

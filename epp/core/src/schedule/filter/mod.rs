//! Filters of a profile, one file each.

mod attribute;
mod context_length;
mod headroom_tier;
mod health;
mod labels;
mod prefix_affinity;
mod room;
mod session;
mod test_header;
mod topology;
mod utilization;

use std::sync::Arc;

use super::Filter;
use crate::config::{self, Config};
use crate::health::Watch;

pub(super) fn build(
    filter: &config::Filter,
    config: &Config,
    watch: Option<&Arc<Watch>>,
) -> Box<dyn Filter> {
    match filter {
        config::Filter::Labels(it) => Box::new(labels::LabelFilter::selector(it.clone())),
        config::Filter::Stage(stage) => Box::new(labels::LabelFilter::stage(*stage)),
        config::Filter::ContextLength(it) => {
            Box::new(context_length::ContextLengthFilter::new(&it.label))
        }
        config::Filter::TestHeader => Box::new(test_header::TestHeaderFilter::default()),
        config::Filter::Room(detector) => Box::new(room::RoomFilter {
            detector: detector.clone(),
        }),
        config::Filter::Utilization(it) => Box::new(utilization::UtilizationCaps {
            parameters: it.clone(),
        }),
        config::Filter::Attribute(it) => Box::new(attribute::AttributeFilter::new(it.clone())),
        config::Filter::Health(rules) => {
            let own = || Arc::new(Watch::new(rules.clone()));
            Box::new(health::HealthFilter::new(
                watch.map_or_else(own, Arc::clone),
            ))
        }
        config::Filter::Session(it) => Box::new(session::SessionFilter::new(it)),
        config::Filter::Topology(it) => Box::new(topology::TopologyFilter::new(it, config)),
        config::Filter::PrefixAffinity(it) => Box::new(prefix_affinity::PrefixAffinity {
            parameters: it.clone(),
        }),
        config::Filter::HeadroomTier(it) => Box::new(headroom_tier::HeadroomTier {
            parameters: it.clone(),
            producer: config.predicted_latency.clone().unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests;

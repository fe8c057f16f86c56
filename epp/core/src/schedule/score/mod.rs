//! Scorers, one file each.

mod composite;
mod kv_utilization;
mod latency;
mod predicted_ttft;
mod prefix;
mod queue;

use super::Score;
use crate::config::{Config, Scorer};

pub(super) fn build(scorer: &Scorer, config: &Config) -> Box<dyn Score> {
    match scorer {
        Scorer::Queue => Box::new(queue::QueueScorer),
        Scorer::KvUtilization => Box::new(kv_utilization::KvUtilizationScorer),
        Scorer::Prefix(parameters) => Box::new(prefix::PrefixScorer {
            parameters: parameters.clone(),
        }),
        Scorer::Latency(parameters) => {
            let producer = config.predicted_latency.clone().unwrap_or_default();
            Box::new(latency::HeadroomScorer {
                parameters: parameters.clone(),
                producer,
            })
        }
        Scorer::PredictedTtft(parameters) => Box::new(predicted_ttft::PredictedTtftScorer {
            parameters: parameters.clone(),
        }),
    }
}

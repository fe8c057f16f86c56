//! Scorers, one file each.

mod attribute;
mod composite;
mod context_length;
mod header_label;
mod kv_utilization;
mod latency;
mod load;
mod lora;
mod no_hit_lru;
mod predicted_ttft;
mod prefix;
mod queue;
mod session;
mod topology;

use super::Score;
use crate::config::{Config, Scorer};

pub(super) fn build(scorer: &Scorer, config: &Config) -> Box<dyn Score> {
    let producer = || config.predicted_latency.clone().unwrap_or_default();
    match scorer {
        Scorer::Queue => Box::new(queue::FewestScorer {
            requests: queue::Requests::Waiting,
        }),
        Scorer::Running => Box::new(queue::FewestScorer {
            requests: queue::Requests::Running,
        }),
        Scorer::KvUtilization => Box::new(kv_utilization::KvUtilizationScorer),
        Scorer::LoadAware(it) => Box::new(load::ShortQueue {
            threshold: it.threshold as f32,
        }),
        Scorer::TokenLoad(it) => Box::new(load::FewTokens {
            threshold: it.queue_threshold_tokens,
        }),
        Scorer::ActiveRequest(it) => Box::new(load::FewRequests {
            idle: it.idle_threshold,
            max_busy_score: it.max_busy_score as f32,
        }),
        Scorer::Prefix(it) => Box::new(prefix::PrefixScorer {
            parameters: it.clone(),
        }),
        Scorer::NoHitLru(it) => Box::new(no_hit_lru::NoHitLru::new(it.lru_size as usize)),
        Scorer::LoraAffinity => Box::new(lora::LoraAffinity::default()),
        Scorer::Session(it) => Box::new(session::SessionScorer::new(it)),
        Scorer::HeaderLabel(it) => Box::new(header_label::HeaderLabel::new(it)),
        Scorer::ContextLength(it) => Box::new(context_length::ContextLengthScorer::new(&it.label)),
        Scorer::Attribute(it) => Box::new(attribute::AttributeScorer::new(it.clone())),
        Scorer::Topology(it) => Box::new(topology::TopologyScorer::new(it, config)),
        Scorer::Latency(it) => Box::new(latency::HeadroomScorer {
            parameters: it.clone(),
            producer: producer(),
        }),
        Scorer::PredictedTtft(it) => Box::new(predicted_ttft::PredictedTtftScorer {
            parameters: it.clone(),
            protect_running: producer().protect_running,
        }),
    }
}

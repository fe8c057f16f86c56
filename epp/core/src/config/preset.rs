//! Configurations that need no file: llm-d's default, Headroom's own, and those they are compared with.

use std::time::Duration;

use super::plugin::{
    ConcurrencyDetector, InflightLoadProducer, Parser, PassiveHealth, PredictedLatencyProducer,
    PredictedTtftScorer, PrefixCacheScorer, PrefixProducer, SloAdmitter, TopologyExtractor,
    UtilizationDetector,
};
use super::{
    Config, Detector, Filter, FlowConfig, HealthRules, NamedFilter, NoHitLruScorer, Picker,
    Profile, Scorer, Scrape, UsageLimit, WeightedScorer,
};

/// llm-d's default for the flag `--metrics-staleness-threshold`.
const METRICS_STALENESS: Duration = Duration::from_secs(2);

impl Default for Config {
    /// What llm-d does without a configuration: queue 2, KV 2, prefix 3, best score; no queue.
    fn default() -> Self {
        Self {
            flow: None,
            empty_pool_ttl: None,
            detector: Detector::utilization_default(),
            usage_limit: UsageLimit::default(),
            profile: Profile {
                filters: Vec::new(),
                scorers: vec![
                    weighted("queue-scorer", 2.0, Scorer::Queue),
                    weighted("kv-cache-utilization-scorer", 2.0, Scorer::KvUtilization),
                    weighted(
                        "prefix-cache-scorer",
                        3.0,
                        Scorer::Prefix(PrefixCacheScorer::default()),
                    ),
                ],
                picker: Picker::MaxScore,
                endpoints: 1,
            },
            prefix: Some(PrefixProducer::default()),
            predicted_latency: None,
            slo_admitter: None,
            discovery: None,
            metrics: Some(Scrape::default()),
            metrics_staleness: METRICS_STALENESS,
            warnings: Vec::new(),
            stand_ins: Vec::new(),
            parsers: Parser::AUTOMATIC.to_vec(),
            read_answers: 1.0,
            probabilistic_admitter: None,
            inflight_load: InflightLoadProducer::default(),
            session: None,
            agent_identity: None,
            reported: Vec::new(),
            verify_served: false,
            topology: TopologyExtractor::default(),
            types: std::collections::BTreeMap::new(),
            models: None,
            gpu: None,
        }
    }
}

impl Config {
    /// Headroom's own default: queue, room reserved at dispatch, predictions, SLO admission, and the endpoint
    /// with the shortest predicted time to first token among those that meet the SLO, without those that fail.
    pub fn headroom_default() -> Self {
        Self {
            predicted_latency: Some(PredictedLatencyProducer {
                streaming_mode: true,
                protect_running: true,
                ..PredictedLatencyProducer::default()
            }),
            slo_admitter: Some(SloAdmitter {
                idle_admits: false,
                ..SloAdmitter::default()
            }),
            profile: Profile {
                filters: vec![NamedFilter {
                    name: "passive-health".into(),
                    filter: Filter::Health(HealthRules::default()),
                }],
                scorers: vec![
                    weighted(
                        "predicted-ttft-scorer",
                        1.0,
                        Scorer::PredictedTtft(PredictedTtftScorer::default()),
                    ),
                    // Where a prompt goes first it goes again: what decides between near equals is whose turn it is.
                    weighted(
                        "no-hit-lru-scorer",
                        0.05,
                        Scorer::NoHitLru(NoHitLruScorer::default()),
                    ),
                ],
                ..Self::default().profile
            },
            // The room that appears is seldom where the prefix is: while the pool has room, an endpoint may have
            // half as many requests again.
            detector: Detector::Concurrency(ConcurrencyDetector {
                headroom: 0.5,
                ..ConcurrencyDetector::default()
            }),
            ..Self::llmd_default()
        }
    }

    /// llm-d's default profile and `concurrency-detector`, behind the same queue as [`Config::headroom_default`].
    pub fn llmd_default() -> Self {
        Self {
            flow: Some(FlowConfig::default()),
            detector: Detector::Concurrency(ConcurrencyDetector::default()),
            ..Self::default()
        }
    }

    /// Round robin behind the same queue and detector as [`Config::llmd_default`].
    pub fn round_robin() -> Self {
        let profile = Profile {
            filters: Vec::new(),
            scorers: Vec::new(),
            picker: Picker::RoundRobin,
            endpoints: 1,
        };
        Self {
            profile,
            prefix: None,
            metrics: None,
            ..Self::llmd_default()
        }
    }

    /// The same with capacity for `requests` in flight per endpoint, counted by the concurrency detector.
    #[must_use]
    pub fn with_max_concurrency(mut self, requests: u32) -> Self {
        let parameters = match self.detector {
            Detector::Concurrency(parameters) => parameters,
            _ => ConcurrencyDetector::default(),
        };
        self.detector = Detector::Concurrency(ConcurrencyDetector {
            max_concurrency: requests.max(1),
            ..parameters
        });
        self
    }
}

impl Detector {
    /// `utilization-detector` with llm-d's defaults.
    pub fn utilization_default() -> Self {
        Self::Utilization {
            parameters: UtilizationDetector::default(),
            staleness: Duration::from_millis(200),
        }
    }
}

impl Default for HealthRules {
    /// The spans of [`PassiveHealth`]'s default.
    fn default() -> Self {
        Self {
            parameters: PassiveHealth::default(),
            window: Duration::from_secs(30),
            min_stall: Duration::from_secs(15),
            base_ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(300),
            slow_start: Duration::from_secs(30),
        }
    }
}

fn weighted(name: &str, weight: f64, scorer: Scorer) -> WeightedScorer {
    WeightedScorer {
        name: name.into(),
        weight,
        scorer,
    }
}

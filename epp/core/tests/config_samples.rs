//! The configurations that llm-d ships, by name: each loads, and means what it says.

use std::collections::BTreeMap;

use epp_core::Config;
use epp_core::config::{
    Detector, Fairness, Filter, Level, Parser, Picker, ServingStage, TtftSource, UsageLimit, lint,
};

/// The file of a configuration, and what is to be seen in it.
macro_rules! sample {
    ($name:literal) => {
        Sample::load($name, include_str!(concat!("configs/", $name, ".yaml")))
    };
}

struct Sample {
    name: &'static str,
    text: &'static str,
    config: Config,
}

impl Sample {
    #[expect(clippy::panic, reason = "a test fails by panicking")]
    fn load(name: &'static str, text: &'static str) -> Self {
        let config = Config::from_yaml(text).unwrap_or_else(|error| panic!("{name}.yaml: {error}"));
        Self { name, text, config }
    }

    /// The scorers of the profile with their weights are these.
    fn scores(self, wanted: &[(&str, f64)]) -> Self {
        let scorers = self.config.profile.scorers.iter();
        let found: Vec<_> = scorers
            .map(|scorer| (&*scorer.name, scorer.weight))
            .collect();
        assert_eq!(found, wanted, "{}", self.name);
        self
    }

    /// The filters of the profile, in order.
    fn filters(&self) -> Vec<&str> {
        let filters = self.config.profile.filters.iter();
        filters.map(|filter| &*filter.name).collect()
    }

    fn picks(self, picker: Picker) -> Self {
        assert_eq!(self.config.profile.picker, picker, "{}", self.name);
        self
    }

    /// Types and parameters that wait for a feature are these.
    fn lacks(self, wanted: &[&str]) -> Self {
        let waiting = self.config.stand_ins.iter();
        let mut found: Vec<_> = waiting.map(|stand_in| &*stand_in.what).collect();
        found.dedup();
        assert_eq!(found, wanted, "{}", self.name);
        self
    }

    /// Nothing in it is refused, or unused, or can never happen, but for the lines of `expected`.
    fn lints(self, expected: &[(u64, Level)]) -> Self {
        let findings = lint(self.text, None);
        let grave = [
            Level::Error,
            Level::Deprecated,
            Level::Unreachable,
            Level::Unused,
        ];
        let found: Vec<_> = findings
            .iter()
            .filter(|finding| grave.contains(&finding.level))
            .map(|finding| {
                (
                    finding.position.map_or(0, |position| position.line),
                    finding.level,
                )
            })
            .collect();
        assert_eq!(found, expected, "{}: {findings:#?}", self.name);
        self
    }
}

const WEIGHTED: &[(&str, f64)] = &[
    ("queue-scorer", 2.0),
    ("kv-cache-utilization-scorer", 2.0),
    ("prefix-cache-scorer", 3.0),
];

#[test]
fn one_pool_of_servers_that_do_everything() {
    let epp = sample!("epp")
        .scores(&[
            ("prefix-cache-scorer", 3.0),
            ("queue-scorer", 2.0),
            ("kv-cache-utilization-scorer", 2.0),
        ])
        .picks(Picker::MaxScore)
        .lacks(&[])
        .lints(&[]);
    let prefix = epp.config.prefix.unwrap();
    assert_eq!(
        (
            prefix.max_prefix_blocks_to_match,
            prefix.lru_capacity_per_server
        ),
        (256, 31_250)
    );
    assert!(epp.config.flow.is_none());
    sample!("plain").scores(WEIGHTED).lacks(&[]).lints(&[]);
}

#[test]
fn data_parallel_ranks_need_no_handler() {
    let dp = sample!("dp")
        .scores(&[("queue-scorer", 1.0), ("prefix-cache-scorer", 2.0)])
        .lacks(&[])
        .lints(&[(5, Level::Deprecated)]);
    let warnings = dp.config.warnings.join("\n");
    assert!(
        warnings.contains("write type `single-profile-handler`"),
        "{warnings}"
    );
}

#[test]
fn of_several_profiles_the_one_that_decodes_runs() {
    let deciding = ["prefix-based-pd-decider", "disagg-profile-handler"];
    sample!("pd")
        .scores(&[("prefix-cache-scorer", 3.0), ("queue-scorer", 1.0)])
        .lacks(&["disagg-headers-handler", deciding[0], deciding[1]])
        .lints(&[(18, Level::Unreachable)]);
    sample!("pd-sample")
        .scores(&[("prefix-cache-scorer", 2.0), ("queue-scorer", 1.0)])
        .lacks(&deciding)
        .lints(&[(16, Level::Unreachable)]);
    sample!("pd-topology")
        .scores(&[("prefix-cache-scorer", 2.0), ("queue-scorer", 1.0)])
        .lacks(&[
            "k8s-notification-source",
            "always-disagg-pd-decider",
            "disagg-profile-handler",
        ])
        .lints(&[(29, Level::Unreachable)]);
    sample!("e-pd")
        .scores(&[("prefix-cache-scorer", 2.0), ("queue-scorer", 1.0)])
        .lacks(&[
            "mm-embeddings-cache-scorer",
            "always-disagg-multimodal-decider",
            "disagg-profile-handler",
        ])
        .lints(&[(16, Level::Unreachable)]);
    sample!("e-p-d")
        .scores(&[("prefix-cache-scorer", 2.0), ("queue-scorer", 1.0)])
        .lacks(&["always-disagg-multimodal-decider", deciding[0], deciding[1]])
        .lints(&[(20, Level::Unreachable), (25, Level::Unreachable)]);
    // Whether the profile says it or not, servers that only prefill or only encode are never picked.
    for sample in [sample!("pd"), sample!("e-p-d")] {
        let decode = Filter::Stage(ServingStage::Decode);
        let filters = &sample.config.profile.filters;
        assert!(
            filters.len() == 1 && filters[0].filter == decode,
            "{}: {filters:?}",
            sample.name
        );
    }
}

#[test]
fn prefixes_are_matched_approximately_whatever_is_asked_for() {
    let estimate = sample!("estimate-prefix")
        .scores(&[
            ("prefix-cache-scorer", 2.0),
            ("queue-scorer", 1.0),
            ("kv-cache-utilization-scorer", 1.0),
        ])
        .lacks(&[])
        .lints(&[]);
    let prefix = estimate.config.prefix.unwrap();
    assert_eq!((prefix.auto_tune, prefix.block_size_tokens), (false, 64));
    assert_eq!(prefix.max_prefix_tokens_to_match, 65_536);

    let precise = [
        ("prefix-cache-scorer", 2.0),
        ("kv-cache-utilization-scorer", 1.0),
        ("queue-scorer", 1.0),
    ];
    let with_index = |sample: Sample| {
        assert!(sample.config.prefix.is_some(), "{}", sample.name);
        assert!(sample.config.metrics.is_some(), "{}", sample.name);
    };
    with_index(
        sample!("precise-prefix")
            .scores(&precise)
            .lacks(&[
                "endpoint-notification-source",
                "precise-prefix-cache-producer",
            ])
            .lints(&[]),
    );
    with_index(
        sample!("precise-sample")
            .scores(&precise)
            .lacks(&[
                "token-producer.vllm",
                "endpoint-notification-source",
                "precise-prefix-cache-producer",
            ])
            .lints(&[]),
    );
    with_index(
        sample!("burst-prefix")
            .scores(&[("prefix-cache-scorer", 5.0), ("queue-scorer", 1.0)])
            .lacks(&["burst-prefix-cache-producer"])
            .lints(&[]),
    );
    with_index(
        sample!("kvcache")
            .scores(&[
                ("precise-prefix-cache-scorer", 10.0),
                ("load-aware-scorer", 1.0),
            ])
            .lacks(&["precise-prefix-cache-scorer"])
            .lints(&[(2, Level::Deprecated), (6, Level::Deprecated)]),
    );
    let tokenizer = sample!("tokenizer-http")
        .scores(&[("prefix-cache-scorer", 2.0), ("queue-scorer", 1.0)])
        .lacks(&["token-producer.vllm"])
        .lints(&[(10, Level::Deprecated)]);
    assert_eq!(tokenizer.config.prefix.unwrap().block_size_tokens, 32);
}

#[test]
fn images_do_not_count_yet() {
    sample!("mm-embeddings")
        .scores(&[("prefix-cache-scorer", 2.0), ("queue-scorer", 1.0)])
        .lacks(&[
            "token-producer.vllm",
            "mm-embeddings-cache-producer",
            "mm-embeddings-cache-scorer",
        ])
        .lints(&[]);
}

#[test]
fn cold_prompts_spread_by_least_recent_use() {
    sample!("no-hit-lru")
        .scores(&[
            ("prefix-cache-scorer", 2.0),
            ("no-hit-lru-scorer", 1.0),
            ("load-aware-scorer", 1.0),
        ])
        .lacks(&[])
        .lints(&[]);
    let baseline = sample!("perf-baseline")
        .scores(&[WEIGHTED, &[("no-hit-lru-scorer", 2.0)]].concat())
        .lacks(&[])
        .lints(&[]);
    assert_eq!(
        baseline.config.prefix.unwrap().max_prefix_tokens_to_match,
        100_000
    );
}

#[test]
fn flow_control_by_policy() {
    let ceiling = sample!("soft-reflective-ceiling")
        .scores(&[("queue-scorer", 1.0), ("prefix-cache-scorer", 2.0)])
        .lacks(&[])
        .lints(&[]);
    assert_eq!(ceiling.config.usage_limit, UsageLimit::SoftReflective);
    let flow = ceiling.config.flow.unwrap();
    assert_eq!(
        (
            flow.band(100).max_requests,
            flow.band(0).max_requests,
            flow.band(-10).max_requests
        ),
        (1_000, 5_000, 200)
    );
    let Detector::Concurrency(detector) = ceiling.config.detector else {
        panic!("{:?}", ceiling.config.detector)
    };
    assert_eq!(detector.max_concurrency, 64);

    let programs = sample!("program-aware")
        .scores(&[("active-request-scorer", 1.0), ("prefix-cache-scorer", 2.0)])
        .lacks(&[])
        .lints(&[]);
    let flow = programs.config.flow.unwrap();
    for priority in [0, 5, -5] {
        let Fairness::ProgramAware(fairness) = &flow.band(priority).fairness else {
            panic!("{:?}", flow.band(priority))
        };
        assert_eq!(fairness.las_half_life_seconds, 30.0);
    }
    let random = sample!("probabilistic-admitter")
        .scores(WEIGHTED)
        .lacks(&[])
        .lints(&[]);
    assert_eq!(random.config.probabilistic_admitter.unwrap().k, 300.0);
}

#[test]
fn by_predicted_latency() {
    let predictor = sample!("predictor")
        .scores(&[("latency-scorer", 1.0)])
        .picks(Picker::WeightedRandom)
        .lacks(&[])
        .lints(&[]);
    let producer = predictor.config.predicted_latency.as_ref().unwrap();
    assert!(producer.streaming_mode);
    assert!(predictor.config.slo_admitter.is_some());
    assert_eq!(
        predictor.filters(),
        ["strict", "slo-headroom-tier-filter", "loose"]
    );
    let affinity =
        |sample: &Sample, index: usize| match &sample.config.profile.filters[index].filter {
            Filter::PrefixAffinity(it) => Some((
                it.affinity_threshold,
                it.max_ttft_penalty_ms,
                it.ttft_source,
            )),
            _ => None,
        };
    let predicted = |threshold| Some((threshold, 5_000.0, TtftSource::LatencyPredictor));
    assert_eq!(affinity(&predictor, 0), predicted(0.99));
    assert_eq!(affinity(&predictor, 2), predicted(0.8));
    let sticky = sample!("affinity-token-load")
        .scores(&[("token-load-scorer", 1.0)])
        .lacks(&[])
        .lints(&[]);
    assert_eq!(
        affinity(&sticky, 0),
        Some((0.8, 18_000.0, TtftSource::PrefillThroughput))
    );
    assert!(sticky.config.prefix.is_some() && sticky.config.predicted_latency.is_none());
}

#[test]
fn other_apis_and_engines() {
    let blind = sample!("payload-agnostic")
        .scores(&[
            ("active-request-scorer", 1.0),
            ("session-affinity-scorer", 1.0),
        ])
        .lacks(&[])
        .lints(&[]);
    assert_eq!(blind.config.parsers, [Parser::Passthrough]);
    let grpc = sample!("vllm-grpc").scores(WEIGHTED).lacks(&[]).lints(&[]);
    assert_eq!(grpc.config.parsers, [Parser::VllmGrpc]);
    let engines = [("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0)];
    let triton = sample!("triton").scores(&engines).lacks(&[]).lints(&[]);
    let engine = |config: &Config| {
        let engines = config.metrics.clone().unwrap().engines;
        engines.of(&BTreeMap::new()).name.clone()
    };
    assert_eq!(engine(&triton.config), "triton-tensorrt-llm");
    assert_eq!(triton.config.parsers, [Parser::Passthrough]);
    let sglang = sample!("default-engine")
        .scores(WEIGHTED)
        .lacks(&[])
        .lints(&[]);
    assert_eq!(engine(&sglang.config), "sglang");
    let gpu = sample!("gpu")
        .scores(&[("endpoint-attribute-scorer", 2.0), ("queue-scorer", 1.0)])
        .lacks(&[])
        .lints(&[]);
    assert_eq!(gpu.filters(), ["endpoint-attribute-filter"]);
    assert!(gpu.config.gpu.is_some() && gpu.config.metrics.is_some());
}

/// Every file is one of these tests'.
#[test]
fn no_file_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/configs");
    let source = include_str!("config_samples.rs");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let elsewhere = ["everything", "headroom", "llmd-queued"].contains(&name);
        assert!(
            elsewhere || source.contains(&format!("sample!(\"{name}\")")),
            "{name}"
        );
    }
}

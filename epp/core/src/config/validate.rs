//! Ranges of plugin parameters, and parameters of llm-d's that cannot be honoured.

mod schedule;

use super::error::ConfigError;
use super::plugin::Plugin;
use super::units::span;

/// Refuses a plugin whose parameters cannot be honoured.
pub(super) fn plugin(name: &str, plugin: &Plugin) -> Result<(), ConfigError> {
    let check = Check { name };
    match plugin {
        Plugin::FileDiscovery(it) => check.that(
            "path",
            &it.path,
            !it.path.is_empty(),
            "must name the endpoints file",
        ),
        Plugin::Prefix(it) => {
            check.above_zero("blockSizeTokens", f64::from(it.block_size_tokens))?;
            check.above_zero(
                "maxPrefixBlocksToMatch",
                f64::from(it.max_prefix_blocks_to_match),
            )?;
            check.above_zero(
                "maxPrefixTokensToMatch",
                f64::from(it.max_prefix_tokens_to_match),
            )?;
            check.above_zero(
                "lruCapacityPerServer",
                f64::from(it.lru_capacity_per_server),
            )?;
            check.above_zero("maxBlocksInAll", f64::from(it.max_blocks_in_all))
        }
        Plugin::InflightLoad(it) => check.above_zero("outputRatio", it.output_ratio),
        Plugin::PredictedLatency(it) => {
            check.above_zero("sloBufferFactor", it.slo_buffer_factor)?;
            span(&check.field("contextTTL"), &it.context_ttl).map(|_| ())
        }
        Plugin::PrefixScorer(it) => {
            check.share("matchLengthWeight", it.match_length_weight)?;
            check.above_zero("matchLengthScaleTokens", it.match_length_scale_tokens)
        }
        Plugin::LatencyScorer(it) => {
            check.weights(&[
                ("ttftWeight", it.ttft_weight),
                ("tpotWeight", it.tpot_weight),
            ])?;
            check.weights(&[
                ("compositeKVWeight", it.composite_kv_weight),
                ("compositeQueueWeight", it.composite_queue_weight),
                ("compositePrefixWeight", it.composite_prefix_weight),
            ])
        }
        Plugin::PredictedTtftScorer(it) => check.not_negative("prefillWeight", it.prefill_weight),
        Plugin::MaxScore(it)
        | Plugin::Random(it)
        | Plugin::WeightedRandom(it)
        | Plugin::RoundRobin(it) => {
            check.above_zero("maxNumOfEndpoints", f64::from(it.max_num_of_endpoints))
        }
        Plugin::Concurrency(it) => {
            check.above_zero("maxConcurrency", f64::from(it.max_concurrency))?;
            check.above_zero("maxTokenConcurrency", it.max_token_concurrency as f64)?;
            check.not_negative("headroom", it.headroom)
        }
        Plugin::Utilization(it) => {
            check.above_zero("queueDepthThreshold", it.queue_depth_threshold)?;
            check.above_zero("kvCacheUtilThreshold", it.kv_cache_util_threshold)?;
            span(
                &check.field("metricsStalenessThreshold"),
                &it.metrics_staleness_threshold,
            )?;
            check.not_negative("headroom", it.headroom)
        }
        Plugin::StaticUsageLimit(it) => check.above_zero("threshold", it.threshold),
        Plugin::Adaptive(it) => {
            check.above_zero("min", f64::from(it.min))?;
            let ordered = it.min <= it.initial && it.initial <= it.max;
            check.that(
                "initial",
                it.initial,
                ordered,
                "must lie between min and max",
            )?;
            check.that(
                "tolerance",
                it.tolerance,
                it.tolerance.is_finite() && it.tolerance >= 1.0,
                "must be a number of at least 1",
            )?;
            span(&check.field("window"), &it.window)?;
            check.not_negative("headroom", it.headroom)
        }
        Plugin::ProgramAware(it) => {
            check.weights(&[
                ("lasWeightService", it.las_weight_service),
                ("lasWeightHeadWait", it.las_weight_head_wait),
            ])?;
            check.not_negative("lasHalfLifeSeconds", it.las_half_life_seconds)?;
            check.share("lasDecayFactor", it.las_decay_factor)?;
            check.not_negative("evictionTtlSeconds", it.eviction_ttl_seconds)?;
            check.above_zero("evictionSweepSeconds", it.eviction_sweep_seconds)
        }
        Plugin::VirtualTokens(it) => {
            check.weights(&[
                ("inputWeight", it.input_weight),
                ("outputWeight", it.output_weight),
            ])?;
            it.weights.iter().try_for_each(|(flow, &weight)| {
                check.above_zero(&format!("weights.{flow}"), weight)
            })
        }
        Plugin::PriorityHoldback(it) => {
            let least = it.min_ceiling.unwrap_or(f64::NAN);
            let ordered = (0.0..=1.0).contains(&it.max_ceiling) && least <= it.max_ceiling;
            let wanted = "must be given, between 0 and maxCeiling, which is at most 1";
            check.that("minCeiling", least, ordered && least >= 0.0, wanted)
        }
        other => schedule::plugin(&check, other),
    }
}

struct Check<'a> {
    name: &'a str,
}

impl Check<'_> {
    fn field(&self, parameter: &str) -> String {
        format!("plugin `{}` {parameter}", self.name)
    }

    fn that(
        &self,
        parameter: &str,
        value: impl std::fmt::Display,
        holds: bool,
        wanted: &str,
    ) -> Result<(), ConfigError> {
        if holds {
            Ok(())
        } else {
            Err(ConfigError::value(self.field(parameter), value, wanted))
        }
    }

    fn above_zero(&self, parameter: &str, value: f64) -> Result<(), ConfigError> {
        self.that(
            parameter,
            value,
            value.is_finite() && value > 0.0,
            "must be a number above 0",
        )
    }

    fn not_negative(&self, parameter: &str, value: f64) -> Result<(), ConfigError> {
        self.that(
            parameter,
            value,
            value.is_finite() && value >= 0.0,
            "must be a number of at least 0",
        )
    }

    fn share(&self, parameter: &str, value: f64) -> Result<(), ConfigError> {
        self.that(
            parameter,
            value,
            (0.0..=1.0).contains(&value),
            "must be between 0 and 1",
        )
    }

    fn named(&self, parameter: &str, value: &str) -> Result<(), ConfigError> {
        self.that(parameter, value, !value.is_empty(), "must not be empty")
    }

    /// Each at least 0, not all 0.
    fn weights(&self, weights: &[(&str, f64)]) -> Result<(), ConfigError> {
        for (parameter, weight) in weights {
            self.not_negative(parameter, *weight)?;
        }
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let names: Vec<_> = weights.iter().map(|(parameter, _)| *parameter).collect();
        self.that(&names.join(" + "), sum, sum > 0.0, "must not all be 0")
    }
}

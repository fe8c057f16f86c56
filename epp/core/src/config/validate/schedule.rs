//! Ranges of the parameters of filters, scorers, admitters and what goes with them.

use super::super::error::ConfigError;
use super::super::plugin::{
    EndpointAttributeFilter, EndpointAttributeScorer, LabelOperator, LabelSelectorFilter,
    PassiveHealth, Plugin, PrefixCacheAffinityFilter, SessionAffinity, SessionIdSource,
    SessionSource, UtilizationFilter,
};
use super::super::units::span;
use super::Check;
use crate::expression::Expression;

pub(super) fn plugin(check: &Check<'_>, plugin: &Plugin) -> Result<(), ConfigError> {
    match plugin {
        Plugin::LabelSelector(it) => labels(check, it),
        Plugin::PrefixAffinity(it) => affinity(check, it),
        Plugin::HeadroomTier(it) => check.share("epsilonExploreNeg", it.epsilon_explore_neg),
        Plugin::AttributeFilter(it) => attribute_filter(check, it),
        Plugin::AttributeScorer(it) => attribute_scorer(check, it),
        Plugin::UtilizationFilter(it) => utilization(check, it),
        Plugin::PassiveHealth(it) => health(check, it),
        Plugin::SessionFilter(it) | Plugin::SessionScorer(it) => session(check, it),
        Plugin::SessionId(it) => session_source(check, it),
        Plugin::LoadAwareScorer(it) => check.above_zero("threshold", it.threshold),
        Plugin::TokenLoadScorer(it) => {
            check.above_zero("queueThresholdTokens", it.queue_threshold_tokens)
        }
        Plugin::ActiveRequestScorer(it) => check.share("maxBusyScore", it.max_busy_score),
        Plugin::NoHitLruScorer(it) => check.above_zero("lruSize", f64::from(it.lru_size)),
        Plugin::HeaderLabelScorer(it) => {
            check.named("headerName", &it.header_name)?;
            check.named("labelKey", &it.label_key)
        }
        Plugin::ContextLength(it) => check.named("label", &it.label),
        Plugin::ProbabilisticAdmitter(it) => {
            check.above_zero("queueDepthThreshold", it.queue_depth_threshold)?;
            check.above_zero("kvCacheUtilThreshold", it.kv_cache_util_threshold)?;
            check.above_zero("power", it.power)?;
            check.not_negative("k", it.k)
        }
        Plugin::AttributeReporter(it) => it.attributes.iter().try_for_each(|attribute| {
            check.named("attributes key.namespace", &attribute.key.namespace)?;
            check.named("attributes key.name", &attribute.key.name)?;
            let texts = [Some(&attribute.expression), attribute.condition.as_ref()];
            texts.into_iter().flatten().try_for_each(|text| {
                let wrong = text.parse::<Expression>().err();
                let wanted = wrong.as_ref().map(ToString::to_string).unwrap_or_default();
                let field = "attributes expression, condition";
                check.that(field, text, wrong.is_none(), &wanted)
            })
        }),
        _ => Ok(()),
    }
}

fn labels(check: &Check<'_>, it: &LabelSelectorFilter) -> Result<(), ConfigError> {
    it.match_expressions.iter().try_for_each(|requirement| {
        check.named("matchExpressions key", &requirement.key)?;
        let sets = matches!(
            requirement.operator,
            LabelOperator::In | LabelOperator::NotIn | LabelOperator::InOrDoesNotExist
        );
        check.that(
            "matchExpressions values",
            requirement.values.join(", "),
            sets != requirement.values.is_empty(),
            "must hold at least one value for In, NotIn and InOrDoesNotExist, none for Exists and DoesNotExist",
        )
    })
}

fn affinity(check: &Check<'_>, it: &PrefixCacheAffinityFilter) -> Result<(), ConfigError> {
    check.share("affinityThreshold", it.affinity_threshold)?;
    check.share("explorationProbability", it.exploration_probability)?;
    check.not_negative("maxTTFTPenaltyMs", it.max_ttft_penalty_ms)?;
    check.above_zero("peakPrefillThroughput", it.peak_prefill_throughput)
}

fn attribute_filter(check: &Check<'_>, it: &EndpointAttributeFilter) -> Result<(), ConfigError> {
    check.named("attribute", &it.attribute)?;
    let kind = &it.algorithm.kind;
    check.that(
        "algorithm.type",
        kind,
        kind == "threshold",
        "must be threshold",
    )?;
    let value = it.algorithm.threshold.map(|threshold| threshold.value);
    check.that(
        "algorithm.threshold.value",
        value.unwrap_or(f64::NAN),
        value.is_some_and(f64::is_finite),
        "must be a number",
    )
}

fn attribute_scorer(check: &Check<'_>, it: &EndpointAttributeScorer) -> Result<(), ConfigError> {
    check.named("attributeKey", &it.attribute_key)?;
    let normalization = &it.algorithm.normalization;
    check.that(
        "algorithm.normalization",
        "adaptiveRange and fixedRange",
        normalization.adaptive_range.is_none() || normalization.fixed_range.is_none(),
        "exclude each other; write one",
    )?;
    match normalization.fixed_range {
        Some(range) => check.that(
            "algorithm.normalization.fixedRange",
            format!("{}..{}", range.min, range.max),
            range.min < range.max,
            "must have min below max",
        ),
        None => Ok(()),
    }
}

fn utilization(check: &Check<'_>, it: &UtilizationFilter) -> Result<(), ConfigError> {
    check.that(
        "conditions",
        it.conditions.len(),
        !it.conditions.is_empty(),
        "must hold at least one {metric, maxValue}",
    )?;
    it.conditions
        .iter()
        .try_for_each(|cap| check.not_negative("conditions maxValue", cap.max_value))
}

fn health(check: &Check<'_>, it: &PassiveHealth) -> Result<(), ConfigError> {
    for (parameter, text) in [
        ("window", &it.window),
        ("minStall", &it.min_stall),
        ("baseEjection", &it.base_ejection),
        ("maxEjection", &it.max_ejection),
        ("slowStart", &it.slow_start),
    ] {
        span(&check.field(parameter), text)?;
    }
    check.above_zero("minRequests", f64::from(it.min_requests))?;
    check.above_zero("maxErrorShare", it.max_error_share)?;
    check.share("maxErrorShare", it.max_error_share)?;
    check.above_zero("maxConnectFailures", f64::from(it.max_connect_failures))?;
    check.above_zero("ttftOutlierFactor", it.ttft_outlier_factor)?;
    check.above_zero("maxTtftOutlierShare", it.max_ttft_outlier_share)?;
    check.share("maxTtftOutlierShare", it.max_ttft_outlier_share)?;
    check.above_zero("stallIntervals", it.stall_intervals)
}

fn session(check: &Check<'_>, it: &SessionAffinity) -> Result<(), ConfigError> {
    check.named("headerName", it.token_header())?;
    let (ttl, sweep) = it.memory_seconds();
    check.above_zero("evictionTtlSeconds", ttl)?;
    check.above_zero("evictionSweepSeconds", sweep)?;
    it.sources().iter().try_for_each(|source| {
        let named = match source {
            SessionIdSource::Name(header) => !header.is_empty(),
            SessionIdSource::Place(place) => place.header.is_some() != place.attribute.is_some(),
        };
        check.that(
            "sources",
            format!("{source:?}"),
            named,
            "must name a header or an attribute, not both",
        )
    })
}

fn session_source(check: &Check<'_>, it: &SessionSource) -> Result<(), ConfigError> {
    let named: Vec<&str> = [&it.header_name, &it.cookie_name]
        .into_iter()
        .filter_map(Option::as_deref)
        .collect();
    check.that(
        "headerName, cookieName",
        named.join(", "),
        matches!(named[..], [name] if !name.is_empty()),
        "must be exactly one of both",
    )
}

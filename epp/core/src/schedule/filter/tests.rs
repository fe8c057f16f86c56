//! Each filter by figures, and what holds for all of their kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use predictor::{Prediction, Quantiles};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::config::{
    AttributeGate, Comparison, ConcurrencyDetector, ContextLengthAware, Detector,
    EndpointAttributeFilter, LabelOperator, LabelRequirement, LabelSelectorFilter, OnMissing,
    PrefixCacheAffinityFilter, ServingStage, SessionAffinity, SloHeadroomTierFilter, Threshold,
    TopologyAffinityFilter, TopologyLevel, TtftSource, UtilizationCap, UtilizationFilter,
    UtilizationMetric,
};
use crate::pool::Pool;
use crate::request::Request;
use crate::schedule::{Ask, Candidate, Stage, ask, candidate, labelled, scraped};
use crate::slo::Slo;

const NOBODY: [u32; 0] = [];

fn built(filter: config::Filter, pool: &Arc<Pool>) -> Box<dyn Filter> {
    let mut config = Config::headroom_default();
    if let Some(producer) = &mut config.predicted_latency {
        producer.protect_running = false;
    }
    let mut filter = build(&filter, &config, None);
    filter.pool_changed(pool);
    filter
}

fn slots(
    filter: &mut dyn Filter,
    asked: &Ask<'_>,
    candidates: &[Candidate],
    seed: u64,
) -> Vec<u32> {
    let mut left = candidates.to_vec();
    let rng = &mut StdRng::seed_from_u64(seed);
    filter.retain(asked.now, asked, &mut left, rng);
    left.iter().map(|candidate| candidate.slot).collect()
}

/// What is left of the whole pool.
fn left(filter: config::Filter, pool: &Arc<Pool>, request: &Request) -> Vec<u32> {
    let candidates: Vec<_> = (0..pool.endpoints.len() as u32).map(candidate).collect();
    slots(&mut *built(filter, pool), &ask(request), &candidates, 1)
}

fn with_header(name: &str, value: &str) -> Request {
    Request {
        headers: vec![(name.into(), value.into())],
        ..Request::default()
    }
}

fn predicted(slot: u32, ttft: f32, tpot: f32) -> Candidate {
    let sure = |p50| Quantiles {
        p50,
        p90: p50,
        p99: p50,
    };
    Candidate {
        prediction: Some(Prediction {
            ttft: sure(ttft),
            tpot: sure(tpot),
        }),
        ..candidate(slot)
    }
}

#[test]
fn labels_select_as_kubernetes_does() {
    let pool = labelled(&[
        &[("gpu", "h100"), ("tier", "gold")],
        &[("gpu", "a100")],
        &[("tier", "gold")],
        &[],
    ]);
    let select = |labels: &[(&str, &str)], requirements: Vec<LabelRequirement>| {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let selector = LabelSelectorFilter {
            match_labels: labels.iter().map(pair).collect(),
            match_expressions: requirements,
        };
        left(config::Filter::Labels(selector), &pool, &Request::default())
    };
    let requirement = |operator, values: &[&str]| LabelRequirement {
        key: "gpu".into(),
        operator,
        values: values.iter().map(|&value| value.into()).collect(),
    };
    assert_eq!(select(&[], vec![]), [0, 1, 2, 3]);
    assert_eq!(select(&[("tier", "gold")], vec![]), [0, 2]);
    let one = |operator, values: &[&str]| select(&[], vec![requirement(operator, values)]);
    assert_eq!(one(LabelOperator::In, &["h100", "a100"]), [0, 1]);
    assert_eq!(one(LabelOperator::NotIn, &["h100"]), [1, 2, 3]);
    assert_eq!(one(LabelOperator::Exists, &[]), [0, 1]);
    assert_eq!(one(LabelOperator::DoesNotExist, &[]), [2, 3]);
    assert_eq!(one(LabelOperator::InOrDoesNotExist, &["a100"]), [1, 2, 3]);
    assert_eq!(
        select(
            &[("tier", "gold")],
            vec![requirement(LabelOperator::Exists, &[])]
        ),
        [0]
    );
}

#[test]
fn roles_serve_their_stages_and_decode_the_unlabelled() {
    let roles = [
        "encode",
        "prefill",
        "decode",
        "encode-prefill",
        "prefill-decode",
        "encode-prefill-decode",
        "both",
        "encode-decode",
    ];
    let labels: Vec<[(&str, &str); 1]> = roles
        .iter()
        .map(|role| [("llm-d.ai/role", *role)])
        .collect();
    let mut labels: Vec<&[(&str, &str)]> = labels.iter().map(|labels| &labels[..]).collect();
    labels.push(&[]);
    let pool = labelled(&labels);
    let serving = |stage| {
        let left = left(config::Filter::Stage(stage), &pool, &Request::default());
        let role = |slot: &u32| roles.get(*slot as usize).copied().unwrap_or("-");
        left.iter().map(role).collect::<Vec<_>>()
    };
    assert_eq!(
        serving(ServingStage::Encode),
        ["encode", "encode-prefill", "encode-prefill-decode"]
    );
    assert_eq!(
        serving(ServingStage::Prefill),
        [
            "prefill",
            "encode-prefill",
            "prefill-decode",
            "encode-prefill-decode",
            "both"
        ]
    );
    assert_eq!(
        serving(ServingStage::Decode),
        [
            "decode",
            "prefill-decode",
            "encode-prefill-decode",
            "both",
            "-"
        ]
    );
}

#[test]
fn context_ranges_hold_the_prompt() {
    let pool = labelled(&[
        &[("llm-d.ai/context-length-range", "0-2048")],
        &[("llm-d.ai/context-length-range", "2048-8192")],
        &[("llm-d.ai/context-length-range", "long")],
        &[],
    ]);
    let fits = |prompt_tokens| {
        let parameters = ContextLengthAware {
            enable_filtering: true,
            ..ContextLengthAware::default()
        };
        let request = Request {
            prompt_tokens,
            ..Request::default()
        };
        left(config::Filter::ContextLength(parameters), &pool, &request)
    };
    assert_eq!(fits(100), [0, 3]);
    assert_eq!(fits(2_048), [0, 1, 3]);
    assert_eq!(fits(9_000), [3]);
}

#[test]
fn the_test_header_names_endpoints() {
    let pool = labelled(&[&[], &[], &[]]);
    let named = |value: &str| {
        let request = with_header("test-epp-endpoint-selection", value);
        left(config::Filter::TestHeader, &pool, &request)
    };
    assert_eq!(named("10.0.0.2"), [1]);
    assert_eq!(named(" 10.0.0.3:8000 ,[10.0.0.1]"), [0, 2]);
    assert_eq!(named("10.0.0.3:9000"), NOBODY, "another rank");
    assert_eq!(named("nonsense"), NOBODY);
    assert_eq!(
        left(config::Filter::TestHeader, &pool, &Request::default()),
        [0, 1, 2]
    );
}

#[test]
fn detectors_drop_endpoints_over_their_capacity() {
    let detector = Detector::Concurrency(ConcurrencyDetector {
        max_concurrency: 10,
        headroom: 0.2,
        ..ConcurrencyDetector::default()
    });
    let mut candidates = [candidate(0), candidate(1)];
    candidates[0].load.in_flight = 12;
    candidates[1].load.in_flight = 11;
    let mut filter = built(config::Filter::Room(detector), &labelled(&[&[], &[]]));
    let request = Request::default();
    assert_eq!(slots(&mut *filter, &ask(&request), &candidates, 1), [1]);
}

#[test]
fn utilization_caps_and_falls_back() {
    let cap = |metric, max_value| UtilizationCap { metric, max_value };
    let conditions = vec![
        cap(UtilizationMetric::ActiveRequests, 4.0),
        cap(UtilizationMetric::RunningRequests, 8.0),
        cap(UtilizationMetric::WaitingQueue, 2.0),
        cap(UtilizationMetric::KvCacheUtilization, 0.5),
    ];
    let at = |slot, in_flight, told: (f32, f32, f32)| {
        let mut candidate = candidate(slot);
        candidate.load.in_flight = in_flight;
        candidate.scraped = scraped(told.0, told.1, told.2);
        candidate
    };
    let candidates = [
        at(0, 4, (2.0, 8.0, 0.5)),
        at(1, 5, (0.0, 0.0, 0.0)),
        at(2, 0, (3.0, 0.0, 0.0)),
        at(3, 0, (0.0, 9.0, 0.0)),
        at(4, 0, (0.0, 0.0, 0.6)),
        candidate(5),
    ];
    let run = |fallback_on_empty, candidates: &[Candidate]| {
        let parameters = UtilizationFilter {
            conditions: conditions.clone(),
            fallback_on_empty,
        };
        let mut filter = built(config::Filter::Utilization(parameters), &labelled(&[]));
        slots(&mut *filter, &ask(&Request::default()), candidates, 1)
    };
    assert_eq!(run(false, &candidates), [0, 5], "unknown is within");
    assert_eq!(run(false, &candidates[1..3]), NOBODY);
    assert_eq!(run(true, &candidates[1..3]), [1, 2]);
}

#[test]
fn attributes_are_compared() {
    let pool = labelled(&[&[], &[], &[]]);
    for (endpoint, value) in pool.endpoints.iter().zip([0.5, 0.9]) {
        endpoint.set_attributes(Arc::new(vec![("GPUUtilization".into(), value)]));
    }
    let keep = |operator, value, on_missing, fallback_on_empty| {
        let parameters = EndpointAttributeFilter {
            attribute: "GPUUtilization".into(),
            on_missing,
            fallback_on_empty,
            algorithm: AttributeGate {
                threshold: Some(Threshold { operator, value }),
                ..AttributeGate::default()
            },
            ..EndpointAttributeFilter::default()
        };
        left(
            config::Filter::Attribute(parameters),
            &pool,
            &Request::default(),
        )
    };
    use Comparison::{Equal, GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual, NotEqual};
    let (pass, fail) = (OnMissing::Pass, OnMissing::Fail);
    assert_eq!(keep(LessThan, 0.9, pass, false), [0, 2]);
    assert_eq!(keep(LessThan, 0.9, fail, false), [0]);
    assert_eq!(keep(LessThanOrEqual, 0.9, fail, false), [0, 1]);
    assert_eq!(keep(GreaterThan, 0.5, fail, false), [1]);
    assert_eq!(keep(GreaterThanOrEqual, 0.5, fail, false), [0, 1]);
    assert_eq!(keep(Equal, 0.5, fail, false), [0]);
    assert_eq!(keep(NotEqual, 0.5, fail, false), [1]);
    assert_eq!(keep(LessThan, 0.1, fail, false), NOBODY);
    assert_eq!(keep(LessThan, 0.1, fail, true), [0, 1, 2]);
}

#[test]
fn sessions_stick_while_their_endpoint_is_there() {
    let pool = labelled(&[&[], &[]]);
    let filter = || config::Filter::Session(SessionAffinity::default());
    let told = with_header("x-session-token", &crate::session::token("e1"));
    assert_eq!(left(filter(), &pool, &told), [1]);
    let gone = with_header("x-session-token", &crate::session::token("e7"));
    assert_eq!(left(filter(), &pool, &gone), [0, 1]);
    assert_eq!(left(filter(), &pool, &Request::default()), [0, 1]);
}

#[test]
fn topology_keeps_who_is_near_the_peer() {
    use names::label::{HOST, RACK};
    let pool = labelled(&[
        &[(HOST, "h"), (RACK, "r")],
        &[(HOST, "i"), (RACK, "r")],
        &[(HOST, "j")],
        &[],
    ]);
    let near = |min_affinity, peer: &str| {
        let parameters = TopologyAffinityFilter {
            min_affinity,
            peer_header: Some("x-peer".into()),
            ..TopologyAffinityFilter::default()
        };
        let request = with_header("x-peer", peer);
        left(config::Filter::Topology(parameters), &pool, &request)
    };
    assert_eq!(near(TopologyLevel::Host, "10.0.0.1:8000"), [0]);
    assert_eq!(near(TopologyLevel::Rack, "10.0.0.1:8000"), [0, 1]);
    assert_eq!(near(TopologyLevel::Rack, "10.9.9.9:1"), [0, 1, 2, 3]);
    assert_eq!(
        near(TopologyLevel::Zone, "10.0.0.4:8000"),
        [0, 1, 2, 3],
        "a peer without a place"
    );
}

/// Candidates 0 and 1 have seen 90 % and 80 % of ten blocks, 2 and 3 less.
fn warm() -> [Candidate; 4] {
    let mut candidates = [0, 1, 2, 3].map(candidate);
    for (candidate, matched) in candidates.iter_mut().zip([9, 8, 7, 0]) {
        candidate.matched_blocks = matched;
    }
    candidates
}

fn ten_blocks() -> Request {
    Request {
        prefix: [7; 10].into(),
        prompt_tokens: 640,
        ..Request::default()
    }
}

fn affine(parameters: PrefixCacheAffinityFilter, candidates: &[Candidate], seed: u64) -> Vec<u32> {
    let mut filter = built(config::Filter::PrefixAffinity(parameters), &labelled(&[]));
    slots(&mut *filter, &ask(&ten_blocks()), candidates, seed)
}

#[test]
fn prefix_affinity_sticks_by_share() {
    let at = |affinity_threshold| PrefixCacheAffinityFilter {
        affinity_threshold,
        ..PrefixCacheAffinityFilter::default()
    };
    assert_eq!(affine(at(0.80), &warm(), 1), [0, 1]);
    assert_eq!(
        affine(at(0.99), &warm(), 1),
        [0, 1, 2, 3],
        "nobody is sticky"
    );
    assert_eq!(affine(at(0.0), &warm(), 1), [0, 1, 2, 3], "off");
    let explores = PrefixCacheAffinityFilter {
        exploration_probability: 0.3,
        ..at(0.80)
    };
    let all = (0..1_000).filter(|&seed| affine(explores.clone(), &warm(), seed).len() == 4);
    assert!((230..370).contains(&all.count()));
}

#[test]
fn prefix_affinity_gives_way_to_a_queue_that_costs_more() {
    let mut candidates = warm();
    // The best sticky one has 18,001 ms of tokens at 15,928 tokens per second ahead of it, the best other one none.
    let tokens = |ms: f64| (ms * 15.928).ceil() as u64;
    candidates[0].load.waiting_tokens = tokens(18_001.0);
    candidates[1].load.waiting_tokens = tokens(30_000.0);
    candidates[2].load.waiting_tokens = tokens(5_000.0);
    let default = PrefixCacheAffinityFilter::default;
    assert_eq!(affine(default(), &candidates, 1), [0, 1, 2, 3]);
    candidates[0].load.waiting_tokens = tokens(17_999.0);
    assert_eq!(affine(default(), &candidates, 1), [0, 1]);
    let always = PrefixCacheAffinityFilter {
        max_ttft_penalty_ms: 0.0,
        ..default()
    };
    candidates[0].load.waiting_tokens = tokens(1e9);
    assert_eq!(affine(always, &candidates, 1), [0, 1], "0 always sticks");
}

#[test]
fn prefix_affinity_can_go_by_predictions() {
    let parameters = PrefixCacheAffinityFilter {
        ttft_source: TtftSource::LatencyPredictor,
        max_ttft_penalty_ms: 5_000.0,
        ..PrefixCacheAffinityFilter::default()
    };
    let mut candidates = warm();
    assert_eq!(
        affine(parameters.clone(), &candidates, 1).len(),
        4,
        "no signal"
    );
    for (candidate, ttft) in candidates.iter_mut().zip([5_100.0, 9_000.0, 200.0, 100.0]) {
        candidate.prediction = predicted(0, ttft, 1.0).prediction;
    }
    assert_eq!(affine(parameters.clone(), &candidates, 1), [0, 1]);
    candidates[0].prediction = predicted(0, 5_101.0, 1.0).prediction;
    assert_eq!(affine(parameters, &candidates, 1).len(), 4);
}

#[test]
fn the_tier_with_headroom_goes_first_and_the_other_is_explored() {
    let request = Request {
        slo: Slo {
            ttft_ms: Some(1_000.0),
            tpot_ms: Some(50.0),
        },
        ..Request::default()
    };
    let candidates = [
        predicted(0, 900.0, 40.0),
        predicted(1, 1_100.0, 40.0),
        predicted(2, 900.0, 60.0),
        candidate(3),
    ];
    let parameters = SloHeadroomTierFilter::default();
    let mut filter = built(config::Filter::HeadroomTier(parameters), &labelled(&[]));
    let mut run =
        |candidates: &[Candidate], seed| slots(&mut *filter, &ask(&request), candidates, seed);
    let explored = (0..5_000).filter(|&seed| run(&candidates, seed) == [1, 2, 3]);
    assert!((25..80).contains(&explored.count()), "one in a hundred");
    let kept = (0..5_000).filter(|&seed| run(&candidates, seed) == [0]);
    assert!(kept.count() > 4_900);
    assert_eq!(run(&candidates[1..], 1), [1, 2, 3], "all are in one tier");
    assert_eq!(run(&candidates[3..], 1), [3]);
}

fn preferences() -> Vec<config::Filter> {
    let affinity = |ttft_source, max_ttft_penalty_ms| {
        config::Filter::PrefixAffinity(PrefixCacheAffinityFilter {
            ttft_source,
            max_ttft_penalty_ms,
            exploration_probability: 0.1,
            ..PrefixCacheAffinityFilter::default()
        })
    };
    vec![
        affinity(TtftSource::PrefillThroughput, 10.0),
        affinity(TtftSource::LatencyPredictor, 10.0),
        config::Filter::HeadroomTier(SloHeadroomTierFilter {
            epsilon_explore_neg: 0.5,
        }),
        config::Filter::Session(SessionAffinity::default()),
        config::Filter::Topology(TopologyAffinityFilter {
            peer_header: Some("x-peer".into()),
            ..TopologyAffinityFilter::default()
        }),
    ]
}

fn any_candidate() -> impl Strategy<Value = (u32, u64, Option<(f32, f32)>)> {
    let prediction = prop::option::of((0.0..3_000_f32, 0.0..100_f32));
    (0..11_u32, 0..100_000_u64, prediction)
}

proptest! {
    #[test]
    fn preferences_keep_somebody_and_the_order(
        drawn in prop::collection::btree_map(0..6_u32, any_candidate(), 1..6),
        seed in 0..100_u64,
        session in 0..8_u32,
    ) {
        let pool = labelled(&[&[(names::label::HOST, "a")], &[(names::label::HOST, "b")], &[], &[], &[], &[]]);
        let request = Request {
            slo: Slo { ttft_ms: Some(1_000.0), tpot_ms: Some(50.0) },
            headers: vec![
                ("x-session-token".into(), crate::session::token(&format!("e{session}"))),
                ("x-peer".into(), format!("10.0.0.{session}:8000")),
            ],
            ..ten_blocks()
        };
        let drawn: BTreeMap<_, _> = drawn;
        let candidates: Vec<_> = drawn.iter().map(|(&slot, &(matched, tokens, prediction))| {
            let mut candidate = candidate(slot);
            candidate.matched_blocks = matched.min(10);
            candidate.load.waiting_tokens = tokens;
            candidate.prediction = prediction.and_then(|(ttft, tpot)| predicted(slot, ttft, tpot).prediction);
            candidate
        }).collect();
        for filter in preferences() {
            let mut filter = built(filter, &pool);
            prop_assert_eq!(filter.stage(), Stage::Preference);
            let left = slots(&mut *filter, &ask(&request), &candidates, seed);
            prop_assert!(!left.is_empty());
            prop_assert!(left.is_sorted() && left.iter().all(|slot| drawn.contains_key(slot)));
        }
    }
}

use super::*;
use std::collections::BTreeMap;

fn near(what: &str, actual: f64, published: f64, tolerance: f64) {
    assert!(
        (actual / published - 1.0).abs() <= tolerance,
        "{what}: {actual} against {published} ± {} %",
        tolerance * 100.0
    );
}

#[test]
fn generated_traces_have_the_published_statistics() {
    for seed in 0..10 {
        let stats = generate(&WorkloadSpec::mooncake_conversation(), seed).stats();
        assert_eq!(stats.requests, 12_031);
        near("seconds", stats.span_seconds, 3_537.0, 0.005);
        near("requests/s", stats.requests_per_second, 3.40, 0.01);
        // Extremes of 59 minutes of some 200 requests each: chance moves them.
        near("slowest minute", stats.slowest_minute, 2.40, 0.20);
        near("fastest minute", stats.fastest_minute, 4.12, 0.20);
        near("prompt mean", stats.input.mean, 12_035.0, 0.05);
        near("prompt p50", f64::from(stats.input.p50), 6_909.0, 0.05);
        near("prompt p99", f64::from(stats.input.p99), 85_401.0, 0.10);
        near("answer mean", stats.output.mean, 343.0, 0.03);
        near("answer p50", f64::from(stats.output.p50), 350.0, 0.03);
        near("answer p99", f64::from(stats.output.p99), 1_120.0, 0.10);
        near("hit share", stats.prefix_hit_share, 0.366, 0.05);
    }
}

#[test]
fn a_seed_is_a_trace() {
    let spec = WorkloadSpec {
        requests: 300,
        ..WorkloadSpec::default()
    };
    assert_eq!(generate(&spec, 7), generate(&spec, 7));
    assert_ne!(generate(&spec, 7).requests, generate(&spec, 8).requests);
}

#[test]
fn every_prompt_has_its_blocks_and_no_id_stands_for_two_contents() {
    let trace = generate(&WorkloadSpec::default(), 3);
    // The chain of ids before an id is part of what it stands for.
    let mut before = BTreeMap::new();
    for request in &trace.requests {
        assert_eq!(
            request.blocks.len(),
            request.input_tokens.div_ceil(512) as usize
        );
        assert_eq!(request.blocks[0], 0, "the system prompt comes first");
        for pair in request.blocks.windows(2) {
            assert_eq!(*before.entry(pair[1]).or_insert(pair[0]), pair[0]);
        }
    }
}

#[test]
fn a_turn_leaves_room_for_the_answer_before_it() {
    let trace = generate(&WorkloadSpec::default(), 4);
    // The last request that held an id as a full block is the turn the next holder continues.
    let mut holder: BTreeMap<u64, usize> = BTreeMap::new();
    let mut turns = 0;
    for (index, request) in trace.requests.iter().enumerate() {
        let shared = request
            .blocks
            .iter()
            .take_while(|id| holder.contains_key(id))
            .count();
        if shared > 1 {
            let last = &trace.requests[holder[&request.blocks[shared - 1]]];
            assert_eq!(shared, (last.input_tokens / 512) as usize);
            assert!(request.input_tokens > last.input_tokens + last.output_tokens);
            assert!(request.arrival > last.arrival);
            turns += 1;
        }
        let full = (request.input_tokens / 512) as usize;
        holder.extend(request.blocks[..full].iter().map(|&id| (id, index)));
    }
    assert!(turns > 3_000, "{turns}");
}

#[test]
fn arrivals_come_in_batches_or_exactly() {
    let batched = generate(&WorkloadSpec::default(), 1);
    assert!(batched.requests.iter().all(|r| {
        r.arrival
            .as_nanos()
            .is_multiple_of(MOONCAKE_BATCH.as_nanos())
    }));
    let exact = generate(
        &WorkloadSpec {
            batch: None,
            ..WorkloadSpec::default()
        },
        1,
    );
    let distinct = exact
        .requests
        .windows(2)
        .filter(|pair| pair[0].arrival < pair[1].arrival)
        .count();
    assert_eq!(distinct, exact.requests.len() - 1);
    near(
        "spread span",
        batched.spread_batches(MOONCAKE_BATCH).stats().span_seconds,
        3_539.0,
        0.001,
    );
}

#[test]
fn a_flat_rate_and_no_sharing_can_be_asked_for() {
    let spec = WorkloadSpec {
        rate_growth: 1.0,
        follow_up: 0.0,
        system_blocks: 0,
        ..WorkloadSpec::default()
    };
    let trace = generate(&spec, 2);
    assert_eq!(trace.stats().prefix_hit_share, 0.0);
    let half = trace
        .clone()
        .slice(Duration::from_secs(1_770))
        .requests
        .len();
    near("first half", half as f64, 6_015.0, 0.03);
}

#[test]
fn nothing_asked_for_is_nothing_made() {
    let spec = WorkloadSpec {
        requests: 0,
        ..WorkloadSpec::default()
    };
    assert!(generate(&spec, 0).requests.is_empty());
}

#[test]
fn the_recorded_hour_has_the_published_statistics() {
    let Some(trace) = recorded("mooncake/conversation_trace.jsonl") else {
        return;
    };
    let stats = trace.stats();
    assert_eq!((stats.requests, trace.block_tokens), (12_031, 512));
    assert_eq!((stats.input.p50, stats.input.p99), (6_909, 85_401));
    assert_eq!((stats.output.p50, stats.output.p99), (350, 1_120));
    near("prompt mean", stats.input.mean, 12_035.0, 0.0001);
    near("answer mean", stats.output.mean, 343.0, 0.002);
    near("seconds", stats.span_seconds, 3_537.0, 0.0001);
    near("requests/s", stats.requests_per_second, 3.40, 0.001);
    near("slowest minute", stats.slowest_minute, 2.40, 0.001);
    near("fastest minute", stats.fastest_minute, 4.12, 0.001);
    near("hit share", stats.prefix_hit_share, 0.366, 0.002);

    let spread = trace.spread_batches(MOONCAKE_BATCH);
    let most = spread
        .requests
        .chunk_by(|a, b| a.arrival == b.arrival)
        .map(<[_]>::len)
        .max();
    assert_eq!(most, Some(1), "no two requests arrive at once");
    let eighth = spread
        .scaled_lengths(std::num::NonZeroU32::new(8).unwrap())
        .unwrap();
    assert_eq!(eighth.block_tokens, 64);
    near(
        "hit share, scaled",
        eighth.stats().prefix_hit_share,
        0.366,
        0.005,
    );
}

#[test]
fn azures_recorded_hour_has_its_published_statistics() {
    let Some(trace) = recorded("azure-llm-2023/AzureLLMInferenceTrace_conv.csv") else {
        return;
    };
    let stats = trace.stats();
    assert_eq!(stats.requests, 19_366);
    assert_eq!((stats.input.p50, stats.input.p99), (1_020, 4_142));
    assert_eq!((stats.output.p50, stats.output.p99), (129, 601));
    near("prompt mean", stats.input.mean, 1_155.0, 0.001);
    near("answer mean", stats.output.mean, 211.0, 0.002);
    near("requests/s", stats.requests_per_second, 5.53, 0.001);
    near("slowest minute", stats.slowest_minute, 3.18, 0.002);
    near("fastest minute", stats.fastest_minute, 8.45, 0.001);
    assert_eq!(stats.prefix_hit_share, 0.0);
}

/// A recorded trace, where there is one; none is part of this repository.
fn recorded(file: &str) -> Option<Trace> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let data = std::env::var_os("HEADROOM_DATA").unwrap_or_else(|| default.into());
    let path = std::path::Path::new(&data).join(file);
    if !path.exists() {
        println!("not run: needs HEADROOM_DATA (a directory that holds {file})");
        return None;
    }
    Some(Trace::read(&path).unwrap())
}

//! Engines' metrics pages: lines of others change nothing, numbers make sense or are unknown.

use std::time::Duration;

use epp::scrape::parse::parse;
use epp_core::Scraped;

use super::{Shape, Target};

pub(super) static TARGET: Target = Target {
    name: "prometheus",
    words: &[
        b"vllm:num_requests_waiting",
        b"vllm:num_requests_running",
        b"vllm:kv_cache_usage_perc",
        b"vllm:gpu_cache_usage_perc",
        b"vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"19208\"} 1.0\n",
        b"{model_name=\"m\",engine=\"0\"} ",
        b"# TYPE vllm:num_requests_running gauge\n",
        b"\\\"",
        b"NaN",
        b"+Inf",
        b"-Inf",
        b"1e400",
        b" 1700000000000\n",
        b"\r\n",
        b"_total",
    ],
    run,
};

fn run(page: &[u8]) -> Shape {
    let Some(found) = parse(page, Duration::ZERO) else {
        return Shape::default();
    };
    let others = [page, &b"\n# a comment\npython_gc_objects_total 3\n"[..]].concat();
    let again = parse(&others, Duration::ZERO).expect("the page is still an engine's");
    assert_eq!(told(&found), told(&again), "a line of others counts");
    let [waiting, running, kv, ..] = told(&found);
    Shape::default()
        .with((waiting.is_some(), running.is_some(), kv.is_some()))
        .with(found.block_tokens.is_some())
        .with(found.kv_blocks.is_some())
        .with(found.kv_tokens().is_some())
        .with(found.waiting.partial_cmp(&found.running))
}

/// What is known, to the bit.
fn told(scraped: &Scraped) -> [Option<u64>; 5] {
    let number = |value: f32| (!value.is_nan()).then(|| u64::from(value.to_bits()));
    [
        number(scraped.waiting),
        number(scraped.running),
        number(scraped.kv_utilization),
        scraped.block_tokens.map(u64::from),
        scraped.kv_blocks.map(u64::from),
    ]
}

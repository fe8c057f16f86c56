//! Engines' metrics pages: lines of others change nothing, numbers make sense or are unknown.

use std::time::Duration;

use epp::scrape::read_page;
use epp_core::Scraped;
use epp_core::config::{Engine, Engines};

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
        b"vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"a, b\",waiting_lora_adapters=\"\"} 1.7e9\n",
        b"sglang:num_queue_reqs",
        b"sglang:token_usage",
        b"trtllm_num_requests_waiting",
    ],
    run,
};

fn run(page: &[u8]) -> Shape {
    let engines = Engines::default();
    engines
        .all()
        .iter()
        .fold(Shape::default(), |shape, engine| {
            shape.with(one(engine, page))
        })
}

fn one(engine: &Engine, page: &[u8]) -> Option<Shape> {
    let (found, lora) = read_page(engine, page, Duration::ZERO)?;
    let others = [page, &b"\n# a comment\npython_gc_objects_total 3\n"[..]].concat();
    let again = read_page(engine, &others, Duration::ZERO);
    let (again, same_lora) = again.expect("the page is still an engine's");
    assert_eq!(told(&found), told(&again), "a line of others counts");
    assert_eq!(lora, same_lora);
    let [waiting, running, kv, ..] = told(&found);
    let adapters = lora.map(|lora| (lora.max > 0, lora.running.len(), lora.waiting.len()));
    let shape = Shape::default()
        .with((waiting.is_some(), running.is_some(), kv.is_some()))
        .with((found.block_tokens.is_some(), found.kv_blocks.is_some()))
        .with(found.kv_tokens().is_some())
        .with(adapters.map(|(some, running, waiting)| (some, running.min(3), waiting.min(3))));
    Some(shape)
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

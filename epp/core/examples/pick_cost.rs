//! CPU time per request through the whole core: hash a prompt, submit, route, first token, finish.
//!
//! `cargo run --release -p epp-core --example pick_cost`. The number that matters is the first row (8 endpoints,
//! llm-d's default profile): the picker's share of a request that should stay within twice a bare echo's.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use epp_core::{Config, Director, End, EndpointSpec, Pool, Request, Scraped, Verdict};

const ROUNDS: u32 = 20_000;
/// Streams held open, so that counters and scores differ between endpoints.
const HELD: usize = 64;

fn main() {
    println!("prompt kB  endpoints    profile   us/request   recorded");
    for (kilobytes, endpoints) in [(4, 8), (4, 64), (4, 256), (4, 1_000), (50, 8), (50, 256)] {
        for (name, config) in [
            ("llm-d", Config::llmd_default()),
            ("headroom", Config::headroom_default()),
            ("rotation", Config::round_robin()),
        ] {
            let bytes = kilobytes * 1024;
            let plain = cost(config.clone(), endpoints, bytes, false);
            let recorded = cost(config, endpoints, bytes, true);
            println!("{kilobytes:>9} {endpoints:>10} {name:>10} {plain:>12.2} {recorded:>10.2}");
        }
    }
}

/// Microseconds per request, with what led to the pick `recorded` or not.
fn cost(config: Config, endpoints: usize, prompt_bytes: usize, recorded: bool) -> f64 {
    let mut director = Director::new(config.with_max_concurrency(1_000), 1);
    director.set_pool(Duration::ZERO, pool(endpoints));
    let hashing = director.prefix_hashing();
    let prompts: Vec<Vec<u8>> = (0..50_u8).map(|seed| prompt(seed, prompt_bytes)).collect();
    let mut held = Vec::with_capacity(HELD);
    let started = Instant::now();
    for round in 0..ROUNDS {
        let now = Duration::from_micros(u64::from(round) * 100);
        let mut hasher = hashing.hasher();
        hasher.update(&prompts[round as usize % prompts.len()]);
        let (prompt_tokens, prefix) = hasher.finish("model", "");
        let prefix_block_tokens = hashing.block_tokens;
        director.submit(
            now,
            Request {
                prompt_tokens,
                prefix,
                prefix_block_tokens,
                bytes: 4_096,
                recorded,
                ..Request::default()
            },
        );
        let Some((_, Verdict::Dispatched(mut dispatch))) = director.poll() else {
            continue;
        };
        dispatch.in_flight.first_token(now);
        held.push(dispatch);
        if held.len() == HELD {
            let usage = (Some(prompt_tokens), None, Some(9));
            let (prompt_tokens, cached_tokens, output_tokens) = usage;
            let end = End::Complete {
                status: 200,
                streaming: true,
                prompt_tokens,
                cached_tokens,
                output_tokens,
            };
            held.swap_remove(round as usize % HELD)
                .in_flight
                .finish(now, end);
            director.advance(now);
        }
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

/// Prompts share their first half with one in five others.
fn prompt(seed: u8, bytes: usize) -> Vec<u8> {
    let (half, group) = (bytes / 2, seed % 10);
    let mut text = vec![b'a' + group; half];
    text.extend((0..half).map(|at| b'a' + (at as u8).wrapping_mul(seed) % 26));
    text
}

fn pool(endpoints: usize) -> Arc<Pool> {
    let spec = |number: usize| EndpointSpec {
        name: format!("e{number}"),
        address: format!("10.0.{}.{}:8000", number / 250, number % 250 + 1),
        labels: Default::default(),
    };
    let pool = Pool::default().updated((0..endpoints).map(spec).collect());
    for (number, endpoint) in pool.endpoints.iter().enumerate() {
        endpoint.set_scraped(Scraped {
            at: Duration::from_secs(1),
            waiting: (number % 5) as f32,
            running: (number % 7) as f32,
            kv_utilization: (number % 10) as f32 / 10.0,
            block_tokens: Some(16),
            kv_blocks: Some(20_000),
        });
    }
    Arc::new(pool)
}

//! What the index costs on one core: `cargo run --release -p kv-cache --example figures [WHICH …]`.
//!
//! WHICH is any of `hash`, `lookup`, `lookup-50m`, `ingest`, `memory` (all by default) and `fill`, which puts in a
//! hundred million entries. Each line ends with its bar; the exit code is 1 if one is missed.

#![allow(clippy::print_stdout, clippy::expect_used, clippy::disallowed_methods)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use kv_cache::events::{Batch, Event, Form, Stored, encode};
use kv_cache::keys::KeyHasher;
use kv_cache::{Ingest, Key, Matches, Pod, Settings};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const BLOCK: usize = 16;
const PODS: usize = 256;
const MODEL: &str = "model";

/// Prints one figure with its bar and says whether it is met.
fn figure(name: &str, value: f64, bar: f64, unit: &str) -> bool {
    let met = value <= bar;
    let mark = if met { "ok" } else { "MISSED" };
    println!("{name:<58} {value:>10.2} {unit:<10} <= {bar} {mark}");
    met
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Tokens of blocks `from..to` of chain number `chain`: ids below 128,000, as a tokeniser gives them.
fn tokens(chain: u64, from: usize, to: usize) -> Vec<u32> {
    let mut random = StdRng::seed_from_u64(chain);
    let skipped = from * BLOCK;
    let all = (0..to * BLOCK).map(|_| random.random_range(0..128_000_u32));
    all.skip(skipped).collect()
}

fn hash(seed: u64, chain: u64, place: usize) -> u64 {
    (seed << 48 ^ chain << 20 ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Blocks `from..to` of a chain as an engine with hashes of its own tells of them; `begin` is its first block's parent.
fn stored(seed: u64, chain: u64, from: usize, to: usize, parent: Option<u64>) -> Event {
    Event::Stored(Stored {
        block_hashes: (from..to).map(|place| hash(seed, chain, place)).collect(),
        parent_block_hash: parent,
        token_ids: tokens(chain, from, to),
        block_size: BLOCK as u32,
        ..Stored::default()
    })
}

fn index(entries: usize, pods: usize) -> (Ingest, Vec<Pod>) {
    let settings = Settings {
        entries,
        pods,
        ..Settings::default()
    };
    let mut ingest = Ingest::new(settings).expect("settings in range");
    let pods = (0..pods)
        .map(|_| ingest.add_pod().expect("room for it"))
        .collect();
    (ingest, pods)
}

fn hashing() -> bool {
    let tokens = tokens(1, 0, 128 * 1024 / BLOCK);
    let once = |piece: usize| {
        let start = Instant::now();
        let mut hasher = KeyHasher::new(MODEL, BLOCK as u32, usize::MAX);
        tokens.chunks(piece).for_each(|piece| hasher.update(piece));
        black_box(hasher.finish());
        start.elapsed()
    };
    [("at once", tokens.len()), ("in pieces of 1,000", 1_000)]
        .iter()
        .all(|(how, piece)| {
            let time = median((0..301).map(|_| once(*piece)).collect());
            figure(
                &format!("hash 128 k token ids {how}"),
                time.as_secs_f64() * 1e6,
                200.0,
                "us",
            )
        })
}

const SHARED: usize = 2_048;
const ASKED: usize = 8_192;

/// 256 endpoints hold the first 2,048 blocks; then each goes its own way, some of them for 8,192 blocks.
fn lookup(entries: usize, bar_us: f64) -> bool {
    let (mut ingest, pods) = index(entries * 2, PODS);
    let common = hash(0, 0, SHARED - 1);
    for pod in &pods {
        ingest.apply(*pod, MODEL, &stored(0, 0, 0, SHARED, None));
    }
    let mut own = Vec::new();
    let mut chain = 1;
    while ingest.entries() + ASKED < entries {
        let pod = pods[chain as usize % PODS];
        ingest.apply(
            pod,
            MODEL,
            &stored(0, chain, 0, ASKED - SHARED, Some(common)),
        );
        own.push(chain);
        chain += 1;
    }
    let reader = ingest.reader();
    let mut matches = Matches::default();
    let mut random = StdRng::seed_from_u64(9);
    let prefix = tokens(0, 0, SHARED);
    let queries: Vec<(u64, Vec<Key>)> = (0..60)
        .map(|_| {
            let chain = own[random.random_range(0..own.len())];
            let mut hasher = KeyHasher::new(MODEL, BLOCK as u32, usize::MAX);
            hasher.update(&prefix);
            hasher.update(&tokens(chain, 0, ASKED - SHARED));
            (chain, hasher.finish())
        })
        .collect();
    let mut times = Vec::new();
    for (chain, keys) in queries.iter().cycle().take(600) {
        let start = Instant::now();
        reader.matched(black_box(keys), &mut matches);
        times.push(start.elapsed());
        let holder = pods[*chain as usize % PODS];
        assert_eq!(matches.of(holder).blocks as usize, ASKED);
        assert!(
            pods.iter()
                .all(|pod| *pod == holder || matches.of(*pod).blocks as usize == SHARED)
        );
    }
    let name = format!(
        "look 8,192 keys up over 256 endpoints, {:.1} M entries",
        ingest.entries() as f64 / 1e6
    );
    let whole = figure(&name, median(times).as_secs_f64() * 1e6, bar_us, "us p50");
    let missing: Vec<Key> = (1..9_000)
        .map(|number| Key::of(number * 0x9e37_79b9_7f4a_7c15))
        .collect();
    let times = missing[..800].iter().enumerate().map(|(at, _)| {
        let keys = &missing[at..at + ASKED];
        let start = Instant::now();
        reader.matched(black_box(keys), &mut matches);
        start.elapsed()
    });
    let miss = median(times.collect());
    figure(
        "  a miss at the first block",
        miss.as_secs_f64() * 1e6,
        1.0,
        "us p50",
    ) && whole
}

/// Blocks of 16 tokens per second, from messages, while the index holds ten million entries.
fn ingest() -> bool {
    const HELD: usize = 10_000_000;
    const RUN: usize = 32;
    let (mut ingest, pods) = index(2 * HELD, PODS);
    let mut chain = 0;
    while ingest.entries() < HELD {
        ingest.apply(
            pods[chain as usize % PODS],
            MODEL,
            &stored(1, chain, 0, 1_024, None),
        );
        chain += 1;
    }
    let mut frames = Vec::new();
    for fresh in chain..chain + 500 {
        let mut parent = None;
        for run in 0..1_024 / RUN {
            let event = stored(1, fresh, run * RUN, (run + 1) * RUN, parent);
            parent = Some(hash(1, fresh, (run + 1) * RUN - 1));
            let batch = Batch {
                events: vec![event],
                ..Batch::default()
            };
            frames.push((pods[fresh as usize % PODS], encode(&batch, Form::FULL)));
        }
    }
    let blocks = (frames.len() * RUN) as f64;
    let start = Instant::now();
    for (pod, frame) in &frames {
        ingest.read(*pod, MODEL, frame).expect("a message we wrote");
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "ingest: {:.2} M blocks/s at 10 M entries, bar 1 M",
        blocks / seconds / 1e6
    );
    figure(
        "ingest one block of 16 tokens",
        seconds / blocks * 1e9,
        1_000.0,
        "ns",
    )
}

/// Bytes per entry between five and twenty million entries, each block on `sharers` of 256 endpoints.
fn memory(sharers: usize, bar: f64) -> bool {
    const PROMPT: usize = 64;
    let mut bytes = 0_i64;
    let (mut worst, mut peak): (f64, f64) = (0.0, 0.0);
    let mut random = StdRng::seed_from_u64(3);
    let mut made = None;
    bytes += measure(|| made = Some(index(100_000_000, PODS))).bytes_current;
    let (mut ingest, pods) = made.expect("it was just made");
    let mut chain = 0;
    while ingest.entries() < 20_000_000 {
        let events: Vec<(Pod, Event)> = (0..PODS * 16 / sharers)
            .flat_map(|_| {
                chain += 1;
                let first = random.random_range(0..PODS);
                (0..sharers)
                    .map(|nth| {
                        let pod = (first + nth * 37) % PODS;
                        (pods[pod], stored(pod as u64, chain, 0, PROMPT, None))
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        let counted = measure(|| {
            events
                .iter()
                .for_each(|(pod, event)| ingest.apply(*pod, MODEL, event));
        });
        let top = bytes + counted.bytes_max as i64;
        bytes += counted.bytes_current;
        if ingest.entries() >= 5_000_000 {
            worst = worst.max(bytes as f64 / ingest.entries() as f64);
            peak = peak.max(top as f64 / bytes as f64);
        }
    }
    let shared = format!(
        "bytes per entry, each block on {sharers} endpoints ({} sets)",
        ingest.sets()
    );
    let fits = figure(&shared, worst, bar, "B");
    figure(
        "  peak while growing, as a part of what is held",
        peak,
        1.3,
        "x",
    ) && fits
}

/// A hundred million entries.
fn fill() -> bool {
    const ENTRIES: usize = 100_000_000;
    let (mut ingest, pods) = index(ENTRIES, PODS);
    let mut chain = 0;
    let start = Instant::now();
    let mut bytes = 0;
    while ingest.entries() + 1_024 <= ENTRIES {
        let event = stored(1, chain, 0, 1_024, None);
        let pod = pods[chain as usize % PODS];
        bytes += measure(|| ingest.apply(pod, MODEL, &event)).bytes_current;
        chain += 1;
    }
    let filled = format!(
        "GiB for {} entries, filled in {:.0?}",
        ingest.entries(),
        start.elapsed()
    );
    figure(&filled, bytes as f64 / f64::from(1 << 30), 8.0, "GiB")
}

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, &dyn Fn() -> bool); 6] = [
        ("hash", &hashing),
        ("lookup", &|| lookup(1_000_000, 150.0)),
        ("ingest", &ingest),
        ("memory", &|| memory(1, 64.0) & memory(16, 12.0)),
        ("lookup-50m", &|| lookup(50_000_000, 1_000.0)),
        ("fill", &fill),
    ];
    let mut met = true;
    for (name, part) in parts {
        let all = asked.is_empty() && name != "fill";
        if all || asked.iter().any(|asked| asked == name) {
            met &= part();
        }
    }
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

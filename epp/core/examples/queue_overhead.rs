//! What the queue costs a request: time spent in the director to enqueue it and, later, to dispatch it, with 10,000
//! others queued over 100 flows.
//!
//! `cargo run --release -p epp-core --example queue_overhead`. Exits with 1 when a p99 is above the bar of 50 µs.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use epp_core::config::{
    BandConfig, Fairness, FlowConfig, Ordering, ProgramAwareFairness, VirtualTokenCounter,
};
use epp_core::{Config, Director, Dispatch, End, EndpointSpec, Pool, Request, Verdict};

const QUEUED: u64 = 10_000;
const FLOWS: u64 = 100;
const ROUNDS: u64 = 50_000;
/// Requests in flight per endpoint.
const CONCURRENCY: u32 = 16;

/// The bar, microseconds.
const MOST_P99: f64 = 50.0;

fn main() -> ExitCode {
    let mut worst: f64 = 0.0;
    println!("endpoints       fairness  ordering  p50 us  p99 us  max us");
    let policies = [
        (
            "global-strict",
            Fairness::GlobalStrict,
            "fcfs",
            Ordering::Fcfs,
        ),
        ("round-robin", Fairness::RoundRobin, "fcfs", Ordering::Fcfs),
        (
            "virtual-tokens",
            Fairness::VirtualTokens(VirtualTokenCounter::default()),
            "edf",
            Ordering::Edf,
        ),
        (
            "program-aware",
            Fairness::ProgramAware(ProgramAwareFairness::default()),
            "fcfs",
            Ordering::Fcfs,
        ),
    ];
    for endpoints in [8, 64] {
        for (fairness_name, fairness, ordering_name, ordering) in policies.clone() {
            let band = BandConfig {
                max_requests: 2 * QUEUED,
                max_bytes: u64::MAX,
                fairness,
                ordering,
                ..BandConfig::default()
            };
            let mut costs = costs(band, endpoints);
            costs.sort_unstable();
            let at = |share: f64| {
                let place = ((costs.len() - 1) as f64 * share) as usize;
                costs[place].as_secs_f64() * 1e6
            };
            worst = worst.max(at(0.99));
            println!(
                "{endpoints:>9} {fairness_name:>14} {ordering_name:>9} {:>7.1} {:>7.1} {:>7.1}",
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }
    let met = worst <= MOST_P99;
    let verdict = if met { "met" } else { "MISSED" };
    println!(
        "enqueue and dispatch: worst p99 {worst:.1} us   bar: at most {MOST_P99} us   {verdict}"
    );
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Enqueue and dispatch of each request, without the time between.
fn costs(band: BandConfig, endpoints: usize) -> Vec<Duration> {
    let flow = FlowConfig {
        default_band: band,
        request_ttl: Some(Duration::from_secs(3_600)),
        ..FlowConfig::default()
    };
    let config = Config {
        flow: Some(flow),
        ..Config::llmd_default().with_max_concurrency(CONCURRENCY)
    };
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, pool(endpoints));
    let mut running: Vec<Box<Dispatch>> = Vec::new();
    let mut enqueued: HashMap<u64, Duration> = HashMap::new();
    let mut costs = Vec::new();
    for number in 0..QUEUED + ROUNDS {
        let now = Duration::from_micros(number * 50);
        let request = Request {
            id: number.to_string(),
            flow: format!("tenant-{}", number * 7 % FLOWS).into(),
            prompt_tokens: (number * 31 % 4_000) as u32,
            bytes: 4_096,
            ..Request::default()
        };
        let started = Instant::now();
        let ticket = director.submit(now, request);
        enqueued.insert(ticket.number(), started.elapsed());
        if number >= QUEUED {
            let ended = running.swap_remove(number as usize % running.len());
            ended.in_flight.finish(now, End::UpstreamCut);
            let started = Instant::now();
            director.advance(now);
            let took = started.elapsed();
            while let Some((ticket, Verdict::Dispatched(dispatch))) = director.poll() {
                let before = enqueued.remove(&ticket.number()).unwrap_or_default();
                costs.push(before + took);
                running.push(dispatch);
            }
        } else {
            while let Some((ticket, Verdict::Dispatched(dispatch))) = director.poll() {
                enqueued.remove(&ticket.number());
                running.push(dispatch);
            }
        }
    }
    costs
}

fn pool(endpoints: usize) -> Arc<Pool> {
    let spec = |number: usize| EndpointSpec {
        name: format!("e{number}"),
        address: format!("10.0.{}.{}:8000", number / 250, number % 250 + 1),
        labels: Default::default(),
    };
    Arc::new(Pool::default().updated((0..endpoints).map(spec).collect()))
}

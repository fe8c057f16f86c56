//! Made-up traces with the statistics of a recorded one.
//!
//! The default, [`WorkloadSpec::mooncake_conversation`], follows the conversation trace of Mooncake (Qin et al., FAST
//! 2025; the trace is published under Apache-2.0 at github.com/kvcache-ai/Mooncake). What is matched:
//!
//! | statistic | published trace |
//! |---|---|
//! | requests, seconds from first to last | 12,031, 3,537 |
//! | prompt tokens: mean, p50, p99 | 12,035, 6,909, 85,401 |
//! | answer tokens: mean, p50, p99 | 343, 350, 1,120 |
//! | requests/s: mean, slowest to fastest minute | 3.40, 2.40 to 4.12 |
//! | blocks an infinite prefix cache would hit | 36.6 % |
//! | recorded in | batches of 3 s, prefix ids per 512 tokens |
//!
//! How: requests arrive as a Poisson process of slowly rising rate. Every prompt begins with the same system prompt.
//! A request either opens a conversation or takes the next turn of one whose user has finished thinking: its prompt is
//! then the last turn's prompt, the answer, and a new message, so that it shares every full block of the last turn's
//! prompt. Lengths are drawn first and turns matched to them, which keeps the lengths' distribution exact whatever
//! the sharing.

mod conversation;
mod distribution;
mod shared_prefix;

pub use distribution::{Distribution, DistributionError, Scale};
pub use shared_prefix::{SharedPrefix, Stage};

use crate::trace::{MOONCAKE_BATCH, MOONCAKE_BLOCK_TOKENS, Trace, TraceRequest};
use conversation::Conversations;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// What a generated trace looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadSpec {
    /// Name of the trace, for reports.
    pub name: String,
    /// Requests to make.
    pub requests: u32,
    /// Time over which they arrive.
    pub duration: Duration,
    /// Rate at the end divided by the rate at the start; between, it changes linearly. Above 0.
    pub rate_growth: f64,
    /// Arrivals are recorded as the beginning of the batch they fall into; `None` = exactly.
    pub batch: Option<Duration>,
    /// Tokens per prefix id.
    pub block_tokens: u32,
    /// Blocks at the start of every prompt that all prompts share.
    pub system_blocks: u32,
    /// Prompt lengths, tokens.
    pub input: Distribution,
    /// Answer lengths, tokens.
    pub output: Distribution,
    /// Chance, 0 to 1, that a request continues a conversation (when one fits its length).
    pub follow_up: f64,
    /// Chance, 0 to 1, that a turn is followed by another.
    pub another_turn: f64,
    /// Seconds from one turn of a conversation until its user is ready for the next.
    pub think_seconds: Distribution,
    /// Length of a user's new message, tokens.
    pub message: Distribution,
    /// How long a ready user waits for the next turn before leaving for good.
    pub patience: Duration,
}

impl WorkloadSpec {
    /// The published Mooncake conversation trace; see the [module](self) for its figures. The inner points of the
    /// distributions are rounded quantiles of that trace; sharing is set so that the hit share comes out.
    pub fn mooncake_conversation() -> Self {
        Self {
            name: "generated (statistics of the Mooncake conversation trace)".into(),
            requests: 12_031,
            duration: Duration::from_secs(3_540),
            rate_growth: 1.28,
            batch: Some(MOONCAKE_BATCH),
            block_tokens: MOONCAKE_BLOCK_TOKENS,
            system_blocks: 1,
            input: Distribution::fixed(
                Scale::Logarithmic,
                &[
                    (0.00, 890.0),
                    (0.10, 965.0),
                    (0.25, 2_300.0),
                    (0.50, 6_909.0),
                    (0.75, 15_370.0),
                    (0.90, 27_370.0),
                    (0.95, 39_550.0),
                    (0.99, 85_401.0),
                    (1.00, 126_200.0),
                ],
            ),
            output: Distribution::fixed(
                Scale::Linear,
                &[
                    (0.00, 1.0),
                    (0.10, 24.0),
                    (0.25, 155.0),
                    (0.50, 350.0),
                    (0.75, 472.0),
                    (0.90, 597.0),
                    (0.95, 698.0),
                    (0.99, 1_120.0),
                    (1.00, 2_000.0),
                ],
            ),
            follow_up: 0.46,
            another_turn: 0.55,
            think_seconds: Distribution::fixed(
                Scale::Logarithmic,
                &[
                    (0.00, 10.0),
                    (0.10, 30.0),
                    (0.50, 70.0),
                    (0.90, 300.0),
                    (1.00, 1_200.0),
                ],
            ),
            message: Distribution::fixed(
                Scale::Logarithmic,
                &[
                    (0.00, 8.0),
                    (0.50, 400.0),
                    (0.75, 2_500.0),
                    (0.90, 9_000.0),
                    (1.00, 60_000.0),
                ],
            ),
            patience: Duration::from_secs(300),
        }
    }
}

impl Default for WorkloadSpec {
    fn default() -> Self {
        Self::mooncake_conversation()
    }
}

/// Makes a trace; the same spec and seed make the same trace. O(requests · log requests + blocks).
pub fn generate(spec: &WorkloadSpec, seed: u64) -> Trace {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut conversations = Conversations::new(spec);
    let requests = arrivals(spec, &mut rng)
        .into_iter()
        .zip(0..)
        .map(|(at, row)| {
            let input_tokens = spec.input.tokens(&mut rng);
            let output_tokens = spec.output.tokens(&mut rng);
            TraceRequest {
                row,
                arrival: recorded(at, spec.batch),
                input_tokens,
                output_tokens,
                blocks: conversations.turn(at, input_tokens, output_tokens, &mut rng),
            }
        })
        .collect::<Vec<_>>();
    // A trace counts from its first request.
    let begin = requests
        .first()
        .map_or(Duration::ZERO, |first: &TraceRequest| first.arrival);
    let from_begin = |mut request: TraceRequest| {
        request.arrival -= begin;
        request
    };
    Trace {
        name: spec.name.clone(),
        block_tokens: spec.block_tokens,
        requests: requests.into_iter().map(from_begin).collect(),
    }
}

/// Arrivals of a Poisson process whose rate changes linearly, given how many there are: independent draws from the
/// rate's distribution, sorted.
fn arrivals(spec: &WorkloadSpec, rng: &mut StdRng) -> Vec<Duration> {
    let growth = spec.rate_growth - 1.0;
    let mut at: Vec<Duration> = (0..spec.requests)
        .map(|_| {
            let share: f64 = rng.random();
            // Solves x + growth·x²/2 = share·(1 + growth/2) for x; the flat rate has no square term.
            let x = if growth.abs() < 1e-9 {
                share
            } else {
                ((1.0 + growth * (2.0 + growth) * share).sqrt() - 1.0) / growth
            };
            spec.duration.mul_f64(x.clamp(0.0, 1.0))
        })
        .collect();
    at.sort_unstable();
    at
}

fn recorded(at: Duration, batch: Option<Duration>) -> Duration {
    match batch {
        Some(batch) if !batch.is_zero() => {
            let within = at.as_nanos() % batch.as_nanos();
            at - Duration::from_nanos(u64::try_from(within).unwrap_or(0))
        }
        _ => at,
    }
}

#[cfg(test)]
mod tests;

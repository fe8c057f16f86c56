//! Prompts that come in groups with a long common beginning, offered at a rate that climbs in stages.
//!
//! The default, [`SharedPrefix::optimized_baseline`], is the published load recipe of llm-d's optimized-baseline guide
//! (inference-perf's `shared_prefix` data): 150 groups of 5 prompts, 6,000 tokens of system prompt per group, 1,200 of
//! question, answers of 1,000; Poisson arrivals of 3 to 60 requests/s in stages after a warm-up. The prompts are asked
//! in one shuffled order, over and over, so that each comes back after all the others.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::trace::{Trace, TraceRequest};

/// A stretch of time with one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests/s on average; above 0.
    pub rate: f64,
    /// For how long.
    pub duration: Duration,
}

/// What a generated trace of grouped prompts looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedPrefix {
    /// Name of the trace, for reports.
    pub name: String,
    /// Groups; all prompts of one begin with the same system prompt.
    pub groups: u32,
    /// Prompts per group.
    pub prompts_per_group: u32,
    /// Blocks of each system prompt.
    pub system_blocks: u32,
    /// Blocks of each question, which belong to one prompt alone.
    pub question_blocks: u32,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Tokens of every answer.
    pub output_tokens: u32,
    /// Offered load, stage by stage.
    pub stages: Vec<Stage>,
}

/// Tokens per block: the largest share of system prompt and question that is a multiple of an engine's block of 16 and
/// near the 64 tokens that endpoint pickers hash by.
const BLOCK_TOKENS: u32 = 80;

/// Requests/s and seconds of the published stages, the warm-up first.
const PUBLISHED_STAGES: [(u32, u32); 17] = [
    (15, 50),
    (3, 20),
    (10, 20),
    (15, 20),
    (20, 38),
    (22, 34),
    (25, 30),
    (30, 25),
    (35, 21),
    (40, 38),
    (43, 36),
    (46, 33),
    (49, 30),
    (52, 29),
    (55, 27),
    (57, 26),
    (60, 25),
];

impl SharedPrefix {
    /// The published recipe, as the module describes it.
    pub fn optimized_baseline() -> Self {
        let stage = |(rate, seconds): (u32, u32)| Stage {
            rate: f64::from(rate),
            duration: Duration::from_secs(u64::from(seconds)),
        };
        Self {
            name: "generated (shared prefixes of llm-d's optimized-baseline guide)".into(),
            groups: 150,
            prompts_per_group: 5,
            system_blocks: 6_000 / BLOCK_TOKENS,
            question_blocks: 1_200 / BLOCK_TOKENS,
            block_tokens: BLOCK_TOKENS,
            output_tokens: 1_000,
            stages: PUBLISHED_STAGES.into_iter().map(stage).collect(),
        }
    }

    /// Only the first `stages`, the warm-up included.
    #[must_use]
    pub fn first_stages(mut self, stages: usize) -> Self {
        self.stages.truncate(stages);
        self
    }

    /// The trace of that seed: order of the prompts and arrivals depend on it.
    pub fn generate(&self, seed: u64) -> Trace {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut order: Vec<u32> = (0..self.groups * self.prompts_per_group).collect();
        order.shuffle(&mut rng);
        let arrivals = self.arrivals(&mut rng);
        let begin = arrivals.first().copied().unwrap_or_default();
        let request = |((at, row), prompt): ((Duration, u64), &u32)| TraceRequest {
            row,
            arrival: at - begin,
            input_tokens: (self.system_blocks + self.question_blocks) * self.block_tokens,
            output_tokens: self.output_tokens,
            blocks: self.blocks(*prompt),
        };
        Trace {
            name: self.name.clone(),
            block_tokens: self.block_tokens,
            requests: arrivals
                .into_iter()
                .zip(0..)
                .zip(order.iter().cycle())
                .map(request)
                .collect(),
        }
    }

    /// Instants of a Poisson process whose rate is that of the stage.
    fn arrivals(&self, rng: &mut StdRng) -> Vec<Duration> {
        let mut arrivals = Vec::new();
        let mut begin = Duration::ZERO;
        for stage in &self.stages {
            let end = begin + stage.duration;
            let mut at = begin;
            loop {
                let gap = -(1.0 - rng.random::<f64>()).ln() / stage.rate;
                at += Duration::from_secs_f64(gap);
                if at >= end {
                    break;
                }
                arrivals.push(at);
            }
            begin = end;
        }
        arrivals
    }

    /// Block ids of a prompt: those of its group's system prompt, then its own.
    fn blocks(&self, prompt: u32) -> Vec<u64> {
        let group = u64::from(prompt / self.prompts_per_group.max(1));
        let system = u64::from(self.system_blocks);
        let question = u64::from(self.question_blocks);
        let questions = u64::from(self.groups) * system + u64::from(prompt) * question;
        (group * system..(group + 1) * system)
            .chain(questions..questions + question)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn has_the_published_statistics() {
        for seed in 0..5 {
            let trace = SharedPrefix::optimized_baseline().generate(seed);
            let stats = trace.stats();
            let expected: u32 = PUBLISHED_STAGES
                .iter()
                .map(|(rate, seconds)| rate * seconds)
                .sum();
            let off = (stats.requests as f64 - f64::from(expected)) / f64::from(expected).sqrt();
            assert!(off.abs() < 4.0, "{} requests", stats.requests);
            assert!((stats.span_seconds - 502.0).abs() < 2.0, "{stats:?}");
            assert!(trace.requests.iter().all(|request| {
                (request.input_tokens, request.output_tokens) == (7_200, 1_000)
            }));
        }
    }

    #[test]
    fn groups_share_their_system_prompt_and_nothing_else() {
        let spec = SharedPrefix::optimized_baseline();
        let trace = spec.generate(1);
        let prompts: BTreeSet<&[u64]> = trace
            .requests
            .iter()
            .map(|request| request.blocks.as_slice())
            .collect();
        assert_eq!(prompts.len(), 750);
        let systems: BTreeSet<&[u64]> = prompts.iter().map(|prompt| &prompt[..75]).collect();
        assert_eq!(systems.len(), 150);
        let ids: BTreeSet<u64> = prompts.iter().flat_map(|p| p.iter().copied()).collect();
        assert_eq!(ids.len(), 150 * 75 + 750 * 15);
    }

    #[test]
    fn a_prompt_comes_back_after_all_the_others() {
        let trace = SharedPrefix::optimized_baseline().generate(1);
        let first = &trace.requests[0].blocks;
        let again = trace.requests[1..].iter().position(|r| r.blocks == *first);
        assert_eq!(again, Some(749));
    }

    #[test]
    fn a_seed_is_a_trace_and_stages_can_be_left_out() {
        let spec = SharedPrefix::optimized_baseline().first_stages(2);
        assert_eq!(spec.generate(7), spec.generate(7));
        assert_ne!(spec.generate(7), spec.generate(8));
        assert!(spec.generate(7).span() < Duration::from_secs(70));
    }
}

//! What the server counts, under vLLM's names.
//!
//! Times are the engine's, exact to the step: time to first token runs from the request's arrival and so includes the
//! wait in the queue, as vLLM's does. A request that its client leaves counts as aborted and enters no histogram of
//! finished requests.

mod exposition;
mod histogram;

use crate::sampling::Finish;
use exposition::Exposition;
use histogram::Histogram;
use names::metric::vllm;
use simulator_core::{Load, Profile};
use std::time::Duration;

/// Seconds; vLLM's bounds.
const TTFT_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// Seconds per token; vLLM's bounds.
const TOKEN_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
/// Seconds of a request or of a part of it; vLLM's bounds.
const REQUEST_SECONDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// The instants of one request, on the engine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    pub(crate) arrived: Duration,
    /// First admission to the running batch.
    pub(crate) scheduled: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    /// The newest token.
    pub(crate) last_token: Duration,
}

/// The counts of one finished request, tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) prompt: u32,
    pub(crate) output: u32,
    pub(crate) max: u32,
}

/// All counters and histograms of a server.
pub(crate) struct Metrics {
    model: String,
    block_tokens: u32,
    prompt_tokens: u64,
    generation_tokens: u64,
    stopped: u64,
    length: u64,
    aborted: u64,
    time_to_first_token: Histogram,
    inter_token: Histogram,
    request_per_token: Histogram,
    e2e: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
    request_max_tokens: Histogram,
}

impl Metrics {
    /// All at zero; `model` is the label of every metric.
    pub(crate) fn new(model: String, profile: &Profile) -> Self {
        let tokens = || Histogram::new(token_bounds(profile.max_model_len));
        let seconds = |bounds: &[f64]| Histogram::new(bounds.to_vec());
        Self {
            model,
            block_tokens: profile.block_tokens,
            prompt_tokens: 0,
            generation_tokens: 0,
            stopped: 0,
            length: 0,
            aborted: 0,
            time_to_first_token: seconds(TTFT_SECONDS),
            inter_token: seconds(TOKEN_SECONDS),
            request_per_token: seconds(TOKEN_SECONDS),
            e2e: seconds(REQUEST_SECONDS),
            queue: seconds(REQUEST_SECONDS),
            prefill: seconds(REQUEST_SECONDS),
            decode: seconds(REQUEST_SECONDS),
            inference: seconds(REQUEST_SECONDS),
            request_prompt_tokens: tokens(),
            request_generation_tokens: tokens(),
            request_max_tokens: tokens(),
        }
    }

    /// The first token of a request came at `at`.
    pub(crate) fn first_token(&mut self, at: Duration, arrived: Duration, prompt_tokens: u32) {
        self.prompt_tokens += u64::from(prompt_tokens);
        self.generation_tokens += 1;
        self.time_to_first_token
            .observe(at.saturating_sub(arrived).as_secs_f64());
    }

    /// A further token came `gap` after the one before it.
    pub(crate) fn next_token(&mut self, gap: Duration) {
        self.generation_tokens += 1;
        self.inter_token.observe(gap.as_secs_f64());
    }

    /// A request ended by itself.
    pub(crate) fn finished(&mut self, finish: Finish, counts: Counts, timeline: Timeline) {
        match finish {
            Finish::Stop => self.stopped += 1,
            Finish::Length => self.length += 1,
        }
        self.request_prompt_tokens.observe(f64::from(counts.prompt));
        self.request_generation_tokens
            .observe(f64::from(counts.output));
        self.request_max_tokens.observe(f64::from(counts.max));
        let Timeline {
            arrived,
            scheduled: Some(scheduled),
            first_token: Some(first),
            last_token: last,
        } = timeline
        else {
            return;
        };
        let between = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        self.e2e.observe(between(arrived, last));
        self.queue.observe(between(arrived, scheduled));
        self.prefill.observe(between(scheduled, first));
        self.decode.observe(between(first, last));
        self.inference.observe(between(scheduled, last));
        if counts.output > 1 {
            self.request_per_token
                .observe(between(first, last) / f64::from(counts.output - 1));
        }
    }

    /// A request's client left.
    pub(crate) fn aborted(&mut self) {
        self.aborted += 1;
    }

    /// Everything in Prometheus's text format 0.0.4, with the engine's state as it is.
    pub(crate) fn exposition(&self, load: &Load) -> String {
        let mut out = Exposition::new(&self.model);
        out.gauge(
            vllm::RUNNING,
            "Requests in the running batch.",
            f64::from(load.running),
        );
        out.gauge(
            vllm::WAITING,
            "Requests waiting to be admitted.",
            f64::from(load.waiting),
        );
        out.gauge(
            vllm::KV_USAGE,
            "Share of KV cache blocks in use, 0 to 1.",
            load.kv_usage,
        );
        out.cache_config(vllm::CACHE_CONFIG, self.block_tokens, load.kv_blocks_total);
        for (name, help, value) in [
            (
                vllm::PREFIX_QUERIES,
                "Prompt tokens looked up in the prefix cache.",
                load.prefix_query_tokens,
            ),
            (
                vllm::CACHED_TOKENS,
                "Prompt tokens found in the prefix cache.",
                load.prefix_hit_tokens,
            ),
            (
                vllm::PREEMPTIONS,
                "Preemptions for want of KV blocks.",
                load.preemptions,
            ),
            (
                vllm::PROMPT_TOKENS,
                "Prompt tokens processed.",
                self.prompt_tokens,
            ),
            (
                vllm::OUTPUT_TOKENS,
                "Tokens generated.",
                self.generation_tokens,
            ),
        ] {
            out.counter(name, help, value);
        }
        out.counters_by(
            vllm::SERVED,
            "Requests that ended, by reason.",
            "finished_reason",
            &[
                ("stop", self.stopped),
                ("length", self.length),
                ("abort", self.aborted),
            ],
        );
        self.histograms(&mut out);
        out.into_text()
    }

    fn histograms(&self, out: &mut Exposition<'_>) {
        for (name, help, histogram) in [
            (
                vllm::TTFT,
                "Arrival to first token.",
                &self.time_to_first_token,
            ),
            (
                vllm::ITL,
                "Between two tokens of a request.",
                &self.inter_token,
            ),
            (
                vllm::TPOT,
                "As inter_token_latency_seconds; its older name.",
                &self.inter_token,
            ),
            (
                vllm::REQUEST_TPOT,
                "Mean time per token after the first, per request.",
                &self.request_per_token,
            ),
            (vllm::E2E, "Arrival to last token.", &self.e2e),
            (vllm::QUEUE_TIME, "Arrival to admission.", &self.queue),
            (
                vllm::PREFILL_TIME,
                "Admission to first token.",
                &self.prefill,
            ),
            (vllm::DECODE_TIME, "First token to last.", &self.decode),
            (
                vllm::INFERENCE_TIME,
                "Admission to last token.",
                &self.inference,
            ),
            (
                vllm::REQUEST_PROMPT_TOKENS,
                "Prompt tokens per request.",
                &self.request_prompt_tokens,
            ),
            (
                vllm::REQUEST_OUTPUT_TOKENS,
                "Generated tokens per request.",
                &self.request_generation_tokens,
            ),
            (
                vllm::MAX_OUTPUT_TOKENS,
                "Most tokens generated by one answer of a request.",
                &self.request_generation_tokens,
            ),
            (
                vllm::MAX_TOKENS,
                "max_tokens of the requests.",
                &self.request_max_tokens,
            ),
        ] {
            out.histogram(name, help, histogram);
        }
    }
}

/// 1, 2, 5, 10, … up to `max`: vLLM's bounds for token counts.
fn token_bounds(max: u32) -> Vec<f64> {
    let decades = (0..).map(|exponent| 10u64.pow(exponent));
    decades
        .flat_map(|decade| [decade, 2 * decade, 5 * decade])
        .take_while(|&bound| bound <= u64::from(max))
        .map(|bound| bound as f64)
        .collect()
}

#[cfg(test)]
mod tests;

//! What a trace amounts to: rates, lengths, and how much of it a perfect prefix cache could save.

use super::Trace;
use rustc_hash::FxHashSet;
use serde::Serialize;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Summary of a [`Trace`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TraceStats {
    /// Requests in the trace.
    pub requests: usize,
    /// Seconds from the first arrival to the last.
    pub span_seconds: f64,
    /// Requests divided by the span; 0 for a trace without a span.
    pub requests_per_second: f64,
    /// Lowest rate over a whole minute, requests/s; the mean rate for a trace shorter than a minute.
    pub slowest_minute: f64,
    /// Highest rate over a whole minute, requests/s.
    pub fastest_minute: f64,
    /// Prompt lengths.
    pub input: LengthStats,
    /// Answer lengths.
    pub output: LengthStats,
    /// Share of all prompt blocks that an infinite cache, shared by everybody, would hold when they are asked for
    /// (0 to 1): the bound on any prefix hit rate.
    pub prefix_hit_share: f64,
}

/// Summary of lengths in tokens; percentiles are observed values (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LengthStats {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u32,
    /// 99th percentile.
    pub p99: u32,
}

impl Trace {
    /// Summarises the trace; O(rows · log rows + blocks).
    pub fn stats(&self) -> TraceStats {
        let span_seconds = self.span().as_secs_f64();
        let requests_per_second = if span_seconds > 0.0 {
            self.requests.len() as f64 / span_seconds
        } else {
            0.0
        };
        let (slowest_minute, fastest_minute) = self
            .minute_rates()
            .unwrap_or((requests_per_second, requests_per_second));
        TraceStats {
            requests: self.requests.len(),
            span_seconds,
            requests_per_second,
            slowest_minute,
            fastest_minute,
            input: LengthStats::of(self.requests.iter().map(|r| r.input_tokens)),
            output: LengthStats::of(self.requests.iter().map(|r| r.output_tokens)),
            prefix_hit_share: self.prefix_hit_share(),
        }
    }

    /// Lowest and highest rate over the whole minutes of the trace; `None` when there is none.
    fn minute_rates(&self) -> Option<(f64, f64)> {
        let begin = self.requests.first()?.arrival;
        let minutes = (self.span().as_secs() / MINUTE.as_secs()) as usize;
        let mut counts = vec![0u32; minutes];
        for request in &self.requests {
            let minute = (request.arrival - begin).as_secs() / MINUTE.as_secs();
            if let Some(count) = counts.get_mut(minute as usize) {
                *count += 1;
            }
        }
        let rate = |count: &u32| f64::from(*count) / MINUTE.as_secs_f64();
        Some((
            counts.iter().min().map(rate)?,
            counts.iter().max().map(rate)?,
        ))
    }

    fn prefix_hit_share(&self) -> f64 {
        let mut seen = FxHashSet::<u64>::default();
        let (mut hits, mut blocks) = (0usize, 0usize);
        for request in &self.requests {
            hits += request
                .blocks
                .iter()
                .take_while(|id| seen.contains(*id))
                .count();
            blocks += request.blocks.len();
            seen.extend(&request.blocks);
        }
        if blocks == 0 {
            0.0
        } else {
            hits as f64 / blocks as f64
        }
    }
}

impl LengthStats {
    fn of(lengths: impl Iterator<Item = u32>) -> Self {
        let mut sorted: Vec<u32> = lengths.collect();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else {
            return Self::default();
        };
        let rank = |share: f64| sorted[((sorted.len() as f64 * share) as usize).min(last)];
        Self {
            mean: sorted.iter().map(|&length| f64::from(length)).sum::<f64>() / sorted.len() as f64,
            p50: rank(0.50),
            p99: rank(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TraceRequest;
    use super::*;

    fn request(seconds: u64, tokens: u32, blocks: &[u64]) -> TraceRequest {
        TraceRequest {
            row: 0,
            arrival: Duration::from_secs(seconds),
            input_tokens: tokens,
            output_tokens: tokens,
            blocks: blocks.to_vec(),
        }
    }

    fn stats(requests: Vec<TraceRequest>) -> TraceStats {
        Trace {
            name: "test".into(),
            block_tokens: 1,
            requests,
        }
        .stats()
    }

    #[test]
    fn a_hit_ends_at_the_first_block_nobody_has() {
        let stats = stats(vec![
            request(0, 3, &[1, 2, 3]),
            // 1 and 2 are held; 3 is too, but behind an unknown block it cannot be reused.
            request(1, 4, &[1, 2, 9, 3]),
        ]);
        assert_eq!(stats.prefix_hit_share, 2.0 / 7.0);
    }

    #[test]
    fn rates_are_taken_over_whole_minutes() {
        let mut requests: Vec<_> = (0..60).map(|s| request(s, 1, &[])).collect();
        requests.extend((60..120).step_by(2).map(|s| request(s, 1, &[])));
        requests.push(request(120, 1, &[]));
        let stats = stats(requests);
        assert_eq!((stats.slowest_minute, stats.fastest_minute), (0.5, 1.0));
        assert_eq!(stats.requests_per_second, 91.0 / 120.0);
    }

    #[test]
    fn percentiles_are_observed_values() {
        let stats = stats((1..=200).map(|tokens| request(0, tokens, &[])).collect());
        assert_eq!((stats.input.p50, stats.input.p99), (101, 199));
        assert_eq!(stats.input.mean, 100.5);
    }

    #[test]
    fn an_empty_trace_is_all_zeroes() {
        let stats = stats(Vec::new());
        assert_eq!(
            (
                stats.requests,
                stats.requests_per_second,
                stats.prefix_hit_share
            ),
            (0, 0.0, 0.0)
        );
        assert_eq!(stats.input, LengthStats::default());
    }
}

//! Recorded request streams: when each request came, how long it was, what its prompt shared with others.

mod prompt;
mod read;
mod statistics;

pub use prompt::BYTES_PER_TOKEN;
pub use read::TraceError;
pub use statistics::{LengthStats, TraceStats};

use crate::event::Prefix;
use std::num::NonZeroU32;
use std::time::Duration;

/// Tokens per prefix block in Mooncake's traces.
pub const MOONCAKE_BLOCK_TOKENS: u32 = 512;

/// Width of the batches in which Mooncake's traces record arrivals: every timestamp is (within 3 ms) a multiple of it.
pub const MOONCAKE_BATCH: Duration = Duration::from_secs(3);

/// One recorded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRequest {
    /// Zero-based position among the source's requests.
    pub row: u64,
    /// Since the trace's first request.
    pub arrival: Duration,
    /// Prompt length, at least 1.
    pub input_tokens: u32,
    /// Answer length, at least 1.
    pub output_tokens: u32,
    /// One content id per block of the prompt, from its start, a last partial block included: equal leading ids are
    /// equal leading tokens. Empty when the source does not say. Never more ids than the prompt has blocks.
    pub blocks: Vec<u64>,
}

impl TraceRequest {
    /// What the prompt shares, for the engine: the ids of its full blocks.
    pub fn prefix(&self, block_tokens: u32) -> Prefix {
        let full = (self.input_tokens / block_tokens.max(1)) as usize;
        Prefix {
            ids: self.blocks.iter().copied().take(full).collect(),
            tokens_per_id: block_tokens,
        }
    }
}

/// A stream of requests in order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Where it comes from, for reports.
    pub name: String,
    /// Tokens that one id in [`TraceRequest::blocks`] stands for.
    pub block_tokens: u32,
    /// The requests, arrivals never decreasing.
    pub requests: Vec<TraceRequest>,
}

impl Trace {
    /// Time from the first arrival to the last.
    pub fn span(&self) -> Duration {
        match (self.requests.first(), self.requests.last()) {
            (Some(first), Some(last)) => last.arrival.saturating_sub(first.arrival),
            _ => Duration::ZERO,
        }
    }

    /// Spreads requests that arrived at one instant evenly over the `batch` that begins there.
    ///
    /// A source that records arrivals in batches ([`MOONCAKE_BATCH`]) says only in which batch a request came; replayed
    /// as written, every batch would be a burst. The order of the requests is kept: a batch never reaches past the
    /// next distinct arrival.
    #[must_use]
    pub fn spread_batches(mut self, batch: Duration) -> Self {
        let mut rest = self.requests.as_mut_slice();
        while let Some(begin) = rest.first().map(|first| first.arrival) {
            let len = rest.partition_point(|request| request.arrival == begin);
            let (group, later) = rest.split_at_mut(len);
            let width = later
                .first()
                .map_or(batch, |next| batch.min(next.arrival.saturating_sub(begin)));
            for (request, position) in group.iter_mut().zip(0u32..) {
                request.arrival = begin + width.mul_f64(f64::from(position) / len as f64);
            }
            rest = later;
        }
        self
    }

    /// Divides every length by `divisor`, rounded, at least 1; one id then stands for `block_tokens / divisor` tokens,
    /// so that what was shared stays shared.
    ///
    /// # Errors
    /// [`TraceError::Divisor`] when a block cannot be divided evenly.
    pub fn scaled_lengths(mut self, divisor: NonZeroU32) -> Result<Self, TraceError> {
        if !self.block_tokens.is_multiple_of(divisor.get()) {
            return Err(TraceError::Divisor {
                divisor: divisor.get(),
                block_tokens: self.block_tokens,
            });
        }
        let scaled = |tokens: u32| {
            let half = u64::from(divisor.get() / 2);
            let rounded = (u64::from(tokens) + half) / u64::from(divisor.get());
            u32::try_from(rounded).unwrap_or(u32::MAX).max(1)
        };
        self.block_tokens /= divisor.get();
        for request in &mut self.requests {
            request.input_tokens = scaled(request.input_tokens);
            request.output_tokens = scaled(request.output_tokens);
            // Rounding down may have emptied a last partial block.
            let blocks = request.input_tokens.div_ceil(self.block_tokens) as usize;
            request.blocks.truncate(blocks);
        }
        Ok(self)
    }

    /// Keeps the requests that arrive before `duration`.
    #[must_use]
    pub fn slice(mut self, duration: Duration) -> Self {
        let keep = self
            .requests
            .partition_point(|request| request.arrival < duration);
        self.requests.truncate(keep);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(rows: &[(u64, u32, &[u64])]) -> Trace {
        let requests = rows
            .iter()
            .zip(0..)
            .map(|(&(arrival, input_tokens, blocks), row)| TraceRequest {
                row,
                arrival: Duration::from_millis(arrival),
                input_tokens,
                output_tokens: 9,
                blocks: blocks.to_vec(),
            })
            .collect();
        Trace {
            name: "test".into(),
            block_tokens: 512,
            requests,
        }
    }

    fn arrivals(trace: &Trace) -> Vec<u128> {
        trace
            .requests
            .iter()
            .map(|request| request.arrival.as_millis())
            .collect()
    }

    #[test]
    fn a_batch_is_spread_over_its_width_and_no_further_than_the_next() {
        let rows: Vec<_> = [0, 0, 0, 3000, 3000, 4000, 4000]
            .map(|arrival| (arrival, 8, &[][..]))
            .to_vec();
        let spread = trace(&rows).spread_batches(MOONCAKE_BATCH);
        assert_eq!(arrivals(&spread), [0, 1000, 2000, 3000, 3500, 4000, 5500]);
    }

    #[test]
    fn distinct_arrivals_stay_where_they_are() {
        let rows = [(5, 8, &[][..]), (6, 8, &[]), (4000, 8, &[])];
        assert_eq!(
            arrivals(&trace(&rows).spread_batches(MOONCAKE_BATCH)),
            [5, 6, 4000]
        );
    }

    #[test]
    fn scaling_rounds_keeps_at_least_one_token_and_keeps_ids_in_step_with_blocks() {
        let rows = [
            (0, 3, &[1][..]),
            (0, 1024, &[1, 2]),
            (0, 1027, &[1, 2, 3]),
            (0, 1028, &[1, 2, 4]),
        ];
        let eighth = NonZeroU32::new(8).unwrap();
        let scaled = trace(&rows).scaled_lengths(eighth).unwrap();
        assert_eq!(scaled.block_tokens, 64);
        let seen: Vec<_> = scaled
            .requests
            .iter()
            .map(|r| (r.input_tokens, r.output_tokens, r.blocks.len()))
            .collect();
        assert_eq!(seen, [(1, 1, 1), (128, 1, 2), (128, 1, 2), (129, 1, 3)]);
    }

    #[test]
    fn a_divisor_that_splits_a_block_is_refused_by_name() {
        let error = trace(&[])
            .scaled_lengths(NonZeroU32::new(7).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains('7') && error.contains("512"), "{error}");
    }

    #[test]
    fn the_engine_sees_full_blocks_only() {
        let cut = trace(&[(0, 1100, &[4, 5, 6])]);
        let prefix = cut.requests[0].prefix(cut.block_tokens);
        assert_eq!((&prefix.ids[..], prefix.tokens_per_id), (&[4, 5][..], 512));
        assert!(
            trace(&[(0, 1100, &[])]).requests[0]
                .prefix(512)
                .ids
                .is_empty()
        );
    }

    #[test]
    fn a_slice_ends_before_its_duration() {
        let rows = [(0, 8, &[][..]), (999, 8, &[]), (1000, 8, &[])];
        let slice = trace(&rows).slice(Duration::from_secs(1));
        assert_eq!(arrivals(&slice), [0, 999]);
        assert_eq!(slice.span(), Duration::from_millis(999));
    }
}

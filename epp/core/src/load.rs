//! Hot path: what is dispatched to one endpoint now, in counters.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::flow::LearnedLimit;
use crate::health::Health;
use crate::peers::{Flight, Remote, RemoteCell};
use crate::targets::Targets;

/// Labels an endpoint must have produced before its latencies are believed: a server's first answers pay
/// for compilation, graph capture and empty caches.
pub const COLD_LABELS: u32 = 10;

/// Live counters of one endpoint's life: moved at dispatch, first token, tokens and end of each stream.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    waiting_tokens: AtomicU64,
    resident_tokens: AtomicU64,
    estimated_tokens: AtomicU64,
    served: AtomicU32,
    pub(crate) since_scrape: AtomicU32,
    tpot_targets: Targets,
    kept_tpot: Targets,
    kept_first_tokens: Targets,
    /// What the endpoint does with what it is sent.
    pub health: Health,
    /// How many requests it is thought to take at a time.
    pub(crate) limit: LearnedLimit,
    /// What other pickers of the pool have dispatched there.
    remote: RemoteCell,
}

/// The counters of [`Load`] read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSnapshot {
    /// Requests dispatched and not ended.
    pub in_flight: u32,
    /// Of those, without a first token yet.
    pub waiting: u32,
    /// Uncached prompt tokens of the waiting ones.
    pub waiting_tokens: u64,
    /// Requests past their first token.
    pub running: u32,
    /// Context tokens (prompt and emitted) of the running ones.
    pub resident_tokens: u64,
    /// Output tokens expected of those in flight; 0 unless `inflight-load-producer` estimates them.
    pub estimated_tokens: u64,
    /// Labels produced since the endpoint started; cold below [`COLD_LABELS`].
    pub served: u32,
    /// Dispatches since the last scrape, which it cannot have seen.
    pub since_scrape: u32,
    /// Tightest TPOT target among the requests in flight, in whole milliseconds.
    pub tightest_tpot_ms: Option<u32>,
    /// The same among those that were expected to meet theirs when they were dispatched.
    pub kept_tpot_ms: Option<u32>,
    /// Until when the most urgent of the waiting ones needs its first token, milliseconds on the picker's clock; of
    /// those that were expected to meet their TTFT target when they were dispatched.
    pub kept_first_token_ms: Option<u64>,
    /// Requests in flight that the endpoint takes, as learned; `None` = nothing is learned.
    pub limit: Option<u32>,
    /// Requests that other pickers are assumed to have dispatched since they last told; detectors count them beside
    /// `in_flight`.
    pub assumed: u32,
}

impl LoadSnapshot {
    /// Whether the endpoint has produced too few labels for its latencies to be believed.
    pub fn cold(&self) -> bool {
        self.served < COLD_LABELS
    }

    /// Tokens in flight as `inflight-load-producer` counts them: uncached prompt tokens until the first token, and
    /// estimated output tokens until the end.
    pub fn in_flight_tokens(&self) -> u64 {
        self.waiting_tokens + self.estimated_tokens
    }
}

/// What one request adds to a [`Load`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Prompt tokens that the endpoint has to compute.
    pub(crate) uncached_tokens: u64,
    /// Output tokens expected.
    pub(crate) estimated_tokens: u64,
    /// TPOT target in whole milliseconds.
    pub(crate) tpot_target_ms: Option<u64>,
    /// The same if it was expected to be met.
    pub(crate) kept_tpot_ms: Option<u64>,
    /// Latest instant of the first token if its target was expected to be met.
    pub(crate) kept_first_token_ms: Option<u64>,
}

impl Load {
    /// Reads all counters, those of other pickers included. Each is exact; together they may straddle a concurrent
    /// update.
    pub fn snapshot(&self) -> LoadSnapshot {
        let own = self.own();
        let remote = self.remote.load();
        let theirs = remote.map(|remote| remote.flight).unwrap_or_default();
        let in_flight = own.in_flight + theirs.in_flight;
        let waiting = own.waiting + theirs.waiting.min(theirs.in_flight);
        let milliseconds = |target: u64| u32::try_from(target).unwrap_or(u32::MAX);
        LoadSnapshot {
            in_flight,
            waiting,
            waiting_tokens: own.waiting_tokens + theirs.waiting_tokens,
            running: in_flight - waiting,
            resident_tokens: own.resident_tokens + theirs.resident_tokens,
            estimated_tokens: self.estimated_tokens.load(Relaxed),
            served: self.served.load(Relaxed),
            since_scrape: self.since_scrape.load(Relaxed),
            tightest_tpot_ms: self.tpot_targets.tightest().map(milliseconds),
            kept_tpot_ms: self.kept_tpot.tightest().map(milliseconds),
            kept_first_token_ms: self.kept_first_tokens.tightest(),
            limit: self.limit.get(),
            assumed: remote.map_or(0, |remote| remote.assumed(own.in_flight)),
        }
    }

    /// What this picker alone has in flight there.
    pub fn own(&self) -> Flight {
        let in_flight = self.in_flight.load(Relaxed);
        Flight {
            in_flight,
            waiting: self.waiting.load(Relaxed).min(in_flight),
            waiting_tokens: self.waiting_tokens.load(Relaxed),
            resident_tokens: self.resident_tokens.load(Relaxed),
        }
    }

    /// What other pickers have in flight there; `None` = no other is known.
    pub fn remote(&self) -> Option<Remote> {
        self.remote.load()
    }

    /// Other pickers told of themselves.
    pub(crate) fn set_remote(&self, remote: Remote) {
        self.remote.store(remote);
    }

    /// Counts one label; returns how many the endpoint had produced before it.
    pub(crate) fn label(&self) -> u32 {
        self.served.fetch_add(1, Relaxed)
    }

    pub(crate) fn dispatched(&self, share: &Share) {
        self.in_flight.fetch_add(1, Relaxed);
        self.waiting.fetch_add(1, Relaxed);
        self.waiting_tokens
            .fetch_add(share.uncached_tokens, Relaxed);
        self.estimated_tokens
            .fetch_add(share.estimated_tokens, Relaxed);
        self.since_scrape.fetch_add(1, Relaxed);
        self.tpot_targets.add(share.tpot_target_ms);
        self.kept_tpot.add(share.kept_tpot_ms);
        self.kept_first_tokens.add(share.kept_first_token_ms);
    }

    pub(crate) fn started(&self, share: &Share, context_tokens: u64) {
        self.left_waiting(share);
        self.resident_tokens.fetch_add(context_tokens, Relaxed);
    }

    pub(crate) fn grew(&self, tokens: u64) {
        self.resident_tokens.fetch_add(tokens, Relaxed);
    }

    pub(crate) fn ended_waiting(&self, share: &Share) {
        self.left_waiting(share);
        self.ended(share);
    }

    pub(crate) fn ended_running(&self, share: &Share, context_tokens: u64) {
        self.resident_tokens.fetch_sub(context_tokens, Relaxed);
        self.ended(share);
    }

    fn left_waiting(&self, share: &Share) {
        self.waiting.fetch_sub(1, Relaxed);
        self.waiting_tokens
            .fetch_sub(share.uncached_tokens, Relaxed);
        self.kept_first_tokens.remove(share.kept_first_token_ms);
    }

    fn ended(&self, share: &Share) {
        self.tpot_targets.remove(share.tpot_target_ms);
        self.kept_tpot.remove(share.kept_tpot_ms);
        self.estimated_tokens
            .fetch_sub(share.estimated_tokens, Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_one_stream() {
        let load = Load::default();
        let long = Share {
            uncached_tokens: 300,
            estimated_tokens: 450,
            tpot_target_ms: Some(40),
            kept_tpot_ms: Some(40),
            kept_first_token_ms: Some(1_500),
        };
        let short = Share {
            uncached_tokens: 100,
            tpot_target_ms: Some(25),
            kept_first_token_ms: Some(1_900),
            ..Share::default()
        };
        load.dispatched(&long);
        load.dispatched(&short);
        let both = load.snapshot();
        assert_eq!(
            (both.in_flight, both.waiting, both.waiting_tokens),
            (2, 2, 400)
        );
        assert_eq!(both.in_flight_tokens(), 850);
        assert_eq!(
            (both.tightest_tpot_ms, both.kept_tpot_ms),
            (Some(25), Some(40))
        );
        assert_eq!(both.kept_first_token_ms, Some(1_500));
        load.started(&long, 500);
        load.grew(7);
        let one_runs = load.snapshot();
        assert_eq!((one_runs.running, one_runs.waiting_tokens), (1, 100));
        assert_eq!(one_runs.resident_tokens, 507);
        assert_eq!(one_runs.kept_first_token_ms, Some(1_900));
        load.ended_waiting(&short);
        assert_eq!(load.snapshot().tightest_tpot_ms, Some(40));
        load.ended_running(&long, 507);
        assert_eq!(
            load.snapshot(),
            LoadSnapshot {
                since_scrape: 2,
                ..LoadSnapshot::default()
            }
        );
    }
}

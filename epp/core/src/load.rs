//! Hot path: what is dispatched to one endpoint now, in counters.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

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
    /// Requests dispatched, ever, and how many of them had been when the last scrape was asked for.
    dispatches: AtomicU32,
    scraped_at: AtomicU32,
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
    /// Requests that the engine may hold back and that the last scrape cannot have seen: dispatched since it was asked
    /// for, and still without a first token. As many again are assumed of every other picker that shares the room.
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
        self.waiting_tokens.saturating_add(self.estimated_tokens)
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
        let in_flight = own.in_flight.saturating_add(theirs.in_flight);
        let waiting = own.waiting + theirs.waiting.min(in_flight - own.in_flight);
        let pickers = remote.map_or(1, |remote| remote.pickers.max(1));
        let milliseconds = |target: u64| u32::try_from(target).unwrap_or(u32::MAX);
        LoadSnapshot {
            in_flight,
            waiting,
            waiting_tokens: own.waiting_tokens.saturating_add(theirs.waiting_tokens),
            running: in_flight - waiting,
            resident_tokens: own.resident_tokens.saturating_add(theirs.resident_tokens),
            estimated_tokens: own.estimated_tokens.saturating_add(theirs.estimated_tokens),
            served: self.served.load(Relaxed),
            since_scrape: self.unseen().min(own.waiting).saturating_mul(pickers),
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
            estimated_tokens: self.estimated_tokens.load(Relaxed),
        }
    }

    /// Requests that this picker has dispatched there, ever (modulo 2³²). To be read when a scrape is asked for.
    pub fn dispatches(&self) -> u32 {
        self.dispatches.load(Relaxed)
    }

    /// Requests dispatched since the last scrape was asked for, ended or not.
    pub fn unseen(&self) -> u32 {
        self.dispatches()
            .wrapping_sub(self.scraped_at.load(Acquire))
    }

    /// A scrape came that was asked for when so many requests had been dispatched.
    pub(crate) fn scraped(&self, dispatches: u32) {
        self.scraped_at.store(dispatches, Release);
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
        self.dispatches.fetch_add(1, Relaxed);
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
            LoadSnapshot::default(),
            "what has ended is in nobody's queue"
        );
        assert_eq!(load.unseen(), 2);
    }

    #[test]
    fn what_a_scrape_cannot_have_seen_counts_until_its_first_token() {
        let load = Load::default();
        let share = Share::default();
        load.dispatched(&share);
        let asked = load.dispatches();
        load.dispatched(&share);
        load.dispatched(&share);
        assert_eq!(load.snapshot().since_scrape, 3);
        load.scraped(asked);
        assert_eq!(
            load.snapshot().since_scrape,
            2,
            "dispatched while the page was on its way"
        );
        load.started(&share, 0);
        load.started(&share, 0);
        assert_eq!(load.snapshot().since_scrape, 1);
        load.set_remote(Remote {
            pickers: 3,
            ..Remote::default()
        });
        assert_eq!(
            load.snapshot().since_scrape,
            3,
            "each of the others as many"
        );
    }

    #[test]
    fn absurd_numbers_of_other_pickers_make_an_endpoint_full_not_empty() {
        let load = Load::default();
        load.dispatched(&Share {
            uncached_tokens: 7,
            ..Share::default()
        });
        load.set_remote(Remote {
            flight: Flight {
                in_flight: u32::MAX,
                waiting: u32::MAX,
                waiting_tokens: u64::MAX,
                resident_tokens: u64::MAX,
                estimated_tokens: u64::MAX,
            },
            pickers: u32::MAX,
            ..Remote::default()
        });
        let snapshot = load.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.running), (u32::MAX, 0));
        assert_eq!(snapshot.in_flight_tokens(), u64::MAX);
    }
}

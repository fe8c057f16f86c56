//! The last decisions, kept so that somebody can ask why; and which of them go to a file.

use super::recorder::Recorder;
use epp_core::record::{Ended, PickRecord, PoolRecord, SCHEMA};
use epp_core::{Completion, Pool};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Decisions kept.
pub const KEPT: usize = 256;
/// Decisions kept per second at most: what led to one takes memory and time in proportion to the pool.
const KEPT_PER_SECOND: u64 = 50;

/// A decision that is kept.
#[derive(Debug)]
pub struct Kept {
    /// The pool that its slots are in; `None` for a refusal.
    pub pool: Option<Arc<Pool>>,
    record: Mutex<PickRecord>,
    /// It goes to the file of records too.
    filed: bool,
}

impl Kept {
    /// The record as it is now.
    pub fn record(&self) -> PickRecord {
        self.record.lock().clone()
    }
}

/// What a request leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its decision is kept for who asks.
    pub kept: bool,
    /// Its decision is recorded in the file.
    pub filed: bool,
}

impl Wanted {
    /// Whether there is to be a record at all.
    pub fn any(self) -> bool {
        self.kept || self.filed
    }
}

/// A bounded ring of decisions.
#[derive(Debug, Default)]
pub struct Decisions {
    ring: Mutex<VecDeque<Arc<Kept>>>,
    /// The second that is counted in (upper 32 bits), and decisions kept in it.
    rate: AtomicU64,
    recorder: Option<Recorder>,
}

/// What `/debug/decisions` answers.
#[derive(Debug, Serialize)]
struct Page {
    schema: u32,
    /// The pools that the picks refer to.
    pools: Vec<PoolRecord>,
    /// Newest first.
    picks: Vec<PickRecord>,
}

impl Decisions {
    /// A ring beside a file of records, if there is one.
    pub(super) fn new(recorder: Option<Recorder>) -> Self {
        Self {
            recorder,
            ..Self::default()
        }
    }

    /// What a request that comes at `now` is to leave behind.
    pub fn wants(&self, now: Duration) -> Wanted {
        let second = now.as_secs() & u64::from(u32::MAX);
        let next = |rate: u64| {
            if rate >> 32 == second {
                ((rate & u64::from(u32::MAX)) < KEPT_PER_SECOND).then_some(rate + 1)
            } else {
                Some(second << 32 | 1)
            }
        };
        Wanted {
            kept: self.rate.fetch_update(Relaxed, Relaxed, next).is_ok(),
            filed: self.recorder.as_ref().is_some_and(Recorder::draw),
        }
    }

    /// Keeps a decision, as far as it is wanted. Its end is told by [`Decisions::ended`].
    pub fn decided(
        &self,
        wanted: Wanted,
        pool: Option<Arc<Pool>>,
        record: PickRecord,
    ) -> Arc<Kept> {
        let over = record.picked.is_none();
        let kept = Arc::new(Kept {
            pool,
            record: Mutex::new(record),
            filed: wanted.filed,
        });
        if wanted.kept {
            self.push(Arc::clone(&kept));
        }
        if over {
            self.file(&kept);
        }
        kept
    }

    /// What became of a request that was sent.
    pub fn ended(&self, kept: &Arc<Kept>, completion: &Completion, status: Option<u16>) {
        kept.record.lock().ended = Some(Ended::of(completion, status));
        self.file(kept);
    }

    fn file(&self, kept: &Arc<Kept>) {
        if let Some(recorder) = self.recorder.as_ref().filter(|_| kept.filed) {
            recorder.take(Arc::clone(kept));
        }
    }

    fn push(&self, kept: Arc<Kept>) {
        let mut ring = self.ring.lock();
        let oldest = if ring.len() == KEPT {
            ring.pop_front()
        } else {
            None
        };
        ring.push_back(kept);
        drop(ring);
        // Freed outside the lock: a decision over many endpoints is not small.
        drop(oldest);
    }

    /// The newest `limit` decisions, newest first, as JSON; with `id`, only those on requests of that id.
    pub fn to_json(&self, limit: usize, id: Option<&str>) -> String {
        let ring: Vec<_> = self.ring.lock().iter().rev().map(Arc::clone).collect();
        let wanted = |kept: &Arc<Kept>| id.is_none_or(|id| kept.record.lock().id == id);
        let mut known: Vec<Arc<Pool>> = Vec::new();
        let picks = ring.into_iter().filter(wanted).take(limit).map(|kept| {
            let mut record = kept.record();
            if let (Some(picked), Some(pool)) = (&mut record.picked, &kept.pool) {
                let at = known.iter().position(|known| Arc::ptr_eq(known, pool));
                picked.pool = at.unwrap_or_else(|| {
                    known.push(Arc::clone(pool));
                    known.len() - 1
                }) as u64;
            }
            record
        });
        let picks = picks.collect();
        let pools = known.iter().enumerate();
        let page = Page {
            schema: SCHEMA,
            pools: pools
                .map(|(number, pool)| PoolRecord::of(pool, number as u64))
                .collect(),
            picks,
        };
        serde_json::to_string(&page).unwrap_or_else(|_| "{}".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::record::{Refused, RequestRecord};

    fn refusal(id: &str) -> PickRecord {
        PickRecord {
            schema: SCHEMA,
            at_ms: 1,
            id: id.to_owned(),
            config: String::new(),
            request: RequestRecord::default(),
            waited_ms: 0.0,
            picked: None,
            refused: Some(Refused {
                outcome: "RejectedCapacity".into(),
                status: 429,
                reason: "rejected-saturated".into(),
            }),
            ended: None,
        }
    }

    const KEEP: Wanted = Wanted {
        kept: true,
        filed: false,
    };

    fn ids(page: &str) -> Vec<String> {
        let page: serde_json::Value = serde_json::from_str(page).unwrap();
        let picks = page["picks"].as_array().unwrap();
        picks
            .iter()
            .map(|pick| pick["id"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_newest_come_first_and_the_ring_is_bounded() {
        let decisions = Decisions::default();
        for index in 0..KEPT + 10 {
            decisions.decided(KEEP, None, refusal(&format!("r{index}")));
        }
        assert_eq!(decisions.ring.lock().len(), KEPT);
        assert_eq!(ids(&decisions.to_json(2, None)), ["r265", "r264"]);
        assert_eq!(ids(&decisions.to_json(9, Some("r20"))), ["r20"]);
        assert!(
            ids(&decisions.to_json(9, Some("r3"))).is_empty(),
            "pushed out"
        );
    }

    #[test]
    fn only_some_are_kept_each_second() {
        let decisions = Decisions::default();
        let at = |now: u64| {
            let wanted = (0..200).filter(|_| decisions.wants(Duration::from_secs(now)).kept);
            wanted.count() as u64
        };
        assert_eq!(
            [at(0), at(0), at(1), at(7)],
            [KEPT_PER_SECOND, 0, KEPT_PER_SECOND, KEPT_PER_SECOND]
        );
        assert!(!decisions.wants(Duration::ZERO).filed, "there is no file");
    }
}

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
/// Decisions kept per second at most.
const KEPT_PER_SECOND: u64 = 50;
/// What led to a decision takes memory and time in proportion to the endpoints that it was made among. One among more
/// than so many counts as several, in the ring and in a second.
const USUAL: usize = 64;

/// A decision that is kept.
#[derive(Debug)]
pub struct Kept {
    /// The pool that its slots are in; `None` for a refusal.
    pub pool: Option<Arc<Pool>>,
    record: Mutex<PickRecord>,
    /// Endpoints that it was made among.
    among: usize,
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
    ring: Mutex<Ring>,
    /// The second that is counted in (upper 32 bits), and for how many endpoints decisions were kept in it.
    rate: AtomicU64,
    recorder: Option<Recorder>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Oldest first.
    kept: VecDeque<Arc<Kept>>,
    /// Endpoints that they were made among, together.
    among: usize,
}

impl Ring {
    /// What has to go so that no more are kept than may be; the newest stays, however large.
    fn surplus(&mut self) -> Option<Arc<Kept>> {
        let over = self.kept.len() > KEPT || self.among > KEPT * USUAL;
        let oldest = over.then(|| self.kept.pop_front()).flatten()?;
        self.among -= oldest.among;
        Some(oldest)
    }
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
            let kept = match rate >> 32 == second {
                true => rate & u64::from(u32::MAX),
                false => 0,
            };
            let room = kept < KEPT_PER_SECOND * USUAL as u64;
            room.then_some(second << 32 | (kept + USUAL as u64))
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
        let among = record.picked.as_ref();
        let among = among.map_or(1, |picked| picked.candidates.len().max(1));
        let kept = Arc::new(Kept {
            pool,
            record: Mutex::new(record),
            among,
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
        let more = kept.among.saturating_sub(USUAL) as u64;
        self.rate.fetch_add(more, Relaxed);
        let mut surplus = Vec::new();
        let mut ring = self.ring.lock();
        ring.among += kept.among;
        ring.kept.push_back(kept);
        while ring.kept.len() > 1
            && let Some(oldest) = ring.surplus()
        {
            surplus.push(oldest);
        }
        drop(ring);
        // Freed outside the lock: a decision over many endpoints is not small.
        drop(surplus);
    }

    /// The newest `limit` decisions, newest first, as JSON; with `id`, only those on requests of that id.
    pub fn to_json(&self, limit: usize, id: Option<&str>) -> String {
        let ring: Vec<_> = self.ring.lock().kept.iter().rev().map(Arc::clone).collect();
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
    use epp_core::record::{CandidateRecord, Picked, Refused, RequestRecord};

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
        assert_eq!(decisions.ring.lock().kept.len(), KEPT);
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

    fn pick(among: usize) -> PickRecord {
        PickRecord {
            picked: Some(Picked {
                pool: 0,
                slot: 0,
                trusted: false,
                expected_miss: false,
                model: None,
                scorers: Vec::new(),
                removals: Vec::new(),
                candidates: vec![CandidateRecord::default(); among],
            }),
            refused: None,
            ..refusal("r")
        }
    }

    #[test]
    fn what_is_kept_is_bounded_by_the_endpoints_too() {
        let decisions = Decisions::default();
        let mut wanted = 0;
        while decisions.wants(Duration::ZERO).kept {
            decisions.decided(KEEP, None, pick(1_000));
            wanted += 1;
        }
        assert_eq!(wanted, 4, "of 3,200 endpoints a second");
        for _ in 0..40 {
            decisions.decided(KEEP, None, pick(1_000));
        }
        let kept = |decisions: &Decisions| {
            let ring = decisions.ring.lock();
            let among: usize = ring.kept.iter().map(|kept| kept.among).sum();
            assert_eq!(ring.among, among);
            ring.kept.len()
        };
        assert_eq!(kept(&decisions), 16);
        decisions.decided(KEEP, None, pick(20_000));
        assert_eq!(kept(&decisions), 1, "the newest stays");
        decisions.decided(KEEP, None, pick(8));
        assert_eq!(kept(&decisions), 1);
    }
}

//! The last decisions, kept so that somebody can ask why.

use epp_core::{Decision, Explanation, Refusal};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;

/// Decisions kept.
pub const KEPT: usize = 256;

/// What became of one request, with the reasons.
#[derive(Debug)]
struct Recorded {
    id: String,
    at: Duration,
    what: What,
}

#[derive(Debug)]
enum What {
    Dispatched(Decision),
    Refused(Refusal),
}

/// One entry of `/debug/decisions`.
#[derive(Debug, Serialize)]
struct Entry {
    request_id: String,
    at_seconds: f64,
    #[serde(flatten)]
    what: Explained,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Explained {
    Dispatched(Explanation),
    Refused {
        outcome: &'static str,
        status: u16,
        reason: &'static str,
        message: String,
    },
}

/// A bounded ring of decisions.
#[derive(Debug, Default)]
pub struct Decisions {
    ring: Mutex<VecDeque<Recorded>>,
}

impl Decisions {
    /// Remembers where the request `id` was sent, and why.
    pub fn dispatched(&self, id: String, decision: Decision) {
        self.push(Recorded {
            id,
            at: decision.at,
            what: What::Dispatched(decision),
        });
    }

    /// Remembers why the request `id` was refused.
    pub fn refused(&self, id: String, at: Duration, refusal: Refusal) {
        self.push(Recorded {
            id,
            at,
            what: What::Refused(refusal),
        });
    }

    fn push(&self, recorded: Recorded) {
        let mut ring = self.ring.lock();
        let oldest = if ring.len() == KEPT {
            ring.pop_front()
        } else {
            None
        };
        ring.push_back(recorded);
        drop(ring);
        // Freed outside the lock: a decision over many endpoints is not small.
        drop(oldest);
    }

    /// The newest `limit` decisions, newest first, as JSON.
    pub fn to_json(&self, limit: usize) -> String {
        let ring = self.ring.lock();
        let entries: Vec<Entry> = ring.iter().rev().take(limit).map(Entry::from).collect();
        drop(ring);
        serde_json::to_string(&entries).unwrap_or_else(|_| "[]".into())
    }
}

impl From<&Recorded> for Entry {
    fn from(recorded: &Recorded) -> Self {
        let what = match &recorded.what {
            What::Dispatched(decision) => Explained::Dispatched(decision.explain()),
            What::Refused(refusal) => Explained::Refused {
                outcome: refusal.outcome.name(),
                status: refusal.status,
                reason: refusal.reason,
                message: refusal.message.clone(),
            },
        };
        Self {
            request_id: recorded.id.clone(),
            at_seconds: recorded.at.as_secs_f64(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::Outcome;

    #[test]
    fn the_newest_come_first_and_the_ring_is_bounded() {
        let decisions = Decisions::default();
        for index in 0..KEPT + 10 {
            let refusal = Refusal {
                outcome: Outcome::RejectedCapacity,
                status: 429,
                reason: "rejected-saturated",
                retry_after: None,
                message: format!("number {index}"),
            };
            decisions.refused("r".into(), Duration::from_secs(index as u64), refusal);
        }
        assert_eq!(decisions.ring.lock().len(), KEPT);
        let json: serde_json::Value = serde_json::from_str(&decisions.to_json(2)).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 2);
        assert_eq!(
            json[0]["refused"]["message"],
            format!("number {}", KEPT + 9)
        );
        assert_eq!(json[0]["refused"]["outcome"], "RejectedCapacity");
    }
}

//! The last decisions, kept and served at `/decisions`.

mod models;

pub use models::{Line, MAX_CHANGES, MAX_MODELS, ModelJournal};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use controller_core::Decision;
use serde::{Deserialize, Serialize};

/// Decisions kept: about ten minutes of ticks.
const KEPT: usize = 600;
/// Decisions kept that changed the count, however long ago.
const CHANGES_KEPT: usize = 200;

/// The last decisions; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug, Default)]
struct Pages {
    all: VecDeque<Arc<Decision>>,
    changes: VecDeque<Arc<Decision>>,
}

impl Journal {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps `decision`; the oldest gives way.
    pub fn record(&self, decision: Arc<Decision>) {
        let mut pages = self.pages();
        if decision.changes() {
            push(&mut pages.changes, Arc::clone(&decision), CHANGES_KEPT);
        }
        push(&mut pages.all, decision, KEPT);
    }

    /// The decision made last.
    pub fn latest(&self) -> Option<Arc<Decision>> {
        self.pages().all.back().cloned()
    }

    /// At most `limit` decisions, newest first; only those that changed the count if `changes`.
    pub fn newest(&self, limit: usize, changes: bool) -> Vec<Arc<Decision>> {
        let pages = self.pages();
        let kept = if changes { &pages.changes } else { &pages.all };
        kept.iter().rev().take(limit).cloned().collect()
    }

    /// `GET /decisions[?limit=N][&changes=true]`: a JSON list, newest first, each with its explanation as `why`.
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/decisions", get(decisions))
            .with_state(self.clone())
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // A panic while holding the lock leaves whole decisions behind: they may still be read.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(kept: &mut VecDeque<Arc<Decision>>, decision: Arc<Decision>, most: usize) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(decision);
}

#[derive(Debug, Deserialize)]
struct Selection {
    #[serde(default = "default_limit")]
    limit: usize,
    #[serde(default)]
    changes: bool,
}

fn default_limit() -> usize {
    50
}

/// A decision with its explanation.
#[derive(Debug, Serialize)]
struct Explained {
    why: String,
    #[serde(flatten)]
    decision: Arc<Decision>,
}

async fn decisions(
    State(journal): State<Journal>,
    Query(selection): Query<Selection>,
) -> Json<Vec<Explained>> {
    let newest = journal.newest(selection.limit, selection.changes);
    Json(
        newest
            .into_iter()
            .map(|decision| Explained {
                why: decision.to_string(),
                decision,
            })
            .collect(),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use controller_core::decision::{Basis, Hold, Reason};
    use controller_core::signals::Replicas;

    use super::*;

    pub(crate) fn decision(second: u64, previous: u32, replicas: u32) -> Arc<Decision> {
        Arc::new(Decision {
            at: Duration::from_secs(second),
            replicas,
            previous,
            basis: Basis::Held,
            supply: Replicas {
                ready: previous,
                starting: 0,
                draining: 0,
                pending: 0,
            },
            demand: None,
            forecast: None,
            capacity: None,
            headroom: None,
            reasons: vec![Reason::Held {
                because: Hold::Prior,
            }],
            guarded: None,
        })
    }

    #[test]
    fn changes_outlive_the_ticks_between_them_and_both_are_bounded() {
        let journal = Journal::new();
        journal.record(decision(0, 1, 2));
        for second in 1..=2 * KEPT as u64 {
            journal.record(decision(second, 2, 2));
        }
        assert_eq!(journal.newest(usize::MAX, false).len(), KEPT);
        assert_eq!(
            journal.newest(2, false)[1].at.as_secs(),
            2 * KEPT as u64 - 1
        );
        assert_eq!(journal.newest(usize::MAX, true)[0].at.as_secs(), 0);
        for second in 0..2 * CHANGES_KEPT as u64 {
            journal.record(decision(second, 1, 2));
        }
        assert_eq!(journal.newest(usize::MAX, true).len(), CHANGES_KEPT);
    }

    #[tokio::test]
    async fn served_newest_first_with_the_explanation() {
        let journal = Journal::new();
        journal.record(decision(1, 1, 2));
        journal.record(decision(2, 2, 2));
        let selection = |limit, changes| Query(Selection { limit, changes });
        let served = decisions(State(journal.clone()), selection(10, false)).await;
        let json = serde_json::to_value(&served.0).unwrap();
        assert_eq!(
            (&json[0]["atSeconds"], &json[1]["atSeconds"]),
            (&2.0.into(), &1.0.into())
        );
        assert_eq!(
            json[1]["why"],
            "1 → 2: held: the latency model has seen too few answers"
        );
        assert_eq!(json[0]["reasons"][0]["because"], "prior");
        assert_eq!(
            decisions(State(journal), selection(10, true)).await.0.len(),
            1
        );
    }
}

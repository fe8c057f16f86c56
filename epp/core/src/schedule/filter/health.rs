//! `passive-health`, Headroom's own: endpoints that fail what they are sent get nothing for a while.
//!
//! At most half of the pool is left out, those first whose ejection lasts longest; a request for which nobody else
//! is there gets through. An endpoint that is back holds at most its share of what the others hold.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::health::{Standing, Watch};
use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// How soon standstills and instants that have come are looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Leaves out who is ejected, and limits who is just back.
#[derive(Debug)]
pub(super) struct HealthFilter {
    watch: Arc<Watch>,
    pool: Arc<Pool>,
    /// What the standings below were read at.
    changes: u64,
    looked: Option<Duration>,
    verdicts: Vec<Verdict>,
    /// Some endpoint is not simply let through.
    trouble: bool,
    /// Ends of ejections and slots, while verdicts are made.
    out: Vec<(Duration, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    In,
    Out,
    /// Up to that share of what the others hold.
    Share(f64),
}

impl HealthFilter {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self {
            watch,
            pool: Arc::default(),
            changes: 0,
            looked: None,
            verdicts: Vec::new(),
            trouble: false,
            out: Vec::new(),
        }
    }

    fn look(&mut self, now: Duration) {
        let fresh = self
            .looked
            .is_some_and(|looked| now.saturating_sub(looked) < LOOK_AGAIN);
        if fresh && self.watch.changes() == self.changes {
            return;
        }
        for endpoint in &self.pool.endpoints {
            self.watch.check_stall(&endpoint.load.health, now);
        }
        (self.looked, self.changes) = (Some(now), self.watch.changes());
        self.verdicts.clear();
        self.out.clear();
        let slow_start = self.watch.rules.slow_start;
        for (slot, endpoint) in self.pool.endpoints.iter().enumerate() {
            let verdict = match endpoint.load.health.standing(now, slow_start) {
                Standing::Serving | Standing::HalfOpen => Verdict::In,
                Standing::Ramping { share } => Verdict::Share(share),
                Standing::Probing => {
                    self.out.push((now, slot));
                    Verdict::Out
                }
                Standing::Ejected { until } => {
                    self.out.push((until, slot));
                    Verdict::Out
                }
            };
            self.verdicts.push(verdict);
        }
        let most = self.pool.endpoints.len() / 2;
        if self.out.len() > most {
            self.out.sort_unstable();
            let surplus = self.out.len() - most;
            for &(_, slot) in self.out.iter().take(surplus) {
                self.verdicts[slot] = Verdict::In;
            }
        }
        self.trouble = self.verdicts.iter().any(|&verdict| verdict != Verdict::In);
    }

    fn verdict(&self, candidate: &Candidate) -> Verdict {
        let slot = candidate.slot as usize;
        self.verdicts.get(slot).copied().unwrap_or(Verdict::In)
    }

    fn passes(&self, candidate: &Candidate, others: f64) -> bool {
        match self.verdict(candidate) {
            Verdict::In => true,
            Verdict::Out => false,
            Verdict::Share(share) => {
                f64::from(candidate.load.in_flight) < (share * others).ceil().max(1.0)
            }
        }
    }
}

impl Filter for HealthFilter {
    fn stage(&self) -> Stage {
        Stage::Room
    }

    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.pool = Arc::clone(pool);
        self.looked = None;
    }

    fn retain(
        &mut self,
        now: Duration,
        _: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        self.look(now);
        if !self.trouble {
            return;
        }
        let full = candidates
            .iter()
            .filter(|candidate| self.verdict(candidate) == Verdict::In);
        let (sum, count) = full.fold((0.0, 0.0), |(sum, count), candidate| {
            (sum + f64::from(candidate.load.in_flight), count + 1.0)
        });
        let others = if count > 0.0 {
            sum / count
        } else {
            f64::INFINITY
        };
        super::super::prefer(candidates, |candidate| self.passes(candidate, others));
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;

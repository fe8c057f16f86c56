//! What of a plan may be done now, so that the count does not flap.
//!
//! Up at once, but no more than doubling (or a few replicas) within one start-up time: what was started last has not
//! been seen to work yet. Down only to the highest count that was needed within the guard time, and no more than
//! halving within it.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{Behavior, Nanos, seconds};

/// Why the count differs from what the plan asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Guarded {
    /// More than one start-up time's worth of growth.
    StepUp {
        /// The plan's count.
        wanted: u32,
        /// Most replicas for now.
        allowed: u32,
    },
    /// Fewer replicas have not been enough for long enough.
    ScaleDown {
        /// The plan's count.
        wanted: u32,
        /// Until the next lower count may be taken if demand stays as it is.
        #[serde(rename = "remainingSeconds", with = "seconds")]
        remaining: Duration,
    },
    /// More than halving within the guard time.
    StepDown {
        /// The plan's count.
        wanted: u32,
        /// Fewest replicas for now.
        allowed: u32,
    },
    /// The policy's lower bound.
    Minimum {
        /// The plan's count.
        wanted: u32,
    },
    /// The policy's upper bound.
    Maximum {
        /// The plan's count.
        wanted: u32,
    },
}

/// Within what a guard lets the count move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// Time a replica takes to start.
    pub startup: Duration,
    /// A lower count must have been enough for this long.
    pub scale_down_guard: Duration,
    /// Replicas that may always be added within one start-up time.
    pub step_up: u32,
}

impl Bounds {
    /// The bounds `min` to `max` for replicas that take `startup` to start.
    pub fn new(min: u32, max: u32, startup: Duration, behavior: &Behavior) -> Self {
        Self {
            min,
            max,
            startup,
            scale_down_guard: behavior.scale_down_guard,
            step_up: behavior.step_up,
        }
    }
}

/// Remembers what was needed and what was decided. Memory is bounded by the number of distinct counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Counts needed, over the guard time.
    needed: Extremes,
    /// Counts decided, over the start-up time (for the least) and the guard time (for the most).
    least: Extremes,
    most: Extremes,
}

impl Guard {
    /// Whether all of it happened until `now` and in order.
    pub(crate) fn is_sane(&self, now: Duration) -> bool {
        [&self.needed, &self.least, &self.most]
            .iter()
            .all(|extremes| extremes.is_sane(now))
    }

    /// The count to have now, given the present one, the plan's count and the count that would do with slack.
    pub fn apply(
        &mut self,
        bounds: &Bounds,
        now: Duration,
        current: u32,
        count: u32,
        relaxed: u32,
    ) -> (u32, Option<Guarded>) {
        let bound = |count: u32| count.clamp(bounds.min, bounds.max.max(bounds.min));
        self.needed
            .push(now, bound(relaxed.max(count)), |kept, new| kept > new);
        self.least.push(now, current, |kept, new| kept < new);
        self.most.push(now, current, |kept, new| kept > new);
        self.needed.forget(now, bounds.scale_down_guard);
        self.most.forget(now, bounds.scale_down_guard);
        self.least.forget(now, bounds.startup);

        let wanted = bound(count);
        let (chosen, guarded) = if wanted > current {
            self.upward(bounds, wanted)
        } else if bound(relaxed.max(count)) < current {
            self.downward(bounds, now, current, bound(relaxed.max(count)))
        } else {
            (current, None)
        };
        // The present count may lie outside of bounds that were changed.
        let chosen = bound(chosen);
        let at_bound = || match count {
            _ if chosen == bounds.max && count > bounds.max => {
                Some(Guarded::Maximum { wanted: count })
            }
            _ if chosen == bounds.min && count < bounds.min => {
                Some(Guarded::Minimum { wanted: count })
            }
            _ => None,
        };
        (chosen, guarded.or_else(at_bound))
    }

    fn upward(&self, bounds: &Bounds, wanted: u32) -> (u32, Option<Guarded>) {
        let base = self.least.extreme().unwrap_or(wanted);
        let allowed = base
            .saturating_mul(2)
            .max(base.saturating_add(bounds.step_up))
            .max(bounds.min);
        if wanted > allowed {
            (allowed, Some(Guarded::StepUp { wanted, allowed }))
        } else {
            (wanted, None)
        }
    }

    fn downward(
        &self,
        bounds: &Bounds,
        now: Duration,
        current: u32,
        wanted: u32,
    ) -> (u32, Option<Guarded>) {
        let floor = self.needed.extreme().unwrap_or(current);
        if floor >= current || !self.needed.covers(now, bounds.scale_down_guard) {
            let remaining = self.needed.remaining(now, bounds.scale_down_guard);
            return (current, Some(Guarded::ScaleDown { wanted, remaining }));
        }
        let most = self.most.extreme().unwrap_or(current);
        // Half of one is none.
        let allowed = if most > 1 { most.div_ceil(2) } else { 0 };
        if floor < allowed {
            (
                allowed.min(current),
                Some(Guarded::StepDown { wanted, allowed }),
            )
        } else {
            let guarded = (floor > wanted).then(|| Guarded::ScaleDown {
                wanted,
                remaining: self.needed.remaining(now, bounds.scale_down_guard),
            });
            (floor, guarded)
        }
    }
}

/// The extreme of a series over a moving window (a monotonic queue).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Extremes {
    values: VecDeque<(Nanos, u32)>,
    begun: Option<Nanos>,
}

/// More distinct extremes than any bounds allow.
const MOST_VALUES: usize = 200_000;

impl Extremes {
    /// Adds a value; `outranks(kept, new)` says that a kept value remains the extreme in spite of the new one.
    fn push(&mut self, now: Duration, value: u32, outranks: impl Fn(u32, u32) -> bool) {
        self.begun.get_or_insert(Nanos(now));
        while self
            .values
            .back()
            .is_some_and(|&(_, kept)| !outranks(kept, value))
        {
            self.values.pop_back();
        }
        self.values.push_back((Nanos(now), value));
    }

    /// Drops what is older than `window`; the newest value always stays.
    fn forget(&mut self, now: Duration, window: Duration) {
        while self.values.len() > 1
            && self
                .values
                .front()
                .is_some_and(|&(at, _)| at.0 + window < now)
        {
            self.values.pop_front();
        }
    }

    fn extreme(&self) -> Option<u32> {
        self.values.front().map(|&(_, value)| value)
    }

    /// Whether the series is as old as the window.
    fn covers(&self, now: Duration, window: Duration) -> bool {
        self.begun.is_some_and(|begun| now >= begun.0 + window)
    }

    /// Until the extreme leaves the window and the series covers it.
    fn remaining(&self, now: Duration, window: Duration) -> Duration {
        let leaves = self.values.front().map_or(now, |&(at, _)| at.0 + window);
        let covered = self.begun.map_or(now, |begun| begun.0 + window);
        leaves.max(covered).saturating_sub(now)
    }

    fn is_sane(&self, now: Duration) -> bool {
        self.values.len() <= MOST_VALUES
            && self.values.iter().is_sorted_by_key(|&(at, _)| at)
            && self.values.back().is_none_or(|&(at, _)| at.0 <= now)
            && self.begun.is_none_or(|begun| begun.0 <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        min: 1,
        max: 20,
        startup: Duration::from_secs(6),
        scale_down_guard: Duration::from_secs(10),
        step_up: 4,
    };

    /// Applies `counts`, one a second from `from` on, and returns the count after each.
    fn run(guard: &mut Guard, from: u64, mut current: u32, counts: &[u32]) -> Vec<u32> {
        let mut seen = Vec::new();
        for (second, &count) in counts.iter().enumerate() {
            (current, _) = guard.apply(
                &BOUNDS,
                Duration::from_secs(from + second as u64),
                current,
                count,
                count,
            );
            seen.push(current);
        }
        seen
    }

    #[test]
    fn up_at_once_and_down_after_the_guard_time() {
        let mut guard = Guard::default();
        let counts = run(&mut guard, 0, 2, &[vec![4; 3], vec![3; 14]].concat());
        assert_eq!(counts[..3], [4, 4, 4]);
        assert_eq!(counts[3..13], [4; 10], "four were needed until second 2");
        assert_eq!(counts[13..], [3; 4]);
    }

    #[test]
    fn a_dip_shorter_than_the_guard_time_changes_nothing() {
        let wave: Vec<u32> = (0..60)
            .map(|second| if second % 9 == 0 { 4 } else { 2 })
            .collect();
        assert_eq!(run(&mut Guard::default(), 0, 4, &wave), vec![4; 60]);
    }

    #[test]
    fn growth_is_bounded_per_start_up_time_and_fall_per_guard_time() {
        let mut guard = Guard::default();
        let up = run(&mut guard, 0, 1, &[20; 9]);
        assert_eq!(
            up,
            [5, 5, 5, 5, 5, 5, 5, 10, 10],
            "from 1 by four; doubled once 1 is a start-up time ago"
        );
        let mut guard = Guard::default();
        let down = run(&mut guard, 0, 8, &[1; 22]);
        assert_eq!(down[..10], [8; 10]);
        assert_eq!(
            down[10..21],
            [4; 11],
            "halved; eight are still within the guard time"
        );
        assert_eq!(down[21], 2);
    }

    #[test]
    fn bounds_win_and_are_named() {
        let mut guard = Guard::default();
        let now = Duration::ZERO;
        assert_eq!(
            guard.apply(&BOUNDS, now, 18, 40, 44),
            (20, Some(Guarded::Maximum { wanted: 40 }))
        );
        assert_eq!(
            Guard::default().apply(&BOUNDS, now, 1, 0, 0),
            (1, Some(Guarded::Minimum { wanted: 0 }))
        );
        assert_eq!(
            Guard::default().apply(&BOUNDS, now, 30, 25, 25).0,
            20,
            "bounds were lowered"
        );
    }

    #[test]
    fn a_variant_without_a_minimum_goes_to_zero_from_one() {
        let bounds = Bounds { min: 0, ..BOUNDS };
        let mut guard = Guard::default();
        let mut current = 2;
        let mut seen = Vec::new();
        for second in 0..33 {
            (current, _) = guard.apply(&bounds, Duration::from_secs(second), current, 0, 0);
            seen.push(current);
        }
        assert_eq!(
            (seen[9], seen[10], seen[20], seen[21]),
            (2, 1, 1, 0),
            "{seen:?}"
        );
    }

    #[test]
    fn slack_keeps_the_count() {
        assert_eq!(
            Guard::default().apply(&BOUNDS, Duration::from_secs(99), 3, 2, 3),
            (3, None)
        );
    }

    #[test]
    fn memory_is_bounded_by_the_distinct_counts() {
        let mut guard = Guard::default();
        for tick in 0..10_000_u32 {
            guard.apply(
                &BOUNDS,
                Duration::from_millis(u64::from(tick)),
                5,
                tick % 13,
                tick % 17,
            );
        }
        assert!(guard.needed.values.len() <= 20 && guard.least.values.len() <= 20);
    }
}

//! How long replicas take to start, learned from those that did.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Nanos;

/// Start-ups remembered.
const KEPT: usize = 20;
/// Start-ups seen before they are believed.
const ENOUGH: usize = 3;
/// What takes longer is a replica that waited for room, not one that started.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The last start-up times of one variant's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTimes(VecDeque<Nanos>);

impl StartTimes {
    /// Notes that a replica became ready `took` after its creation. Impossible times are ignored.
    pub fn note(&mut self, took: Duration) {
        if took.is_zero() || took > LONGEST {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Nanos(took));
    }

    /// The time within which nine of ten started, over the last twenty; `None` until three were seen.
    pub fn p90(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.0.iter().map(|time| time.0).collect();
        times.sort_unstable();
        let index = (times.len() * 9).div_ceil(10).checked_sub(1)?;
        times.get(index).copied().filter(|_| times.len() >= ENOUGH)
    }

    /// Whether this could have been learned.
    pub(crate) fn is_sane(&self) -> bool {
        let possible = |time: &Nanos| !time.0.is_zero() && time.0 <= LONGEST;
        self.0.len() <= KEPT && self.0.iter().all(possible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_are_enough_and_the_slow_ones_count() {
        let mut times = StartTimes::default();
        for (seconds, p90) in [(40, None), (30, None), (90, Some(90)), (35, Some(90))] {
            times.note(Duration::from_secs(seconds));
            assert_eq!(times.p90().map(|time| time.as_secs()), p90);
        }
    }

    #[test]
    fn the_window_is_bounded_and_follows_a_change() {
        let mut times = StartTimes::default();
        for second in 0..1000 {
            times.note(Duration::from_secs(if second < 900 { 300 } else { 60 }));
        }
        assert_eq!(
            (times.p90().map(|time| time.as_secs()), times.0.len()),
            (Some(60), KEPT)
        );
        times.note(Duration::from_secs(500));
        assert_eq!(
            times.p90().map(|time| time.as_secs()),
            Some(60),
            "one slow start in twenty is none of nine in ten"
        );
        times.note(Duration::ZERO);
        times.note(Duration::from_secs(7 * 24 * 3600));
        assert!(times.is_sane());
    }
}

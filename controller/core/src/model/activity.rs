//! Whether anything is asked of a model at all: the only question between zero replicas and one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Nanos;

/// When a request was last there: arriving, queued or in flight. Completions do not count, so that a long answer keeps
/// its model alive and a refused request wakes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Activity {
    last: Option<Nanos>,
    offered: Option<u64>,
}

impl Activity {
    /// Notes the requests `offered` since the beginning of time, and those `present` (queued or in flight) now. Returns
    /// whether any has arrived or is present. Where a part of them is `unknown`, no time counts as idle.
    pub(super) fn observe(
        &mut self,
        now: Duration,
        offered: u64,
        present: u64,
        unknown: bool,
    ) -> bool {
        let arrived = self.offered.is_some_and(|before| offered > before);
        let active = arrived || present > 0;
        // What has happened before the first look is unknown: the time without demand begins with it.
        if active || unknown || self.last.is_none() {
            self.last = Some(Nanos(now));
        }
        self.offered = Some(offered);
        active
    }

    /// Time without any request.
    pub(super) fn idle(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last.map_or(now, |last| last.0))
    }

    /// Whether this could have been seen until `now`.
    pub(super) fn is_sane(&self, now: Duration) -> bool {
        self.last.is_none_or(|last| last.0 <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_and_what_is_present_keep_a_model_alive_and_completions_are_not_asked() {
        let mut activity = Activity::default();
        let seconds = Duration::from_secs;
        assert!(
            !activity.observe(seconds(5), 100, 0, false),
            "what came before is unknown"
        );
        assert_eq!(activity.idle(seconds(9)).as_secs(), 4);
        assert!(
            activity.observe(seconds(10), 101, 0, false),
            "an arrival, whatever becomes of it"
        );
        assert!(
            activity.observe(seconds(20), 101, 1, false),
            "a long answer"
        );
        assert!(!activity.observe(seconds(30), 101, 0, false));
        assert_eq!(activity.idle(seconds(30)).as_secs(), 10);
    }
}

//! Monotonic time since the start of the process's work.

use std::time::Duration;
use tokio::time::Instant;

/// A monotonic clock whose readings are durations since it was started.
///
/// Copies share one origin, so that readings of any copy can be compared. Under tokio's paused
/// time it stands still until the test advances it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Time since the clock was started.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Milliseconds since the Unix epoch, as the operating system has it: for objects and answers that carry wall
    /// time, never for measuring how long something took.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads wall time"
    )]
    pub fn unix_ms(&self) -> u64 {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    /// The runtime's instant at which this clock reads `at`, for timers.
    pub fn instant(&self, at: Duration) -> Instant {
        // Far deadlines (a client's own number) must not overflow: a century is never reached.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
        self.origin + at.min(CENTURY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn copies_share_an_origin_and_follow_paused_time() {
        let clock = Clock::start();
        let copy = clock;
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), Duration::from_millis(250));
        assert_eq!(copy.now(), clock.now());
        assert_eq!(clock.instant(clock.now()), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_deadline_saturates() {
        let clock = Clock::start();
        assert!(clock.instant(Duration::MAX) > Instant::now());
    }
}

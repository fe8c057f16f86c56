//! The end of a picker, in order, so that no request is lost by it.

use crate::extproc::hub::Hub;
use runtime::{Clock, Shutdown};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long serving goes on after the last stream ended: longer than a proxy takes to notice that this picker
/// is not ready any more.
const QUIET: Duration = Duration::from_secs(3);
/// How long streams that are there may go on once no new one is taken.
const FINISH: Duration = Duration::from_secs(10);
/// How often streams are counted.
const LOOK: Duration = Duration::from_millis(100);

/// Once draining begins, serves on as before for `timeout` or until it has been quiet for a while. Then `closing`
/// is cancelled: proxies are told to go elsewhere, and streams that are there have a while to end. What is still
/// queued after that is refused, and everything stops.
pub(crate) async fn drain(
    hub: Arc<Hub>,
    timeout: Duration,
    closing: CancellationToken,
    shutdown: Shutdown,
) {
    let streams = || hub.telemetry.streams_inflight.get();
    let orderly = async {
        shutdown.draining().await;
        settle(hub.clock, timeout, QUIET, streams).await;
        closing.cancel();
        settle(hub.clock, FINISH, Duration::ZERO, streams).await;
    };
    tokio::select! {
        () = orderly => {}
        () = shutdown.stopped() => {}
    }
    hub.refuse_queued();
    shutdown.stop();
}

/// Waits until there was no stream for `quiet`, at most for `timeout`.
async fn settle(clock: Clock, timeout: Duration, quiet: Duration, streams: impl Fn() -> i64) {
    let deadline = clock.now() + timeout;
    let mut quiet_since = clock.now();
    while clock.now() < deadline {
        if streams() > 0 {
            quiet_since = clock.now();
        } else if clock.now() >= quiet_since + quiet {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const SECOND: Duration = Duration::from_secs(1);

    async fn settled(busy_for: Duration, timeout: Duration, quiet: Duration) -> Duration {
        let clock = Clock::start();
        let looks = Cell::new(0);
        let streams = || {
            looks.set(looks.get() + 1);
            i64::from(clock.now() < busy_for)
        };
        settle(clock, timeout, quiet, streams).await;
        assert!(looks.get() > 0 || timeout.is_zero());
        clock.now()
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_streams_and_a_while_longer_but_not_for_ever() {
        assert_eq!(
            settled(Duration::ZERO, 30 * SECOND, 3 * SECOND).await,
            3 * SECOND
        );
        let late = settled(10 * SECOND, 30 * SECOND, 3 * SECOND).await;
        assert!(
            late >= 13 * SECOND - 2 * LOOK && late <= 13 * SECOND + LOOK,
            "{late:?}"
        );
        assert_eq!(
            settled(99 * SECOND, 30 * SECOND, 3 * SECOND).await,
            30 * SECOND
        );
        assert_eq!(
            settled(Duration::ZERO, 30 * SECOND, Duration::ZERO).await,
            Duration::ZERO
        );
    }
}

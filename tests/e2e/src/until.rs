//! Waiting for a condition: level-triggered, with a deadline.

use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks again and again until `look` finds something, for a minute at most.
///
/// # Panics
/// With `what` in the message, when nothing is found.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(60), what, look).await
}

/// The same with a deadline of its own.
///
/// # Panics
/// With `what` in the message, when nothing is found in `deadline`.
pub async fn within<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    match tokio::time::timeout(deadline, search).await {
        Ok(found) => found,
        Err(_) => panic!("waited {} s for: {what}", deadline.as_secs()),
    }
}

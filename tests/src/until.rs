//! Waiting for a condition: level-triggered, with a deadline.

use std::time::Duration;

/// Longest wait for anything in a system test. Only a failing test takes that long.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks again and again until `look` finds something, and returns that.
///
/// # Panics
/// With `what` in the message, when nothing is found in 30 seconds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    match tokio::time::timeout(DEADLINE, search).await {
        Ok(found) => found,
        Err(_) => panic!("waited {} s for: {what}", DEADLINE.as_secs()),
    }
}

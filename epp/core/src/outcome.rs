//! How requests end, and what a refused one is told.

use std::time::Duration;

use names::dropped_reason as reason;

use serde::{Deserialize, Serialize};

/// The one end of each request. The names are llm-d's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Dispatched and answered with a success status to the end.
    Served,
    /// Dispatched, and the server answered with an error status.
    Failed,
    /// The client left after dispatch, or its stream ended without word.
    ClientGone,
    /// The server's stream broke off.
    UpstreamCut,
    /// Taken off its server to make room.
    Evicted,
    /// The queue, or the pool for sheddable requests without a queue, was full.
    RejectedCapacity,
    /// There was no endpoint to choose among.
    RejectedNoEndpoints,
    /// Sheddable, and no endpoint could meet its SLO.
    RejectedSlo,
    /// Arrived while shutting down.
    RejectedOther,
    /// Waited longer than its time to live while there were endpoints.
    EvictedTtl,
    /// Waited longer than its time to live for a first endpoint.
    EvictedNoEndpoints,
    /// The client left while queued.
    EvictedContextCancelled,
    /// Queued when shutdown began.
    EvictedOther,
}

impl Outcome {
    /// Every outcome, in declaration order.
    pub const ALL: [Self; 13] = [
        Self::Served,
        Self::Failed,
        Self::ClientGone,
        Self::UpstreamCut,
        Self::Evicted,
        Self::RejectedCapacity,
        Self::RejectedNoEndpoints,
        Self::RejectedSlo,
        Self::RejectedOther,
        Self::EvictedTtl,
        Self::EvictedNoEndpoints,
        Self::EvictedContextCancelled,
        Self::EvictedOther,
    ];

    /// The name as metric labels and reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Served => "Served",
            Self::Failed => "Failed",
            Self::ClientGone => "ClientGone",
            Self::UpstreamCut => "UpstreamCut",
            Self::Evicted => "Evicted",
            Self::RejectedCapacity => "RejectedCapacity",
            Self::RejectedNoEndpoints => "RejectedNoEndpoints",
            Self::RejectedSlo => "RejectedSLO",
            Self::RejectedOther => "RejectedOther",
            Self::EvictedTtl => "EvictedTTL",
            Self::EvictedNoEndpoints => "EvictedNoEndpoints",
            Self::EvictedContextCancelled => "EvictedContextCancelled",
            Self::EvictedOther => "EvictedOther",
        }
    }

    /// HTTP status and `x-llm-d-request-dropped-reason` of a refusal; `None` for outcomes after dispatch
    /// whose answer is the server's own.
    pub fn refusal(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Served | Self::Failed | Self::ClientGone | Self::UpstreamCut => None,
            Self::Evicted => Some((429, reason::EVICTED)),
            Self::RejectedCapacity => Some((429, reason::SATURATED)),
            Self::RejectedSlo => Some((429, reason::SLO_UNATTAINABLE)),
            Self::EvictedTtl => Some((429, reason::TTL_EXPIRED)),
            Self::RejectedNoEndpoints | Self::EvictedNoEndpoints => {
                Some((503, reason::NO_ENDPOINTS))
            }
            Self::EvictedContextCancelled => Some((503, reason::CONTEXT_CANCELLED)),
            Self::RejectedOther | Self::EvictedOther => Some((503, reason::SHUTTING_DOWN)),
        }
    }
}

/// The answer to a request that was not dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the request counts as.
    pub outcome: Outcome,
    /// HTTP status, 429 or 503.
    pub status: u16,
    /// Value of `x-llm-d-request-dropped-reason`.
    pub reason: &'static str,
    /// When it is worth trying again; whole seconds, at least one. `None` = nothing is known of it.
    pub retry_after: Option<Duration>,
    /// One sentence for the client.
    pub message: String,
}

/// Longest `Retry-After` that is ever suggested.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

impl Refusal {
    /// The refusal for `outcome`; `wait` is when room is expected, unknown = one second.
    pub(crate) fn new(
        outcome: Outcome,
        wait: Option<Duration>,
        message: impl Into<String>,
    ) -> Self {
        let (status, reason) = outcome.refusal().unwrap_or((500, reason::OTHER));
        let retry_after = (status == 429).then(|| whole_seconds(wait.unwrap_or_default()));
        Self {
            outcome,
            status,
            reason,
            retry_after,
            message: message.into(),
        }
    }
}

/// `wait` rounded up to whole seconds, between one second and [`LONGEST_RETRY`].
fn whole_seconds(wait: Duration) -> Duration {
    let up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(up).clamp(Duration::from_secs(1), LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_each_outcome_at_its_own_index() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn only_429_carries_retry_after_in_whole_seconds() {
        let retry = |outcome, wait| {
            Refusal::new(outcome, wait, "")
                .retry_after
                .map(|after| after.as_secs())
        };
        assert_eq!(
            retry(Outcome::RejectedSlo, Some(Duration::from_millis(2_100))),
            Some(3)
        );
        assert_eq!(retry(Outcome::EvictedTtl, None), Some(1));
        assert_eq!(
            retry(Outcome::RejectedCapacity, Some(Duration::from_secs(3_600))),
            Some(60)
        );
        assert_eq!(
            retry(Outcome::EvictedNoEndpoints, Some(Duration::from_secs(9))),
            None
        );
    }
}

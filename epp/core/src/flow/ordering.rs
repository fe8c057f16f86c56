//! Which request of a flow goes first.

use std::time::Duration;

use crate::config::Ordering;
use crate::request::Request;

/// A request without a deadline goes after all that have one.
pub(crate) const FAR_FUTURE: Duration = Duration::MAX;

/// What requests of a flow are sorted by, lowest first; equal ones go in order of arrival. `time_to_live` is the
/// time that the request may be queued for, as it stands on arrival.
pub(crate) fn key(
    ordering: Ordering,
    request: &Request,
    arrived: Duration,
    time_to_live: Option<Duration>,
) -> Duration {
    match ordering {
        Ordering::Fcfs => Duration::ZERO,
        Ordering::Edf => time_to_live.map_or(FAR_FUTURE, |ttl| arrived.saturating_add(ttl)),
        Ordering::SloDeadline => {
            let target = request.slo.ttft_ms.and_then(whole_milliseconds);
            target.map_or(FAR_FUTURE, |target| arrived.saturating_add(target))
        }
    }
}

/// A client's number as milliseconds, rounded down; `None` = none that a clock could show.
fn whole_milliseconds(value: f64) -> Option<Duration> {
    let fits = value.is_finite() && value >= 0.0 && value < u64::MAX as f64;
    fits.then(|| Duration::from_millis(value as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::Slo;

    fn due(ttft_ms: Option<f64>) -> Duration {
        let slo = Slo {
            ttft_ms,
            tpot_ms: None,
        };
        let request = Request {
            slo,
            ..Request::default()
        };
        key(
            Ordering::SloDeadline,
            &request,
            Duration::from_secs(10),
            None,
        )
    }

    #[test]
    fn a_deadline_is_arrival_and_target_in_whole_milliseconds() {
        assert_eq!(due(Some(1_500.9)), Duration::from_millis(11_500));
        assert_eq!(due(Some(0.0)), Duration::from_secs(10));
    }

    /// §11.4, 10: a client's number never overflows into an early deadline.
    #[test]
    fn pitfall_10_numbers_of_clients_saturate_into_the_far_future() {
        let absurd = [
            None,
            Some(f64::NAN),
            Some(f64::INFINITY),
            Some(-1.0),
            Some(1e300),
            Some(u64::MAX as f64),
        ];
        for target in absurd {
            assert_eq!(due(target), FAR_FUTURE, "{target:?}");
        }
        // The largest number that is taken does not wrap either.
        assert!(due(Some(1.8e19)) > Duration::from_secs(1 << 40));
        let ttl = Some(Duration::MAX);
        let late = Duration::from_secs(u64::MAX);
        let request = Request::default();
        assert_eq!(key(Ordering::Edf, &request, late, ttl), FAR_FUTURE);
        assert_eq!(key(Ordering::Edf, &request, late, None), FAR_FUTURE);
    }
}

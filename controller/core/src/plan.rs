//! How many replicas the forecast and the backlog make.

use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::forecast::Forecast;
use crate::policy::Policy;
use crate::signals::{Backlog, Replicas};

/// Counts before bounds and guards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Replicas' worth of demand, not rounded.
    pub needed: f64,
    /// That, rounded up: more than the present count means scale up.
    pub count: u32,
    /// The count that would do for the cautious forecast with the policy's hysteresis as slack: less than the present
    /// count means scale down.
    pub relaxed: u32,
    /// Requests/s added to work the backlog off.
    pub backlog_rate: f64,
}

/// Replicas for `forecast` and for working off `queued` within the policy's drain time.
pub fn plan(policy: &Policy, forecast: &Forecast, queued: &Backlog, capacity: &Capacity) -> Plan {
    let backlog_rate = bought(policy, queued) / policy.drain().as_secs_f64();
    let worth = |rate: f64| (rate + backlog_rate) / capacity.requests_per_second;
    let needed = worth(forecast.upper);
    let relaxed = worth(forecast.cautious) * (1.0 + policy.hysteresis);
    Plan {
        needed,
        count: ceil(needed),
        relaxed: ceil(relaxed),
        backlog_rate,
    }
}

/// The count while the model cannot size: `held`, or more if the backlog is worth more replicas at the load that the
/// ready ones carry now. Half a replica's worth of queue is not a backlog yet.
pub fn hold(
    policy: &Policy,
    held: u32,
    queued: &Backlog,
    in_flight: u64,
    replicas: &Replicas,
) -> u32 {
    let queued = bought(policy, queued);
    let per_replica = in_flight as f64 / f64::from(replicas.ready.max(1));
    let extra = if per_replica > 0.0 {
        round(queued / per_replica)
    } else {
        u32::from(queued > 0.0)
    };
    held.max(replicas.ready.saturating_add(extra))
}

/// Queued requests that replicas are bought for.
fn bought(policy: &Policy, queued: &Backlog) -> f64 {
    let sheddable = queued.sheddable.min(queued.requests);
    (queued.requests - sheddable) as f64 + policy.sheddable_share * sheddable as f64
}

/// Rounds up; a count that is off by rounding noise only is not another replica. Saturates, NaN becomes 0.
fn ceil(value: f64) -> u32 {
    (value - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

fn round(value: f64) -> u32 {
    value.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::SloClass;

    fn policy() -> Policy {
        let slo = SloClass {
            percentile: 0.9,
            ttft_ms: 2000.0,
            tpot_ms: 150.0,
        };
        Policy::new("m", slo, 1, 10, Duration::from_secs(6))
    }

    fn queued(requests: u64, sheddable: u64) -> Backlog {
        Backlog {
            requests,
            sheddable,
            prompt_tokens: 0,
        }
    }

    #[test]
    fn a_hold_is_raised_by_backlog_only_and_counts_what_is_starting() {
        let replicas = Replicas {
            ready: 2,
            starting: 0,
            draining: 0,
        };
        let held = |requests, in_flight, replicas: &Replicas| {
            hold(&policy(), 2, &queued(requests, 0), in_flight, replicas)
        };
        assert_eq!(held(0, 32, &replicas), 2);
        assert_eq!(
            held(7, 32, &replicas),
            2,
            "less than half a replica's worth"
        );
        assert_eq!(held(40, 32, &replicas), 5);
        assert_eq!(held(1, 0, &replicas), 3, "something waits and nothing runs");
        let starting = Replicas {
            starting: 3,
            ..replicas
        };
        assert_eq!(
            hold(&policy(), 5, &queued(40, 0), 32, &starting),
            5,
            "they are on their way"
        );
    }

    #[test]
    fn sheddable_backlog_is_bought_as_far_as_the_policy_says() {
        let mut policy = policy();
        policy.sheddable_share = 0.0;
        assert_eq!(bought(&policy, &queued(10, 4)), 6.0);
        assert_eq!(bought(&policy, &queued(1, 4)), 0.0);
        policy.sheddable_share = 0.5;
        assert_eq!(bought(&policy, &queued(10, 4)), 8.0);
    }

    #[test]
    fn rounding_is_total() {
        assert_eq!(
            [
                ceil(2.0),
                ceil(2.1),
                ceil(f64::NAN),
                ceil(-1.0),
                ceil(f64::INFINITY)
            ],
            [2, 3, 0, 0, u32::MAX]
        );
    }
}

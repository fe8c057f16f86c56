//! The demand that a replica started now will meet when it is ready.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::demand::Demand;
use crate::policy::{Behavior, Windows, seconds};

/// A trend may at most double the level, or halve it: it is a measured past, not a promise.
const MAX_GROWTH: f64 = 2.0;

/// Demand expected at now + start-up time, in requests/s that replicas are bought for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// How far ahead.
    #[serde(rename = "horizonSeconds", with = "seconds")]
    pub horizon: Duration,
    /// The rate now.
    pub level: f64,
    /// The rate at the horizon: level plus damped trend.
    pub expected: f64,
    /// What replicas are counted for: the larger of the two, plus the policy's band of standard errors. A predicted
    /// fall is not acted upon before it is seen.
    pub upper: f64,
    /// What must fit into fewer replicas before any is removed: the same with twice the band, so that the sampling
    /// error which adds a replica is not soon the one that removes it.
    pub cautious: f64,
}

/// Level plus trend, the trend fading with the time constant of half the slow window, over which it was measured
/// (Gardner's damped trend in continuous time): ∫₀ʰ e^(−t/τ) dt = τ·(1 − e^(−h/τ)). The level is that of the middle
/// of the window it was measured over, so the trend has that much further to go.
///
/// `startup` is how far ahead: the time a replica takes to start.
pub fn forecast(behavior: &Behavior, startup: Duration, demand: &Demand) -> Forecast {
    let exempt = (1.0 - behavior.sheddable_share) * demand.sheddable;
    let level = (demand.offered.requests - exempt).max(0.0);
    let tau = Windows::of(startup).slow.as_secs_f64() / 2.0;
    let reach = tau * (1.0 - (-(startup + demand.window / 2).as_secs_f64() / tau).exp());
    let expected = (level + demand.trend * reach).clamp(level / MAX_GROWTH, level * MAX_GROWTH);
    // Without demand there is nothing to be uncertain about: the error of an empty window is not a request.
    let error = if level > 0.0 {
        behavior.band * demand.error
    } else {
        0.0
    };
    let most = level.max(expected);
    Forecast {
        horizon: startup,
        level,
        expected,
        upper: most + error,
        cautious: most + 2.0 * error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Rates;

    fn forecast(behavior: &Behavior, demand: &Demand) -> Forecast {
        super::forecast(behavior, Duration::from_secs(6), demand)
    }

    fn demand(requests: f64, trend: f64) -> Demand {
        Demand {
            offered: Rates {
                requests,
                ..Rates::default()
            },
            trend,
            error: 0.5,
            window: Duration::from_secs(8),
            ..Demand::default()
        }
    }

    #[test]
    fn a_trend_is_followed_damped_to_the_horizon() {
        let forecast = forecast(&Behavior::default(), &demand(10.0, 1.0));
        let reach = 24.0 * (1.0 - (-10.0_f64 / 24.0).exp());
        assert!((forecast.expected - (10.0 + reach)).abs() < 1e-9 && reach < 10.0);
        assert!((forecast.upper - (forecast.expected + 0.5)).abs() < 1e-9);
    }

    #[test]
    fn growth_and_fall_are_bounded_and_a_fall_is_not_anticipated() {
        assert_eq!(
            forecast(&Behavior::default(), &demand(10.0, 100.0)).expected,
            20.0
        );
        let falling = forecast(&Behavior::default(), &demand(10.0, -100.0));
        assert_eq!(
            (falling.expected, falling.upper, falling.cautious),
            (5.0, 10.5, 11.0)
        );
    }

    #[test]
    fn only_the_bought_share_of_sheddable_demand_counts() {
        let policy = Behavior {
            sheddable_share: 0.25,
            ..Behavior::default()
        };
        let demand = Demand {
            sheddable: 4.0,
            ..demand(10.0, 0.0)
        };
        assert_eq!(forecast(&policy, &demand).level, 7.0);
        assert_eq!(forecast(&policy, &self::demand(0.0, 0.0)).upper, 0.0);
    }
}

//! How many replicas of which variant the forecast and the backlog make.
//!
//! A replica that serves one class alone carries its capacity of requests/s; it carries classes in any proportion in the
//! same way, so the rates λ of all classes are worth N = Σ λ / capacity replicas of one variant ([`worth`]). Variants
//! are filled in their order: each takes ⌈share · N⌉ replicas for the share of the demand that is left, as far as its
//! maximum and its room go, and leaves the rest to the next ([`place`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::forecast::Forecast;
use crate::policy::Behavior;
use crate::signals::Backlog;

/// What replicas are counted for, of one class, in requests/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// The rate now.
    pub level: f64,
    /// The forecast with its band.
    pub upper: f64,
    /// The cautious forecast.
    pub cautious: f64,
    /// Added to work the backlog off.
    pub backlog: f64,
}

impl Load {
    /// The `forecast` and `queued`, to be worked off within the drain time of replicas that take `startup` to start.
    pub fn new(
        behavior: &Behavior,
        startup: Duration,
        forecast: &Forecast,
        queued: &Backlog,
    ) -> Self {
        Self {
            level: forecast.level,
            upper: forecast.upper,
            cautious: forecast.cautious,
            backlog: bought(behavior, queued) / behavior.drain(startup).as_secs_f64(),
        }
    }
}

/// Replicas' worth of all classes on one variant, not rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worth {
    /// Of the present rate alone.
    pub level: f64,
    /// Of forecast and backlog: more than the present count means scale up.
    pub needed: f64,
    /// Of the cautious forecast and the backlog, with the policy's hysteresis as slack: less than the present count
    /// means scale down.
    pub relaxed: f64,
}

/// What the `loads` of all classes are worth on a variant whose replica serves `capacities` requests/s of each alone.
pub fn worth(behavior: &Behavior, loads: &[Load], capacities: &[f64]) -> Worth {
    let sum = |rate: fn(&Load) -> f64| {
        let each = loads
            .iter()
            .zip(capacities)
            .map(|(load, capacity)| rate(load) / capacity);
        each.fold(0.0, |sum, worth| sum + worth)
    };
    Worth {
        level: sum(|load| load.level),
        needed: sum(|load| load.upper + load.backlog),
        relaxed: sum(|load| load.cautious + load.backlog) * (1.0 + behavior.hysteresis),
    }
}

/// One variant as [`place`] sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Replicas' worth of all the demand on this variant alone.
    pub worth: f64,
    /// Fewest replicas: they serve whether they are needed or not.
    pub min: u32,
    /// Most replicas that may be asked for.
    pub max: u32,
    /// Replicas that serve, or will: what is asked for beyond them carries nothing.
    pub room: u32,
}

/// What [`place`] gives one variant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Placed {
    /// Share of the demand that is left to this variant and those after it, 0 to 1.
    pub share: f64,
    /// Replicas' worth of it, not rounded.
    pub needed: f64,
    /// Replicas. The last variant's are not bounded by its maximum: nobody comes after it, and the guard says so.
    pub count: u32,
}

/// Fills variants, given in the order of preference, with `share` of the demand.
pub fn place(share: f64, places: &[Place]) -> Vec<Placed> {
    let covers = |place: &Place, count: u32| {
        if place.worth > 0.0 {
            f64::from(count.min(place.room)) / place.worth
        } else {
            1.0
        }
    };
    let mut left = share;
    let mut placed = Vec::with_capacity(places.len());
    for (index, place) in places.iter().enumerate() {
        // What runs anyway further on need not be bought here.
        let later = places.iter().skip(index + 1);
        let there: f64 = later
            .filter(|later| later.min > 0)
            .fold(0.0, |sum, later| sum + covers(later, later.min));
        let mine = (left - there).max(0.0);
        let needed = mine * place.worth;
        let most = if index + 1 == places.len() {
            u32::MAX
        } else {
            place.max
        };
        let count = ceil(needed).min(most);
        placed.push(Placed {
            share: mine,
            needed,
            count,
        });
        left = (left - covers(place, count.max(place.min))).max(0.0);
        if left < ROUNDING {
            left = 0.0;
        }
    }
    placed
}

/// The count that the ready replicas and the backlog are worth at the load that the ready ones carry now: all there is to
/// go by while no capacity is known. Half a replica's worth of queue is not a backlog yet.
pub fn backed(behavior: &Behavior, queued: &Backlog, in_flight: u64, ready: u32) -> u32 {
    let queued = bought(behavior, queued);
    let per_replica = in_flight as f64 / f64::from(ready.max(1));
    let extra = if per_replica > 0.0 {
        round(queued / per_replica)
    } else {
        u32::from(queued > 0.0)
    };
    ready.saturating_add(extra)
}

/// Queued requests that replicas are bought for.
fn bought(behavior: &Behavior, queued: &Backlog) -> f64 {
    let sheddable = queued.sheddable.min(queued.requests);
    (queued.requests - sheddable) as f64 + behavior.sheddable_share * sheddable as f64
}

/// Differences below this are noise of the arithmetic.
const ROUNDING: f64 = 1e-9;

/// Rounds up; a count that is off by rounding noise only is not another replica. Saturates, NaN becomes 0.
fn ceil(value: f64) -> u32 {
    (value - ROUNDING).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

fn round(value: f64) -> u32 {
    value.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(requests: u64, sheddable: u64) -> Backlog {
        Backlog {
            requests,
            sheddable,
            prompt_tokens: 0,
        }
    }

    fn here(worth: f64, max: u32) -> Place {
        Place {
            worth,
            min: 0,
            max,
            room: u32::MAX,
        }
    }

    fn counts(places: &[Place]) -> Vec<u32> {
        place(1.0, places)
            .iter()
            .map(|placed| placed.count)
            .collect()
    }

    #[test]
    fn classes_add_up_to_replicas() {
        let load = |upper| Load {
            level: upper / 2.0,
            upper,
            cautious: upper * 1.5,
            backlog: 0.0,
        };
        let worth = worth(&Behavior::default(), &[load(6.0), load(1.0)], &[2.0, 0.5]);
        assert_eq!((worth.level, worth.needed), (2.5, 5.0));
        assert!((worth.relaxed - 7.5 * 1.1).abs() < 1e-12);
    }

    #[test]
    fn variants_are_filled_in_order_to_their_maximum_and_their_room() {
        assert_eq!(counts(&[here(3.2, 10), here(1.6, 10)]), [4, 0]);
        // Two of the 3.2 fit: 1.2/3.2 of the demand is left, 0.6 of the second's 1.6.
        assert_eq!(counts(&[here(3.2, 2), here(1.6, 10)]), [2, 1]);
        let crowded = Place {
            max: 4,
            room: 1,
            ..here(3.2, 4)
        };
        // Four are asked for, one has room: 2.2/3.2 is left.
        assert_eq!(counts(&[crowded, here(3.2, 10)]), [4, 3]);
        assert_eq!(
            counts(&[here(3.2, 2)]),
            [4],
            "the guard tells of the last one's maximum"
        );
        assert_eq!(counts(&[here(0.0, 2), here(0.0, 2)]), [0, 0]);
    }

    #[test]
    fn what_runs_anyway_further_on_is_not_bought_again() {
        let minimum = Place {
            min: 2,
            ..here(4.0, 10)
        };
        assert_eq!(counts(&[here(4.0, 10), minimum]), [2, 2]);
        assert_eq!(counts(&[minimum, here(4.0, 10)]), [4, 0]);
    }

    proptest::proptest! {
        #[test]
        fn more_demand_never_means_fewer_of_any(
            places in proptest::collection::vec((0.01..50.0_f64, 1..20_u32, 0..20_u32, 0..3_u32), 1..6),
            share in 0.0..1.0_f64,
        ) {
            let places: Vec<Place> = places.into_iter()
                .map(|(worth, max, room, min)| Place { worth, min: min.min(max), max, room })
                .collect();
            let (some, all) = (place(share, &places), place(1.0, &places));
            for ((some, all), place) in some.iter().zip(&all).zip(&places) {
                proptest::prop_assert!(some.count.max(place.min) <= all.count.max(place.min));
            }
        }

        #[test]
        fn what_is_placed_carries_the_demand(
            places in proptest::collection::vec((0.01..50.0_f64, 1..20_u32, 0..20_u32), 1..6),
        ) {
            let mut places: Vec<Place> = places.into_iter()
                .map(|(worth, max, room)| Place { worth, min: 0, max, room })
                .collect();
            if let Some(last) = places.last_mut() {
                last.room = u32::MAX;
            }
            let carried: f64 = place(1.0, &places).iter().zip(&places)
                .map(|(placed, place)| f64::from(placed.count.min(place.room)) / place.worth)
                .sum();
            proptest::prop_assert!(carried >= 1.0 - 1e-6, "{}", carried);
        }
    }

    #[test]
    fn a_hold_is_raised_by_backlog_only_and_counts_what_is_starting() {
        let held = |requests, in_flight, held: u32| {
            held.max(backed(
                &Behavior::default(),
                &queued(requests, 0),
                in_flight,
                2,
            ))
        };
        assert_eq!(held(0, 32, 2), 2);
        assert_eq!(held(7, 32, 2), 2, "less than half a replica's worth");
        assert_eq!(held(40, 32, 2), 5);
        assert_eq!(held(1, 0, 2), 3, "something waits and nothing runs");
        assert_eq!(held(40, 32, 5), 5, "three are on their way");
    }

    #[test]
    fn sheddable_backlog_is_bought_as_far_as_the_policy_says() {
        let mut behavior = Behavior {
            sheddable_share: 0.0,
            ..Behavior::default()
        };
        assert_eq!(bought(&behavior, &queued(10, 4)), 6.0);
        assert_eq!(bought(&behavior, &queued(1, 4)), 0.0);
        behavior.sheddable_share = 0.5;
        assert_eq!(bought(&behavior, &queued(10, 4)), 8.0);
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

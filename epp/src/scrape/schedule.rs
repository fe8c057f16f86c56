//! When each endpoint is read: how often, how soon after a failure, and never all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Longest time between two attempts on an endpoint that fails.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Longest time between reads while no requests come.
pub(super) const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Reads of engines' metrics per second, over all endpoints: beyond it each is read less often. A read takes some 24 µs
/// of one core.
const MOST_READS_PER_SECOND: u32 = 5_000;
/// A look is at most this share of its period early or late.
const JITTER: f64 = 0.1;

/// How often one source's pages are read.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: Duration,
    /// Age from which a value counts for nothing, milliseconds; shared with whoever knows.
    staleness: Arc<AtomicU64>,
    /// How many endpoints there are; shared with whoever knows.
    endpoints: Arc<AtomicUsize>,
    /// What has no requests of ours can wait a little.
    relaxed: bool,
}

impl Schedule {
    /// Reads every `interval`. What has no requests of ours is read a third as often, and with very many endpoints all
    /// are read less often, as long as that leaves no value older than `staleness`, in milliseconds, allows.
    pub fn paced(
        interval: Duration,
        staleness: Arc<AtomicU64>,
        endpoints: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            interval: interval.max(Duration::from_millis(1)),
            staleness,
            endpoints,
            relaxed: true,
        }
    }

    /// Reads every `interval`, whatever happens.
    pub fn steady(interval: Duration) -> Self {
        Self {
            interval: interval.max(Duration::from_millis(1)),
            staleness: Arc::default(),
            endpoints: Arc::default(),
            relaxed: false,
        }
    }

    /// Longest time between reads that leaves no value older than may be.
    fn longest(&self) -> Duration {
        let staleness = Duration::from_millis(self.staleness.load(Ordering::Relaxed));
        (staleness / 4 * 3).max(self.interval)
    }

    /// Time between reads of an endpoint that has requests of ours.
    pub fn interval(&self) -> Duration {
        let endpoints = u32::try_from(self.endpoints.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let least = Duration::from_secs(1) * endpoints / MOST_READS_PER_SECOND;
        self.interval.max(least.min(self.longest()))
    }

    /// Time between reads of an endpoint that has none.
    fn quiet_interval(&self) -> Duration {
        let interval = self.interval();
        (interval * 3).min(self.longest()).max(interval)
    }

    /// Time between looks at an endpoint that failed `failures` times in a row.
    pub(super) fn period(&self, failures: u32, idle: bool) -> Duration {
        let interval = self.interval();
        let usual = if idle {
            interval.max(IDLE_INTERVAL)
        } else {
            interval
        };
        usual.max((interval * 2_u32.saturating_pow(failures.min(16))).min(LONGEST_BACKOFF))
    }

    /// Whether an endpoint that was last read `age` ago is worth reading; `ours` = it has had requests since.
    pub(super) fn worth_reading(&self, ours: bool, age: Duration) -> bool {
        // Half an interval of slack, because looks are not exactly one interval apart.
        !self.relaxed || ours || age + self.interval() / 2 >= self.quiet_interval()
    }
}

/// Where within every period an endpoint's looks fall. Those of one batch fall together, so that one wake-up serves
/// many; batches are spread over the period, and each of their looks comes a little early or late, so that they do not
/// march in step with the engines' own steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) batch: u32,
    pub(super) batches: u32,
}

impl Place {
    /// The first look after `now`. What was missed is skipped, not made up for.
    pub(super) fn next(self, now: Duration, period: Duration) -> Duration {
        let period = period.max(Duration::from_nanos(1));
        let first = (now.as_nanos() / period.as_nanos()).saturating_sub(1);
        let mut number = u64::try_from(first).unwrap_or(u64::MAX);
        loop {
            let look = self.look(number, period);
            if look > now {
                return look;
            }
            number += 1;
        }
    }

    /// When the look with that number comes.
    fn look(self, number: u64, period: Duration) -> Duration {
        let share = f64::from(self.batch) / f64::from(self.batches.max(1));
        let draw = draw(u64::from(self.batch) << 40 ^ number);
        let late = share + JITTER * (2.0 * draw - 1.0) + JITTER;
        let begin = period.as_nanos() * u128::from(number);
        Duration::from_nanos_u128(begin) + period.mul_f64(late)
    }
}

/// A share from 0 to 1 that looks as if drawn, the same for the same number (the finaliser of SplitMix64).
fn draw(number: u64) -> f64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 40) as f64 / f64::from(1_u32 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn of(interval: u64, staleness: u64, endpoints: usize) -> Schedule {
        Schedule::paced(
            ms(interval),
            Arc::new(AtomicU64::new(staleness)),
            Arc::new(AtomicUsize::new(endpoints)),
        )
    }

    #[test]
    fn a_quiet_endpoint_is_read_less_often_but_never_too_late() {
        assert_eq!(of(50, 200, 8).quiet_interval(), ms(150));
        assert_eq!(of(50, 100, 8).quiet_interval(), ms(75));
        assert_eq!(of(50, 20, 8).quiet_interval(), ms(50));
    }

    #[test]
    fn a_dispatch_makes_the_next_look_a_read() {
        let schedule = of(50, 2_000, 8);
        assert!(schedule.worth_reading(true, ms(50)));
        let ages = [50, 100, 150].map(|age| schedule.worth_reading(false, ms(age)));
        assert_eq!(ages, [false, false, true]);
        assert!(Schedule::steady(ms(50)).worth_reading(false, ms(1)));
    }

    #[test]
    fn failures_are_met_with_patience_that_ends_at_five_seconds() {
        let schedule = of(50, 2_000, 8);
        let periods = [0, 1, 2, 40].map(|failures| schedule.period(failures, false).as_millis());
        assert_eq!(periods, [50, 100, 200, 5000]);
    }

    #[test]
    fn very_many_endpoints_are_read_less_often_and_never_too_late() {
        assert_eq!(of(50, 2_000, 256).interval(), Duration::from_micros(51_200));
        assert_eq!(of(50, 2_000, 1_000).interval(), ms(200));
        assert_eq!(
            of(50, 200, 1_000).interval(),
            ms(150),
            "a detector would hold them for stale"
        );
        assert_eq!(of(50, 20, 1_000).interval(), ms(50));
        assert_eq!(of(50, 2_000, 10).interval(), ms(50));
    }

    #[test]
    fn after_months_of_milliseconds_there_is_a_next_look() {
        let (place, uptime) = (
            Place {
                batch: 0,
                batches: 1,
            },
            Duration::from_secs(60 * 86_400),
        );
        let next = place.next(uptime, ms(1));
        assert!(next > uptime && next < uptime + ms(2), "{next:?}");
    }

    #[test]
    fn looks_come_once_a_period_a_little_early_or_late() {
        let place = Place {
            batch: 3,
            batches: 8,
        };
        let (mut now, mut looks) = (ms(10_000), Vec::new());
        for _ in 0..1_000 {
            now = place.next(now, ms(50));
            looks.push(now);
        }
        let gaps: Vec<f64> = looks
            .windows(2)
            .map(|w| (w[1] - w[0]).as_secs_f64() / 0.05)
            .collect();
        assert!(gaps.iter().all(|gap| (0.8..=1.2).contains(gap)), "{gaps:?}");
        let (least, most) = gaps
            .iter()
            .fold((f64::MAX, 0.0_f64), |(l, m), &g| (l.min(g), m.max(g)));
        assert!(least < 0.9 && most > 1.1, "they differ: {least} to {most}");
        let mean = (looks[999] - looks[0]).as_secs_f64() / 999.0;
        assert!(
            (mean - 0.05).abs() < 0.001,
            "and on average keep the pace: {mean}"
        );
    }

    #[test]
    fn what_was_missed_is_skipped() {
        let place = Place {
            batch: 0,
            batches: 1,
        };
        let look = place.next(ms(999), ms(50));
        assert!(look > ms(999) && look <= ms(1_060), "{look:?}");
        assert!(place.next(Duration::ZERO, ms(50)) > Duration::ZERO);
    }
}

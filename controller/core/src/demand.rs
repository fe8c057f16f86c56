//! Counters become rates, over the longest window that still describes the present.
//!
//! A short window sees a burst at once and is noisy; a long one is steady and late. [`Meter`] measures both and
//! everything between, and takes the longest window whose rate agrees, within its own sampling error, with every
//! shorter one: steady traffic is averaged over minutes, a step is seen within the fast window.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mix::Mix;
use crate::policy::{Nanos, Windows, seconds};
use crate::signals::{Backlog, Totals};

/// Standard errors by which a longer window's rate may differ from a shorter one's and still be the same demand.
const AGREEMENT: f64 = 2.5;
/// Samples kept per fast window.
const RESOLUTION: u32 = 12;
/// More samples than any sequence of windows leaves: the longest window at the closest spacing.
const MOST_SAMPLES: usize = 1000;
/// Variance of the counts over their mean: at least that of Poisson arrivals, at most this.
const MAX_DISPERSION: f64 = 10.0;

/// Offered load per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests.
    pub requests: f64,
    /// Prompt tokens that a prefix cache saves (at the learned hit share).
    pub cached_tokens: f64,
    /// Prompt tokens to compute.
    pub uncached_tokens: f64,
    /// Output tokens, were every offered request served (requests times the learned mean output).
    pub output_tokens: f64,
}

/// True demand: everything that arrived, and what became of it, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// All that arrived.
    pub offered: Rates,
    /// Requests of it that may be shed.
    pub sheddable: f64,
    /// Requests answered to the end.
    pub served: f64,
    /// Requests refused for lack of room.
    pub rejected: f64,
    /// Requests that waited too long.
    pub expired: f64,
    /// Requests refused because their objective could not be met.
    pub shed: f64,
    /// Requests whose client left.
    pub cancelled: f64,
    /// Requests that a replica failed, cut off or gave up.
    pub failed: f64,
    /// Requests waiting in front of the replicas now (a count, not a rate).
    pub queued: u64,
    /// Standard error of `offered.requests`.
    pub error: f64,
    /// Burstiness: variance of arrival counts over their mean; 1 = Poisson.
    pub dispersion: f64,
    /// Growth that half the slow window shows throughout, requests/s per second; 0 for a step or for noise.
    pub trend: f64,
    /// The window that the rates are measured over.
    #[serde(rename = "windowSeconds", with = "seconds")]
    pub window: Duration,
}

/// Differentiates the ledger's totals. Memory is bounded by the slow window over the sample spacing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "SavedMeter", into = "SavedMeter")]
pub struct Meter {
    fast: Duration,
    slow: Duration,
    samples: VecDeque<(Duration, Totals)>,
    latest: Option<(Duration, Totals)>,
}

impl Meter {
    /// Measures over `windows`.
    pub fn new(windows: Windows) -> Self {
        let Windows { fast, slow } = windows;
        Self {
            fast,
            slow,
            samples: VecDeque::new(),
            latest: None,
        }
    }

    /// Measures over other windows from now on; what was seen stays.
    pub fn resize(&mut self, windows: Windows) {
        let Windows { fast, slow } = windows;
        (self.fast, self.slow) = (fast, slow);
    }

    /// Spreads `growth`, which the next totals contain, evenly over the time from `since` to `now`: counts that were
    /// told late did not arrive all at once.
    pub fn backfill(&mut self, since: Duration, now: Duration, growth: &Totals) {
        let length = now.saturating_sub(since).as_secs_f64();
        if length <= 0.0 {
            return;
        }
        let begun = self.samples.partition_point(|(at, _)| *at <= since);
        for (at, totals) in self.samples.iter_mut().skip(begun) {
            *totals += growth.share(at.saturating_sub(since).as_secs_f64() / length);
        }
    }

    /// Whether this could have been seen until `now`: samples in order, no more of them than are kept.
    pub(crate) fn is_sane(&self, now: Duration) -> bool {
        let windows = Windows::of(self.fast * 2);
        let whole = self.samples.iter().chain(&self.latest);
        (windows.fast, windows.slow) == (self.fast, self.slow)
            && self.samples.len() <= MOST_SAMPLES
            && whole.clone().is_sorted_by_key(|(at, _)| at)
            && whole.clone().all(|(at, _)| *at <= now)
            && whole
                .clone()
                .is_sorted_by_key(|(_, totals)| totals.offered.requests)
    }

    /// Forgets what was seen: the next totals are of another ledger.
    pub fn restart(&mut self) {
        self.samples.clear();
        self.latest = None;
    }

    /// Takes the totals as of `now`. Totals or time that went back mean a new ledger: what was known is dropped.
    pub fn observe(&mut self, now: Duration, totals: Totals) {
        if self
            .latest
            .is_some_and(|(at, last)| now < at || went_back(&last, &totals))
        {
            self.samples.clear();
        }
        let spacing = self.fast / RESOLUTION;
        if self
            .samples
            .back()
            .is_none_or(|(at, _)| now >= *at + spacing)
        {
            self.samples.push_back((now, totals));
        }
        self.latest = Some((now, totals));
        // One sample at or before the start of the slow window is needed to measure all of it.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| *at + self.slow <= now)
        {
            self.samples.pop_front();
        }
    }

    /// The demand now; `None` until a third of the fast window has been seen.
    pub fn demand(&self, mix: &Mix, queued: Backlog) -> Option<Demand> {
        let dispersion = self.dispersion();
        let span = self.agreed_window(dispersion)?;
        let offered = |f: fn(&Totals) -> u64| span.rate(f);
        let prompt = offered(|totals| totals.offered.prompt_tokens);
        // What a refused request would have found cached, or answered, nobody knows: the mix of the served ones tells.
        let cached = prompt * mix.hit_share();
        let requests = offered(|totals| totals.offered.requests);
        Some(Demand {
            offered: Rates {
                requests,
                cached_tokens: cached,
                uncached_tokens: prompt - cached,
                output_tokens: requests * mix.mean_output(),
            },
            sheddable: offered(|totals| totals.sheddable.requests),
            served: offered(|totals| totals.served),
            rejected: offered(|totals| totals.rejected),
            expired: offered(|totals| totals.expired),
            shed: offered(|totals| totals.shed),
            cancelled: offered(|totals| totals.cancelled),
            failed: offered(|totals| totals.failed),
            queued: queued.requests,
            error: span.error(dispersion),
            dispersion,
            trend: self.trend(dispersion),
            window: span.length,
        })
    }

    /// The part of the history that began `window` ago, or all of it.
    fn span(&self, window: Duration) -> Option<Span<'_>> {
        let (now, last) = self.latest.as_ref()?;
        let since = now.saturating_sub(window);
        let begun = self.samples.partition_point(|(at, _)| *at <= since);
        let (at, first) = self.samples.get(begun.saturating_sub(1))?;
        let length = now.saturating_sub(*at);
        (length >= self.fast / 3).then_some(Span {
            first,
            last,
            length,
        })
    }

    /// The longest of the windows fast, 2·fast, 4·fast … slow that agrees with every shorter one (after Lepski).
    fn agreed_window(&self, dispersion: f64) -> Option<Span<'_>> {
        let mut agreed = self.span(self.fast)?;
        let (mut low, mut high) = agreed.interval(dispersion);
        let mut window = self.fast;
        while window < self.slow {
            window = (window * 2).min(self.slow);
            let Some(longer) = self.span(window) else {
                break;
            };
            let rate = longer.rate(|totals| totals.offered.requests);
            if rate < low || rate > high {
                break;
            }
            let (longer_low, longer_high) = longer.interval(dispersion);
            (low, high) = (low.max(longer_low), high.min(longer_high));
            agreed = longer;
        }
        Some(agreed)
    }

    /// Variance over mean of the arrival counts, from successive differences so that a ramp or a step does not pass
    /// for a burst (von Neumann's estimator).
    fn dispersion(&self) -> f64 {
        let times = self
            .samples
            .iter()
            .map(|(at, totals)| (at.as_secs_f64(), totals.offered.requests));
        let counts: Vec<(f64, f64)> = times
            .clone()
            .zip(times.skip(1))
            .map(|(a, b)| (b.0 - a.0, b.1.saturating_sub(a.1) as f64))
            .collect();
        let (mut squares, mut sum) = (0.0, 0.0);
        for pair in counts.windows(2) {
            let [(before, fewer), (length, count)] = [pair[0], pair[1]];
            if before > 0.0 {
                squares += (count - fewer * length / before).powi(2);
                sum += count + fewer;
            }
        }
        if sum > 0.0 {
            (squares / sum).clamp(1.0, MAX_DISPERSION)
        } else {
            1.0
        }
    }

    /// Growth that four successive windows, an eighth of the slow one each, agree on, requests/s per second: the
    /// smallest of the three changes if they have one sign and together exceed the sampling error. A step shows in one
    /// or two of them, noise changes sign or stays small, a ramp is in all.
    fn trend(&self, dispersion: f64) -> f64 {
        let length = self.slow / 8;
        let Some((now, last)) = self.latest else {
            return 0.0;
        };
        if self
            .samples
            .front()
            .is_none_or(|(first, _)| *first + length * 4 > now)
        {
            return 0.0;
        }
        let ago = |count: u32| self.span(length * count).map_or(last, |span| *span.first);
        let points =
            [ago(4), ago(3), ago(2), ago(1), last].map(|totals| totals.offered.requests as f64);
        let seconds = length.as_secs_f64();
        let rates: Vec<f64> = points
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) / seconds)
            .collect();
        let changes: Vec<f64> = rates.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let total: f64 = changes.iter().sum();
        let mean = (points[4] - points[0]) / (4.0 * seconds);
        let one_sign = changes
            .iter()
            .all(|change| change.signum() == total.signum());
        if !one_sign || total.abs() < AGREEMENT * (dispersion * mean / seconds).sqrt() {
            return 0.0;
        }
        let smallest = changes
            .iter()
            .fold(f64::INFINITY, |least, change| least.min(change.abs()));
        smallest.copysign(total) / seconds
    }
}

/// A meter as it is written: each sample as what it adds to the one before.
#[derive(Serialize, Deserialize)]
struct SavedMeter {
    fast: Nanos,
    slow: Nanos,
    samples: Vec<Step>,
    latest: Option<Step>,
}

/// Nanoseconds and counts since the sample before, modulo 2⁶⁴.
#[derive(Serialize, Deserialize)]
struct Step(u64, [u64; 10]);

impl From<Meter> for SavedMeter {
    fn from(meter: Meter) -> Self {
        let mut last = (0, [0; 10]);
        let mut step = |(at, totals): &(Duration, Totals)| {
            let (nanos, counts) = (Nanos::of(*at), totals.to_array());
            let mut grown = counts;
            for (grown, before) in grown.iter_mut().zip(last.1) {
                *grown = grown.wrapping_sub(before);
            }
            let step = Step(nanos.wrapping_sub(last.0), grown);
            last = (nanos, counts);
            step
        };
        Self {
            fast: Nanos(meter.fast),
            slow: Nanos(meter.slow),
            samples: meter.samples.iter().map(&mut step).collect(),
            latest: meter.latest.as_ref().map(&mut step),
        }
    }
}

impl From<SavedMeter> for Meter {
    fn from(saved: SavedMeter) -> Self {
        let (mut nanos, mut counts) = (0_u64, [0_u64; 10]);
        let mut sample = |step: &Step| {
            nanos = nanos.wrapping_add(step.0);
            for (count, grown) in counts.iter_mut().zip(step.1) {
                *count = count.wrapping_add(grown);
            }
            (Duration::from_nanos(nanos), Totals::from_array(counts))
        };
        Self {
            fast: saved.fast.0,
            slow: saved.slow.0,
            samples: saved.samples.iter().map(&mut sample).collect(),
            latest: saved.latest.as_ref().map(&mut sample),
        }
    }
}

/// Two points of the history.
struct Span<'a> {
    first: &'a Totals,
    last: &'a Totals,
    length: Duration,
}

impl Span<'_> {
    /// Per second.
    fn rate(&self, count: fn(&Totals) -> u64) -> f64 {
        count(self.last).saturating_sub(count(self.first)) as f64 / self.length.as_secs_f64()
    }

    /// Standard error of the offered rate; no arrival at all is as uncertain as one.
    fn error(&self, dispersion: f64) -> f64 {
        let length = self.length.as_secs_f64();
        (dispersion
            * self
                .rate(|totals| totals.offered.requests)
                .max(1.0 / length)
            / length)
            .sqrt()
    }

    fn interval(&self, dispersion: f64) -> (f64, f64) {
        let (rate, slack) = (
            self.rate(|totals| totals.offered.requests),
            AGREEMENT * self.error(dispersion),
        );
        (rate - slack, rate + slack)
    }
}

fn went_back(before: &Totals, after: &Totals) -> bool {
    after.offered.requests < before.offered.requests || after.served < before.served
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Volume;

    fn totals(requests: u64) -> Totals {
        let offered = Volume {
            requests,
            prompt_tokens: requests * 100,
        };
        Totals {
            offered,
            served: requests,
            ..Totals::default()
        }
    }

    /// Feeds `rate(second)` arrivals in each second and returns the meter at the end.
    fn feed(seconds: u64, rate: impl Fn(u64) -> u64) -> Meter {
        let mut meter = Meter::new(Windows::of(Duration::from_secs(6)));
        let mut sum = 0;
        for second in 0..=seconds {
            meter.observe(Duration::from_secs(second), totals(sum));
            sum += rate(second);
        }
        meter
    }

    fn demand(meter: &Meter) -> Demand {
        let sample = crate::mix::Sample {
            input: 100.0,
            cached: 25.0,
            output: Some(10.0),
        };
        meter
            .demand(&Mix::from_samples([sample]), Backlog::default())
            .unwrap()
    }

    #[test]
    fn steady_traffic_is_measured_over_the_slow_window() {
        let demand = demand(&feed(60, |_| 8));
        assert_eq!(demand.window.as_secs(), 48);
        assert_eq!(demand.offered.requests, 8.0);
        assert_eq!(
            (demand.offered.uncached_tokens, demand.offered.cached_tokens),
            (600.0, 200.0)
        );
        assert_eq!(demand.offered.output_tokens, 80.0);
        assert_eq!(
            (demand.served, demand.dispersion, demand.trend),
            (8.0, 1.0, 0.0)
        );
        assert!((demand.error - (8.0_f64 / 48.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_step_is_seen_within_the_fast_window_and_is_no_trend() {
        let demand = demand(&feed(63, |second| if second < 60 { 8 } else { 24 }));
        assert_eq!(demand.offered.requests, 24.0);
        assert_eq!(demand.window.as_secs(), 3);
        assert_eq!(demand.trend, 0.0);
    }

    #[test]
    fn a_ramp_is_a_trend() {
        let demand = demand(&feed(60, |second| second));
        assert!((demand.trend - 1.0).abs() < 1e-9, "{}", demand.trend);
    }

    #[test]
    fn bursts_widen_the_error() {
        let demand = demand(&feed(60, |second| if second % 2 == 0 { 16 } else { 0 }));
        assert_eq!(demand.dispersion, MAX_DISPERSION);
        assert!((demand.offered.requests - 8.0).abs() < 0.5);
    }

    #[test]
    fn a_restarted_ledger_starts_anew() {
        let mut meter = feed(30, |_| 8);
        meter.observe(Duration::from_secs(31), totals(5));
        assert!(meter.demand(&Mix::default(), Backlog::default()).is_none());
        meter.observe(Duration::from_secs(33), totals(15));
        assert_eq!(demand(&meter).offered.requests, 5.0);
    }

    #[test]
    fn memory_is_bounded_however_often_it_is_fed() {
        let mut meter = Meter::new(Windows::of(Duration::from_secs(6)));
        for tick in 0..100_000_u64 {
            meter.observe(Duration::from_millis(tick), totals(tick));
        }
        assert!(meter.samples.len() <= 16 * RESOLUTION as usize + 2);
        assert!((demand(&meter).offered.requests - 1000.0).abs() < 1e-6);
    }
}

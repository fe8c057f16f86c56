//! Percentiles of the last few seconds.

use std::collections::VecDeque;
use std::time::Duration;

/// Values of the last while. Memory is bounded: the oldest go first when there are too many.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    length: Duration,
    values: VecDeque<(Duration, f64)>,
}

/// Most values kept: ten seconds at the highest rate a demo carries.
const MAX_VALUES: usize = 65_536;

impl Window {
    /// An empty window over `length`.
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            length,
            values: VecDeque::new(),
        }
    }

    /// Adds what happened at `at`, which never goes back.
    pub(crate) fn push(&mut self, at: Duration, value: f64) {
        if self.values.len() == MAX_VALUES {
            self.values.pop_front();
        }
        self.values.push_back((at, value));
    }

    /// Forgets what is older than the window at `now`.
    pub(crate) fn trim(&mut self, now: Duration) {
        let begin = now.saturating_sub(self.length);
        while self.values.front().is_some_and(|(at, _)| *at < begin) {
            self.values.pop_front();
        }
    }

    /// The nearest-rank percentile at `share` (0 to 1) of what is in the window; `None` when it is empty.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let mut sorted: Vec<f64> = self.values.iter().map(|(_, value)| *value).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// The sum of what is in the window.
    pub(crate) fn sum(&self) -> f64 {
        self.values.iter().map(|(_, value)| value).sum()
    }

    /// How many values are in the window.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// How many values are in the window, per second of it that has passed at `now`.
    pub(crate) fn rate(&self, now: Duration) -> f64 {
        let passed = now.min(self.length).as_secs_f64();
        if passed > 0.0 {
            self.len() as f64 / passed
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn percentiles_are_observed_values_of_the_last_while() {
        let mut window = Window::new(second(5));
        for value in 1..=10 {
            window.push(second(value), value as f64);
        }
        window.trim(second(10));
        assert_eq!(
            (
                window.percentile(0.5),
                window.percentile(0.9),
                window.percentile(1.0)
            ),
            (Some(7.0), Some(10.0), Some(10.0))
        );
        assert_eq!((window.len(), window.sum()), (6, 45.0));
        window.trim(second(100));
        assert_eq!(window.percentile(0.5), None);
    }

    #[test]
    fn a_rate_is_over_the_time_that_has_passed() {
        let mut window = Window::new(second(4));
        window.push(second(0), 1.0);
        window.push(second(1), 1.0);
        assert_eq!(window.rate(second(2)), 1.0);
        window.trim(second(8));
        assert_eq!(window.rate(second(8)), 0.0);
        assert_eq!(window.rate(second(0)), 0.0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::new(second(5));
        for _ in 0..MAX_VALUES + 10 {
            window.push(second(1), 1.0);
        }
        assert_eq!(window.len(), MAX_VALUES);
    }
}

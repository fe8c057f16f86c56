//! How many labels came lately.

use std::collections::VecDeque;
use std::time::Duration;

/// Counts labels over the last minute, and with weights that halve with each half-life.
#[derive(Clone, Debug)]
pub(crate) struct Recency {
    half_life: Duration,
    /// Whole second and labels in it; at most a minute's worth.
    seconds: VecDeque<(u64, u64)>,
    /// Weighted labels as of `at`.
    weight: f64,
    at: Duration,
}

const MINUTE: u64 = 60;

impl Recency {
    pub(crate) fn new(half_life: Duration) -> Self {
        Self {
            half_life,
            seconds: VecDeque::new(),
            weight: 0.0,
            at: Duration::ZERO,
        }
    }

    /// Takes the weighted count of an earlier life as of `at`.
    pub(crate) fn resume(&mut self, weight: f64, at: Duration) {
        (self.weight, self.at) = (weight, at);
    }

    /// Counts a label at `now`.
    pub(crate) fn add(&mut self, now: Duration) {
        self.weight = self.weighted(now) + 1.0;
        self.at = self.at.max(now);
        let second = now.as_secs();
        match self.seconds.back_mut() {
            // A label that is told late counts with those told before it.
            Some((last, count)) if *last >= second => *count += 1,
            _ => self.seconds.push_back((second, 1)),
        }
        while self
            .seconds
            .front()
            .is_some_and(|(first, _)| first + MINUTE <= second)
        {
            self.seconds.pop_front();
        }
    }

    /// Labels in the minute before `now`, to the second.
    pub(crate) fn last_minute(&self, now: Duration) -> u64 {
        let recent = |(second, _): &&(u64, u64)| second + MINUTE > now.as_secs();
        self.seconds
            .iter()
            .filter(recent)
            .map(|(_, count)| count)
            .sum()
    }

    /// Labels before `now`, each counting half for every half-life of its age.
    pub(crate) fn weighted(&self, now: Duration) -> f64 {
        let age = now.saturating_sub(self.at).as_secs_f64();
        self.weight * (-age / self.half_life.as_secs_f64()).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fade_and_leave_the_minute() {
        let second = Duration::from_secs;
        let mut recency = Recency::new(second(600));
        for label in 0..200 {
            recency.add(second(label));
            assert!(recency.seconds.len() <= 60);
        }
        assert_eq!(recency.last_minute(second(199)), 60);
        assert_eq!(recency.last_minute(second(229)), 30);
        assert_eq!(recency.last_minute(second(400)), 0);
        let now = recency.weighted(second(199));
        assert!((150.0..200.0).contains(&now), "{now}");
        assert!((recency.weighted(second(799)) - now / 2.0).abs() < 1e-9);
        recency.add(second(100));
        assert!((recency.weighted(second(199)) - now - 1.0).abs() < 1e-9);
    }
}

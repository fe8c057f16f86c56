//! How full each band may make the pool: ceilings on saturation, highest band first.

use crate::config::{HoldbackDomain, PriorityHoldback, UsageLimit};

/// Keeps a period finite just below saturation 1.
const ALMOST: f64 = 1e-9;

/// A usage limit with what it remembers between dispatches.
#[derive(Debug)]
pub(crate) struct Limits {
    policy: UsageLimit,
    ceilings: Vec<f64>,
    /// Looks in which a band was asked about at or above its ceiling, by rank, with the last of them.
    ticks: Vec<(u64, u64)>,
    looks: u64,
}

impl Limits {
    pub(crate) fn new(policy: UsageLimit) -> Self {
        Self {
            policy,
            ceilings: Vec::new(),
            ticks: Vec::new(),
            looks: 0,
        }
    }

    /// Puts another policy in force.
    pub(crate) fn set_policy(&mut self, policy: UsageLimit) {
        if self.policy != policy {
            *self = Self::new(policy);
        }
    }

    /// Whether a band that is closed now may be open next time, with the pool as full as it is.
    pub(crate) fn alternates(&self) -> bool {
        matches!(self.policy, UsageLimit::SoftReflective)
    }

    /// Another look at the pool: what holds for every n-th time counts looks, however often a look asks.
    pub(crate) fn look(&mut self) {
        self.looks += 1;
    }

    /// The ceiling of each of `priorities`, highest first, at `saturation`.
    ///
    /// - static: the threshold.
    /// - holdback: on the line from `maxCeiling` (highest band) to `minCeiling` (lowest), by rank or by priority.
    /// - soft reflective: band i of N is closed from 1 − i·s ÷ (N − 1) on, but for every `round(s ÷ (1 − s))`-th time.
    pub(crate) fn compute(&mut self, saturation: f64, priorities: &[i32]) -> &[f64] {
        self.ceilings.clear();
        match &self.policy {
            UsageLimit::Static(parameters) => {
                self.ceilings.resize(priorities.len(), parameters.threshold);
            }
            UsageLimit::Holdback(parameters) => {
                let ceiling = |rank| holdback(parameters, priorities, rank);
                self.ceilings.extend((0..priorities.len()).map(ceiling));
            }
            UsageLimit::SoftReflective => self.reflect(saturation, priorities.len()),
        }
        &self.ceilings
    }

    fn reflect(&mut self, saturation: f64, bands: usize) {
        self.ticks.resize(self.ticks.len().max(bands), (0, 0));
        let below_first = bands.saturating_sub(1).max(1) as f64;
        for (rank, (tick, last)) in self.ticks.iter_mut().take(bands).enumerate() {
            let open = rank == 0
                || saturation < 1.0 - rank as f64 * saturation / below_first
                || (saturation < 1.0 && {
                    let period = (saturation / (1.0 - saturation + ALMOST)).round().max(1.0);
                    *tick += u64::from(*last != self.looks);
                    *last = self.looks;
                    // Saturating: just below 1 the period is longer than any count.
                    (*tick).is_multiple_of(period as u64)
                });
            self.ceilings.push(f64::from(u8::from(open)));
        }
    }
}

fn holdback(parameters: &PriorityHoldback, priorities: &[i32], rank: usize) -> f64 {
    let (most, least) = (
        parameters.max_ceiling,
        parameters.min_ceiling.unwrap_or(parameters.max_ceiling),
    );
    let at = |rank: usize| priorities.get(rank).copied().map_or(0.0, f64::from);
    let last = priorities.len().saturating_sub(1);
    // 1 = the highest band, 0 = the lowest.
    let height = match parameters.domain {
        HoldbackDomain::Rank => 1.0 - rank as f64 / last.max(1) as f64,
        HoldbackDomain::Value => {
            let spread = at(0) - at(last);
            if spread > 0.0 {
                (at(rank) - at(last)) / spread
            } else {
                1.0
            }
        }
    };
    least + height * (most - least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StaticUsageLimit;

    fn holdback(domain: HoldbackDomain) -> Limits {
        Limits::new(UsageLimit::Holdback(PriorityHoldback {
            domain,
            min_ceiling: Some(0.4),
            ..PriorityHoldback::default()
        }))
    }

    fn assert_close(actual: &[f64], wanted: &[f64]) {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
        assert!(
            actual.len() == wanted.len() && actual.iter().zip(wanted).all(near),
            "{actual:?} {wanted:?}"
        );
    }

    #[test]
    fn a_static_limit_is_the_same_for_all() {
        let threshold = 0.7;
        let mut limits = Limits::new(UsageLimit::Static(StaticUsageLimit { threshold }));
        assert_close(limits.compute(0.9, &[5, 0, -1]), &[0.7, 0.7, 0.7]);
    }

    #[test]
    fn holdback_is_a_line_by_rank_or_by_priority() {
        let mut by_rank = holdback(HoldbackDomain::Rank);
        assert_close(by_rank.compute(0.9, &[10, 0, -2]), &[1.0, 0.7, 0.4]);
        assert_close(by_rank.compute(0.9, &[3]), &[1.0]);
        let mut by_value = holdback(HoldbackDomain::Value);
        assert_close(by_value.compute(0.9, &[10, 0, -2]), &[1.0, 0.5, 0.4]);
        assert_close(by_value.compute(0.9, &[3]), &[1.0]);
    }

    #[test]
    fn the_reflective_ceiling_closes_lower_bands_more_often_and_the_first_never() {
        let mut limits = Limits::new(UsageLimit::SoftReflective);
        let mut open = |saturation: f64, times: u32| {
            let mut counts = [0; 3];
            for _ in 0..times {
                limits.look();
                // Asked twice, as on an arrival that does not pass.
                limits.compute(saturation, &[5, 0, -1]);
                let ceilings = limits.compute(saturation, &[5, 0, -1]);
                for (count, ceiling) in counts.iter_mut().zip(ceilings) {
                    *count += u32::from(saturation < *ceiling);
                }
            }
            counts
        };
        assert_eq!(open(0.3, 12), [12, 12, 12], "below every ceiling");
        // Ceilings 1, 0.675, 0.35: at 0.65 the period is round(1.86) = 2.
        assert_eq!(open(0.65, 12), [12, 12, 6]);
        // At 0.8 (ceilings 1, 0.6, 0.2) the period is 4.
        assert_eq!(open(0.8, 12), [12, 3, 3]);
        assert_eq!(open(1.5, 12), [0, 0, 0], "the pool is full for all");
        let mut alone = Limits::new(UsageLimit::SoftReflective);
        assert_close(alone.compute(0.99, &[0]), &[1.0]);
    }
}

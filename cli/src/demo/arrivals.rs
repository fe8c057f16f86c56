//! When live clients ask: Poisson arrivals in phases of constant rate, drawn from the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::rates::Rates;

/// Instants of arrival since the start, ascending.
///
/// A gap that reaches past the end of its phase is drawn anew from there at the next phase's rate, which changes
/// nothing in distribution: exponential gaps have no memory.
pub(crate) fn poisson(rates: &Rates, seed: u64) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut arrivals = Vec::new();
    let mut begin = 0.0;
    for phase in &rates.0 {
        let end = begin + phase.duration.as_secs_f64();
        let mut at = begin;
        loop {
            // 1 − u is in (0, 1], so that the logarithm is finite.
            at -= (1.0 - random.random::<f64>()).ln() / phase.rate;
            if at >= end {
                break;
            }
            arrivals.push(Duration::from_secs_f64(at));
        }
        begin = end;
    }
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_their_rates_and_gaps_are_exponential() {
        let rates: Rates = "8:1000s,24:1000s".parse().unwrap();
        let arrivals = poisson(&rates, 1);
        assert!(arrivals.is_sorted());
        let slow = arrivals.iter().filter(|at| at.as_secs() < 1000).count();
        // Counts are Poisson: five standard deviations around 8,000 and 24,000.
        assert!(slow.abs_diff(8_000) < 450, "{slow}");
        assert!(
            (arrivals.len() - slow).abs_diff(24_000) < 780,
            "{}",
            arrivals.len() - slow
        );
        // An exponential gap exceeds its mean with probability 1/e.
        let long = arrivals[..slow]
            .windows(2)
            .filter(|pair| (pair[1] - pair[0]).as_secs_f64() > 1.0 / 8.0)
            .count();
        assert!(
            (long as f64 / slow as f64 - (-1.0_f64).exp()).abs() < 0.03,
            "{long}"
        );
    }

    #[test]
    fn a_seed_gives_its_own_arrivals_again() {
        let rates: Rates = "8:25s".parse().unwrap();
        assert_eq!(poisson(&rates, 3), poisson(&rates, 3));
        assert_ne!(poisson(&rates, 3), poisson(&rates, 4));
    }
}

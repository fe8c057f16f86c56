//! Seeded noise on step times.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Log-normal factors of mean 1.
pub(crate) struct Noise {
    rng: StdRng,
    sigma: f64,
    spare: Option<f64>,
}

impl Noise {
    /// `relative_sd` is the standard deviation of the factors; 0 makes them all 1.
    pub(crate) fn new(relative_sd: f64, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            sigma: (1.0 + relative_sd * relative_sd).ln().sqrt(),
            spare: None,
        }
    }

    /// The next factor.
    pub(crate) fn factor(&mut self) -> f64 {
        if self.sigma == 0.0 {
            return 1.0;
        }
        (self.sigma * self.normal() - 0.5 * self.sigma * self.sigma).exp()
    }

    /// Standard normal deviate, by Box and Muller's transform, which yields them in pairs.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.rng.random::<f64>();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

#[cfg(test)]
mod tests {
    use super::Noise;

    #[test]
    fn factors_have_mean_one_and_the_deviation_asked_for() {
        let mut noise = Noise::new(0.2, 1);
        let factors: Vec<f64> = (0..100_000).map(|_| noise.factor()).collect();
        let mean = factors.iter().sum::<f64>() / 1e5;
        let variance = factors
            .iter()
            .map(|factor| (factor - mean).powi(2))
            .sum::<f64>()
            / 1e5;
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
        assert!((variance.sqrt() - 0.2).abs() < 0.005, "{variance}");
    }

    #[test]
    fn no_deviation_means_exactly_one() {
        let mut noise = Noise::new(0.0, 1);
        assert!((0..10).all(|_| noise.factor() == 1.0));
    }
}

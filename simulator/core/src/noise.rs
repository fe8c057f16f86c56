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
        Self { rng: StdRng::seed_from_u64(seed), sigma: (1.0 + relative_sd * relative_sd).ln().sqrt(), spare: None }
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

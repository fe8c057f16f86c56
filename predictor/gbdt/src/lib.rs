//! Histogram gradient-boosted trees for latencies: three quantiles from one forest, monotone where
//! declared, missing values with a learnt direction, sample weights, and the same bytes from the
//! same data.
//!
//! General libraries either forbid monotone constraints together with quantiles or let quantiles
//! cross. Here every tree has one structure and three values per leaf, each kept within the bounds
//! that the monotone splits above it leave open; the three sums are then put in order. A sum of
//! monotone functions is monotone and so is each order statistic of monotone functions, so both
//! properties hold exactly, for any input.
//!
//! Reading order: [`Params`] and [`Dataset`] go in, `bins` turns columns into bytes, `grow` makes
//! one tree from `histogram`s and `split`s, [`Forest`] boosts and predicts.

mod bins;
mod boost;
mod forest;
mod grow;
mod histogram;
mod params;
mod parts;
mod quantile;
mod split;

pub use forest::Forest;
pub use params::{Dataset, FitError, Monotone, Params};
pub use parts::BrokenForest;

/// The quantile levels of every forest, in the order of its outputs.
pub const LEVELS: [f32; 3] = [0.5, 0.9, 0.99];

/// The most features a row may have; rows are encoded on the stack.
pub const MAX_FEATURES: usize = 16;

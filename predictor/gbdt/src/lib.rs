//! Histogram gradient-boosted trees: quantiles with monotone constraints, missing values, deterministic.

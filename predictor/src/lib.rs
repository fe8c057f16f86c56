//! The online latency model: features, analytic base, residual forest, calibration, store, trainer.

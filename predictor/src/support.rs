//! The range of requests and loads that a model has seen.

use crate::Features;

/// The largest value of each load feature among the training rows. Smaller values than seen are no
/// extrapolation: the model is monotone, so there it errs on the side of caution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Support {
    most: [f32; FIELDS],
}

const FIELDS: usize = 5;

impl Default for Support {
    /// Nothing seen: every row lies beyond.
    fn default() -> Self {
        Self {
            most: [f32::NEG_INFINITY; FIELDS],
        }
    }
}

impl Support {
    pub(crate) fn include(&mut self, features: &Features) {
        for (most, value) in self.most.iter_mut().zip(fields(features)) {
            *most = most.max(value);
        }
    }

    /// Whether any known feature of the row exceeds all that was seen.
    pub(crate) fn is_left_by(&self, features: &Features) -> bool {
        self.most
            .iter()
            .zip(fields(features))
            .any(|(most, value)| value > *most)
    }
}

fn fields(features: &Features) -> [f32; FIELDS] {
    [
        features.uncached_tokens(),
        features.waiting,
        features.waiting_tokens,
        features.running,
        features.resident_tokens,
    ]
}

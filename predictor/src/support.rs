//! The range of requests and loads that a model has seen.

use serde::{Deserialize, Serialize};

use crate::Features;
use crate::snapshot::Flaw;

/// The largest value of each load feature among the training rows. Smaller values than seen are no
/// extrapolation: the model is monotone, so there it errs on the side of caution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Support {
    most: [f32; LOADS],
}

const LOADS: usize = 5;

impl Default for Support {
    /// Nothing seen: every row lies beyond.
    fn default() -> Self {
        Self {
            most: [f32::NEG_INFINITY; LOADS],
        }
    }
}

impl Support {
    /// What a support from outside has that no rows leave, if anything.
    pub(crate) fn flaw(&self) -> Option<Flaw> {
        let odd = self.most.iter().find(|most| most.is_nan())?;
        Some(Flaw::new("largest feature", f64::from(*odd), "a number"))
    }

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

fn fields(features: &Features) -> [f32; LOADS] {
    [
        features.uncached_tokens(),
        features.waiting,
        features.waiting_tokens,
        features.running,
        features.resident_tokens,
    ]
}

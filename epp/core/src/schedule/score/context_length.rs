//! `context-length-aware`: endpoints whose label says that they are for prompts of this length.
//!
//! In range `0.3 + 0.7·(0.7·w + 0.3·h)` with `w = 1/(1 + width/10,000)` and `h = (max − n)/width`, 1 for a range of one
//! length; outside `0.3/(1 + distance/1,000)`; without a range 0.5; with one that cannot be read 0.

use std::sync::Arc;

use crate::pool::Pool;
use crate::schedule::context_length::{Declared, Ranges};
use crate::schedule::{Ask, Candidate, Score};

/// What separates ranges that hold the prompt from those that do not.
const OUTSIDE: f64 = 0.3;

/// Prefers the tightest range that holds the prompt.
#[derive(Debug)]
pub(super) struct ContextLengthScorer {
    ranges: Ranges,
}

impl ContextLengthScorer {
    pub(super) fn new(label: &str) -> Self {
        Self {
            ranges: Ranges::new(label),
        }
    }
}

impl Score for ContextLengthScorer {
    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.ranges.pool_changed(pool);
    }

    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        for (candidate, score) in candidates.iter().zip(scores) {
            *score = match self.ranges.of(candidate) {
                Declared::Nothing => 0.5,
                Declared::Unreadable => 0.0,
                Declared::Range { least, most } => rate(ask.prompt_tokens(), least, most) as f32,
            };
        }
    }
}

fn rate(tokens: u32, least: u32, most: u32) -> f64 {
    let width = f64::from(most - least);
    if tokens < least || tokens > most {
        let distance = f64::from(if tokens > most {
            tokens - most
        } else {
            least - tokens
        });
        return OUTSIDE / (1.0 + distance / 1_000.0);
    }
    if width == 0.0 {
        return 1.0;
    }
    let tight = 1.0 / (1.0 + width / 10_000.0);
    let room = f64::from(most - tokens) / width;
    OUTSIDE + (0.7 * tight + 0.3 * room) * (1.0 - OUTSIDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, labelled};

    #[test]
    fn follows_the_formula() {
        let mut scorer = ContextLengthScorer::new("range");
        scorer.pool_changed(&labelled(&[
            &[("range", "0-10000")],
            &[("range", "0-2000")],
            &[("range", "5000-5000")],
            &[],
            &[("range", "all")],
        ]));
        let candidates: Vec<_> = (0..5).map(candidate).collect();
        let mut scored = |prompt_tokens| {
            let request = Request {
                prompt_tokens,
                ..Request::default()
            };
            let mut scores = [9.0; 5];
            scorer.score(&ask(&request), &candidates, &mut scores);
            scores
        };
        let [wide, short, exact, unlabelled, unreadable] = scored(5_000);
        assert!((wide - (0.3 + 0.7 * (0.7 * 0.5 + 0.3 * 0.5))).abs() < 1e-6);
        assert!((short - 0.3 / 4.0).abs() < 1e-6);
        assert_eq!((exact, unlabelled, unreadable), (1.0, 0.5, 0.0));
        let [wide, short, exact, ..] = scored(1_000);
        assert!(short > wide, "the tighter range");
        assert!((exact - 0.3 / 5.0).abs() < 1e-6);
    }
}
